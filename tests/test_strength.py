from dataclasses import replace

import pytest
import torch

from actor_tune.judges.verdict import Verdict
from actor_tune.models.chat import encode
from actor_tune.models.first_token import first_token_logprobs
from actor_tune.models.inputs import block_inputs
from actor_tune.models.state import state_of
from actor_tune.prompts.prompt import KINDS, Prompt
from actor_tune.records.response import Response
from actor_tune.records.run import AnsweredRate, SetRefusal, Trial
from actor_tune.repair.odds import RefusalStart
from actor_tune.repair.refusals import Refusals
from actor_tune.repair.strength import (
    Limits,
    Tried,
    answered,
    answered_rates,
    applied,
    choose,
    excess,
    failure,
    fallen,
    settled,
    try_strengths,
)
from conftest import plain_logprobs

START = RefusalStart(torch.tensor([65, 66]))
LIMITS = Limits(safety_drop=0.02, set_drop=0.06, kl_harmless=0.1)


def trial(strength, compliance, drop=0.0, kl=0.0, **set_drops):
    """A trial whose harmful sets fell by `set_drops`: name -> (drop, standard error)."""
    sets = [SetRefusal(name, "harmful", 0.5, *values) for name, values in set_drops.items()]
    # A pseudo-harmful set of the same name may fall as far as it likes.
    sets += [SetRefusal(name, "pseudo_harmful", 0.0, 0.9, 0.0) for name in set_drops]
    return Trial(strength, compliance, safety=0.9 - drop, safety_drop=drop, kl_harmless=kl, kl_error=0.01, sets=sets)


UNEDITED = trial(0, 0.4)


def test_the_most_compliance_within_the_limits_is_chosen():
    trials = [UNEDITED, trial(0.5, 0.7, drop=0.01), trial(1, 0.8, drop=0.015), trial(1.2, 0.95, drop=0.2)]
    assert choose(trials, LIMITS).strength == 1


def test_a_single_harmful_set_that_falls_too_far_rules_a_strength_out():
    trials = [UNEDITED, trial(0.5, 0.6, a=(0.05, 0.0), b=(-0.1, 0.0)), trial(1, 0.8, a=(0.1, 0.0), b=(-0.1, 0.0))]
    assert choose(trials, LIMITS).strength == 0.5


def test_a_set_whose_drop_may_be_chance_does_not_rule_a_strength_out():
    assert choose([UNEDITED, trial(1, 0.8, a=(0.1, 0.05))], LIMITS).strength == 1


def test_damage_on_harmless_prompts_rules_a_strength_out():
    assert choose([UNEDITED, trial(0.5, 0.6, kl=0.05), trial(1, 0.8, kl=0.2)], LIMITS).strength == 0.5


def test_where_nothing_helps_within_the_limits_the_model_is_left_alone_and_the_reason_said():
    trials = [UNEDITED, trial(1, 0.8, drop=0.4)]
    chosen = choose(trials, LIMITS)
    assert chosen.strength == 0
    assert "the safety score fell by 40.0 points" in failure(trials, chosen, LIMITS)


def test_a_choice_within_the_limits_is_no_failure_and_one_outside_is():
    trials = [UNEDITED, trial(1, 0.8)]
    assert failure(trials, trials[1], LIMITS) is None
    unsafe = [UNEDITED, trial(1, 0.8, bad=(0.3, 0.0))]
    assert "refusal on bad fell by 30.0 points" in failure(unsafe, unsafe[1], LIMITS)


def test_limits_are_told_as_they_were_applied_with_the_allowance_and_the_sum_worst_set_first():
    found = applied(trial(1, 0.8, drop=0.01, kl=0.102, fine=(0.01, 0.0), twins=(0.098, 0.041)), LIMITS)
    assert [item.sentence for item in found] == [
        "the safety score fell by 1.0 points (at most 2.0 are allowed)",
        "refusal on twins fell by 9.8 points (at most 6.0 + 4.1 for the standard error = 10.1 are allowed)",
        "refusal on fine fell by 1.0 points (at most 6.0 are allowed)",
        "KL on harmless prompts is 0.102 nats (at most 0.100 + 0.010 for the standard error = 0.110 is allowed)",
    ]
    assert [item.set for item in found] == [None, "twins", "fine", None]
    assert all(item.kept for item in found)


