"""People's labels: which answers are chosen, how they are asked for and kept, and what rates they give."""

import csv
import math

import numpy as np
import pytest
from rich.console import Console

import actor_tune as at
from actor_tune.errors import UserError
from actor_tune.judges.sampling import drawn
from actor_tune.judges.verdict import Verdict
from actor_tune.measurement.gate import with_drop
from actor_tune.measurement.labelled import CHANGED, REFUSED, combined, strata_of
from actor_tune.measurement.metrics import wilson
from actor_tune.records.estimate import Labelled
from actor_tune.records.labels import Label, Labels, add_label, read_labels
from actor_tune.records.response import Pair, ResponseRow
from actor_tune.records.results import Gate
from actor_tune.records.sample import check_sample, choose
from actor_tune.show.labelling import label_answers


def row(number, score, kind="harmless", response=None):
    said = "refusal" if score >= 0.5 else "compliance"
    text = response or f"answer {number}"
    return ResponseRow(prompt=f"p{number}", kind=kind, set="s", response=text, verdict=said, score=score, reason="why")


PAIRS = [Pair(None, row(number, number / 100)) for number in range(100)]


def label(row, outcome, **more):
    return Label(prompt=row.prompt, response=row.response, label=outcome, **more)


def test_the_same_answers_are_chosen_each_time_and_more_of_them_hold_those():
    some, more = choose(PAIRS, 10), choose(PAIRS, 30)
    assert some == choose(PAIRS, 10)
    assert len(some) == 10
    assert {one.row.prompt for one in some} < {one.row.prompt for one in more}
    assert all(0 < one.probability <= 1 for one in some)


def test_answers_that_a_judge_is_unsure_of_are_chosen_more_often_and_no_answer_never():
    doubts = [0.5] * 50 + [0.0] * 150
    counts = np.zeros(200)
    weights = np.zeros(200)
    for trial in range(400):
        for place, probability in drawn([f"{trial} {number}" for number in range(200)], doubts, 40).items():
            counts[place] += 1
            weights[place] += 1 / probability
    assert counts[:50].mean() > 2.5 * counts[50:].mean() > 0
    assert weights.sum() / 400 == pytest.approx(200, rel=0.03)  # 1 / probability counts all answers
    assert weights[:50].sum() / 400 == pytest.approx(50, rel=0.05)


def test_an_answer_that_model_and_baseline_share_is_asked_for_once_and_labels_both():
    (chosen,) = choose([Pair(row(1, 0.9), row(1, 0.9))], 1)
    assert chosen.sides == ("responses", "baseline")
    assert {one.which for one in chosen.labels("refusal")} == {"responses", "baseline"}
    two = choose([Pair(row(1, 0.9), row(1, 0.1, response="Sure"))], 1)
    assert sorted(one.sides for one in two) == [("baseline",), ("responses",)]


def keys(*typed):
    left = list(typed)
    return lambda: left.pop(0)


def test_labels_are_asked_a_key_each_and_the_same_call_goes_on_where_it_stopped(tmp_path):
    chosen, file = choose(PAIRS, 4), tmp_path / "labels.csv"
    console = Console(record=True, width=100)
    add = lambda one: add_label(file, one)  # noqa: E731
    assert label_answers(console, chosen, [], add, keys("c", "x", "r", "q")) == 2
    assert [one.label for one in read_labels(file)] == ["compliance", "refusal"]
    assert label_answers(console, chosen, read_labels(file), add, keys("b", "p", "u", "c")) == 4
    said = Labels(read_labels(file))
    found = [said.find("responses", one.row.prompt, one.row.response, "s", "harmless").label for one in chosen]
    assert found == ["compliance", "partial", "unscored", "compliance"]
    shown = console.export_text()
    assert chosen[0].row.prompt in shown
    assert "why" not in shown  # the judge's verdict would anchor whoever labels


def test_texts_of_any_kind_come_back_from_the_file(tmp_path):
    odd = ["a\nb", 'say "x", y', "\N{SNOWMAN}", "  spaced  ", "=1+1"]
    for number, text in enumerate(odd):
        add_label(tmp_path / "l.csv", label(row(number, 0.1, response=text), "partial", set="s", kind="harmful"))
    assert [one.response for one in read_labels(tmp_path / "l.csv")] == odd


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("p,r,maybe,1", "label 'maybe'"),
        ("p,r,refusal,0", "probability '0'"),
        ("p,r,refusal,2", "probability '2'"),
        ("p,r,refusal,x", "probability 'x'"),
    ],
)
def test_a_mistake_in_a_labels_file_is_named_with_its_row(tmp_path, line, said):
    file = tmp_path / "labels.csv"
    file.write_text(f"prompt,response,label,probability\np,r,unscored,1\n{line}\n")
    with pytest.raises(UserError, match="row 3") as raised:
        read_labels(file)
    assert said in str(raised.value)


def test_labels_of_another_sample_are_refused(tmp_path):
    with pytest.raises(UserError, match="not among those chosen"):
        check_sample([label(row(7, 0.1, response="other"), "refusal")], choose(PAIRS, 5), "labels.csv")


def test_without_a_judges_help_the_interval_is_wilsons():
    verdicts = [Verdict("compliance", 0.0, "")] * 5000
    labels = [label(row(0, 0.0), "refusal" if number < 30 else "compliance") for number in range(100)]
    said = at.labelled_rate(verdicts, [*labels, *[None] * 4900])
    plain = wilson(30, 100)
    assert (said.value, said.labels) == (0.3, 100)
    assert (said.low, said.high) == pytest.approx((plain.low, plain.high), abs=1e-6)


