"""actor.toml: settings of a command from a file, and the copy that a run keeps."""

import json

import msgspec
import pytest

from actor_tune.commands import fit as fit_command
from actor_tune.commands import settings
from actor_tune.records.run import SETTINGS_FILE
from test_cli import OTHER, prompts_file, run, write  # noqa: F401 - prompts_file is a fixture


@pytest.fixture
def tried(tmp_path, monkeypatch):
    """The settings that a command had when it stopped at a file that is not there."""
    monkeypatch.chdir(tmp_path)

    def settings_of(text, *arguments, command="fit"):
        (tmp_path / "my.toml").write_text(text)
        assert run(command, *arguments, "--config", "my.toml", "--harmful", "not there", "-o", "out") == 2
        return msgspec.toml.decode(settings.resolved())[command]

    return settings_of


def test_a_file_goes_before_defaults_the_environment_before_it_and_the_command_line_before_all(tried, monkeypatch):
    file = '[fit]\nmodel = "m"\nseed = 7\nstarter = false\nconsistency = 0.5\n[measure]\nseed_ = 1\n'.replace(
        "seed_", "limit"
    )
    assert {"model": "m", "seed": 7, "starter": False, "rule": "auto"}.items() <= tried(file).items()
    monkeypatch.setenv("ACTOR_FIT_SEED", "8")
    monkeypatch.setenv("ACTOR_FIT_STARTER", "1")
    monkeypatch.setenv("ACTOR_MEASURE_SEED", "3")
    found = tried(file)
    assert (found["seed"], found["starter"], found["consistency"]) == (8, True, 0.5)
    found = tried(file, "other", "--seed", 9, "--no-starter")
    assert (found["model"], found["seed"], found["starter"], found["consistency"]) == ("other", 9, False, 0.5)


