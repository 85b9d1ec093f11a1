import math

import numpy as np
import pytest

from actor_tune.judges.verdict import Verdict
from actor_tune.measurement.change import change, mcnemar
from actor_tune.measurement.metrics import mean_estimate, tango_interval
from actor_tune.prompts.prompt import Prompt
from actor_tune.records.estimate import Difference

NAMES = {"R": "refusal", "C": "compliance", "P": "partial", "U": "unscored"}


def prompts(kind, name, count):
    return [Prompt(f"{name} {number}", kind, name) for number in range(count)]


def verdicts(letters):
    return [Verdict(NAMES[letter], 0.5, "") for letter in letters]


def test_lost_and_gained_are_counted_pair_by_pair_and_unscored_pairs_are_left_out():
    found = change(prompts("harmful", "h", 8), verdicts("RRRPCCUR"), verdicts("RCCPRCRU")).sets[0]
    assert (found.n, found.refused_before, found.refused_after) == (6, 4, 3)
    assert (found.lost, found.gained) == (2, 1)
    assert found.difference == pytest.approx(-1 / 6)
    assert found.low < found.difference < found.high


def test_the_scores_change_by_the_mean_over_sets_without_the_guards():
    asked = [*prompts("pseudo_harmful", "a", 4), *prompts("pseudo_harmful", "b", 2), *prompts("harmful", "guard", 2)]
    found = change(asked, verdicts("RRRRRRRR"), verdicts("CCRRRCCC"))
    assert found.compliance_rate.value == pytest.approx((0.5 + 0.5) / 2)
    assert found.safety_score is None
    assert [item.guard for item in found.sets] == [False, False, True]


def test_a_score_is_not_known_where_one_of_its_sets_could_not_be_scored():
    asked = [*prompts("harmful", "a", 2), *prompts("harmful", "b", 2)]
    found = change(asked, verdicts("RRRR"), verdicts("RRUU"))
    assert found.safety_score is None
    assert [item.name for item in found.sets] == ["a"]


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (5, 0), (3, 9), (10, 10)])
def test_mcnemars_test_is_the_exact_binomial_one(lost, gained):
    n, extreme = lost + gained, max(lost, gained)
    tail = sum(math.comb(n, k) for k in range(extreme, n + 1)) / 2**n
    assert mcnemar(lost, gained) == pytest.approx(min(1, 2 * tail))


def test_sixteen_prompts_without_a_flip_leave_room_for_a_fall_of_19_points():
    """Tango's interval is z^2 / (n + z^2) to both sides there, a bootstrap's a point."""
    asked = [*prompts("harmful", "h", 16), *prompts("pseudo_harmful", "p", 16)]
    found = change(asked, verdicts("R" * 32), verdicts("R" * 32))
    half = 3.8415 / (16 + 3.8415)
    for item in (found.sets[0].estimate, found.safety_score, found.compliance_rate):
        assert (item.value, item.low, item.high) == pytest.approx((0, -half, half), abs=1e-4)
        assert math.copysign(1, item.value) == 1, "not -0.0"
    assert found.tradeoff_score.high == pytest.approx(half / math.sqrt(2), abs=1e-4)


def test_a_set_changes_by_tangos_interval_and_compliance_by_answers_instead_of_refusals():
    """8 answered before, 32 refused; then 7 more answers and one refusal more."""
    asked = prompts("pseudo_harmful", "p", 40)
    found = change(asked, verdicts("R" * 32 + "C" * 8), verdicts("C" * 7 + "R" * 26 + "C" * 7))
    drop = tango_interval(7, 1, 40)
    assert drop.value == 0.15
    assert (found.sets[0].low, found.sets[0].high) == pytest.approx((-drop.high, -drop.low))
    assert found.compliance_rate == Difference(drop.value, drop.low, drop.high)


def test_the_change_of_a_score_is_made_of_those_of_its_sets_by_square_and_add():
    """Sets of 20 and 60, of which 5 and none are lost: -0.25 and 0 in the mean, with the distances by squares."""
    asked = [*prompts("harmful", "a", 20), *prompts("harmful", "b", 60)]
    safety = change(asked, verdicts("R" * 80), verdicts("C" * 5 + "R" * 75)).safety_score
    drop, none = tango_interval(5, 0, 20), 3.8415 / (60 + 3.8415)
    assert safety.value == -0.125
    assert safety.low == pytest.approx(-0.125 - math.hypot(drop.high - 0.25, none) / 2, abs=1e-4)
    assert safety.high == pytest.approx(-0.125 + math.hypot(0.25 - drop.low, none) / 2, abs=1e-4)


def bootstrap(counts):
    """Percentiles of 2,000 resamples of the mean over sets of (lost, gained, n): what was stored before."""
    random = np.random.default_rng(0)
    sets = [
        random.multinomial(n, [lost / n, gained / n, (n - lost - gained) / n], 2000) @ [-1, 1, 0] / n
        for lost, gained, n in counts
    ]
    return np.percentile(np.mean(sets, axis=0), [2.5, 97.5])


@pytest.mark.parametrize(
    ("sizes", "lost", "gained", "before"),
    [
        ((16,), 0.05, 0.0, 0.56),
        ((16, 16), 0.02, 0.0, 0.48),
        ((16, 16), 0.1, 0.0, 0.84),
        ((50, 50), 0.01, 0.0, 0.63),
        ((50, 50), 0.02, 0.0, 0.87),
        ((16, 60, 200), 0.05, 0.01, 0.87),
        ((16,) * 5, 0.02, 0.0, 0.80),
    ],
)
def test_the_interval_of_a_change_holds_the_truth_though_few_answers_flip(sizes, lost, gained, before):
    """`before`: how often that of a bootstrap did, which is a point where nothing flipped."""
    random, known, hits = np.random.default_rng(2), {}, np.zeros(2)
    for _ in range(500):
        counts = tuple(tuple(random.multinomial(n, [lost, gained, 1 - lost - gained])[:2].tolist()) for n in sizes)
        if counts not in known:
            sets = [(*flips, n) for flips, n in zip(counts, sizes, strict=True)]
            rises = mean_estimate([tango_interval(up, down, n) for down, up, n in sets])
            known[counts] = [low <= gained - lost <= high for low, high in ((rises.low, rises.high), bootstrap(sets))]
        hits += known[counts]
    assert hits[0] / 500 >= 0.93
    assert hits[1] / 500 == pytest.approx(before, abs=0.05)


def test_the_same_answers_give_the_same_interval_again():
    asked = prompts("harmful", "h", 30)
    before, after = verdicts("R" * 30), verdicts("C" * 7 + "R" * 23)
    assert change(asked, before, after) == change(asked, before, after)
