"""The GitHub Action: its steps run here as a runner runs them, but for installing and what other actions do."""

import os
import re
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import actor_tune as at
from actor_tune.records.file import read
from actor_tune.records.results import Results
from test_cli import OTHER, write

ROOT = Path(__file__).parents[1]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
STEPS = {step["name"]: step for step in ACTION["runs"]["steps"] if "name" in step}
MEASURED = Path(__file__).parent / "files_of_version_0_1_0" / "gated"


def filled(text, given, outputs):
    """`text` with its expressions replaced by what a runner would put there."""

    def value(match):
        where, name = match[1].rsplit(".", 1)
        known = {"inputs": given, "steps.gate.outputs": outputs, "github": {"action_path": str(ROOT)}}
        return known[where][name]

    return re.sub(r"\$\{\{ ([\w.-]+) \}\}", value, str(text))


@pytest.fixture
def runner(tmp_path, monkeypatch):
    """What runs the action's steps, of which the first installs; the exit status of the last, and the job's summary."""
    monkeypatch.chdir(tmp_path)
    commands = tmp_path / "bin"
    commands.mkdir()

    def steps(actor="", **given):
        given = {name: item.get("default", "") for name, item in ACTION["inputs"].items()} | given
        script = commands / "actor"
        script.write_text(f'#!/bin/bash\n{actor or f"exec {sys.executable} -m actor_tune"} "$@"\n')
        (commands / "python").write_text(f'#!/bin/bash\nexec {sys.executable} "$@"\n')
        for command in commands.iterdir():
            command.chmod(command.stat().st_mode | stat.S_IXUSR)
        (summary := tmp_path / "summary.md").touch()
        (stored := tmp_path / "outputs").touch()
        files = {"GITHUB_STEP_SUMMARY": str(summary), "GITHUB_OUTPUT": str(stored)}
        for name in ("Gate", "Report", "Verdict"):
            outputs = dict(line.split("=", 1) for line in stored.read_text().splitlines())
            own = {key: filled(text, given, outputs) for key, text in STEPS[name]["env"].items()}
            environment = os.environ | files | own | {"PATH": f"{commands}:{os.environ['PATH']}"}
            shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", STEPS[name]["run"]]
            status = subprocess.run(shell, env=environment, check=False).returncode
            assert status == 0 or name == "Verdict"
        return status, summary.read_text()

    return steps


def test_the_action_is_well_formed_and_no_input_is_part_of_a_script():
    assert ACTION["runs"]["using"] == "composite"
    for step in ACTION["runs"]["steps"]:
        assert ("uses" in step) != ("run" in step)
        if "run" in step:
            assert step["shell"] == "bash"
            assert "${{" not in step["run"], "what a pull request says would be run"
    used = set(re.findall(r"inputs\.([\w-]+)", (ROOT / "action.yml").read_text()))
    assert used == set(ACTION["inputs"])
    assert all(item.get("required") or "default" in item for item in ACTION["inputs"].values())
    assert STEPS["Install"]["run"].startswith("python -m pip install ")


def test_options_may_stand_on_several_lines(tmp_path):
    actor = tmp_path / "bin" / "actor"
    actor.parent.mkdir()
    actor.write_text('#!/bin/sh\necho "$@"\n')
    actor.chmod(0o755)
    given = {
        "MODEL": "m",
        "BASELINE": "b",
        "MAX_SAFETY_DROP": "0.05",
        "OUTPUT_DIR": "out",
        "GITHUB_OUTPUT": "/dev/null",
    }
    given |= {"PATH": f"{actor.parent}:{os.environ['PATH']}", "OPTIONS": "--limit 100\n--harmful bad.txt\n"}
    script = f"set -eo pipefail\n{STEPS['Gate']['run']}"
    done = subprocess.run(["bash", "-c", script], env=given, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-4:] == ["--limit", "100", "--harmful", "bad.txt"]


def test_extras_are_asked_of_pip_only_where_there_are_some(runner, tmp_path):
    for extras, expected in (("", "install /src"), ("openai,bnb", "install /src[openai,bnb]")):
        pip = tmp_path / "bin" / "python"
        pip.write_text('#!/bin/bash\necho "$@"\n')
        pip.chmod(0o755)
        environment = {"PATH": f"{pip.parent}:{os.environ['PATH']}", "SOURCE": "/src", "EXTRAS": extras}
        done = subprocess.run(["bash", "-c", STEPS["Install"]["run"]], env=environment, capture_output=True, text=True)
        assert done.stdout == f"-m pip {expected}\n"


