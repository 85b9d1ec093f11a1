"""Odds of refusal, and what moves them: against plain forward passes and finite differences."""

import pytest
import torch
from torch.nn.functional import softplus

from actor_tune.judges.verdict import Verdict
from actor_tune.models.above import Slope, blocks_above
from actor_tune.models.activations import changed, forward
from actor_tune.models.chat import encode, pad
from actor_tune.models.inputs import block_inputs
from actor_tune.repair.odds import Odds, RefusalStart, log_odds, odds_reader
from actor_tune.repair.refusals import best_boundary, how_it_refuses
from actor_tune.repair.rules import HARMFUL, HARMLESS, PSEUDO_HARMFUL, Margins, odds_loss
from actor_tune.repair.train import block_outputs
from conftest import plain_logprobs

TOKENS = torch.tensor([65, 66])


def put(activation):
    """What a hook does that puts `activation` (d_model) in the place of the last token's."""
    return lambda hidden: torch.cat([hidden[:, :-1], activation.to(hidden)[None, None]], dim=1)


def test_log_odds_are_those_of_the_probability_to_begin_so():
    logits = torch.tensor([[0.5, 0.25, 0.25]]).log() + 3
    assert log_odds(logits, torch.tensor([1, 2])).item() == pytest.approx(0, abs=1e-6)
    assert log_odds(logits, torch.tensor([1])).item() == pytest.approx(torch.tensor(1 / 3).log().item(), abs=1e-6)
    assert log_odds(torch.tensor([[100.0, 0.0]]), torch.tensor([0])).isfinite().all()


def test_odds_and_gradients_are_those_of_whole_forward_passes(any_family, opened_prompts):
    """At activations that are not the model's own, so that they are indeed put in."""
    layer, token_ids = 1, encode(any_family.tokenizer, opened_prompts)
    inputs = block_inputs(any_family, layer, token_ids)
    activations = block_outputs(any_family, inputs)
    activations = activations + 0.1 * torch.randn(activations.shape, generator=torch.Generator().manual_seed(1))
    odds = odds_reader(blocks_above(any_family, inputs), TOKENS)(activations)

    for row in (0, len(token_ids) // 2, len(token_ids) - 1):
        activation = activations[row].clone().requires_grad_(True)
        batch = pad(token_ids, [row], 0, torch.device("cpu"))
        with changed(any_family.blocks[layer], put(activation)):
            value = log_odds(forward(any_family, batch), TOKENS)
        value.sum().backward()
        assert odds.slope.values[row].item() == pytest.approx(value.item(), abs=1e-3)
        assert torch.allclose(odds.slope.gradients[row], activation.grad, atol=1e-3)
        assert activation.grad.norm() > 1e-2


def test_the_loss_by_odds_equals_an_independent_transcription():
    kinds = torch.tensor([PSEUDO_HARMFUL, HARMFUL, HARMFUL, HARMLESS, HARMLESS])
    at = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    before = Odds(at, Slope(torch.tensor([1.0, 2.0, -1.0, -3.0, 0.5]), torch.ones(5, 3)))
    read = Odds(at + 0.5, Slope(torch.tensor([0.5, 1.0, -0.5, -2.5, 0.7]), torch.full((5, 3), 2.0)))
    now, boundary = at + 0.7, -0.25
    margins = Margins(
        pseudo_harmful=3.0,
        harmful=2.0,
        harmless=0.75,
        hold=1.5,
        hold_harmless=4.0,
        harmless_odds=6.0,
        refused=2.0,
        answered=0.5,
    )
    found = odds_loss(kinds, before, read, boundary, margins)(now, torch.arange(5), None)

    z = read.slope.values + 2.0 * (0.2 * 3) - boundary
    old = before.slope.values - boundary
    p, q = (old[3:] - 0.75).sigmoid(), z[3:].sigmoid()
    harmless = 6.0 * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log())
    terms = [
        softplus(z[0] + 3.0),
        2.0 * softplus(2.25 - z[1]),  # refused before, by more than the margin
        0.5 * softplus(2.0 - z[2]),  # answered before
        *harmless,
    ]
    moved = 3 * (3 * 0.7**2)  # the gradients before were of squared length 3
    weights = [1.5, 1.5, 1.5, 4.0, 4.0]
    expected = [float(term + weight * moved) for term, weight in zip(terms, weights, strict=True)]
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_a_prompt_on_its_side_hardly_pulls_and_one_on_the_other_does():
    kinds, at = torch.tensor([PSEUDO_HARMFUL, PSEUDO_HARMFUL]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    odds = Odds(at, Slope(torch.tensor([-9.0, 2.0]), torch.ones(2, 2)))
    now = at.clone().requires_grad_(True)
    margins = Margins(3.0, *[1.0] * 7)
    odds_loss(kinds, odds, odds, 0.0, margins)(now, torch.arange(2), None).sum().backward()
    assert now.grad[0].norm() < 0.01 * now.grad[1].norm()


def test_the_boundary_parts_refused_from_answered_with_the_fewest_errors():
    values = torch.tensor([-2.0, -1.0, 0.0, 1.0, 3.0])
    assert best_boundary(values, torch.tensor([False, False, True, True, True])) == (-0.5, 0.0)
    assert best_boundary(values, torch.tensor([True, False, False, True, True])) == (0.5, pytest.approx(0.2))
    assert best_boundary(values, torch.tensor([True] * 5))[0] < -2
    assert best_boundary(values, torch.tensor([False] * 5))[0] > 3


def test_refusals_begin_with_what_most_judged_answers_that_begin_so_are(chat_model, prompts):
    """A judge that calls those answers refusals that begin with the commonest token."""
    first = plain_logprobs(chat_model, encode(chat_model.tokenizer, prompts)).argmax(dim=-1).tolist()
    token = max(set(first), key=first.count)

    def judge(exchanges):
        order = {prompt.text: start for prompt, start in zip(prompts, first, strict=True)}
        return [
            Verdict("refusal" if order[exchange.prompt] == token else "compliance", 0.5, "") for exchange in exchanges
        ]

    found = how_it_refuses(chat_model, prompts, judge, seed=0)
    assert [item.token for item in found.refusal_tokens] == [token]
    assert found.start.tokens.tolist() == [token]
    assert found.refusal_tokens[0].refused == found.refusal_tokens[0].answers == first.count(token)
    assert found.error is not None


def test_where_no_answer_refuses_what_is_likelier_after_harmful_prompts_is_taken(chat_model, prompts, monkeypatch):
    monkeypatch.setattr("actor_tune.repair.refusals.refusal_token_ids", lambda *_: TOKENS)
    found = how_it_refuses(chat_model, prompts, lambda asked: [Verdict("compliance", 0.0, "")] * len(asked), seed=0)
    assert (found.start.tokens.tolist(), found.refusal_tokens, found.error) == ([65, 66], [], None)
    assert isinstance(found.start, RefusalStart)
