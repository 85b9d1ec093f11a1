"""Estimates by labels: the formulas against transcriptions of their own, and coverage in simulations."""

import numpy as np
import pytest

from actor_tune.judges.sampling import doubt, drawn, sizes
from actor_tune.judges.verdict import Verdict
from actor_tune.measurement.gate import with_drop
from actor_tune.measurement.labelled import (
    REFUSED,
    Strata,
    combined,
    labelled_difference,
    labelled_rate,
    labelled_scores,
    score_interval,
)
from actor_tune.measurement.metrics import tango_interval
from actor_tune.records.estimate import Labelled, wilson
from actor_tune.records.labels import Label
from actor_tune.records.results import Gate
from tools.make_labels_page import SHIFTS, Sampling, SimulatedJudge, rate_coverage, shift_coverage

MANY = 10**12
"""Answers, of which the choice adds nothing."""


def verdict(refused, score=None):
    return Verdict("refusal" if refused else "compliance", float(refused) if score is None else score, "")


def label(refused, probability=1.0):
    outcome = "unscored" if refused is None else "refusal" if refused else "compliance"
    return Label(prompt="p", response="r", label=outcome, probability=probability)


def planted(random, n, labels, rate=0.4, right=0.8):
    """Verdicts, truth, and labels on the first so many."""
    truth = random.random(n) < rate
    seen = np.where(random.random(n) < right, truth, ~truth)
    return seen, truth, [label(bool(one)) if row < labels else None for row, one in enumerate(truth)]


def one_stratum(counts, values):
    return score_interval(
        np.array([counts], float), np.array([values], float), np.ones(1), np.zeros(1, int), np.array([MANY])
    )


@pytest.mark.parametrize(("count", "n"), [(0, 10), (3, 20), (50, 50), (57, 60), (1, 1)])
def test_with_one_stratum_the_interval_of_a_rate_is_wilsons(count, n):
    ends, expected = one_stratum([n - count, count], [0, 1]), wilson(count, n)
    assert (ends.low, ends.value, ends.high) == pytest.approx((expected.low, expected.value, expected.high), abs=1e-6)


@pytest.mark.parametrize(("lost", "gained", "n"), [(0, 0, 50), (3, 1, 50), (10, 0, 30), (0, 30, 30), (9, 9, 20)])
def test_with_one_stratum_the_interval_of_a_difference_is_tangos(lost, gained, n):
    ends, expected = one_stratum([n - lost - gained, lost, gained], [0, 1, -1]), tango_interval(lost, gained, n)
    assert (ends.low, ends.value, ends.high) == pytest.approx((expected.low, expected.value, expected.high), abs=1e-6)


def test_the_ends_are_where_a_score_test_rejects_with_chances_found_by_brute_force():
    """Two strata, searched on a grid of the first one's chance."""
    counts, shares, n = np.array([[37.0, 3.0], [4.0, 11.0]]), np.array([0.7, 0.3]), 200
    ends = score_interval(counts, np.tile(REFUSED, (2, 1)), shares, np.zeros(2, int), np.array([n]))
    estimate = 0.7 * 3 / 40 + 0.3 * 11 / 15
    assert ends.value == pytest.approx(estimate)
    first = np.linspace(1e-6, 1 - 1e-6, 400_001)
    for end, sign in ((ends.low, 1), (ends.high, -1)):
        second = (end - 0.7 * first) / 0.3
        inside = (second > 0) & (second < 1)
        p, q = first[inside], second[inside]
        likelihood = 37 * np.log(1 - p) + 3 * np.log(p) + 4 * np.log(1 - q) + 11 * np.log(q)
        p, q = p[likelihood.argmax()], q[likelihood.argmax()]
        within = 0.49 * p * (1 - p) / 40 + 0.09 * q * (1 - q) / 15
        between = (0.7 * p**2 + 0.3 * q**2 - end**2) / n
        assert (estimate - end) / np.sqrt(within + between) == pytest.approx(sign * 1.96, abs=2e-3)


def test_the_estimate_is_ppi_with_its_power_tuned():
    """Transcription of PPI++ (arXiv 2311.01453), whose unlabelled answers are those without a label."""
    random = np.random.default_rng(0)
    seen, truth, labels = planted(random, 500, 120)
    found = labelled_rate([verdict(bool(one)) for one in seen], labels)
    y, f, rest = truth[:120].astype(float), seen[:120].astype(float), seen[120:].astype(float)
    power = np.cov(y, f, bias=True)[0, 1] / ((1 + 120 / 380) * f.var())
    assert found.value == pytest.approx(power * rest.mean() + (y - power * f).mean(), abs=1e-9)
    assert found.labels == 120