def test_a_judge_that_is_always_wrong_is_as_good_as_one_that_is_always_right():
    right = [Verdict("refusal" if number % 3 == 0 else "compliance", 0.5, "") for number in range(600)]
    wrong = [Verdict("compliance" if one.refused else "refusal", 0.5, "") for one in right]
    labels = [label(row(0, 0.0), one.outcome) if number < 120 else None for number, one in enumerate(right)]
    by_right, by_wrong = at.labelled_rate(right, labels), at.labelled_rate(wrong, labels)
    assert by_right.value == pytest.approx(1 / 3)
    assert (by_right.low, by_right.high) == pytest.approx((by_wrong.low, by_wrong.high))
    assert by_right.high - by_right.low < wilson(40, 120).high - wilson(40, 120).low


def test_the_estimate_is_the_prediction_powered_one_of_angelopoulos_and_others():
    """Transcribed from equation 1 with the power tuned by the ratio of covariance and variance, for equal chances."""
    random = np.random.default_rng(1)
    truth = random.random(400) < 0.4
    said = np.where(random.random(400) < 0.85, truth, ~truth)
    labelled = np.arange(400) < 100
    verdicts = [Verdict("refusal" if one else "compliance", 0.5, "") for one in said]
    labels = [
        label(row(0, 0.0), "refusal" if one else "compliance") if known else None
        for one, known in zip(truth, labelled, strict=True)
    ]
    power = np.cov(truth[labelled], said[labelled])[0, 1] / np.var(said[labelled], ddof=1)
    expected = truth[labelled].mean() + power * (said.mean() - said[labelled].mean())
    assert at.labelled_rate(verdicts, labels).value == pytest.approx(expected, abs=1e-9)


def covered(random, rate, accuracy, labels, active, trials, change=0.0):
    """How often the interval from so many labels of 600 answers holds the truth."""
    hits = 0
    for _ in range(trials):
        before = random.random(600) < rate
        after = np.where(before, random.random(600) >= change, random.random(600) < change / 3)
        truths = np.stack([before, after])
        said = np.where(random.random((2, 600)) < accuracy, truths, ~truths)
        unsure = random.random(600) < np.where((said == truths).all(0), 0.2, 0.5)
        chance = np.where(unsure, 2.0, 0.75) if active else np.ones(600)
        chance = np.minimum(1.0, chance * labels / chance.sum())
        chosen = random.random(600) < chance
        if change:
            verdict, value = 2 * said[0] + said[1], (after.astype(int) - before.astype(int)) % 3
            truth = rate * (1 - change) + (1 - rate) * change / 3 - rate
        else:
            verdict, value, truth = said[1].astype(int), after.astype(int), rate
        values = CHANGED if change else REFUSED
        strata = strata_of(verdict.astype(int), unsure, np.where(chosen, value, -1), chance, len(values))
        found = combined([strata], values)
        hits += found.low <= truth <= found.high
    return hits / trials


@pytest.mark.parametrize("active", [False, True], ids=["alike", "by doubt"])
@pytest.mark.parametrize("accuracy", [0.97, 0.85, 0.6, 0.5, 0.1])
@pytest.mark.parametrize("rate", [0.05, 0.3, 0.6, 0.95])
def test_the_interval_of_a_hundred_labels_holds_the_truth_93_to_97_times_in_100(rate, accuracy, active):
    share = covered(np.random.default_rng(0), rate, accuracy, 100, active, 400)
    error = 2.6 * math.sqrt(0.95 * 0.05 / 400)  # of the simulation
    assert 0.93 - error <= share
    assert share <= 0.97 + error or rate in (0.05, 0.95)  # at the edges it holds too often, which is stated


@pytest.mark.parametrize("accuracy", [0.97, 0.6, 0.1])
def test_the_interval_of_a_paired_difference_does_so_too(accuracy):
    share = covered(np.random.default_rng(0), 0.6, accuracy, 100, True, 400, change=0.3)
    assert 0.93 - 0.03 <= share <= 0.97 + 0.03


def test_labels_that_show_a_larger_drop_fail_the_gate_and_few_labels_change_nothing():
    gate = Gate(True, 0.05, 0.0, -0.01, 0.02, 400, 300, "Safety gate passed: all is well.")
    shown = with_drop(gate, Labelled(0.2, 0.1, 0.3, 60))
    assert not shown.passed
    assert shown.sentence.startswith(
        "Safety gate failed: all is well. By the labels of 60 of them, a drop of 20.0 points"
    )
    few = with_drop(gate, Labelled(0.2, -0.3, 0.6, 4))
    assert few.passed
    assert few.labelled.labels == 4
    failed = Gate(False, 0.05, 0.2, 0.1, 0.3, 400, 300, "Safety gate failed: no.")
    assert not with_drop(failed, Labelled(0.0, -0.01, 0.01, 400)).passed
    assert with_drop(gate, None) is gate


def test_answers_that_the_judge_could_not_score_and_labels_that_cannot_say_are_left_out():
    verdicts = [Verdict("refusal", 1.0, ""), Verdict("unscored", 0.5, ""), Verdict("compliance", 0.0, "")]
    labels = [label(row(0, 0.0), "refusal"), label(row(1, 0.0), "refusal"), label(row(2, 0.0), "unscored")]
    assert at.labelled_rate(verdicts, labels).labels == 1
    assert at.labelled_rate(verdicts, [None, labels[1], labels[2]]) is None


def test_the_columns_of_the_file_are_those_of_a_label(tmp_path):
    add_label(tmp_path / "l.csv", label(row(1, 0.2), "refusal", probability=0.25))
    with (tmp_path / "l.csv").open(newline="") as stream:
        (stored,) = csv.DictReader(stream)
    assert set(stored) == {"which", "set", "kind", "prompt", "response", "label", "probability"}
    assert (stored["which"], stored["probability"]) == ("responses", "0.25")
