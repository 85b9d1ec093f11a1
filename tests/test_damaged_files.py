"""Whatever became of a stored file: what reads it gives a result, or a UserError of one line, and nothing else."""

import copy
import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from actor_tune.comparison.outcomes import summaries
from actor_tune.comparison.run import _kept
from actor_tune.engines.engine import Answer
from actor_tune.engines.respond import respond
from actor_tune.errors import UserError
from actor_tune.judges.rows import read_exchanges
from actor_tune.measurement.by_label import with_labels
from actor_tune.measurement.run import EarlierMeasurement
from actor_tune.measurement.trained_on import trained_on
from actor_tune.prompts.presets import read as read_prompts
from actor_tune.records.file import read, read_rows, read_value
from actor_tune.records.labels import Label, csv_text, read_labels, read_own_labels
from actor_tune.records.outcome import Comparison
from actor_tune.records.probe import Probe
from actor_tune.records.request import CompareRequest, MeasureRequest, at_work
from actor_tune.records.response import ResponseRow, read_judged
from actor_tune.records.results import Results
from actor_tune.records.scan import Scan
from actor_tune.records.to_label import choose, read_pairs, said_before
from actor_tune.show.comparison import compare_table
from actor_tune.show.report import render
from actor_tune.storage.tables import read_table
from report_folders import answer_rows, make_results, make_run, write_rows

FILES = Path(__file__).parent / "files_of_version_0_1_0"

MUTATIONS = 20
"""Of each file, for each that reads it."""

LONGEST = 1500
"""Characters of a message: two long values, cut, and a path."""


def report(folder):
    render([folder])


def measured_before(folder):
    EarlierMeasurement.read(folder, lambda name: name)


def labels(folder):
    chosen, file = choose(read_pairs(folder), 20), folder / "labels.csv"
    said_before(read_own_labels(file), chosen, file)
    known = read_labels(file)
    responses, baseline = (read_judged(folder / f"{name}.jsonl") for name in ("responses", "baseline"))
    with_labels(replace(read(Results, folder), labels=None), responses, baseline, known)


def answers_go_on(folder):
    prompts = [row.asked for row in read_rows(ResponseRow, folder / "baseline.jsonl")]
    respond(
        lambda missing, _: (Answer(row, "Sure.", True) for row in range(len(missing))),
        prompts,
        8,
        folder / "responses.jsonl",
    )


def request_goes_on(folder):
    shutil.copy(folder / "request of after.json", folder / "request.json")
    with at_work(folder, read_value(MeasureRequest, FILES / "after" / "request.json"), again=True):
        pass


def compare_request_goes_on(folder):
    shutil.copy(folder / "request of compared.json", folder / "request.json")
    with at_work(folder, read_value(CompareRequest, FILES / "compared" / "request.json"), again=True):
        pass


def trained_prompts(folder):
    trained_on(str(folder / "model"))


def comparison(folder):
    compare_table(read(Comparison, folder).methods)


def outcomes(folder):
    summaries([*_kept(folder).values()])


def scan(folder):
    read(Scan, folder)


def probe(folder):
    read(Probe, folder)


def prompts(folder):
    read_prompts(folder / "prompts.jsonl")


def stored_answers(folder):
    read_exchanges(read_table(folder / "responses.jsonl"))


def planted(folder):
    """A folder with every file that is read, small and whole."""
    make_results(folder, rows=answer_rows(4)[::14], before=answer_rows(3)[::14])
    run = make_run(folder.with_name("run"))
    for name in ("run.json", "paths.json"):
        shutil.copy(run / name, folder)
    (folder / "positions.json").write_text(json.dumps(json.loads((run / "positions.json").read_text())[::11]))
    for name in ("run/guard.jsonl", "scan.json", "probe.json", "compared/compare.json", "compared/actor-0.json"):
        shutil.copy(FILES / name, folder)
    other = json.loads((folder / "actor-0.json").read_text()) | {"seed": 1}
    (folder / "actor-1.json").write_text(json.dumps(other))
    for name in ("after", "compared"):
        shutil.copy(FILES / name / "request.json", folder / f"request of {name}.json")
    rows = read_rows(ResponseRow, folder / "responses.jsonl")
    said = [
        Label(prompt=row.prompt, response=row.response, label="refusal", set=row.set, kind=row.kind) for row in rows
    ]
    (folder / "labels.csv").write_text(csv_text(said[:5]))
    write_rows(folder / "prompts.jsonl", [{"prompt": row.prompt, "kind": row.kind, "set": row.set} for row in rows])
    return folder


READERS = [
    ("results.json", report),
    ("results.json", measured_before),
    ("responses.jsonl", report),
    ("responses.jsonl", measured_before),
    ("responses.jsonl", labels),
    ("responses.jsonl", answers_go_on),
    ("responses.jsonl", stored_answers),
    ("baseline.jsonl", report),
    ("run.json", report),
    ("positions.json", report),
    ("positions.json", trained_prompts),
    ("paths.json", report),
    ("guard.jsonl", report),
    ("labels.csv", labels),
    ("request of after.json", request_goes_on),
    ("request of compared.json", compare_request_goes_on),
    ("compare.json", comparison),
    ("actor-0.json", outcomes),
    ("scan.json", scan),
    ("probe.json", probe),
    ("prompts.jsonl", prompts),
]


def places(value, place=()):
    yield place
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from places(part, (*place, key))


