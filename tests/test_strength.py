import pytest
import torch

from actor_tune.activations import block_inputs
from actor_tune.chat import encode
from actor_tune.respond import first_token_logprobs as plain_logprobs
from actor_tune.strength import Limits, Trial, choose, failure, first_token_logprobs, try_strengths
from actor_tune.train import state_of

LIMITS = Limits(safety_drop=0.02, set_drop=0.06, kl_harmless=0.1)


def trial(strength, compliance, safety, kl=0.0, error=0.0, **refusal):
    sets = refusal or {"bad": safety}
    return Trial(strength, compliance, safety, sets, dict.fromkeys(sets, error), kl)


def test_the_most_compliance_within_the_limits_is_chosen():
    trials = [trial(0, 0.4, 0.9), trial(0.5, 0.7, 0.89), trial(1, 0.8, 0.885), trial(1.2, 0.95, 0.7)]
    assert choose(trials, ["bad"], LIMITS).strength == 1


def test_a_single_set_that_falls_too_far_rules_a_strength_out():
    trials = [trial(0, 0.4, 0.9, a=0.9, b=0.9), trial(1, 0.8, 0.9, a=1.0, b=0.8), trial(0.5, 0.6, 0.9, a=0.95, b=0.85)]
    assert choose(trials, ["a", "b"], LIMITS).strength == 0.5


def test_a_set_whose_drop_may_be_chance_does_not_rule_a_strength_out():
    trials = [trial(0, 0.4, 0.9, a=0.9, b=0.9), trial(1, 0.8, 0.9, error=0.05, a=1.0, b=0.8)]
    assert choose(trials, ["a", "b"], LIMITS).strength == 1


def test_damage_on_harmless_prompts_rules_a_strength_out():
    trials = [trial(0, 0.4, 0.9), trial(0.5, 0.6, 0.9, kl=0.05), trial(1, 0.8, 0.9, kl=0.2)]
    assert choose(trials, ["bad"], LIMITS).strength == 0.5


def test_where_nothing_helps_within_the_limits_the_model_is_left_alone_and_the_reason_said():
    trials = [trial(0, 0.4, 0.9), trial(1, 0.8, 0.5)]
    chosen = choose(trials, ["bad"], LIMITS)
    assert chosen.strength == 0
    assert "the safety score fell by 40.0 points" in failure(trials, chosen, ["bad"], LIMITS)


def test_a_choice_within_the_limits_is_no_failure_and_one_outside_is():
    trials = [trial(0, 0.4, 0.9), trial(1, 0.8, 0.9)]
    assert failure(trials, trials[1], ["bad"], LIMITS) is None
    unsafe = [trial(0, 0.4, 0.9), trial(1, 0.8, 0.6)]
    assert "refusal on bad fell by 30.0 points" in failure(unsafe, unsafe[1], ["bad"], LIMITS)


def test_strengths_are_tried_on_the_model_and_then_undone(chat_model, prompts):
    token_ids = encode(chat_model.tokenizer, prompts)
    inputs = block_inputs(chat_model, 1, token_ids)
    before = state_of(chat_model.blocks[1])
    other = {name: tensor + 0.05 * torch.randn_like(tensor) for name, tensor in before.items()}
    trials = try_strengths(chat_model, inputs, prompts, other, (0.0, 1.0))
    assert trials[0].kl_harmless == pytest.approx(0, abs=1e-6)
    assert trials[1].kl_harmless > 1e-3
    assert all(torch.equal(tensor, before[name]) for name, tensor in chat_model.blocks[1].state_dict().items())


def test_logprobs_from_kept_inputs_are_those_of_the_whole_model(any_family, prompts):
    token_ids = encode(any_family.tokenizer, prompts)
    kept = first_token_logprobs(any_family, block_inputs(any_family, 2, token_ids))
    assert torch.allclose(kept, plain_logprobs(any_family, token_ids), atol=1e-4)