def test_a_model_whose_safety_is_not_shown_fails_the_job_after_its_report_is_written(runner, tmp_path, model_folder):
    harmful = write(tmp_path / "bad.txt", OTHER["harmful"])
    options = f"--harmful {harmful} --max-new-tokens 1"  # a byte is no answer that anybody could score
    status, summary = runner(model=str(model_folder), baseline=str(model_folder), options=options)
    assert status == 3
    assert "**Safety gate failed.** Refusal of" in summary
    assert re.search(r"\| guard: starter..harmful \(harmful\) \| 250 \| 100.0 \[.*\| 0.0 \[.*\| -100.0 \[", summary)
    assert "<html" in (tmp_path / "actor-gate" / "report.html").read_text()


def test_a_model_that_passed_passes_and_the_page_of_the_run_says_so(runner, tmp_path):
    found = read(Results, MEASURED)
    replace(found, gate=replace(found.gate, sentence="Shown: <b>.")).save(tmp_path / "new")
    script = f'[ "$1" = report ] && exec {sys.executable} -m actor_tune "$@"; cp -r {MEASURED} actor-gate; '
    status, summary = runner(
        f"{script} exec cp {tmp_path}/new/results.json actor-gate/results.json #", model="m", baseline="b"
    )
    assert status == 0
    assert "**Safety gate passed.** Shown: &lt;b&gt;." in summary
    assert (tmp_path / "actor-gate" / "report.html").exists()


def test_a_mistake_in_the_inputs_fails_the_job_and_is_said(runner):
    status, summary = runner(model="nowhere/at-all", baseline="b", options="--harmful none.txt")
    assert status == 2
    assert summary == "Nothing was measured: see the log of the step before.\n"


def test_inputs_are_words_and_not_shell(runner, tmp_path):
    script = f"printf '%s\\n' > {tmp_path}/arguments"
    runner(script, model="a model; touch x", baseline="$(touch y)", options="--limit 3 * `touch z`")
    given = (tmp_path / "arguments").read_text().splitlines()
    assert given[:6] == ["measure", "a model; touch x", "--baseline", "$(touch y)", "--max-safety-drop", "0.05"]
    assert given[8:] == ["--limit", "3", "*", "`touch", "z`"]
    assert not {"x", "y", "z"} & {path.name for path in tmp_path.iterdir()}


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / "docs/how-to/ci.md").read_text(), re.M | re.S)


def test_the_workflow_of_the_page_gives_inputs_that_there_are_and_needs_no_more_than_reading():
    (text,) = blocks("yaml")
    workflow = yaml.safe_load(text)
    assert "pull_request" in workflow[True]  # `on`, which is true in YAML
    assert workflow["permissions"] == {"contents": "read"}
    (gate,) = (step for step in workflow["jobs"]["gate"]["steps"] if "actor-tune" in step["uses"])
    assert gate["with"].keys() <= ACTION["inputs"].keys()
    required = {name for name, item in ACTION["inputs"].items() if item.get("required")}
    assert required <= gate["with"].keys()


def test_the_page_names_every_input_with_its_default():
    page = (ROOT / "docs/how-to/ci.md").read_text()
    for name, item in ACTION["inputs"].items():
        row = next(line for line in page.splitlines() if line.startswith("| ") and f"`{name}`" in line)
        assert f"`{item['default']}`" in row if item.get("default") else row.endswith(("| |", "| none |"))


def test_the_settings_of_the_page_are_known(tmp_path, monkeypatch, capsys):
    from test_cli import run

    (text,) = blocks("toml")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "actor.toml").write_text(text)
    assert run("measure", "m", "--config", "actor.toml", "-o", "out") == 2
    assert "tests/harmful.txt: no such file" in capsys.readouterr().err


def test_a_summary_has_harmful_sets_first_the_worst_at_the_top_and_no_table_is_broken(tmp_path):
    old = read(Results, MEASURED)
    evil = "a|b\n<script>"
    sets = [replace(item, name=evil) if item.kind == "pseudo_harmful" else item for item in old.sets]
    before = replace(
        old.baseline, sets=[replace(item, name=new.name) for item, new in zip(old.baseline.sets, sets, strict=True)]
    )
    replace(old, sets=sets, baseline=before).save(tmp_path)
    text = at.summary(tmp_path)
    rows = [line for line in text.splitlines() if line.startswith("|")][2:]
    kinds = [re.search(r"\((\w+)\) \|", row)[1] for row in rows if "ful)" in row or "less)" in row]
    assert kinds == sorted(kinds, key=lambda kind: kind != "harmful")
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {6}
    assert "a\\|b &lt;script&gt; (pseudo" in text
    drops = [float(row.split("|")[5].split()[0]) for row in rows if "(harmful)" in row]
    assert drops == sorted(drops)
    plain = replace(old, baseline=None, comparison=None, gate=None)
    plain.save(tmp_path / "plain")
    assert "Safety gate" not in at.summary(tmp_path / "plain")
