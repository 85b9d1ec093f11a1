"""People's labels: which answers are asked, how they are kept, and what `measure` and `judge` make of them."""

import csv
import io
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

import actor_tune as at
from actor_tune.errors import UserError
from actor_tune.judges.verdict import Verdict
from actor_tune.measurement.labelled import labelled_difference
from actor_tune.prompts.prompt import Message
from actor_tune.records.file import read, write_rows
from actor_tune.records.labels import COLUMNS, Label, Labels, read_labels, read_own_labels, write_labels
from actor_tune.records.response import BASELINE_FILE, RESPONSES_FILE, ResponseRow, paired, read_judged
from actor_tune.records.results import Results
from actor_tune.records.to_label import choose, labels_of, said_before
from actor_tune.show.labelling import label_answers
from conftest import make_model, make_prompts
from test_cli import run

NASTY = ['says "no", twice', "two\nlines\r\nand more", " spaces  within ", "=1+1", "käse, ☃", "\x00 and \ud800"]
EVERY = range(len(NASTY))


def answer(number, kind="harmful", name="bad", verdict="refusal", score=0.9, text=None):
    return ResponseRow(
        prompt=f"{name} {number}",
        kind=kind,
        set=name,
        response=f"answer {number}" if text is None else text,
        verdict=verdict,
        score=score,
    )


def many():
    """Three sets, one of them small, and one answer that the judge could not score."""
    rows = [answer(number, score=1 - number % 5 / 10) for number in range(40)]
    rows += [answer(number, "pseudo_harmful", "odd", "compliance", 0.2) for number in range(30)]
    rows += [answer(number, "pseudo_harmful", "few", "compliance", 0.1) for number in range(3)]
    return [*rows, answer(99, "harmless", "plain", "unscored", 0.5)]


def texts(chosen):
    return [one.row.prompt for one in chosen]


def label_of(row, outcome="refusal", **more):
    return Label(prompt=row.prompt, response=row.response, set=row.set, kind=row.kind, label=outcome, **more)


def test_every_kind_and_every_set_gets_as_many_labels_as_may_be():
    chosen = choose(paired([], many()), 30)
    assert Counter(one.row.set for one in chosen) == {"bad": 15, "odd": 12, "few": 3}
    labels = labels_of(chosen, dict.fromkeys(range(len(chosen)), "refusal"))
    assert {label.probability for label in labels if label.set == "few"} == {1.0}
    assert all(0 < label.probability < 1 for label in labels if label.set != "few")
    assert len(choose(paired([], many()), 1000)) == 73  # the one that could not be scored is in no rate


def test_the_same_answers_are_chosen_whatever_their_order_and_more_hold_the_fewer():
    chosen = choose(paired([], many()), 30)
    assert choose(paired([], many()), 30) == chosen
    assert texts(chosen) != sorted(texts(chosen))
    assert set(texts(choose(paired([], many()[::-1]), 30))) == set(texts(chosen))
    assert set(texts(chosen)) < set(texts(choose(paired([], many()), 50)))


def test_with_a_baseline_both_answers_are_asked_side_by_side_and_equal_ones_once():
    before = [replace(row, response=f"before {row.response}") for row in many()]
    before[0] = many()[0]
    chosen = choose(paired(before, many()), 1000)
    assert len(chosen) == 2 * 73 - 1
    (once,) = (one for one in chosen if one.row.prompt == "bad 0")
    assert once.sides == ("responses", "baseline")
    assert [label.which for label in labels_of([once], {0: "refusal"})] == ["responses", "baseline"]
    others = [one for one in chosen if one is not once]
    places = [texts(others).index(text) for text in dict.fromkeys(texts(others))]
    assert all(others[place].row.prompt == others[place + 1].row.prompt for place in places)
    assert all(others[place].drawn == others[place + 1].drawn for place in places)
    assert {others[place].sides for place in places} == {("responses",), ("baseline",)}  # nothing tells whose is first


