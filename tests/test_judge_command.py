import csv
import datetime
import io
import json
import subprocess
import sys

import pytest
from rich.console import Console

from actor_tune.errors import UserError
from actor_tune.judges.agreement import agreement
from actor_tune.judges.rows import human_verdicts, read_exchanges
from actor_tune.judges.verdict import Verdict
from actor_tune.show.judges import agreement_table, rates_table
from actor_tune.storage.tables import Row
from test_cli import run

ANSWERS = ["I'm sorry, I can't.", "Run kill PID.", "Well, I cannot do this.", "", "Here you are."]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_jsonl(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def answers_file(tmp_path):
    rows = [
        {"id": number, "prompt": f"p{number}", "response": answer, "nested": {"a": [1]}, "verdict": "stale"}
        for number, answer in enumerate(ANSWERS)
    ]
    return write_jsonl(tmp_path / "answers.jsonl", rows)


def text_of(table):
    stream = io.StringIO()
    Console(file=stream, width=200, markup=False).print(table)
    return stream.getvalue()


def test_one_judge_adds_three_columns_and_keeps_the_others(tmp_path, answers_file, capsys):
    output = tmp_path / "judged.jsonl"
    assert run("judge", answers_file, "--output", output, "--judge", "strings") == 0
    judged = read_jsonl(output)
    assert [row["verdict"] for row in judged] == ["refusal", "compliance", "compliance", "unscored", "compliance"]
    assert judged[0] == {
        "id": 0,
        "prompt": "p0",
        "response": ANSWERS[0],
        "nested": {"a": [1]},
        "verdict": "refusal",
        "score": 1.0,
        "reason": 'begins with "i\'m sorry"',
    }
    # 1 of 4 scored; Wilson's interval of 1/4.
    assert "[4.6, 69.9]" in capsys.readouterr().out
    assert not (tmp_path / "judged.disagreements.jsonl").exists()


def test_several_judges_get_columns_each_their_agreement_and_the_disagreements(tmp_path, answers_file, capsys):
    output = tmp_path / "judged.csv"
    assert run("judge", answers_file, "--output", output, "--judge", "trained", "--judge", "strings") == 0
    with output.open(encoding="utf-8", newline="") as stream:
        judged = list(csv.DictReader(stream))
    added = [
        f"{column}{suffix}" for suffix in ("", "_trained", "_strings") for column in ("verdict", "score", "reason")
    ]
    assert set(judged[0]) == {"id", "prompt", "response", "nested", *added}
    assert json.loads(judged[0]["nested"]) == {"a": [1]}
    assert [row["verdict_strings"] for row in judged] == [
        "refusal",
        "compliance",
        "compliance",
        "unscored",
        "compliance",
    ]
    assert all(row["verdict"] == row["verdict_trained"] for row in judged)
    (differing,) = read_jsonl(tmp_path / "judged.disagreements.jsonl")
    assert (differing["row"], differing["on_refusal"], differing["response"]) == (3, True, ANSWERS[2])
    assert (differing["verdict_trained"], differing["verdict_strings"]) == ("refusal", "compliance")
    printed = capsys.readouterr().out
    assert "trained / strings" in printed
    assert "Judges disagree on 1 answers" in printed
    assert "Unscored: 1 x empty answer" in printed
    assert "trained: refusal, strings: compliance" in printed


def test_human_labels_are_a_further_judge(tmp_path, capsys):
    labels = ["1_full_compliance", "2_full_refusal", "3_partial_refusal"]
    rows = [
        {"prompt": "p", "completion": answer, "final_label": label}
        for answer, label in zip(["Sure.", "Sorry, no.", "Never do this. But:"], labels, strict=True)
    ]
    file = write_jsonl(tmp_path / "a.jsonl", rows)
    arguments = ("--judge", "strings", "--labels", "final_label")
    assert run("judge", file, "--output", tmp_path / "o.jsonl", *arguments) == 0
    assert [row["verdict_human"] for row in read_jsonl(tmp_path / "o.jsonl")] == ["compliance", "refusal", "partial"]
    assert [row["row"] for row in read_jsonl(tmp_path / "o.disagreements.jsonl")] == [3]
    assert "strings / human" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("label", "outcome"),
    [
        ("1_full_compliance", "compliance"),
        ("Compliance", "compliance"),
        ("2_full_refusal", "refusal"),
        ("refused", "refusal"),
        ("3_partial_refusal", "partial"),
        ("partial compliance", "partial"),
        ("unscored", "unscored"),
    ],
)
def test_labels_are_read_by_what_they_contain(tmp_path, label, outcome):
    assert human_verdicts([Row(tmp_path, 1, {"label": label})], "label")[0].outcome == outcome


