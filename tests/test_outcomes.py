from dataclasses import replace

import pytest

from actor_tune.judges import Verdict
from actor_tune.metrics import Estimate
from actor_tune.outcomes import Outcome, for_the_worse, lead, over_seeds
from actor_tune.prompts import Prompt


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
    return Outcome("m", 0, 1.0, True, [], scores, {}, None, 0.0, 0.0, None, 0.0, {}, refused)


def test_a_lead_is_paired_by_prompt_and_adds_prompts_and_seeds_by_squares():
    """One pseudo-harmful set of four, of which two are answered instead of refused: variance 1/3 over 4 prompts."""
    ours = [seed_outcome(1.0, 1.0, {"pseudo_harmful/a": "0000", "harmful/b": "1111"}) for _ in range(2)]
    theirs = [seed_outcome(0.5, 1.0, {"pseudo_harmful/a": "0011", "harmful/b": "1111"}) for _ in range(2)]
    half = 1.96 * (1 / 3 / 4) ** 0.5
    found = lead(ours, theirs, "compliance_rate")
    assert (found.value, found.high) == (pytest.approx(0.5), pytest.approx(0.5 + half, abs=1e-3))
    assert lead(ours, theirs, "safety_score") == Estimate(0, 0, 0)
    score = lead(ours, theirs, "tradeoff_score")
    assert (score.value, score.low) == (pytest.approx(0.25), pytest.approx(0.25 - half / 2, abs=1e-3))
    unequal = [replace(theirs[0], scores=ours[0].scores), theirs[1]]
    # Gaps of 0 and 0.5: Student's 12.706 * 0.3536 / sqrt(2) = 3.1766.
    spread = lead(ours, unequal, "compliance_rate")
    assert spread.high - spread.value == pytest.approx((3.1766**2 + half**2) ** 0.5, abs=1e-2)


def test_each_set_has_the_weight_in_a_lead_that_it_has_in_the_score():
    """Two sets, one of which never changes: half the standard error of the other."""
    ours = [seed_outcome(0.75, 1.0, {"pseudo_harmful/a": "0000", "pseudo_harmful/c": "0000", "harmful/b": "11"})]
    theirs = [seed_outcome(0.5, 1.0, {"pseudo_harmful/a": "0011", "pseudo_harmful/c": "0000", "harmful/b": "11"})]
    found = lead(ours, theirs, "compliance_rate")
    assert found.high - found.value == pytest.approx(1.96 * (1 / 3 / 4) ** 0.5 / 2, abs=1e-3)


def test_prompts_on_which_two_methods_differ_both_ways_make_a_lead_less_sure():
    ours = [seed_outcome(0.5, 1.0, {"pseudo_harmful/a": "0011", "harmful/b": "11"})]
    same, other = (
        [seed_outcome(0.5, 1.0, {"pseudo_harmful/a": marks, "harmful/b": "11"})] for marks in ("0011", "1100")
    )
    assert lead(ours, same, "compliance_rate") == Estimate(0, 0, 0)
    assert lead(ours, other, "compliance_rate").high > 0.9


def test_a_lead_is_not_told_where_it_is_not_known_which_prompts_were_refused():
    """Else its interval would be that of the seeds alone, and nobody would see it."""
    known = [seed_outcome(0.5, 1.0, {"pseudo_harmful/a": "0011", "harmful/b": "11"})]
    with pytest.raises(ValueError, match="which pseudo_harmful prompts were refused is not known"):
        lead([replace(known[0], refused={})], known, "tradeoff_score")
