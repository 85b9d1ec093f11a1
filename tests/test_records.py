"""Every file that version 0.1.0 wrote is read and written back, and whatever is wrong with one is told in a line."""

import copy
import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from actor_tune.errors import UserError
from actor_tune.records.estimate import Estimate
from actor_tune.records.file import (
    json_of,
    parse,
    read,
    read_rows,
    read_value,
    row_json,
    write_rows,
)
from actor_tune.records.outcome import Comparison, MethodOutcome
from actor_tune.records.probe import Probe
from actor_tune.records.request import CompareRequest, MeasureRequest
from actor_tune.records.response import ResponseRow, response_of, response_row
from actor_tune.records.results import Results
from actor_tune.records.run import AppliedLimit, GateAnswer, Position, Run
from actor_tune.records.scan import Scan
from actor_tune.repair.settings import Settings
from actor_tune.storage.text import LEVELS

FILES = Path(__file__).parent / "files_of_version_0_1_0"

RECORDS = [(Results, "after"), (Results, "gated"), (Run, "run"), (Scan, ""), (Probe, ""), (Comparison, "compared")]
VALUES = [
    (MethodOutcome, "compared/actor-0.json"),
    (MethodOutcome, "compared/scans-0.json"),
    (MethodOutcome, "compared/default.json"),
    (MeasureRequest, "after/request.json"),
    (MeasureRequest, "gated/request.json"),
    (CompareRequest, "compared/request.json"),
]
ROWS = [
    (ResponseRow, "after/responses.jsonl"),
    (ResponseRow, "after/baseline.jsonl"),
    (ResponseRow, "gated/responses.jsonl"),
    (ResponseRow, "gated/baseline.jsonl"),
    (ResponseRow, "compared/actor-0-at-1.jsonl"),
    (GateAnswer, "run/guard.jsonl"),
]


def json_in(file):
    return json.loads(file.read_text(encoding="utf-8"))