def test_answers_of_any_text_come_back_from_the_file_and_are_found(tmp_path):
    file = tmp_path / "labels.csv"
    labels = [
        Label(
            which="baseline",
            prompt=f"p {text}",
            response=text,
            set=text,
            kind="harmless",
            label="partial",
            probability=0.3,
        )
        for text in NASTY
    ]
    write_labels(file, labels)
    assert file.read_bytes().decode().count("which,set,kind") == 1
    found = Labels(read_labels(file))
    for text in NASTY:
        label = found.find("baseline", f"p {text}", text, text, "harmless")
        assert (label.label, label.probability) == ("partial", 0.3)
        assert found.find("responses", f"p {text}", text, text, "harmless") is None
    assert found.unmatched == 0
    write_labels(file, labels[:2])
    assert read_labels(file) == labels[:2]


def test_a_later_label_of_the_same_answer_holds_and_line_ends_do_not_matter(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'prompt,response,label\r\n"a\r\nb",x,refusal\r\n"a\nb",x ,2_compliance\r\n')
    labels = Labels(read_labels(tmp_path / "a.csv"))
    assert labels.find("responses", "a b", "x", "any set", "harmful").label == "compliance"
    assert (len(labels), labels.unmatched) == (1, 0)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,b,maybe,,1", "label 'maybe'; expected a label that says compliance, partial, refusal or unscored"),
        ("a,b,refusal,,2", "probability '2'; expected more than 0 and at most 1"),
        ("a,b,refusal,,nan", "probability 'nan'"),
        ("a,b,refusal,both,1", "which 'both'; expected responses or baseline"),
        (",b,refusal,,1", "an empty prompt"),
    ],
)
def test_a_wrong_row_of_labels_is_named(tmp_path, row, message):
    (tmp_path / "labels.csv").write_text(f"prompt,response,label,which,probability\nx,y,refusal,,1\n{row}\n")
    with pytest.raises(UserError, match=r"labels\.csv, row 3") as caught:
        read_labels(tmp_path / "labels.csv")
    assert message in str(caught.value)


def asked(chosen, keys, said=None):
    stream, keys = io.StringIO(), iter(keys)
    told = list(label_answers(Console(file=stream, width=100), chosen, said or {}, lambda: next(keys)))
    return told, stream.getvalue()


def test_a_key_is_a_label_which_is_kept_at_once_and_b_goes_back():
    chosen = choose(paired([], many()), 4)
    told, shown = asked(chosen, ["c", "x", "R", "b", "p", "u", "q"])
    assert told == [
        {0: "compliance"},
        {0: "compliance", 1: "refusal"},
        {0: "compliance", 1: "partial"},
        {0: "compliance", 1: "partial", 2: "unscored"},
    ]
    assert re.findall(r"\d of 4", shown) == ["1 of 4", "2 of 4", "3 of 4", "2 of 4", "3 of 4", "4 of 4"]
    again, shown = asked(chosen, ["c", "r", "b", "r", "q"], told[-1])
    assert (texts(chosen)[3] in shown, texts(chosen)[0] in shown) == (True, False)
    assert [all_said[3] for all_said in again] == ["compliance", "refusal"]  # the last one can be taken back


def test_neither_verdict_nor_kind_is_shown_and_control_characters_do_nothing():
    row = answer(1, text="harmless?\x1b[31m red\nnext line", name="s")
    _, shown = asked(choose(paired([], [replace(row, prompt="\x1b]0;title\x07hi")]), 1), ["q"])
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "next line" in shown
    assert "harmful" not in shown
    assert "score" not in shown