def test_what_exceeds_limit_and_allowance_together_is_what_rules_a_strength_out():
    rate = AnsweredRate("safety", 20, before=0.9, after=0.8, rise=-0.1, error=0.05)
    broken = replace(trial(1, 0.8, kl=0.111, a=(0.11, 0.04)), answers=[rate])
    assert excess(broken, LIMITS) == [item.sentence for item in applied(broken, LIMITS) if not item.kept]
    assert [said.split(" (")[1] for said in excess(broken, LIMITS)] == [
        "at most 6.0 + 4.0 for the standard error = 10.0 are allowed)",
        "at most 0.100 + 0.010 for the standard error = 0.110 is allowed)",
        "at most 2.0 + 5.0 for the standard error = 7.0 are allowed)",
    ]


def test_a_set_that_fell_by_more_than_the_margin_is_named_though_every_limit_was_kept():
    """9.8 points with a standard error of 4.1: by the normal distribution 1.8 to 17.8."""
    kept = trial(1, 0.8, drop=0.01, fine=(0.049, 0.0), twins=(0.098, 0.041), clear=(0.06, 0.001))
    assert fallen(kept, 0.05) == (
        "On the validation prompts, by first answer tokens, a rougher scale than judged answers, refusal fell by more "
        "than 5.0 points (95 % intervals in brackets): twins, by 9.8 (1.8 to 17.8), which may be chance; clear, "
        "by 6.0 (5.8 to 6.2)."
    )
    assert fallen(UNEDITED, 0.05) is None
    alone = SetRefusal("s", "harmful", 0.5, 0.2, 1.0, 1)
    assert (alone.estimate.low, alone.estimate.high) == (-1, 1)


def test_weaker_strengths_are_tried_until_one_within_the_limits_complies_no_more():
    """Strongest first: too strong, within the limits, weaker."""
    too_strong, good, weaker = trial(1.1, 0.9, drop=0.2), trial(1, 0.8), trial(0.9, 0.7)
    assert not settled([too_strong], LIMITS)
    assert not settled([too_strong, good], LIMITS)
    assert settled([too_strong, good, weaker], LIMITS)
    assert not settled([too_strong, weaker, good], LIMITS), "a weaker one that complies more may be followed by others"


def test_strengths_that_cannot_be_chosen_are_not_tried(chat_model, prompts):
    """A change that changes nothing: the strongest is within all limits, the next no better. Beyond limits: all."""
    inputs = block_inputs(chat_model, 1, encode(chat_model.tokenizer, prompts))
    same = state_of(chat_model.blocks[1])
    tried = try_strengths(chat_model, Tried(inputs, prompts, same, {}), LIMITS, (0.0, 0.5, 0.8, 1.0), START)
    assert [item.strength for item in tried] == [0.0, 0.8, 1.0]
    nothing = Limits(safety_drop=-1.0)
    tried = try_strengths(chat_model, Tried(inputs, prompts, same, {}), nothing, (0.0, 0.5, 0.8, 1.0), START)
    assert [item.strength for item in tried] == [0.0, 0.5, 0.8, 1.0]


def test_a_change_that_could_not_be_measured_is_never_within_the_limits():
    nan = float("nan")
    assert excess(trial(1, 0.8, drop=nan), LIMITS)
    assert excess(trial(1, 0.8, kl=nan), LIMITS)
    assert excess(trial(1, 0.8, a=(nan, 0.0)), LIMITS)


def test_kinds_that_share_a_set_name_are_kept_apart(chat_model, prompts):
    """As they do in a file without a column `set`."""
    same = [Prompt(prompt.text, prompt.kind, "file") for prompt in prompts]
    inputs = block_inputs(chat_model, 1, encode(chat_model.tokenizer, same))
    tried = Tried(inputs, same, state_of(chat_model.blocks[1]), {})
    (unedited,) = try_strengths(chat_model, tried, LIMITS, (0.0,), START)
    assert [(item.name, item.kind) for item in unedited.sets] == [("file", kind) for kind in KINDS]
    assert unedited.safety == unedited.sets[0].refusal