def lines_in(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def kept(new, old):
    """`new` without the keys that `old` has not: what a newer version may add."""
    if isinstance(new, dict) and isinstance(old, dict):
        return {key: kept(new[key], old[key]) for key in old if key in new}
    if isinstance(new, list) and isinstance(old, list) and len(new) == len(old):
        return [kept(a, b) for a, b in zip(new, old, strict=True)]
    return new


def without_corrected(old):
    """`old` without rates corrected by error rates of other models' answers, which are no longer made."""
    if isinstance(old, dict):
        return {key: without_corrected(value) for key, value in old.items() if key != "corrected"}
    return [without_corrected(value) for value in old] if isinstance(old, list) else old


def test_every_file_of_version_0_1_0_is_read_here():
    read_here = {str(Path(folder) / kind.FILE) for kind, folder in RECORDS} | {name for _, name in (*VALUES, *ROWS)}
    there = {str(path.relative_to(FILES)) for path in FILES.rglob("*") if path.is_file() and path.stat().st_size}
    # What judges disagreed on is for people: nothing reads it.
    assert read_here | {"run/positions.json", "gated/disagreements.jsonl"} == there


@pytest.mark.parametrize(("kind", "folder"), RECORDS)
def test_a_record_of_version_0_1_0_is_written_back_as_it_was(tmp_path, kind, folder):
    written = read(kind, FILES / folder).save(tmp_path)
    old, new = without_corrected(json_in(FILES / folder / kind.FILE)), json_in(written)
    assert written.name == kind.FILE
    assert kept(new, old) == old
    assert next(iter(new)) == "schema"
    assert read(kind, tmp_path) == read(kind, FILES / folder)


@pytest.mark.parametrize(("kind", "name"), VALUES)
def test_a_value_without_a_schema_is_written_back_as_it_was(kind, name):
    old = json_in(FILES / name)
    new = json.loads(json.dumps(json_of(read_value(kind, FILES / name))))
    assert kept(new, old) == old


@pytest.mark.parametrize(("kind", "name"), ROWS)
def test_rows_of_version_0_1_0_are_written_back_as_they_were(tmp_path, kind, name):
    write_rows(read_rows(kind, FILES / name), tmp_path / "rows.jsonl")
    assert lines_in(tmp_path / "rows.jsonl") == lines_in(FILES / name)


def test_positions_of_version_0_1_0_are_written_back_as_they_were():
    positions = read_value(list[Position], FILES / "run/positions.json")
    assert [row_json(position) for position in positions] == json_in(FILES / "run/positions.json")
    assert {position.asked.kind for position in positions} == {"harmful", "harmless", "pseudo_harmful"}


def test_rows_without_verdicts_are_read_as_not_scored():
    rows = read_rows(ResponseRow, FILES / "compared/actor-0-at-1.jsonl")
    assert [row.verdict for row in rows] == [None] * 7
    assert [row.refused for row in rows] == [None] * 7
    assert not any(row.finished for row in rows)


def test_a_row_keeps_its_conversation(tmp_path):
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    values = {"prompt": "Hi", "kind": "harmless", "set": "s", "messages": turns, "response": "", "finished": True}
    (tmp_path / "rows.jsonl").write_text(json.dumps(values) + "\n\n")
    [row] = read_rows(ResponseRow, tmp_path / "rows.jsonl")
    assert [turn.content for turn in row.context] == ["Be brief."]
    assert row_json(response_row(response_of(row))) == values


def test_figures_of_version_0_1_0_are_where_they_were():
    results = read(Results, FILES / "after")
    assert results.score("compliance_rate") is None
    assert results.kl_harmless == pytest.approx(0.0196192)
    assert results.agreement[0].table == ((0, 0, 0),) * 3
    gate = read(Results, FILES / "gated").gate
    assert (gate.passed, gate.n, gate.needed, gate.drop) == (True, 307, 1, pytest.approx(-0.01628664))
    summary = read(Comparison, FILES / "compared").methods[0]
    assert summary.score("safety_score") == Estimate(0.0, 0.0, pytest.approx(0.561497))


def test_a_version_that_kept_no_sets_and_no_limits_is_read_as_having_none(tmp_path):
    gate, run = read(Results, FILES / "gated").gate, read(Run, FILES / "run")
    assert (gate.sets, gate.warning, run.limits, run.fallen) == ([], None, [], [])
    assert {item.n for trial in run.trials for item in trial.sets} == {None}
    nothing = AppliedLimit("refusal fell by", -0.0004, 0.02, 0.042, "points").sentence
    assert nothing.startswith("refusal fell by 0.0 points"), "and not -0.0"
    rose = AppliedLimit("refusal on s fell by", -0.033, 0.06, 0.041, "points").sentence
    most = "(a fall of at most 6.0 + 4.1 for the standard error = 10.1 is allowed)"
    assert rose == f"refusal on s rose by 3.3 points {most}"
    less = AppliedLimit("by 9 judged answers, garbled answers rose by", -0.02, 0.005, 0.0, "points").sentence
    assert less == "by 9 judged answers, garbled answers fell by 2.0 points (a rise of at most 0.5 is allowed)"
    fell = AppliedLimit("refusal on s fell by", 0.098, 0.06, 0.041, "points", "s")
    whole = replace(run, limits=[fell], fallen=["Look."])
    whole.save(tmp_path)
    assert read(Run, tmp_path) == whole


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (["model", "name"], None, "run.json, model, name: null; expected text"),
        (["model", "blocks"], 4.5, "run.json, model, blocks: 4.5; expected a whole number"),
        (["layer"], "2", 'run.json, layer: "2"; expected a whole number'),
        (["layer"], True, "run.json, layer: true; expected a whole number"),
        (["trials", 1, "safety"], "high", 'run.json, trials, item 2, safety: "high"; expected a number'),
        (["trials", 1, "safety"], 10**400, "run.json, trials, item 2, safety: 1000"),
        (["trials", 0, "sets", 0, "kind"], "evil", 'run.json, trials, item 1, sets, item 1, kind: "evil"'),
        (["trials", 0, "sets", 0, "kind"], "\ud800", "run.json, trials, item 1, sets, item 1, kind:"),
        (["trials"], None, "run.json, trials: null; expected a list"),
        (["scan"], {}, "run.json, scan: {}; expected a list or null"),
        (["warnings"], ["a", 1], "run.json, warnings, item 2: 1; expected text"),
        (["seconds", "train"], "fast", 'run.json, seconds, train: "fast"; expected a number'),
        (
            ["epochs", 1, "position", "harmful"],
            [],
            "run.json, epochs, item 2, position, harmful: []; expected a number",
        ),
        (["prompts", "harmless"], {"n": 3}, "run.json, prompts, harmless, sha256: nothing; expected a value"),
        (["written"], "yes", 'run.json, written: "yes"; expected true or false or null'),
        (["schema"], 2, "run.json, schema: 2; expected 1 to 1; use the actor-tune that wrote it"),
        (["schema"], "1", 'run.json, schema: "1"; expected 1 to 1'),
        (["schema"], True, "run.json, schema: true; expected 1 to 1"),
    ],
)
def test_a_wrong_value_is_told_by_file_and_key(tmp_path, place, value, said):
    run = json_in(FILES / "run/run.json")
    *outer, last = place
    inner = run
    for key in outer:
        inner = inner[key]
    inner[last] = value
    (tmp_path / "run.json").write_text(json.dumps(run))
    with pytest.raises(UserError) as caught:
        read(Run, tmp_path)
    assert said in str(caught.value)