@pytest.mark.parametrize("label", ["yes", "non-compliance", "non-refusal", "noncompliance", "unscored refusal", ""])
def test_a_label_that_says_nothing_is_a_mistake(tmp_path, label):
    with pytest.raises(UserError, match="label"):
        human_verdicts([Row(tmp_path, 1, {"label": label})], "label")


def test_rates_are_given_by_set_and_kind_where_there_are_any(tmp_path):
    cells = [{"set": "x", "kind": "harmful"}, {"set": "x", "kind": "harmless"}, {"set": "x", "kind": "harmful"}]
    rows = [Row(tmp_path, number, entry) for number, entry in enumerate(cells)]
    given = [Verdict("partial", 1.0, ""), Verdict("unscored", 0.5, ""), Verdict("compliance", 0.0, "")]
    printed = text_of(rates_table(rows, {"j": given}))
    table = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if line.startswith("│")]
    assert table[:3] == [
        ["j", "1", "1", "0", "0", "50.0"],
        ["x", "", "", "", "", "[9.5, 90.5]"],
        ["harmful", "", "", "", "", ""],
    ]
    assert table[3] == ["j", "0", "0", "0", "1", "-"]  # none scored: no rate, not 0 %


def test_an_undefined_kappa_is_a_dash():
    refusal = [Verdict("refusal", 1.0, "")]
    line = next(
        line
        for line in text_of(agreement_table([agreement("a", refusal, "b", refusal)])).splitlines()
        if "a / b" in line
    )
    assert [cell.strip() for cell in line.split("│")[1:-1]] == ["a / b", "1", "-", "-"]


def test_hostile_answers_neither_drive_the_terminal_nor_stop_the_writing(tmp_path, capsys):
    hostile = "I cannot \x1b[31m[red]x[/red] \x1b]0;title\x07 \ud800 <script>alert(1)</script>"
    rows = [{"prompt": "[/bold] \x1b[2J", "response": "Well, " + hostile, "set": "\x1b[1m[blink]s"}]
    file = write_jsonl(tmp_path / "a.jsonl", rows)
    for name in ("o.jsonl", "o.csv"):
        assert run("judge", file, "--output", tmp_path / name, "--judge", "trained", "--judge", "strings") == 0
        (tmp_path / "o.disagreements.jsonl").unlink()
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "\x07" not in printed
    assert "[red]x[/red]" in printed
    assert read_jsonl(tmp_path / "o.jsonl")[0]["response"] == "Well, " + hostile.replace("\ud800", "?")


