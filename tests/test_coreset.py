import pytest
import torch

from actor_tune.errors import UserError
from actor_tune.prompts.prompt import Prompt
from actor_tune.repair.coreset import check_fraction, select
from actor_tune.repair.method import prepare
from actor_tune.repair.settings import Settings
from conftest import make_prompts

PROMPTS = [Prompt("p", kind, "s") for kind in ("harmful", "harmless") for _ in range(20)]


def clouds():
    """Two tight clouds, with two prompts of each far away from theirs, where the other is."""
    points = torch.randn(40, 4, generator=torch.Generator().manual_seed(0)) * 0.1
    points[20:] += 5
    points[[3, 7]] += 5
    points[[25, 30]] -= 5
    return points


def test_upcore_leaves_out_the_outliers_of_each_kind_though_they_look_like_the_other():
    kept = select(clouds(), PROMPTS, "upcore", 0.9, seed=0)
    assert sorted(set(range(40)) - set(kept)) == [3, 7, 25, 30]


def test_random_keeps_as_many_of_each_kind_whatever_they_are_and_others_with_another_seed():
    kept, other = (select(clouds(), PROMPTS, "random", 0.5, seed) for seed in (0, 1))
    assert sum(row < 20 for row in kept) == sum(row >= 20 for row in kept) == 10
    assert kept == sorted(kept) != other


def test_none_keeps_all():
    assert select(clouds(), PROMPTS, "none", 0.5, seed=0) == [*range(40)]


def test_too_small_a_share_is_refused_with_the_kind_that_it_leaves_empty():
    with pytest.raises(UserError, match="leaves 0 of 20 harmful training prompts; expected at least 4"):
        check_fraction(PROMPTS, 0.01)
    settings = Settings(select="random", select_fraction=0.01, starter=False)
    with pytest.raises(UserError, match="leaves 0 of"):
        prepare(make_prompts(), settings)