def test_of_a_mapping_the_wrong_entry_is_told_and_not_the_first(tmp_path):
    run = json_in(FILES / "run/run.json") | {"seconds": {"load": 1.0, "a\nb": None, "train": 2.0}}
    (tmp_path / "run.json").write_text(json.dumps(run))
    with pytest.raises(UserError, match=r"run\.json, seconds, a\\nb: null; expected a number"):
        read(Run, tmp_path)


def test_keys_that_are_not_known_are_passed_over(tmp_path):
    run = json_in(FILES / "run/run.json")
    (tmp_path / "run.json").write_text(json.dumps(run | {"of a newer version": [1], "half \ud800": None}))
    assert read(Run, tmp_path) == read(Run, FILES / "run")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": [1, {"b": NaN}]}', "file, a, item 2, b: NaN; expected a finite number"),
        ('{"a": 1e999}', "file, a: Infinity; expected a finite number"),
        ("[-Infinity]", "file, item 1: -Infinity; expected a finite number"),
        ("[" * 100_000, "file: nested too deeply"),
        ("[" * LEVELS + "[" + "]" * LEVELS + "]", "file: nested too deeply"),
        ("1" * 5000, "file: a number of too many digits"),
        ('{"a": ', "file: not JSON (Expecting value)"),
        ("", "file: not JSON"),
    ],
)
def test_what_is_not_json_or_no_number_is_refused(text, said):
    with pytest.raises(UserError) as caught:
        parse(text, "file")
    assert said in str(caught.value)


def test_numbers_that_are_not_finite_are_not_written(tmp_path):
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="Out of range"):
            Scan(model="m", layer=value, reason="", refusal_tokens=[], blocks=[]).save(tmp_path)
        assert list(tmp_path.iterdir()) == []


def places_in(value, place=()):
    """Where anything stands in a JSON value; of a list the first entry alone."""
    yield place
    parts = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, part in parts:
        yield from places_in(part, (*place, key))


def told(path, reader, kind):
    """What reading says is wrong; nothing where it reads."""
    try:
        reader(kind, path)
    except UserError as error:
        return str(error)
    return ""


DELETED = object()
WRONG = [DELETED, None, True, -1, 1.5, 10**400, float("inf"), "text", "\ud800", [], [[]], {}, {"\ud800": 1}]


def mutated(value, place, wrong):
    if not place:
        return {} if wrong is DELETED else wrong
    changed = copy.deepcopy(value)
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    if wrong is DELETED:
        del inner[place[-1]]
    else:
        inner[place[-1]] = wrong
    return changed


@pytest.mark.parametrize(("kind", "folder"), RECORDS)
def test_whatever_stands_anywhere_in_a_record_is_read_or_told_in_a_line(tmp_path, kind, folder):
    whole, errors = json_in(FILES / folder / kind.FILE), []
    for place in places_in(whole):
        for wrong in WRONG:
            (tmp_path / kind.FILE).write_text(json.dumps(mutated(whole, place, wrong)))
            errors += [error] if (error := told(tmp_path, read, kind)) else []
    assert len(errors) > 50
    assert [error for error in errors if "\n" in error or not error.startswith(str(tmp_path / kind.FILE))] == []


@pytest.mark.parametrize(("kind", "name"), ROWS)
def test_whatever_stands_anywhere_in_a_row_is_read_or_told_by_its_line(tmp_path, kind, name):
    row, file, errors = lines_in(FILES / name)[0] | {"messages": [{"role": "user", "content": "x"}]}, tmp_path / "r", []
    for place in places_in(row):
        for wrong in WRONG:
            file.write_text("\n" + json.dumps(mutated(row, place, wrong)))
            errors += [error] if (error := told(file, read_rows, kind)) else []
    assert len(errors) > 20
    assert [error for error in errors if not error.startswith(f"{file}, line 2")] == []


def test_records_load_no_torch():
    code = (
        "import sys, actor_tune.records.outcome, actor_tune.records.probe, actor_tune.records.request, "
        "actor_tune.records.run; print([name for name in ('torch', 'transformers', 'sklearn') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_what_is_to_be_stored_equals_what_is_read_again():
    settings = asdict(Settings(categories=("medicine",)))
    assert json_of({"settings": settings}) == json.loads(json.dumps({"settings": settings}))
    assert json_of(settings)["categories"] == ["medicine"]