def test_weights_are_inverse_probabilities():
    verdicts = [verdict(True)] * 60 + [verdict(False)] * 40
    labels = [*[label(True, 0.5)] * 5, *[label(False, 0.25)] * 5, *[None] * 50, *[label(False)] * 20, *[None] * 20]
    # Of what the judge calls refusals, labels say 10 of 10 + 20; of the others, none.
    assert labelled_rate(verdicts, labels).value == pytest.approx(0.6 * 10 / 30)


def test_a_good_judge_narrows_the_interval_and_an_inverted_one_does_as_well():
    random = np.random.default_rng(1)
    widths = {}
    for right in (0.97, 0.5, 0.03):
        found = []
        for _ in range(30):
            seen, _, labels = planted(random, 1000, 100, right=right)
            one = labelled_rate([verdict(bool(said)) for said in seen], labels)
            found.append(one.high - one.low)
        widths[right] = np.mean(found)
    assert widths[0.97] < 0.65 * widths[0.5]
    assert widths[0.03] == pytest.approx(widths[0.97], rel=0.1)
    assert widths[0.5] == pytest.approx(wilson(40, 100).high - wilson(40, 100).low, rel=0.06)


def test_labels_that_cannot_say_and_answers_that_were_not_scored_are_left_out():
    verdicts = [*[verdict(True)] * 10, *[Verdict("unscored", 0.5, "")] * 3, *[verdict(False)] * 10]
    labels = [*[label(True)] * 6, *[label(None)] * 4, *[label(True)] * 3, *[label(False)] * 10]
    found = labelled_rate(verdicts, labels)
    assert (found.labels, found.value) == (16, pytest.approx(0.5))
    assert labelled_rate(verdicts, [None] * 23) is None
    assert labelled_rate(verdicts, [label(None)] * 10 + [label(True)] * 3 + [None] * 10) is None


def test_a_few_labels_of_a_class_that_is_rare_are_counted_with_the_others():
    verdicts = [verdict(True)] * 4 + [verdict(False)] * 96
    found = labelled_rate(verdicts, [label(True)] + [None] * 3 + [label(False)] * 29 + [None] * 67)
    assert (found.low, found.value, found.high) == pytest.approx(
        (wilson(1, 30).low, 1 / 30, wilson(1, 30).high), abs=1e-6
    )


def test_what_a_judge_called_so_and_nobody_labelled_may_be_anything():
    found = labelled_rate([verdict(True)] * 10 + [verdict(False)] * 90, [None] * 10 + [label(False)] * 90)
    assert found.value == pytest.approx(0.05)
    assert found.low == pytest.approx(0.0, abs=1e-9)
    assert found.high > 0.1


def test_a_difference_counts_pairs_alone_and_has_the_sign_of_after_minus_before():
    before, after = [verdict(True)] * 10, [verdict(False)] * 10
    found = labelled_difference(
        before, after, [label(True)] * 8 + [None, label(None)], [label(False)] * 7 + [None, label(True), label(True)]
    )
    assert (found.labels, found.value) == (7, -1)
    assert found.high < 0


def test_scores_are_means_over_sets_and_none_where_a_set_has_no_label():
    def strata(answered, refused):
        return Strata(np.array([[answered, refused]], float), np.ones(1), 1000, answered + refused)

    found = labelled_scores(
        {"pseudo_harmful": [strata(30, 10), strata(20, 20)], "harmful": [strata(2, 38)], "harmless": [None]}
    )
    assert found["compliance_rate"].value == pytest.approx((0.75 + 0.5) / 2)
    assert found["safety_score"].value == pytest.approx(0.95)
    assert found["tradeoff_score"].value == pytest.approx((0.625 + 0.95) / 2)
    assert found["compliance_rate"].low < 0.625 < found["compliance_rate"].high
    assert found["tradeoff_score"].labels == 120
    assert "harmless_refusal_rate" not in found
    alone = combined([strata(2, 38)], REFUSED)
    assert (found["safety_score"].low, found["safety_score"].high) == pytest.approx((alone.low, alone.high))


def gate(passed):
    return Gate(passed, 0.05, 0.01, -0.01, 0.03, 300, 80, f"Safety gate {'passed' if passed else 'failed'}: so it is.")


def test_the_gate_fails_where_labels_show_more_than_the_margin_and_says_so():
    found = with_drop(gate(True), Labelled(0.2, 0.06, 0.35, 60))
    assert not found.passed
    assert found.sentence.startswith("Safety gate failed: so it is. By the labels of 60 of them, a drop of 20.0 points")
    assert "(95 % interval of the drop 6.0 to 35.0)" in found.sentence
    assert found.labelled.labels == 60


