import pytest
import torch

from actor_tune.judges.trained.judge import judge_trained
from actor_tune.models.inputs import block_inputs
from actor_tune.repair.direction import refusal_direction
from actor_tune.repair.learn import learn
from actor_tune.repair.method import fit_block
from actor_tune.repair.odds import log_odds
from actor_tune.repair.refusals import how_it_refuses
from actor_tune.repair.rules import RULES, kind_codes
from actor_tune.repair.settings import Settings
from actor_tune.repair.suited import TELLING, by_correlation
from conftest import make_model, make_prompts, plain_logprobs

LAYER = 1


def by_counting_ranks(one, other):
    """Spearman's correlation of values without ties: 1 - 6 sum d^2 / (n (n^2 - 1))."""
    ranks = [[sorted(values).index(value) for value in values] for values in (one, other)]
    n = len(one)
    return 1 - 6 * sum((a - b) ** 2 for a, b in zip(*ranks, strict=True)) / (n * (n**2 - 1))


def test_where_refusal_grows_along_the_direction_the_rule_is_boundary_and_else_odds():
    positions = torch.arange(12).float()
    shuffled = torch.tensor([3.0, 0, 8, 1, 11, 5, 2, 10, 6, 4, 9, 7])
    for odds in (positions, shuffled, -positions):
        found = by_correlation(positions, odds)
        assert found.correlation == pytest.approx(by_counting_ranks(positions.tolist(), odds.tolist()))
        assert found.rule == ("boundary" if found.correlation >= TELLING else "odds")
        assert found.prompts == 12
    assert [by_correlation(positions, odds).rule for odds in (positions, -positions)] == ["boundary", "odds"]


def test_the_reason_says_what_it_rests_on():
    told = by_correlation(torch.arange(9).float(), torch.arange(9).float()).reason
    assert told.startswith("Rule boundary: refusal follows the refusal direction.")
    assert "of 9 pseudo-harmful prompts: 1.00 (standard error where there is none: 0.35); 0.5" in told
    assert "does not follow" in by_correlation(torch.arange(9).float(), -torch.arange(9).float()).reason


def test_where_all_lie_alike_the_direction_tells_nothing():
    assert by_correlation(torch.zeros(5), torch.arange(5).float()).rule == "odds"


def test_what_is_not_finite_is_a_bug_and_no_rule():
    with pytest.raises(ValueError, match="finite"):
        by_correlation(torch.tensor([0.0, float("nan"), 1.0]), torch.arange(3).float())


@pytest.mark.parametrize("rule", ["boundary", "odds"])
def test_a_fit_trains_by_the_rule_that_suits_the_model(rule, monkeypatch):
    monkeypatch.setattr("actor_tune.repair.suited.TELLING", {"boundary": -1.0, "odds": 2.0}[rule])
    prompts = make_prompts()
    auto, named = (
        fit_block(make_model(), prompts, Settings(rule=name, layer=LAYER, starter=False, allow_unsafe=True))
        for name in ("auto", rule)
    )
    assert (auto.rule, auto.suited.rule) == (RULES[rule], rule)
    assert (named.rule, named.suited) == (RULES[rule], None)
    assert all(torch.equal(tensor, named.trained[name]) for name, tensor in auto.trained.items())


def test_the_rule_is_read_off_the_pseudo_harmful_training_prompts_alone():
    chat_model, prompts = make_model(), make_prompts()
    refusals = how_it_refuses(chat_model, prompts, judge_trained, seed=0)
    inputs = block_inputs(chat_model, LAYER, chat_model.encode(prompts))
    learned = learn(chat_model, prompts, inputs, Settings(starter=False), refusals)
    kinds = kind_codes([prompt.kind for prompt in prompts])
    direction = refusal_direction(learned.activations[kinds == 0], learned.activations[kinds == 1])
    asked = [prompt for prompt in prompts if prompt.kind == "pseudo_harmful"]
    odds = log_odds(plain_logprobs(chat_model, chat_model.encode(asked)), refusals.start.tokens)
    positions = direction.position(learned.activations[kinds == 2])
    assert learned.suited.prompts == len(asked)
    assert learned.suited.correlation == pytest.approx(by_counting_ranks(positions.tolist(), odds.tolist()), abs=1e-6)
