import math

import numpy as np
import pytest

from actor_tune.judges.verdict import Verdict
from actor_tune.measurement.change import change, mcnemar, resampled_differences
from actor_tune.prompts.prompt import Prompt

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


def test_the_resamples_are_those_of_drawing_pairs_with_replacement():
    pairs = np.array([-1] * 12 + [1] * 4 + [0] * 34)
    random = np.random.default_rng(7)
    drawn = random.choice(pairs, size=(4000, len(pairs))).mean(axis=1)
    ours = resampled_differences(np.random.default_rng(8), lost=12, gained=4, n=50)
    for share in (2.5, 50, 97.5):
        assert np.percentile(ours, share) == pytest.approx(np.percentile(drawn, share), abs=0.021)
    assert ours.mean() == pytest.approx(-8 / 50, abs=0.005)


def test_the_same_answers_give_the_same_interval_again():
    asked = prompts("harmful", "h", 30)
    before, after = verdicts("R" * 30), verdicts("C" * 7 + "R" * 23)
    assert change(asked, before, after) == change(asked, before, after)