@pytest.mark.parametrize("passed", [True, False])
def test_few_labels_change_no_decision(passed):
    for labels in range(1, 4):  # even where each of them shows a loss that the judge did not see
        sides = [verdict(True)] * 300
        lost = labelled_difference(
            sides,
            sides,
            [label(True)] * labels + [None] * (300 - labels),
            [label(False)] * labels + [None] * (300 - labels),
        )
        drop = Labelled(-lost.value, -lost.high, -lost.low, lost.labels)
        found = with_drop(gate(passed), drop if labels < 3 else Labelled(-0.1, -0.2, -0.06, 99))
        assert found.passed is passed
        assert found.sentence.startswith(gate(passed).sentence)
    assert with_drop(gate(passed), None) == gate(passed)


GOOD, SURE = SimulatedJudge("good", 0.97, "right"), SimulatedJudge("good", 0.97, "wrong")
BAD, USELESS, INVERTED = (SimulatedJudge("", right, "none") for right in (0.6, 0.5, 0.1))
RUNS = 300
LEAST = 0.925 - 2 * (0.95 * 0.05 / RUNS) ** 0.5
"""What the least of so many samples of an interval that covers 95 % stays above."""


@pytest.mark.parametrize("by_doubt", [True, False])
@pytest.mark.parametrize(
    ("judge", "rate", "labels", "answers"),
    [
        (GOOD, 0.3, 100, 2000),
        (SURE, 0.95, 60, 150),
        (BAD, 0.6, 200, 600),
        (USELESS, 0.03, 60, 600),
        (INVERTED, 0.6, 100, 150),
    ],
)
def test_the_interval_of_a_rate_holds_the_truth_95_times_in_100(judge, rate, labels, answers, by_doubt):
    found = rate_coverage(rate, np.random.default_rng(0), RUNS, Sampling(judge, labels, answers, by_doubt))
    assert found.held >= LEAST
    assert abs(found.bias) < 0.01


@pytest.mark.parametrize(
    ("judge", "shift"), [(GOOD, SHIFTS[1]), (SURE, SHIFTS[3]), (BAD, SHIFTS[2]), (USELESS, SHIFTS[4])]
)
def test_the_interval_of_a_difference_holds_the_truth_95_times_in_100(judge, shift):
    found = shift_coverage(shift, np.random.default_rng(0), RUNS, Sampling(judge, 100, 600, True))
    assert found.held >= LEAST
    assert abs(found.bias) < 0.01


def test_the_normal_interval_would_not_hold_it_so_that_the_simulation_can_fail():
    random, held = np.random.default_rng(0), 0
    for _ in range(RUNS):
        seen, truth, _ = planted(random, 600, 20, rate=0.03, right=0.97)
        y, f = truth[:20].astype(float), seen[:20].astype(float)
        error = np.sqrt((y - f).var() / 20 + seen.var() / 600)
        held += abs(seen.mean() + (y - f).mean() - 0.03) <= 1.96 * error
    assert held / RUNS < 0.7  # often, no error was seen


def test_the_probability_of_being_chosen_is_how_often_an_answer_is_chosen():
    doubts = [0.0] * 30 + [0.5] * 10
    counts, sums, runs = np.zeros(40), np.zeros(40), 2000
    for run in range(runs):
        found = drawn([f"{run} {row}" for row in range(40)], doubts, 15)
        assert len(found) == 15
        for row, one in found.items():
            counts[row] += 1
            sums[row] += 1 / one.probability(one.beyond)
    assert counts[30:].mean() > 1.2 * counts[:30].mean()
    assert sums[:30].mean() / runs == pytest.approx(1, abs=0.03)  # each answer stands for itself on average
    assert sums[30:].mean() / runs == pytest.approx(1, abs=0.05)


def test_a_larger_sample_holds_the_smaller_one_and_the_whole_is_certain():
    keys, doubts = [f"p{row}" for row in range(50)], [row % 5 / 10 for row in range(50)]
    few, more, every = (
        {row: one.probability(one.beyond) for row, one in drawn(keys, doubts, n).items()} for n in (10, 30, 50)
    )
    assert few.keys() < more.keys()
    assert all(more[row] >= few[row] for row in few)
    assert set(every.values()) == {1.0}
    assert drawn(keys, doubts, 10) == drawn(keys, doubts, 10)
    assert sum(sizes(doubts)) == pytest.approx(50)
    assert (doubt(0.9), doubt(0.2)) == (pytest.approx(0.1), 0.2)