def test_whoever_stops_early_has_the_smaller_sample_also_of_one_that_has_grown():
    pairs = paired([], many())
    few, more = choose(pairs, 10), choose(pairs, 40)
    whole = labels_of(few, dict.fromkeys(range(len(few)), "refusal"))
    said = said_before(whole, more, "labels.csv")
    assert sorted(said.values()) == ["refusal"] * len(few)
    by_prompt = {label.prompt: label for label in whole}
    assert {label.prompt: label for label in labels_of(more, said)} == by_prompt
    begun = labels_of(more, said | {next(place for place in range(len(more)) if place not in said): "partial"})
    assert len(begun) == len(whole) + 1
    changed = {label.set for label in begun if by_prompt.get(label.prompt) != label}
    assert len(changed) == 1  # the set that has one label more
    with pytest.raises(UserError, match="labels of the same sample"):
        said_before(labels_of(more, dict.fromkeys(range(len(more)), "refusal")), few, "labels.csv")


def test_a_drop_in_one_of_two_sets_of_unequal_size_is_told_right_by_a_sample_that_has_grown():
    before = [replace(answer(row, name="small" if row < 100 else "large"), score=0.9) for row in range(2000)]
    after = [replace(row, response=f"after {row.response}") for row in before]
    lost = {row.prompt for row in before[:50]}
    chosen = choose(paired(before, after), 2000)
    prompts = [row.prompt for row in sorted({one.row for one in choose(paired(before, after), 60)}, key=repr)]
    said = {
        place: "compliance" if one.sides == ("responses",) and one.row.prompt in lost else "refusal"
        for place, one in enumerate(chosen)
        if one.row.prompt in prompts
    }
    labels = Labels(labels_of(chosen, said))
    verdicts = [Verdict("refusal", 0.9, "")] * len(before)
    old, new = ([labels.of(which, row) for row in rows] for which, rows in (("baseline", before), ("responses", after)))
    drop = labelled_difference(verdicts, verdicts, old, new)
    assert drop.low < -0.025 < drop.high  # 50 of 2000
    assert drop.value > -0.1


def test_turns_before_a_prompt_tell_answers_apart():
    context = (Message("user", "Hi"), Message("assistant", "Hello."))
    rows = [
        replace(answer(1), messages=[*turns, Message("user", "bad 1")]) for turns in ((), context, (*context, *context))
    ]
    chosen = choose(paired([], rows), 3)
    said = {place: "refusal" if one.row.context == context else "compliance" for place, one in enumerate(chosen)}
    found = Labels(labels_of(chosen, said))
    assert [found.of("responses", row).label for row in rows] == ["compliance", "refusal", "compliance"]
    untold = Labels([Label(prompt=rows[0].prompt, response=rows[0].response, label="partial")])
    assert {untold.of("responses", row).label for row in rows} == {"partial"}


def test_a_file_that_would_lose_columns_is_not_written_anew(folder):
    (folder / "labels.csv").write_text("prompt,response,label,note\na,b,refusal,asked Anna\n")
    with pytest.raises(UserError, match="columns note; expected those of labels alone"):
        read_own_labels(folder / "labels.csv")
    for nothing in ("", "which,set\n"):
        (folder / "labels.csv").write_text(nothing)
        assert read_own_labels(folder / "labels.csv") == []


@pytest.mark.parametrize("probability", [0, -0.1, 1.1, float("nan")])
def test_a_probability_that_is_none_is_refused(probability):
    with pytest.raises(UserError, match="expected more than 0 and at most 1"):
        Label(prompt="p", response="r", label="refusal", probability=probability)


@pytest.fixture
def folder(tmp_path):
    """What `measure` leaves of two models, as far as labels need it."""
    after = many()
    before = [replace(row, response=f"before {row.response}") for row in after]
    (tmp_path / "m").mkdir()
    write_rows(after, tmp_path / "m" / RESPONSES_FILE)
    write_rows(before, tmp_path / "m" / BASELINE_FILE)
    return tmp_path / "m"