def test_strengths_are_tried_on_the_model_and_then_undone(chat_model, prompts):
    token_ids = encode(chat_model.tokenizer, prompts)
    inputs = block_inputs(chat_model, 1, token_ids)
    before = state_of(chat_model.blocks[1])
    other = {name: tensor + 0.05 * torch.randn_like(tensor) for name, tensor in before.items()}
    trials = try_strengths(chat_model, Tried(inputs, prompts, other, {}), LIMITS, (0.0, 1.0), START)
    assert trials[0].kl_harmless == pytest.approx(0, abs=1e-6)
    assert trials[1].kl_harmless > 1e-3
    assert all(torch.equal(tensor, before[name]) for name, tensor in chat_model.blocks[1].state_dict().items())


def test_logprobs_from_kept_inputs_are_those_of_the_whole_model(any_family, opened_prompts):
    token_ids = encode(any_family.tokenizer, opened_prompts)
    kept = first_token_logprobs(any_family, block_inputs(any_family, 2, token_ids))
    assert torch.allclose(kept, plain_logprobs(any_family, token_ids), atol=1e-4)


REFUSAL, HELP = Verdict("refusal", 1.0, ""), Verdict("compliance", 0.0, "")


def asked_and_answered(prompts, verdicts):
    responses = [Response(prompt, "Yes, gladly: here it is.", True) for prompt in prompts]
    return Refusals(prompts, responses, verdicts, START, [], None)


def test_judged_answers_are_counted_by_kind_with_the_error_of_the_change():
    """Four of each kind: two harmful ones no longer refused, one harmless one newly, one answer of twelve garbled."""
    prompts = [Prompt(f"{kind} {number}", kind, "s") for kind in KINDS for number in range(4)]
    before = [REFUSAL if prompt.kind == "harmful" else HELP for prompt in prompts]
    after = [HELP, HELP, REFUSAL, REFUSAL, *(REFUSAL if number == 4 else HELP for number in range(4, 12))]
    asked = asked_and_answered(prompts, before)
    noise = Response(prompts[-1], "", True)
    rates = {rate.name: rate for rate in answered_rates(asked, [*asked.responses[:-1], noise], after)}
    assert (rates["safety"].before, rates["safety"].after, rates["safety"].rise) == (1.0, 0.5, -0.5)
    assert rates["safety"].error == pytest.approx(torch.tensor([-1.0, -1.0, 0.0, 0.0]).std().item() / 2)
    assert (rates["harmless refused"].before, rates["harmless refused"].after) == (0.0, 0.25)
    assert (rates["garbled"].n, rates["garbled"].after) == (12, pytest.approx(1 / 12))


@pytest.mark.parametrize(
    ("rate", "said"),
    [
        (AnsweredRate("safety", 48, 0.9, 0.8, -0.1, 0.03), "refusal of harmful prompts fell by 10.0 points"),
        (AnsweredRate("harmless refused", 48, 0.0, 0.08, 0.08, 0.03), "refusal of harmless prompts rose by 8.0 points"),
        (AnsweredRate("garbled", 144, 0.0, 0.05, 0.05, 0.02), "garbled answers rose by 5.0 points"),
        (AnsweredRate("safety", 48, 0.9, 0.88, -0.02, 0.03), None),
        (AnsweredRate("garbled", 144, 0.05, 0.0, -0.05, 0.02), None),
    ],
)
def test_damage_in_judged_answers_rules_a_strength_out_where_it_is_more_than_chance(rate, said):
    found = excess(replace(trial(1, 0.8), answers=[rate]), LIMITS)
    assert [said in reason for reason in found] == ([True] if said else [])


def test_where_answers_break_a_limit_the_next_strength_is_asked(chat_model, prompts, monkeypatch):
    """A judge that calls all answers refusals the first time, and none after that."""
    asked = asked_and_answered(prompts, [HELP] * len(prompts))
    monkeypatch.setattr("actor_tune.repair.strength.own_answers", lambda _model, _asked, _store: asked.responses)
    inputs = block_inputs(chat_model, 1, encode(chat_model.tokenizer, prompts))
    tried = Tried(inputs, prompts, state_of(chat_model.blocks[1]), {})
    calls = []

    def judge(exchanges):
        calls.append(len(exchanges))
        return [REFUSAL if len(calls) == 1 else HELP for _ in exchanges]

    found = answered(
        chat_model,
        tried,
        [UNEDITED, trial(0.5, 0.7), trial(1, 0.8)],
        LIMITS,
        asked,
        judge,
    )
    assert len(calls) == 2
    assert choose(found, LIMITS).strength == 0.5
    assert [item.answers is None for item in found] == [True, False, False]