def test_csv_and_parquet_are_read_and_odd_cells_kept_as_text(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra parquet")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {"prompt": ["p"], "response": [None], "day": [datetime.date(2024, 1, 2)], "number": [float("nan")]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    assert run("judge", tmp_path / "a.parquet", "--output", tmp_path / "o.jsonl", "--judge", "strings") == 0
    (row,) = read_jsonl(tmp_path / "o.jsonl")
    assert (row["verdict"], row["day"], row["number"]) == ("unscored", "2024-01-02", "nan")


def test_completion_is_read_where_there_is_no_response(tmp_path):
    assert read_exchanges([Row(tmp_path, 1, {"prompt": "p", "completion": "c"})])[0].answer == "c"
    assert read_exchanges([Row(tmp_path, 1, {"prompt": "p", "completion": "c", "response": "r"})])[0].answer == "r"


MISTAKES = {
    "no prompt": ({"response": "a"}, [], "row 1: no column `prompt` (columns: response)"),
    "no answer": ({"prompt": "a"}, [], "row 1: no column `response` or `completion` (columns: prompt)"),
    "answer is a number": ({"prompt": "a", "response": 3}, [], "`response` is '3'; expected a string"),
    "no such label column": ({"prompt": "a", "response": "b"}, ["--labels", "human"], "no column `human`"),
    "no such judge": ({"prompt": "a", "response": "b"}, ["--judge", "vibes"], "--judge vibes: no such judge"),
    "other output": ({"prompt": "a", "response": "b"}, ["--output", "o.txt"], "expected .jsonl or .csv"),
    "output exists": ({"prompt": "a", "response": "b"}, ["--output", "a.jsonl"], "a.jsonl exists; expected a new file"),
    "no such folder": ({"prompt": "a", "response": "b"}, ["--output", "x/o.csv"], "no folder x"),
}


@pytest.mark.parametrize("mistake", sorted(MISTAKES))
def test_a_mistake_gets_one_line_and_status_2_and_writes_nothing(mistake, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells, options, message = MISTAKES[mistake]
    write_jsonl(tmp_path / "a.jsonl", [cells])
    before = sorted(tmp_path.iterdir())
    arguments = options if "--output" in options else ["--output", "o.jsonl", *options]
    assert run("judge", "a.jsonl", *arguments) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert sorted(tmp_path.iterdir()) == before


def test_an_earlier_list_of_disagreements_is_not_overwritten(tmp_path, answers_file, capsys):
    (tmp_path / "o.disagreements.jsonl").touch()
    arguments = ("--output", tmp_path / "o.jsonl", "--judge", "trained", "--judge", "strings")
    assert run("judge", answers_file, *arguments) == 2
    assert "o.disagreements.jsonl exists" in capsys.readouterr().err


def test_help_names_the_judges_and_imports_no_torch():
    code = (
        "import sys; from actor_tune.commands.cli import main; sys.argv = ['actor', 'judge', '--help']\n"
        "try: main()\nexcept SystemExit: pass\nassert not {'torch', 'sklearn', 'scipy'} & set(sys.modules)"
    )
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr
    for name in ("wildguard=MODEL", "--judge-base-url", "--labels"):
        assert name in outcome.stdout


def test_judging_by_text_needs_no_torch(tmp_path, answers_file):
    code = (
        "import sys; from actor_tune.commands.cli import main\n"
        f"sys.argv = ['actor', 'judge', {str(answers_file)!r}, '--output', {str(tmp_path / 'o.jsonl')!r}]\n"
        "try: main()\nexcept SystemExit as stop: assert not stop.code\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr
    assert len(read_jsonl(tmp_path / "o.jsonl")) == len(ANSWERS)


def test_a_file_of_labels_gives_the_rate_that_people_say(tmp_path, capsys):
    answers = [f"Sorry, I can't do {number}." for number in range(20)]
    write_jsonl(tmp_path / "a.jsonl", [{"prompt": "p", "response": answer} for answer in answers])
    lines = [f'p,"{answer}",compliance' for answer in answers[:10]]
    (tmp_path / "labels.csv").write_text("\n".join(["prompt,response,label", *lines]) + "\n")
    arguments = ("--labels", tmp_path / "labels.csv", "--output", tmp_path / "o.jsonl")
    assert run("judge", tmp_path / "a.jsonl", "--judge", "strings", *arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    last = [line.split("│")[-2].strip() for line in lines if line.startswith("│")]
    assert last == ["100.0", "[83.9, 100.0]", "labels 0.0", "[0.0, 27.8]"]  # the judge is wrong each time
    assert max(map(len, lines[:-1])) <= 80
