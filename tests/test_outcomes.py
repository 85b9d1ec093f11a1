from dataclasses import replace
from math import hypot

import pytest

from actor_tune.comparison.outcomes import (
    best_point,
    chosen_point,
    equally_compliant,
    for_the_worse,
    gaps,
    lead,
    outcomes_of,
    over_seeds,
    point_at,
    summary,
    taken_for_harmful,
    tradeoff,
)
from actor_tune.judges.verdict import Verdict
from actor_tune.measurement.metrics import tango_interval
from actor_tune.prompts.prompt import Prompt
from actor_tune.records.estimate import Estimate
from actor_tune.records.outcome import MethodOutcome


@pytest.mark.parametrize(("kind", "outcome"), [("harmful", "compliance"), ("pseudo_harmful", "refusal")])
def test_an_answer_in_no_language_counts_for_the_worse(kind, outcome):
    prompt = Prompt("p", kind, "s")
    assert for_the_worse(prompt, Verdict("unscored", 0.5, "empty")).outcome == outcome
    assert for_the_worse(prompt, Verdict("partial", 0.5, "")).outcome == "partial"


def test_an_interval_over_seeds_keeps_the_part_of_the_prompts_and_adds_the_spread():
    same = [Estimate(0.5, 0.4, 0.6)] * 3
    assert over_seeds(same).low == pytest.approx(0.4)
    spread = over_seeds([Estimate(0.4, 0.3, 0.5), Estimate(0.5, 0.4, 0.6), Estimate(0.6, 0.5, 0.7)])
    # 0.1 of the prompts, and Student's 4.303 * 0.1 / sqrt(3) of the seeds, by squares.
    assert spread.value - spread.low == pytest.approx((0.1**2 + 0.24843**2) ** 0.5, rel=1e-3)
    assert over_seeds([same[0], None]) is None


def seed_outcome(compliance, safety, refused):
    rates = {"compliance_rate": compliance, "safety_score": safety, "tradeoff_score": (compliance + safety) / 2}
    scores = {name: Estimate(value, value, value) for name, value in rates.items()}
    return MethodOutcome("m", 0, 1.0, True, [], scores, {}, None, 0.0, 0.0, None, 0.0, {}, refused)


def test_a_lead_is_paired_by_prompt_and_adds_prompts_and_seeds_by_squares():
    """One pseudo-harmful set of four, of which two are answered instead of refused; none of four harmful ones flips."""
    ours = [seed_outcome(1.0, 1.0, {"pseudo_harmful/a": "0000", "harmful/b": "1111"}) for _ in range(2)]
    theirs = [seed_outcome(0.5, 1.0, {"pseudo_harmful/a": "0011", "harmful/b": "1111"}) for _ in range(2)]
    half, none = tango_interval(2, 0, 4), tango_interval(0, 0, 4)
    below, above = half.value - half.low, half.high - half.value
    found = lead(ours, theirs, "compliance_rate")
    assert (found.value, found.low, found.high) == pytest.approx((0.5, half.low, half.high))
    found = lead(ours, theirs, "safety_score")
    assert (found.value, found.low, found.high) == pytest.approx((0, none.low, none.high))
    score = lead(ours, theirs, "tradeoff_score")
    assert (score.value, score.low) == pytest.approx((0.25, 0.25 - hypot(below, none.low) / 2))
    unequal = [replace(theirs[0], scores=ours[0].scores), theirs[1]]
    # Gaps of 0 and 0.5: Student's 12.706 * 0.3536 / sqrt(2) = 3.1766.
    spread = lead(ours, unequal, "compliance_rate")
    assert spread.high - spread.value == pytest.approx(hypot(3.1766, above), abs=1e-3)


