"""`actor measure --models`: each model of a table into a folder of its own, as if it had been measured alone."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import msgspec
import pytest

import actor_tune as at
from actor_tune.errors import UserError
from test_cli import run
from test_engines import completion, serving
from test_measure_command import model_server, prompts_file  # noqa: F401 - a fixture

pytest.importorskip("openai", reason="needs the extra openai")

FILES = {"request.json", "responses.jsonl", "results.json", "actor.toml", ".lock"}


def table(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def names(path):
    return {entry.name for entry in path.iterdir()}


def results(folder):
    return json.loads((folder / "results.json").read_text())


@pytest.fixture
def prompts(prompts_file):  # noqa: F811
    return prompts_file


# --- Reading the table


def test_a_table_of_any_form_gives_models_and_what_each_has_of_its_own(tmp_path):
    told = {"enable_thinking": False}
    expected = [
        at.ToMeasure("org/a", "a"),
        at.ToMeasure("b", "second", "org/a", "openai", ["http://x/v1", "http://y/v1"], "float32", told),
    ]
    columns = ["model", "name", "baseline", "engine", "base_url", "dtype", "chat_template_kwargs"]
    text = json.dumps(told)
    for suffix, mark in ((".csv", ","), (".csv", ";"), (".tsv", "\t")):
        cells = [
            "b",
            "second",
            "org/a",
            "openai",
            "http://x/v1 http://y/v1",
            "float32",
            f'"{text.replace(chr(34), 2 * chr(34))}"',
        ]
        file = tmp_path / f"m{suffix}"
        file.write_text("\n".join(mark.join(row) for row in (columns, ["org/a", *[""] * 6], cells)))
        assert at.read_models(file) == expected
    second = {"model": "b", "name": "second", "baseline": "org/a", "engine": "openai", "dtype": "float32"}
    second |= {"base_url": ["http://x/v1", "http://y/v1"], "chat_template_kwargs": told}
    assert at.read_models(table(tmp_path / "m.jsonl", {"model": "org/a"}, second)) == expected
    (tmp_path / "m.json").write_text(json.dumps([{"model": "org/a", "name": None}, second]))
    assert at.read_models(tmp_path / "m.json") == expected


def test_names_are_made_of_the_models_and_stay_when_rows_are_added(tmp_path):
    rows = [
        {"model": "org/Model 1.5B"},
        {"model": "other/model 1.5b"},
        {"model": "runs/x/model/"},
        {"model": "runs/y/model", "dtype": "float32"},
        {"model": "runs/y/model", "dtype": "float16"},
        {"model": ".."},
    ]
    expected = ["Model-1.5B", "model-1.5b-2", "model", "model-2", "model-3", "model-4"]
    for count in range(1, len(rows) + 1):
        found = at.read_models(table(tmp_path / "m.jsonl", *rows[:count]))
        assert [asked.name for asked in found] == expected[:count]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"model": "a", "judge": "x"}], "a column `judge`; expected some of model, name, baseline, engine"),
        ([{"name": "a"}], "no column `model`"),
        ([{"model": " "}], "an empty model"),
        ([{"model": 5}], "`model` is 5; expected a string"),
        ([{"model": "a", "name": "x"}, {"model": "b", "name": "X"}], "line 2: the name 'X' a second time"),
        ([{"model": "a"}, {"model": "b", "name": "a"}], "line 2: the name 'a' a second time"),
        ([{"model": "a"}, {"model": "a"}], "line 2: 'a' a second time; expected each model once"),
        ([{"model": "a", "name": "../x"}], "`name` is '../x'; expected the name of a folder"),
        ([{"model": "a", "name": ".x"}], "`name` is '.x'"),
        ([{"model": "a", "engine": "vlm"}], "`engine` is 'vlm'; expected one of transformers, vllm, openai"),
        ([{"model": "a", "dtype": "int8"}], "`dtype` is 'int8'; expected one of auto, float32"),
        ([{"model": "a", "chat_template_kwargs": "[1]"}], 'chat_template_kwargs: [1]; expected {"NAME": VALUE'),
        ([{"model": "a", "chat_template_kwargs": "{"}], "chat_template_kwargs: not JSON"),
        ([{"model": "a", "base_url": [5]}], "`base_url` is [5]"),
        ([], "no rows; expected at least one"),
    ],
)
def test_a_table_that_cannot_be_is_one_line_and_nothing_is_measured(tmp_path, capsys, rows, message):
    file = table(tmp_path / "m.jsonl", *rows)
    with pytest.raises(UserError, match=re.escape(message).replace("line\\ 2", "(line|row) 2")):
        at.read_models(file)
    assert run("measure", "--models", file, "--output-dir", tmp_path / "all") == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {file}")
    assert not (tmp_path / "all").exists()


def test_a_model_or_a_table_of_models_is_needed_and_not_both(tmp_path, capsys):
    file = table(tmp_path / "m.jsonl", {"model": "a"})
    assert run("measure", "--output-dir", tmp_path / "all") == 2
    assert "error: MODEL and --models: neither; expected one of them" in capsys.readouterr().err
    assert run("measure", "a", "--models", file, "--output-dir", tmp_path / "all") == 2
    assert "error: MODEL and --models: both; expected one of them" in capsys.readouterr().err


# --- Measuring


def test_each_model_is_measured_as_if_alone_and_what_is_done_is_not_done_again(tmp_path, prompts, capsys):
    rows = [{"model": "tuned", "baseline": "careful"}, {"model": "careful"}, {"model": "careful", "name": "again"}]
    with serving(model_server) as server:
        where = ("--engine", "openai", "--base-url", server.url, "--prompts", prompts)
        command = ("measure", "--models", table(tmp_path / "m.jsonl", *rows), *where, "--output-dir", tmp_path / "all")
        assert run(*command) == 0
        printed = capsys.readouterr().out
        assert run("measure", "tuned", "--baseline", "careful", *where, "--output-dir", tmp_path / "alone") == 0
        server.requests.clear()
        written = {path: path.stat().st_mtime_ns for path in (tmp_path / "all").rglob("*.js*")}
        capsys.readouterr()
        assert run(*command) == 0
        assert server.asked() == []
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "all").rglob("*.js*")} == written
    assert names(tmp_path / "all") == {"tuned", "careful", "again"}
    assert names(tmp_path / "all" / "again") == FILES
    assert names(tmp_path / "all" / "tuned") == FILES | {"baseline.jsonl"} == names(tmp_path / "alone")
    for name in ("request.json", "responses.jsonl", "baseline.jsonl", "actor.toml"):
        assert (tmp_path / "all" / "tuned" / name).read_text() == (tmp_path / "alone" / name).read_text()
    ours, alone = results(tmp_path / "all" / "tuned"), results(tmp_path / "alone")
    assert ours | {"command": ""} == alone | {"command": ""}
    told = capsys.readouterr().out
    assert told.count("Measured already") == 3
    for text in (printed, told):
        summary = text[text.index("All models") :]
        assert re.search(r"tuned +│ +100.0", summary)
        assert re.search(r"careful +│ +0.0", summary)


def test_a_model_that_fails_is_told_and_the_others_go_on_and_it_goes_on_later(tmp_path, prompts, capsys):
    broken = [True]

    def breaks(path, request):
        if broken and request and request["model"] == "tuned" and "egg" in request["messages"][-1]["content"]:
            return 400, {"error": {"message": "no egg today"}}
        return model_server(path, request)

    rows = [{"model": "tuned"}, {"model": "nowhere", "engine": "transformers", "base_url": ["http://x/v1"]}]
    rows += [{"model": "careful"}]
    with serving(breaks) as server:
        where = ("--engine", "openai", "--base-url", server.url, "--prompts", prompts)
        command = ("measure", "--models", table(tmp_path / "m.jsonl", *rows), *where, "--output-dir", tmp_path / "all")
        assert run(*command, "--json") == 2
        streams = capsys.readouterr()
        broken.clear()
        server.requests.clear()
        assert run(*command) == 2  # the second is still wrong
        assert len(server.asked()) < 9
    lines = [line for line in streams.err.splitlines() if line.startswith("error")]
    assert len(lines) == 2
    assert re.match(r"error: tuned: --base-url .*no egg today.*; \d of 9 answers are kept, and the same", lines[0])
    assert lines[1].startswith(
        "error: nowhere: --base-url http://x/v1: --engine transformers; expected --engine openai"
    )
    said = json.loads(streams.out)
    assert said["exit_status"] == 2
    first, second, third = said["models"]
    assert "no egg today" in first["error"]
    assert second["error"]
    assert (third["name"], third["compliance_rate"]) == ("careful", 0)
    assert names(tmp_path / "all") == {"tuned", "careful"}
    assert results(tmp_path / "all" / "tuned")["compliance_rate"] == 1


def test_the_status_is_that_of_the_gate_where_nothing_failed_also_when_it_is_repeated(tmp_path, prompts, capsys):
    rows = [{"model": "tuned"}, {"model": "reckless"}, {"model": "careful"}]
    with serving(model_server) as server:
        where = ("--engine", "openai", "--base-url", server.url, "--prompts", prompts, "--output-dir", tmp_path / "all")
        gate = ("--baseline", "careful", "--max-safety-drop", "0.05")
        command = ("measure", "--models", table(tmp_path / "m.jsonl", *rows), *where, *gate)
        assert run(*command) == 3
        assert run(*command) == 3
        assert run("measure", "--models", table(tmp_path / "n.jsonl", rows[0], rows[2]), *where, *gate) == 0
        missing = table(tmp_path / "o.jsonl", rows[0], {"model": "x", "base_url": "http://127.0.0.1:9/v1"}, rows[1])
        assert run("measure", "--models", missing, *where, *gate) == 2
        capsys.readouterr()
        assert run("measure", "--models", tmp_path / "m.jsonl", *where, "--max-safety-drop", "0.05") == 2
    assert "no --baseline" in capsys.readouterr().err
    passed = {name: results(tmp_path / "all" / name)["gate"]["passed"] for name in ("tuned", "reckless", "careful")}
    assert passed == {"tuned": True, "reckless": False, "careful": True}


def test_what_is_whole_is_not_taken_for_the_answer_to_another_question(tmp_path, prompts, capsys):
    file = table(tmp_path / "m.jsonl", {"model": "careful"})
    with serving(model_server) as server:
        where = ("--models", file, "--engine", "openai", "--base-url", server.url, "--output-dir", tmp_path / "all")
        assert run("measure", *where, "--prompts", prompts) == 0
        for other, message in (
            (("--max-new-tokens", 9), "begun with max_new_tokens = 32; expected 9"),
            (("--limit", 1), "begun with limit = null; expected 1"),
            (("--judge", "strings"), r"results with judges: \['trained'\]; expected \['strings'\]"),
        ):
            capsys.readouterr()
            assert run("measure", *where, "--prompts", prompts, *other) == 2
            assert re.search(f"error: careful: --output-dir .*: {message}", capsys.readouterr().err)
        prompts.write_text(prompts.read_text().replace("fjord", "fiord"))
        assert run("measure", *where, "--prompts", prompts) == 2
        assert "begun with prompts_sha256" in capsys.readouterr().err
        single = ("measure", "careful", *where[2:-1], tmp_path / "alone", "--prompts", prompts)
        assert run(*single) == 0
        assert run("measure", *where[:-1], tmp_path / "alone", "--prompts", prompts) == 2
        assert "of a single measurement, in it; expected a folder for one folder a model" in capsys.readouterr().err


def test_a_damaged_result_is_told_and_the_others_go_on(tmp_path, prompts, capsys):
    with serving(model_server) as server:
        file = table(tmp_path / "m.jsonl", {"model": "careful"}, {"model": "tuned"})
        command = ("measure", "--models", file, "--engine", "openai", "--base-url", server.url, "--prompts", prompts)
        assert run(*command, "--output-dir", tmp_path / "all") == 0
        (tmp_path / "all" / "careful" / "results.json").write_text("{")
        capsys.readouterr()
        assert run(*command, "--output-dir", tmp_path / "all") == 2
    streams = capsys.readouterr()
    assert re.search(r"error: careful: .*results.json: not JSON", streams.err)
    assert "Measured already" in streams.out


def test_labels_are_put_into_what_is_whole(tmp_path, prompts):
    with serving(model_server) as server:
        file = table(tmp_path / "m.jsonl", {"model": "careful"}, {"model": "tuned"})
        command = ("measure", "--models", file, "--engine", "openai", "--base-url", server.url, "--prompts", prompts)
        command = (*command, "--output-dir", tmp_path / "all")
        assert run(*command) == 0
        labels = tmp_path / "labels.csv"
        row = json.loads((tmp_path / "all" / "careful" / "responses.jsonl").read_text().splitlines()[3])
        other = json.loads((tmp_path / "all" / "tuned" / "responses.jsonl").read_text().splitlines()[0])
        rows = [(row, "refusal"), (other, "compliance")]
        lines = [f'"{each["prompt"]}","{each["response"]}",{label}' for each, label in rows]
        labels.write_text("\n".join(["prompt,response,label", *lines]))
        server.requests.clear()
        assert run(*command, "--labels", labels) == 0
        assert server.asked() == []
        assert run(*command) == 0
    assert [results(tmp_path / "all" / name)["labels"]["used"] for name in ("careful", "tuned")] == [
        1,
        2,
    ]  # what both refuse in the same words, and what one answers


def test_the_settings_of_a_row_are_those_of_the_single_command(tmp_path, prompts):
    with serving(model_server) as server:
        told = {"enable_thinking": False}
        row = {"model": "careful", "engine": "openai", "base_url": server.url, "chat_template_kwargs": told}
        file = table(tmp_path / "m.jsonl", row)
        assert run("measure", "--models", file, "--prompts", prompts, "--output-dir", tmp_path / "all") == 0
        kept = tmp_path / "all" / "careful" / "actor.toml"
        settings = msgspec.toml.decode(kept.read_bytes())["measure"]
        assert (settings["model"], settings["base_url"], settings["engine"]) == ("careful", [server.url], "openai")
        assert json.loads(settings["chat_template_kwargs"]) == told
        assert "models" not in settings
        server.requests.clear()
        assert run("measure", "--config", kept, "--output-dir", tmp_path / "again") == 0
        sent = [request for path, request, _ in server.requests if request]
        assert all(request["chat_template_kwargs"] == told for request in sent)
    assert results(tmp_path / "again")["sets"] == results(tmp_path / "all" / "careful")["sets"]


def test_models_in_this_process_have_the_dtype_of_their_row(tmp_path, model_folder, prompts):
    file = table(tmp_path / "m.jsonl", {"model": str(model_folder)}, {"model": str(model_folder), "dtype": "float32"})
    command = ("measure", "--models", file, "--prompts", prompts, "--limit", 1, "--max-new-tokens", 1)
    assert run(*command, "--output-dir", tmp_path / "all") == 0
    assert [results(tmp_path / "all" / name)["settings"]["dtype"] for name in ("model", "model-2")] == [
        "auto",
        "float32",
    ]
    assert run(*command, "--output-dir", tmp_path / "all") == 0


def test_a_killed_table_keeps_the_rows_that_were_done_and_goes_on(tmp_path, prompts):
    def slow(path, request):
        if request and request["model"] == "tuned":
            time.sleep(0.3)
        return model_server(path, request)

    rows = [{"model": "careful"}, {"model": "tuned"}, {"model": "reckless"}]
    file, folder = table(tmp_path / "m.jsonl", *rows), tmp_path / "all"
    with serving(slow) as server:
        command = ["measure", "--models", file, "--engine", "openai", "--base-url", server.url, "--prompts", prompts]
        command += ["--output-dir", folder]
        code = "from actor_tune.commands.cli import main; main()"
        environment = {**os.environ, "NO_PROXY": "127.0.0.1"}
        with subprocess.Popen(
            [sys.executable, "-c", code, *map(str, command)], env=environment, stderr=subprocess.DEVNULL
        ) as process:
            store, deadline = folder / "tuned" / "responses.jsonl", time.monotonic() + 120
            while time.monotonic() < deadline and not (store.exists() and store.read_bytes().count(b"\n")):
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        assert (folder / "careful" / "results.json").is_file()
        assert not (folder / "tuned" / "results.json").exists()
        kept = {json.loads(line)["prompt"] for line in store.read_text().splitlines() if line.endswith("}")}
        server.requests.clear()
        assert run(*command) == 0
        sent = [request for path, request, _ in server.requests if request]
    assert "careful" not in {request["model"] for request in sent}
    again = {request["messages"][-1]["content"] for request in sent if request["model"] == "tuned"}
    assert kept
    assert not kept & again
    assert [Path(folder / row["model"] / "results.json").is_file() for row in rows] == [True] * 3


def test_in_python_what_was_found_is_saved_by_whoever_asked(tmp_path):
    def reply(path, request):
        return model_server(path, request) if request is None else (200, completion("Sure, here it is."))

    prompts = at.starter("held_out")[:4]
    with serving(reply) as server:
        subject = partial(at.subject, engine="openai", base_url=server.url)
        how = at.Procedure(subject, partial(at.questions, prompts), at.measure)
        asked = [at.ToMeasure("a", "first"), at.ToMeasure("b", "second")]
        found = [*at.measure_models(asked, how, tmp_path)]
        assert [(outcome.asked.name, outcome.done) for outcome in found] == [("first", False), ("second", False)]
        assert not (tmp_path / "first" / "results.json").exists()
        found[0].found.save(found[0].folder)
        again = [*at.measure_models(asked, how, tmp_path)]
    assert [outcome.done for outcome in again] == [True, False]
    assert again[0].found.results.sets == found[0].found.results.sets
    assert again[0].found.responses == found[0].found.responses