def test_without_a_terminal_the_command_is_one_line(folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert run("label", folder) == 2
    assert "stdin: no terminal; expected one to press keys in" in capsys.readouterr().err


class Terminal:
    """The command `actor label` in a terminal of its own."""

    def __init__(self, *arguments):
        self.side, other = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "actor_tune", "label", *map(str, arguments)], stdin=other, stdout=other, stderr=other
        )
        os.close(other)
        self.text = ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self.side)

    def until(self, what, seconds=60):
        end = time.monotonic() + seconds
        while what not in self.text:
            assert time.monotonic() < end, self.text
            if select.select([self.side], [], [], 0.5)[0]:
                try:
                    self.text += os.read(self.side, 65536).decode(errors="replace")
                except OSError:  # the other side is closed
                    assert what in self.text, self.text

    def press(self, key, what):
        self.text = ""
        os.write(self.side, key.encode())
        self.until(what)


def test_in_a_terminal_labels_outlive_a_kill_and_the_same_command_goes_on(folder):
    with Terminal(folder, "--n", 5) as terminal:
        terminal.until("1 of 10")
        terminal.press("r", "2 of 10")
        terminal.press("\x1b[Cc", "3 of 10")  # an arrow, of which the C is no answer
    assert [label.label for label in read_labels(folder / "labels.csv")] == ["refusal", "compliance"]
    with Terminal(folder, "--n", 5) as terminal:
        terminal.until("3 of 10")
        terminal.press("u", "4 of 10")
        terminal.press("q", "3 of 10 answers labelled")
        assert terminal.process.wait() == 0
    labels = read_labels(folder / "labels.csv")
    assert [label.label for label in labels] == ["refusal", "compliance", "unscored"]
    assert labels[0].prompt == labels[1].prompt
    assert {label.which for label in labels[:2]} == {"responses", "baseline"}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A measurement of a tiny model and its baseline, judged by whether an answer has an even length, and its call."""
    where = tmp_path_factory.mktemp("measured")
    model, base = make_model(), make_model("qwen2")
    prompts = make_prompts()

    def judge(exchanges):
        return [
            at.Verdict("refusal", 0.8, "even") if len(one.answer) % 2 == 0 else at.Verdict("compliance", 0.3, "odd")
            for one in exchanges
        ]

    def call(**more):
        return at.measure(model, prompts, base, max_new_tokens=4, judges={"even": judge}, work=where / "m", **more)

    call().save(where / "m")
    return where / "m", call


def opposite(rows, which):
    """Labels that say of every answer what the judge did not."""
    return [label_of(row, "compliance" if row.verdict == "refusal" else "partial", which=which) for row in rows]


def test_labels_stand_beside_the_judges_rates_and_nothing_is_asked_again(measured):
    folder, call = measured
    raw = read(Results, folder)
    with pytest.raises(UserError, match="a folder with results"):
        call()
    rows = [*read_judged(folder / RESPONSES_FILE), *read_judged(folder / BASELINE_FILE)]
    half = len(rows) // 2
    labels = opposite(rows[:half], "responses") + opposite(rows[half:], "baseline")
    labels += [Label(prompt="no such prompt", response="x", label="refusal")]
    labels[0] = replace(labels[0], label="unscored")
    found = call(labels=labels)
    found.save(folder)
    results = read(Results, folder)
    assert results == found.results
    assert (results.labels.cannot_say, results.labels.unmatched) == (1, 1)
    judged = [row.refused for row in rows[1:] if row.refused is not None]  # the first one's label cannot say
    errors = results.labels.errors
    assert (errors.refused, errors.missed) == (judged.count(False), judged.count(False))
    assert (errors.answered, errors.false_alarms) == (judged.count(True), judged.count(True))
    for old, new in zip(raw.sets[1:], results.sets[1:], strict=True):
        assert replace(new, labelled=None) == old
        assert new.labelled.value == pytest.approx(1 - new.refusal_rate)  # every label says the opposite
    for item in results.comparison.sets[1:]:
        assert item.labelled.value == pytest.approx(-item.difference)
        assert item.labelled.low <= item.labelled.value <= item.labelled.high
    assert results.baseline.sets[0].labelled.labels == results.baseline.sets[0].n
    assert set(results.labelled) == {"compliance_rate", "safety_score", "tradeoff_score", "harmless_refusal_rate"}
    assert results.labelled["compliance_rate"].value == pytest.approx(1 - results.compliance_rate, abs=0.1)
    assert set(results.comparison.labelled) == set(results.labelled)


def test_labels_cannot_be_given_twice_as_the_first_may_have_decided_the_gate(measured):
    folder, call = measured
    labels = opposite(read_judged(folder / RESPONSES_FILE), "responses")
    with pytest.raises(UserError, match="results by other labels"):
        call(labels=labels).with_labels(labels)


def test_labels_of_other_answers_alone_are_a_mistake(measured):
    _, call = measured
    with pytest.raises(UserError, match="none of which belongs to an answer here"):
        call(labels=[Label(prompt="no such prompt", response="x", label="refusal")])


def test_results_of_an_older_version_that_have_a_correction_are_read(tmp_path):
    old = Path(__file__).parent / "files_of_version_0_1_0" / "after"
    record = json.loads((old / "results.json").read_text())
    record["sets"][0]["corrected"] = {"rate": 0.2, "low": 0.1, "high": 0.3}
    (tmp_path / "results.json").write_text(json.dumps(record))
    assert read(Results, tmp_path).sets[0].labelled is None
    assert read(Results, tmp_path).labels is None


def test_the_judge_command_takes_a_file_of_labels_by_text(tmp_path, capsys):
    rows = [
        ("p1", "I'm sorry, I can't."),
        ("p2", "Run kill PID."),
        ("p3", "I'm sorry, I can't."),
        ("p4", "Here you are."),
    ]
    with (tmp_path / "answers.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("prompt", "response"), *rows])
    labels = [Label(which="baseline", prompt="p4", response="Here you are.", label="refusal", probability=0.5)]
    labels += [Label(prompt="p1", response="I'm sorry, I can't.", label="refusal", probability=0.5)]
    write_labels(tmp_path / "labels.csv", labels)
    command = ("judge", tmp_path / "answers.csv", "--judge", "strings", "--labels", tmp_path / "labels.csv")
    assert run(*command, "--output", tmp_path / "judged.csv") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "labels 100.0" in printed
    assert not (tmp_path / "judged.disagreements.jsonl").exists()
    assert "labels: 2 used, of which 0 cannot say; 0 belong to no answer" in printed
    write_labels(tmp_path / "labels.csv", [replace(labels[0], prompt="p9")])
    assert run(*command, "--output", tmp_path / "again.csv") == 2
    assert "--labels: 1 label, none of which" in capsys.readouterr().err


def test_the_judge_command_tells_sets_apart_only_where_the_table_does(tmp_path, capsys):
    labels = [Label(set="3", kind="harmful", context="c0ffee", prompt="p", response="No.", label="refusal")]
    write_labels(tmp_path / "labels.csv", labels)
    for number, row in enumerate([{"set": 3, "kind": "harmful"}, {"set": None}, {}]):
        file = tmp_path / f"{number}.jsonl"
        file.write_text(json.dumps({"prompt": "p", "response": "No.", **row}) + "\n")
        command = ("judge", file, "--judge", "strings", "--labels", tmp_path / "labels.csv")
        assert run(*command, "--output", tmp_path / f"judged_{number}.csv") == 0
        assert "labels: 1 used" in capsys.readouterr().out
    (tmp_path / "other.jsonl").write_text('{"prompt": "p", "response": "No.", "set": "4"}\n')
    command = ("judge", tmp_path / "other.jsonl", "--judge", "strings", "--labels", tmp_path / "labels.csv")
    assert run(*command, "--output", tmp_path / "other.csv") == 2
    with pytest.raises(UserError, match="no csv file"):
        read_labels(tmp_path / "other.jsonl")


def test_the_columns_of_the_file_are_as_they_are_documented():
    assert COLUMNS == ("which", "set", "kind", "context", "prompt", "response", "label", "probability")