def test_lists_tables_dashes_and_single_values_are_taken_as_typed(tried):
    found = tried(
        '[measure]\nmodel = "m"\njudge = "strings"\nmax-safety-drop = 0.05\nprompts = ["a.csv", "b.csv"]\n'
        'chat_template_kwargs = {enable_thinking = false}\nbaseline = "b"\nbatch_size = 4\n',
        command="measure",
    )
    assert (found["judge"], found["prompts"]) == (["strings"], ["a.csv", "b.csv"])
    assert (found["max_safety_drop"], found["batch_size"]) == (0.05, "4")
    assert json.loads(found["chat_template_kwargs"]) == {"enable_thinking": False}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[fit]\nsede = 1\n", "my.toml, [fit]: no setting 'sede' is known; expected for example seed; correct it"),
        ("[fot]\nseed = 1\n", "my.toml: no table 'fot' is known; expected for example fit"),
        ("[measure]\nmargin = 1\n", "my.toml, [measure]: no setting 'margin' is known"),
        ("fit = 3\n", "my.toml, fit: a value; expected a table [fit]"),
        ("seed = 3\n", "my.toml: no table 'seed' is known"),
        ("[fit]\nconfig = 'x'\n", "no setting 'config' is known"),
        ("[fit]\njson = true\n", "no setting 'json' is known"),
        ("[fit]\nseed = \n", "my.toml: Invalid value"),
        ("[fit]\nseed = 1.5\n", "Invalid value for '--seed'"),
        ("[fit]\nseed = true\n", "Invalid value for '--seed'"),
        ("[fit]\nstarter = 'perhaps'\n", "Invalid value for '--starter'"),
        ("[fit]\nrule = 'odd'\n", "Invalid value for '--rule'"),
    ],
)
def test_what_a_file_says_wrongly_is_told_with_the_nearest_name(text, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.toml").write_text(text)
    assert run("fit", "m", "--config", "my.toml", "--harmful", "not there", "-o", "out") == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_there_is_told_and_none_is_looked_for_unasked(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("fit", "m", "--config", "my.toml", "-o", "out") == 2
    assert "my.toml: no such file" in capsys.readouterr().err
    (tmp_path / SETTINGS_FILE).write_text("[fit]\nseed = 5\n")
    assert run("fit", "m", "--harmful", "not there", "-o", "out") == 2
    assert "seed = 0" in settings.resolved()


def test_what_was_typed_comes_back_from_the_copy_character_by_character(tried, tmp_path):
    odd = 'He said "x\\y"\tté \x7f\U0001f642 [fit]\n# no comment'
    typed = {"system_prompt": odd, "model": "../mo del", "layer": "14", "select_fraction": 0.25, "allow_unsafe": True}
    arguments = ("../mo del", "--system-prompt", odd, "--layer", 14, "--select-fraction", 0.25, "--allow-unsafe")
    assert typed.items() <= tried("", *arguments).items()
    copy = settings.resolved()
    assert str(tmp_path) not in copy
    assert "output_dir" not in copy
    assert tried(copy) == msgspec.toml.decode(copy)["fit"]


def test_a_run_is_repeated_from_its_own_copy(tmp_path, model_folder, prompts_file, capsys):  # noqa: F811
    given = (
        "--prompts",
        prompts_file,
        "--layer",
        1,
        "--no-starter",
        "--allow-unsafe",
        "--export",
        "patch",
        "--seed",
        3,
    )
    assert run("fit", model_folder, *given, "-o", tmp_path / "one") == 0
    assert run("fit", "--config", tmp_path / "one" / SETTINGS_FILE, "-o", tmp_path / "two") == 0
    for name in (SETTINGS_FILE, "patch.safetensors", "guard.jsonl", "positions.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    assert run("fit", "--config", tmp_path / "one" / SETTINGS_FILE) == 2
    assert "output-dir" in capsys.readouterr().err


def test_a_measurement_keeps_its_settings_too(tmp_path, model_folder):
    harmful = write(tmp_path / "bad.txt", OTHER["harmful"])
    assert run("measure", model_folder, "--harmful", harmful, "--max-new-tokens", 1, "-o", tmp_path / "one") == 0
    assert run("measure", "--config", tmp_path / "one" / SETTINGS_FILE, "-o", tmp_path / "two") == 0
    for name in (SETTINGS_FILE, "responses.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_what_may_do_harm_and_comes_from_a_file_is_said_and_the_command_line_takes_it_back(tried, caplog):
    file = '[fit]\nmodel = "m"\nallow_unsafe = true\ntrust_remote_code = true\n'
    assert tried(file)["allow_unsafe"]
    assert [line for line in caplog.messages if "my.toml says" in line] == [
        "my.toml says `allow_unsafe=True`",
        "my.toml says `trust_remote_code=True`",
    ]
    found = tried(file, "--no-allow-unsafe", "--no-trust-remote-code")
    assert (found["allow_unsafe"], found["trust_remote_code"]) == (False, False)


def test_values_that_json_does_not_have_are_read_and_kept(tried):
    found = tried('[fit]\nmodel = "m"\nconsistency = inf\nchat_template_kwargs = {date_string = 2024-07-26}\n')
    assert found["consistency"] == float("inf")
    assert json.loads(found["chat_template_kwargs"]) == {"date_string": "2024-07-26"}


def test_categories_and_strengthening_are_taken_from_a_file_and_kept(tried):
    for said in ('"medicine, security"', '["medicine", "security"]'):
        names = fit_command._names(tried(f'[fit]\nmodel = "m"\ncategories = {said}\n')["categories"])
        assert names == ("medicine", "security")
    typed = tried('[fit]\nmodel = "m"\n', "--categories", "medicine,security", "--categories", "law")["categories"]
    assert fit_command._names(typed) == ("medicine", "security", "law")
    assert tried('[fit]\nmodel = "m"\nstrengthen = true\n')["strengthen"] is True
    assert "categories" not in tried('[fit]\nmodel = "m"\n')