def nested(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


WRONG = [None, True, 0, -1, 1.5, -3.7, 1e300, -1e300, 5e-324, float("nan"), float("inf")]
WRONG += [10**18, 10**22, 10**400, -(10**400), "", "text", "\ud800", "x" * 100_000, "a\nb\x00\x1b[31m"]
WRONG += [[], [[]], [None], {}, {"\ud800": 1}, {"": []}, {"x": "y"}, nested(50), nested(500)]


def at(value, place):
    for key in place:
        value = value[key]
    return value


def mutated_json(draw, value):
    """`value` with one part dropped, replaced by something wrong or by another part, or there twice."""
    value = copy.deepcopy(value)
    every = list(places(value))[1:]
    *outer, last = draw.choice(every)
    inner = at(value, outer)
    what = draw.choice(["drop", "wrong", "wrong", "wrong", "swap", "twice"])
    if what == "drop":
        del inner[last]
    elif what == "wrong":
        inner[last] = draw.choice(WRONG)
    elif what == "swap":
        inner[last] = copy.deepcopy(at(value, draw.choice(every)))
    elif isinstance(inner, list):
        inner.append(copy.deepcopy(inner[last]))
    else:
        inner[f"{last} again"] = copy.deepcopy(inner[last])
    return value


def mutated_bytes(draw, content):
    """`content` cut, with a bit flipped, with bytes more or fewer, or with far too many digits somewhere."""
    what, place = draw.choice(["cut", "flip", "insert", "remove", "digits"]), draw.randrange(len(content))
    if what == "cut":
        return content[:place]
    if what == "flip":
        return content[:place] + bytes([content[place] ^ (1 << draw.randrange(8))]) + content[place + 1 :]
    if what == "insert":
        return content[:place] + draw.randbytes(draw.randrange(1, 8)) + content[place:]
    if what == "remove":
        return content[:place] + content[place + draw.randrange(1, 60) :]
    digits = [number for number, byte in enumerate(content) if chr(byte).isdigit()]
    place = draw.choice(digits or [place])
    return content[:place] + b"9" * draw.choice([5, 30, 400, 5000]) + content[place:]


def mutated(draw, content, name):
    if name.endswith(".csv") or draw.random() < 0.35:
        return mutated_bytes(draw, content)
    if name.endswith(".json"):
        return json.dumps(mutated_json(draw, json.loads(content))).encode()
    lines = content.splitlines()
    row = draw.randrange(len(lines))
    lines[row] = json.dumps(mutated_json(draw, json.loads(lines[row]))).encode()
    return b"\n".join(lines)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return planted(tmp_path_factory.mktemp("whole") / "folder")


@pytest.mark.parametrize(("name", "reader"), READERS)
def test_a_mutated_file_is_read_or_told_in_a_line(folder, name, reader):
    """Whole, it is read; else what is left would not be looked at. Another exception than UserError is a failure."""
    reader(folder)
    file, whole = folder / name, (folder / name).read_bytes()
    draw, told = random.Random(f"{name} {reader.__name__}"), []
    try:
        for _ in range(MUTATIONS):
            file.write_bytes(mutated(draw, whole, name))
            try:
                reader(folder)
            except UserError as error:
                told.append(str(error))
    finally:
        file.write_bytes(whole)
    assert told, "nothing was wrong with any"
    assert [line for line in told if "\n" in line or len(line) > LONGEST] == []


@pytest.mark.parametrize(
    ("name", "reader", "change", "said"),
    [
        ("results.json", report, lambda v: v["intervals"].update(safety_score=[0, 10**400]), "a smaller number"),
        (
            "results.json",
            report,
            lambda v: v["settings"].update(seed=1e300),
            r"seed: 1e\+300; expected a smaller number",
        ),
        ("paths.json", report, lambda v: v[0].update(refusal_after=[]), "expected a list of length >= 1"),
        ("request of after.json", request_goes_on, lambda v: v.update(engine="x" * 9000), "begun with engine"),
        ("actor-0.json", outcomes, lambda v: v["scores"].pop("safety_score"), "scores, a curve or figures"),
        ("actor-0.json", outcomes, lambda v: v["curve"][0].pop("safety"), "scores, a curve or figures"),
        ("actor-0.json", outcomes, lambda v: v["curve"].pop(), "scores, a curve or figures unlike other seeds'"),
        ("actor-0.json", outcomes, lambda v: v["figures"].update(threshold=1.0), "scores, a curve or figures"),
        (
            "responses.jsonl",
            answers_go_on,
            lambda v: v.update(set="x" * 9000),
            r"x+ \.\.\. .*; expected answers",
        ),
    ],
)
def test_what_a_file_has_wrong_is_said(tmp_path, name, reader, change, said):
    folder = planted(tmp_path / "folder")
    first, rest = (folder / name).read_text(), ""
    if name.endswith(".jsonl"):
        first, _, rest = first.partition("\n")
    value = json.loads(first)
    change(value)
    (folder / name).write_text(f"{json.dumps(value)}\n{rest}")
    with pytest.raises(UserError, match=said) as caught:
        reader(folder)
    assert len(str(caught.value)) < LONGEST


def test_a_cut_positions_file_and_a_request_that_is_a_number_are_said_to_be_no_such_thing(tmp_path):
    folder = planted(tmp_path / "folder")
    (folder / "positions.json").write_bytes((folder / "positions.json").read_bytes()[:100])
    with pytest.raises(UserError, match=r"positions\.json: not JSON"):
        report(folder)
    (folder / "request of after.json").write_text("5")
    with pytest.raises(UserError, match=r"request\.json: 5; expected an object; repeat that request"):
        request_goes_on(folder)


def test_long_values_are_cut_in_messages_and_control_characters_are_named():
    error = UserError("file", "kind \x1b[2J" + "x" * 100_000, "y" * 100_000, "correct it")
    assert str(error).startswith(r"file: kind \x1b[2Jxxxx")
    assert str(error).endswith("yyy; correct it")
    assert len(str(error)) < LONGEST
