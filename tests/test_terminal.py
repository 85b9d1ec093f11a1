"""What all commands share: --quiet, --verbose, --json, --version, completion, exit statuses, and what goes where."""

import json
import os
import re
import subprocess
import sys

import pytest

from actor_tune.judges import choose
from actor_tune.judges.verdict import Verdict
from test_cli import OTHER, prompts_file, run, write  # noqa: F401 - prompts_file is a fixture

COMMANDS = ["testbed", "scan", "fit", "measure", "apply", "revert", "export", "push", "reproduce", "compare"]
COMMANDS += ["probe", "judge", "label", "report", "demo"]


def actor(*arguments, cwd=None, **environment):
    """`actor ARGUMENTS` in a process of its own, without a terminal."""
    command = [sys.executable, "-m", "actor_tune", *map(str, arguments)]
    given = os.environ | {name: str(value) for name, value in environment.items()}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=given)


def only_object(text):
    """The one JSON object that `text` is, on one line."""
    assert text.count("\n") == 1
    return json.loads(text)


@pytest.fixture
def harmful(tmp_path):
    return write(tmp_path / "bad.txt", OTHER["harmful"])


def test_with_json_stdout_has_the_record_and_the_phases_are_plain_lines_on_stderr(
    tmp_path,
    model_folder,
    prompts_file,  # noqa: F811
):
    out = tmp_path / "run"
    done = actor(
        *("fit", model_folder, "--prompts", prompts_file, "-o", out, "--layer", 1, "--no-starter", "--allow-unsafe"),
        *("--export", "none", "--json"),
    )
    assert done.returncode == 0, done.stderr
    stored = json.loads((out / "run.json").read_text())
    assert only_object(done.stdout) == stored | {"exit_status": 0}
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", done.stderr), "a control character"
    lines = [line for line in done.stderr.splitlines() if re.search(r"\d of 7: ", line)]
    names = ["load", "own answers", "run blocks below", "train", "choose strength", "look again", "gate"]
    pattern = r"INFO     {} of 7: {}, about [\d.]+ (s|min|h); about [\d.]+ (s|min|h) left; [\d.]+ (s|min|h) passed"
    assert lines[0] == "INFO     1 of 7: load"
    for number, (name, line) in enumerate(zip(names[1:], lines[1:], strict=True), start=2):
        assert re.fullmatch(pattern.format(number, name), line), line
    assert "INFO     7 phases in " in done.stderr
    assert f"Everything is in {out}" in done.stderr.replace("\n", "")


def test_a_gate_that_is_not_passed_prints_the_record_and_exits_with_3(
    model_folder, tmp_path, harmful, monkeypatch, capsys
):
    seen = []

    def judge(exchanges):
        seen.append(exchanges)
        return [Verdict("compliance" if len(seen) == 1 else "refusal", 0.5, "")] * len(exchanges)

    monkeypatch.setattr(choose, "judge_trained", judge)
    gated = ("measure", model_folder, "--baseline", model_folder, "--max-safety-drop", 0.05, "--max-new-tokens", 1)
    assert run(*gated, "--harmful", harmful, "-o", tmp_path / "m", "--json") == 3
    printed = only_object(capsys.readouterr().out)
    assert printed["gate"]["passed"] is False
    assert printed == json.loads((tmp_path / "m" / "results.json").read_text()) | {"exit_status": 3}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("fit", "x", "-o", "o", "--harmful", "none.txt"),
            "none.txt: no such file; expected a file to read; check the path",
        ),
        (("fit", "x", "-o", "o", "--sed", "1"), "No such option: --sed"),
        (("fit", "x", "-o", "o", "--seed", "many"), "Invalid value for '--seed'"),
        (("fit", "x"), "Missing option '--output-dir'"),
    ],
)
def test_a_mistake_with_json_is_an_object_with_the_error_and_status_2(
    arguments, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments, "--json") == 2
    printed = only_object(capsys.readouterr().out)
    assert message.replace("'", "") in printed["error"].replace("'", "").replace("-o / ", "").replace(" / -o", "")
    assert printed["exit_status"] == 2


def test_scan_judge_and_report_have_json_too(tmp_path, model_folder, prompts_file, capsys):  # noqa: F811
    scan = ("scan", model_folder, "--prompts", prompts_file, "--no-starter", "-o", tmp_path / "s", "--json")
    assert run(*scan) == 0
    stored = json.loads((tmp_path / "s" / "scan.json").read_text())
    assert only_object(capsys.readouterr().out) == stored | {"exit_status": 0}
    answers = tmp_path / "answers.csv"
    answers.write_text("prompt,response,who\nA?,I cannot help with that.,refusal\nB?,Here you go: do it.,compliance\n")
    out = tmp_path / "judged.jsonl"
    assert run("judge", answers, "-o", out, "--judge", "strings", "--labels", "who", "--json") == 0
    found = only_object(capsys.readouterr().out)
    assert found["output"] == str(out)
    assert found["verdicts"]["human"] == {"refusal": 1, "compliance": 1}
    assert [(pair["judge_a"], pair["judge_b"], pair["n"]) for pair in found["agreement"]] == [("strings", "human", 2)]
    measured = ("measure", model_folder, "--prompts", prompts_file, "--limit", 1, "--max-new-tokens", 1)
    assert run(*measured, "-o", tmp_path / "m", "--quiet") == 0
    assert run("report", tmp_path / "m", "-o", tmp_path / "r.html", "--json") == 0
    assert only_object(capsys.readouterr().out) == {"report": str(tmp_path / "r.html"), "exit_status": 0}