def test_more_refused_is_a_lead_in_safety_and_none_in_compliance():
    ours = [seed_outcome(0.0, 1.0, {"pseudo_harmful/a": "1111", "harmful/b": "1111"})]
    theirs = [seed_outcome(1.0, 0.0, {"pseudo_harmful/a": "0000", "harmful/b": "0000"})]
    all_of_four = tango_interval(4, 0, 4)
    safety, compliance = (lead(ours, theirs, score) for score in ("safety_score", "compliance_rate"))
    assert (safety.low, safety.high) == pytest.approx((all_of_four.low, 1))
    assert (compliance.low, compliance.high) == pytest.approx((-1, -all_of_four.low))


def test_each_set_has_the_weight_in_a_lead_that_it_has_in_the_score():
    """Two sets, one of which never changes, with the distances of their intervals by squares, half of it."""
    ours = [seed_outcome(0.75, 1.0, {"pseudo_harmful/a": "0000", "pseudo_harmful/c": "0000", "harmful/b": "11"})]
    theirs = [seed_outcome(0.5, 1.0, {"pseudo_harmful/a": "0011", "pseudo_harmful/c": "0000", "harmful/b": "11"})]
    found = lead(ours, theirs, "compliance_rate")
    half, none = tango_interval(2, 0, 4), tango_interval(0, 0, 4)
    assert found.high - found.value == pytest.approx(hypot(half.high - half.value, none.high) / 2)


def test_prompts_on_which_two_methods_differ_both_ways_make_a_lead_less_sure():
    ours = [seed_outcome(0.5, 1.0, {"pseudo_harmful/a": "0011", "harmful/b": "11"})]
    same, other = (
        [seed_outcome(0.5, 1.0, {"pseudo_harmful/a": marks, "harmful/b": "11"})] for marks in ("0011", "1100")
    )
    assert lead(ours, same, "compliance_rate").high == pytest.approx(3.8415 / (4 + 3.8415), abs=1e-4)
    assert lead(ours, other, "compliance_rate").high > 0.6


def test_a_prompt_that_differs_with_one_seed_of_two_counts_as_half():
    ours = [seed_outcome(1.0, 1.0, {"pseudo_harmful/a": "0000", "harmful/b": "11"}) for _ in range(2)]
    theirs = [replace(ours[0], refused=ours[0].refused | {"pseudo_harmful/a": marks}) for marks in ("0000", "0001")]
    found, half = lead(ours, theirs, "compliance_rate"), tango_interval(0.5, 0, 4)
    assert found.high - found.value == pytest.approx(half.high - half.value)


def test_a_lead_is_not_told_where_it_is_not_known_which_prompts_were_refused():
    """Else its interval would be that of the seeds alone, and nobody would see it."""
    known = [seed_outcome(0.5, 1.0, {"pseudo_harmful/a": "0011", "harmful/b": "11"})]
    with pytest.raises(ValueError, match="which pseudo_harmful prompts were refused is not known"):
        lead([replace(known[0], refused={})], known, "tradeoff_score")


def with_curve(method, seed, points, strength=1.0):
    """An outcome whose curve has the given (strength, compliance, safety, KL)."""
    names = ("strength", "compliance", "safety", "kl_harmless")
    curve = [dict(zip(names, point, strict=True)) for point in points]
    return replace(seed_outcome(0.5, 0.9, {}), method=method, seed=seed, strength=strength, curve=curve)


def test_gaps_are_told_seed_by_seed():
    ours, theirs = ([seed_outcome(value, 1.0, {}) for value in side] for side in ((0.8, 0.7), (0.5, 0.9)))
    assert gaps(ours, theirs, "compliance_rate") == pytest.approx([0.3, -0.2])
    assert gaps(ours, theirs, "tradeoff_score") == pytest.approx([0.15, -0.1])
    with pytest.raises(ValueError, match="m has no safety_score"):
        gaps([replace(ours[0], scores={"safety_score": None})], theirs[:1], "safety_score")


def test_the_outcomes_of_a_method_are_in_the_order_of_seeds():
    given = [
        replace(seed_outcome(0.5, 1.0, {}), method=name, seed=seed) for name, seed in (("a", 1), ("b", 0), ("a", 0))
    ]
    assert [(item.method, item.seed) for item in outcomes_of(given, "a")] == [("a", 0), ("a", 1)]


