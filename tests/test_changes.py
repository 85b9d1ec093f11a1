from dataclasses import replace

import pytest
import torch

from actor_tune import Settings, UserError
from actor_tune.judges.trained.judge import judge_trained
from actor_tune.models.inputs import block_inputs
from actor_tune.prompts.starter import starter
from actor_tune.repair.changes import UNCHANGED, Changes, rule_with
from actor_tune.repair.direction import RefusalDirection
from actor_tune.repair.learn import Unedited, learn
from actor_tune.repair.method import fit_block
from actor_tune.repair.refusals import how_it_refuses
from actor_tune.repair.rules import HARMFUL, HARMLESS, PSEUDO_HARMFUL, RULES
from actor_tune.repair.train import block_outputs
from conftest import make_model, make_prompts

LAYER = 1

DIRECTION = RefusalDirection(torch.tensor([2.0, 0.0]), torch.zeros(2))
KINDS = torch.tensor([HARMFUL, HARMLESS, PSEUDO_HARMFUL])
ACTIVATIONS = torch.tensor([[2.0, 0.0], [0.0, 0.0], [1.0, 0.0]])


@pytest.mark.parametrize("name", RULES)
def test_without_changes_a_rule_is_as_it_was(name):
    assert rule_with(name, UNCHANGED) is RULES[name]


@pytest.mark.parametrize("name", ["paper", "uniform"])
def test_the_papers_rules_take_no_changes(name):
    with pytest.raises(UserError, match=f"`rule={name}`: changes to its numbers"):
        rule_with(name, Changes(epochs=3))


def test_a_changed_rule_says_its_numbers_and_a_rate_is_a_factor_of_its_own():
    changes = Changes(pseudo_harmful=2.5, harmful=0.5, hold=3.0, epochs=5, batch_size=40, learning_rate=2.0, noise=0.2)
    rule = rule_with("boundary", changes)
    assert rule.parameters == {"shifts": {"pseudo_harmful": 2.5, "harmful": 0.5, "hold": 3.0}}
    own = RULES["boundary"].schedule
    assert rule.schedule == replace(own, epochs=5, batch_size=40, learning_rate=2 * own.learning_rate, noise=0.2)


def test_the_shifts_are_what_targets_are_made_from_and_hold_weighs_harmless_prompts():
    rule = rule_with("boundary", Changes(pseudo_harmful=3.0, harmful=0.5, hold=4.0))
    loss = rule.objective(ACTIVATIONS, KINDS, DIRECTION)
    every = torch.arange(3)
    # s is 2, 0 and 1 in units of activations: targets at 2 + 0.5 * 2, 0 and 1 - 3 * 1.
    assert loss(torch.tensor([[3.0, 0.0], [0.0, 0.0], [-2.0, 0.0]]), every, DIRECTION).mean().item() == pytest.approx(0)
    # A harmless prompt 1 off its place costs 4 * 1 / ||R||^2 = 1, over three prompts.
    moved = torch.tensor([[3.0, 0.0], [0.0, 1.0], [-2.0, 0.0]])
    assert loss(moved, every, DIRECTION).mean().item() == pytest.approx(1 / 3)


def test_a_given_strength_is_tried_with_weaker_ones_alone():
    assert rule_with("odds", Changes(strength=1.2)).strengths == pytest.approx((0.0, 0.84, 1.02, 1.2))
    assert rule_with("odds", Changes(answered=2.0)).parameters["margins"]["answered"] == 2.0


def test_where_no_strength_is_within_the_limits_the_whole_change_is_that_of_the_strength_given(monkeypatch):
    monkeypatch.setattr("actor_tune.repair.method.choose", lambda trials, *_: trials[0])
    settings = Settings(
        rule="boundary", layer=LAYER, starter=False, allow_unsafe=True, changes=Changes(strength=0.9, epochs=1)
    )
    assert fit_block(make_model(), make_prompts(), settings).chosen.strength == 0.9


def test_a_direction_by_behaviour_parts_refused_from_answered_prompts(chat_model, prompts):
    inputs = block_inputs(chat_model, LAYER, chat_model.encode(prompts))
    refusals = how_it_refuses(chat_model, prompts, judge_trained, seed=0)
    refused = torch.arange(len(prompts)) % 3 == 0  # of all kinds
    activations = block_outputs(chat_model, inputs)
    known = Unedited(activations, refused=lambda: refused)
    settings = Settings(rule="boundary", changes=Changes(direction="behaviour", epochs=1))
    learned = learn(chat_model, prompts, inputs, settings, refusals, known=known)
    expected = activations[refused].mean(dim=0) - activations[~refused].mean(dim=0)
    assert torch.allclose(learned.direction.vector, expected)
    assert torch.allclose(learned.direction.origin, activations[~refused].mean(dim=0))

    none = replace(known, refused=lambda: refused | True)
    with pytest.raises(UserError, match=f"{len(prompts)} of {len(prompts)} training prompts refused"):
        learn(chat_model, prompts, inputs, settings, refusals, known=none)


@pytest.mark.parametrize("rule", ["boundary", "odds"])
def test_given_prompts_count_as_much_as_is_said_and_starter_prompts_once(rule, chat_model, prompts):
    """The first loss of a batch of all prompts is their mean with these weights."""
    refusals = how_it_refuses(chat_model, prompts, judge_trained, seed=0)
    both = [*prompts, *starter("train")[:5]]
    inputs = block_inputs(chat_model, LAYER, chat_model.encode(both))

    def first_loss(given: float) -> float:
        losses = []
        settings = Settings(rule=rule, changes=Changes(given=given, epochs=1, batch_size=len(both), noise=0.0))
        learn(chat_model, both, inputs, settings, refusals, report=lambda _, values, __: losses.append(values["loss"]))
        return losses[0]

    own, starters, once, thrice = len(prompts), 5, first_loss(1.0), first_loss(3.0)
    # Two of these means tell those of both groups, and any third has to agree with them.
    of_own = (thrice * (3 * own + starters) - once * len(both)) / (2 * own)
    of_starters = (once * len(both) - own * of_own) / starters
    assert of_own != pytest.approx(of_starters, rel=1e-2)
    expected = (2 * own * of_own + starters * of_starters) / (2 * own + starters)
    assert first_loss(2.0) == pytest.approx(expected, rel=1e-4)