NOISY = """
import os, sys
import typer
from actor_tune.commands.terminal import Result, run_app
app = typer.Typer()
@app.command()
def noise(json: bool = False):
    print("printed")
    os.system("echo shouted")
    return Result({"found": 1})
sys.exit(run_app(app))
"""


def test_with_json_what_a_command_and_its_children_print_goes_to_stderr():
    done = subprocess.run([sys.executable, "-c", NOISY, "--json"], capture_output=True, text=True, check=True)
    assert only_object(done.stdout) == {"found": 1, "exit_status": 0}
    assert {"printed", "shouted"} <= set(done.stderr.split())
    plain = subprocess.run([sys.executable, "-c", NOISY], capture_output=True, text=True, check=True)
    assert (sorted(plain.stdout.split()), plain.stderr) == (["printed", "shouted"], "")


def test_who_stops_a_command_is_told_what_becomes_of_it():
    stopped = NOISY.replace('print("printed")', "raise KeyboardInterrupt")
    done = subprocess.run([sys.executable, "-c", stopped], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.startswith("stopped; a fit, measurement, ")


def test_quiet_says_nothing_and_verbose_says_more_with_time_and_place(tmp_path, model_folder, harmful):
    measure = ("measure", model_folder, "--harmful", harmful, "--limit", 1, "--max-new-tokens", 1)
    quiet = actor(*measure, "-o", tmp_path / "q", "--quiet")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")
    wrong = actor("measure", "x", "--harmful", "none.txt", "-o", "o", "--quiet", cwd=tmp_path)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "error: none.txt: no such file; expected a file to read; check the path\n"
    verbose = actor(*measure, "-o", tmp_path / "v", "--verbose")
    assert verbose.returncode == 0
    assert re.search(r"^\d{4}-\d\d-\d\d [\d:,]+ INFO     actor_tune\.progress: 1 of 2: answers$", verbose.stderr, re.M)
    plain = actor(*measure, "-o", tmp_path / "p")
    assert "INFO     1 of 2: answers\nINFO     2 of 2: verdicts; " in plain.stderr
    assert len(verbose.stderr) > len(plain.stderr)


def test_version_is_that_of_the_package(capsys):
    from actor_tune import __version__

    assert run("--version") == 0
    assert capsys.readouterr().out == f"{__version__}\n"


def test_the_help_has_exit_statuses_and_summaries_that_are_not_cut(capsys):
    assert run("--help") == 0
    text = capsys.readouterr().out
    assert "..." not in text.partition("\n")[2]
    for status, meaning in enumerate(("done", "a bug, with its traceback", "a mistake that you can mend", "withheld")):
        assert re.search(rf"^ +{status}  {meaning}", text, re.M)
    assert "Answer prompts greedily, judge the answers, and report refusal rates with intervals" in " ".join(
        text.split()
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_the_shared_options_and_no_name_of_a_variable_beside_each(command, capsys):
    assert run(command, "--help") == 0
    text = capsys.readouterr().out
    for option in ("--config FILE.toml", "--quiet", "--verbose", "--json"):
        assert f"  {option} " in text
    assert "env var" not in text
    if command != "label":
        assert re.search(r"^  -o, --output(-dir)? ", text, re.M)


def test_a_shell_completes_commands_and_options_without_torch():
    asked = {"_ACTOR_COMPLETE": "complete_bash", "COMP_WORDS": "actor measure --max-s", "COMP_CWORD": "2"}
    code = (
        "import sys; from actor_tune.commands.cli import main; sys.argv = ['actor']\n"
        "try: main()\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | asked, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["--max-safety-drop"]


def test_a_report_is_written_over_an_old_one_only_by_force(tmp_path, model_folder, harmful, capsys):
    measure = ("measure", model_folder, "--harmful", harmful, "--limit", 1, "--max-new-tokens", 1)
    assert run(*measure, "-o", tmp_path / "m") == 0
    page = tmp_path / "page.html"
    page.write_text("old")
    assert run("report", tmp_path / "m", "-o", page) == 2
    assert "it exists; expected a new name; choose another, or give --force" in capsys.readouterr().err
    assert page.read_text() == "old"
    assert run("report", tmp_path / "m", "-o", page, "--force") == 0
    assert "<html" in page.read_text()
    assert run("report", tmp_path / "m", "-o", tmp_path, "--force") == 2


def test_label_says_what_it_wants_as_json_where_there_is_no_terminal(tmp_path):
    done = actor("label", tmp_path, "--json")
    assert done.returncode == 2
    assert "no terminal" in only_object(done.stdout)["error"]