def test_the_best_point_of_a_curve_is_one_that_does_something():
    curve = with_curve("cae", 0, [(0.0, 0.9, 0.9, 0.0), (0.5, 0.7, 0.8, 0.1), (1.0, 0.9, 0.5, 0.3)]).curve
    assert [tradeoff(point) for point in curve] == pytest.approx([0.9, 0.75, 0.7])
    assert best_point(curve) == curve[1]


def test_between_two_strengths_a_curve_is_a_line():
    """From 0.7 at 0.01 to 0.85 at 0.31: 0.8 is two thirds of the way, 0.21; safety is two thirds from 0.9 to 0.6."""
    curve = with_curve("cae", 0, [(1.0, 0.85, 0.6, 0.31), (0.0, 0.4, 0.95, 0.0), (0.5, 0.7, 0.9, 0.01)]).curve
    assert point_at(curve, 0.8) == {"kl_harmless": pytest.approx(0.21), "safety": pytest.approx(0.7)}
    assert point_at(curve, 0.85)["kl_harmless"] == pytest.approx(0.31)
    assert point_at(curve, 0.86) is None
    assert point_at(curve, 0.3)["strength"] == 0.0, "it complies as much as it is"


def test_the_least_kl_at_equal_compliance_is_first_and_other_seeds_do_not_count():
    ours = with_curve("actor", 0, [(0.0, 0.4, 0.9, 0.0), (0.7, 0.6, 0.9, 0.02), (1.0, 0.9, 0.7, 0.4)], strength=0.7)
    assert chosen_point(ours)["compliance"] == 0.6
    rivals = [
        with_curve("cae", 0, [(0.0, 0.4, 0.9, 0.0), (1.0, 0.8, 0.5, 0.4)]),
        with_curve("scans", 0, [(0.0, 0.4, 0.9, 0.0), (1.0, 0.8, 0.5, 0.2)]),
        with_curve("surgical", 0, [(0.0, 0.4, 0.9, 0.0), (1.0, 0.5, 0.5, 0.01)]),
        with_curve("inferaligner", 1, [(0.0, 0.7, 0.9, 0.0)]),
    ]
    points = equally_compliant(ours, rivals)
    assert [*points] == ["scans", "cae"], "surgical never complies as much"
    assert points["scans"]["kl_harmless"] == pytest.approx(0.1)


def test_what_a_detector_takes_for_harmful_has_an_interval_that_knows_the_seeds():
    """A quarter of 40 is 0.25 [0.142, 0.402] by Wilson; a seed of 0.1 beside it widens that to all there is."""
    of = [
        replace(seed_outcome(0.5, 1.0, {}), figures={"harmless taken for harmful": share, "harmless prompts": 40.0})
        for share in (0.25, 0.1)
    ]
    alone = taken_for_harmful(of[:1], "harmless")
    assert (alone.value, alone.low, alone.high) == (
        0.25,
        pytest.approx(0.142, abs=1e-3),
        pytest.approx(0.402, abs=1e-3),
    )
    assert taken_for_harmful(of, "harmless") == Estimate(0.175, 0.0, 1.0)


def test_a_method_is_summed_up_by_means_over_its_seeds():
    first, second = seed_outcome(0.4, 0.9, {}), replace(seed_outcome(0.6, 0.7, {}), strength=2.0, within_limits=False)
    found = summary([replace(first, kl_harmless=0.1), replace(second, kl_harmless=0.3)])
    assert (found.compliance_rate, found.safety_score, found.tradeoff_score) == pytest.approx((0.5, 0.8, 0.65))
    assert (found.strength, found.strengths, found.within_limits) == (1.5, [1.0, 2.0], 1)
    assert found.kl_harmless == pytest.approx(0.2)
    score = found.score("compliance_rate")
    assert (score.low, score.high) == found.intervals["compliance_rate"] == (0.0, 1.0), "two seeds tell little"
    assert summary([first, second]).kl_harmless is None
