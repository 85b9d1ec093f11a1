import logging

import pytest
import torch
from torch import nn

from actor_tune.models.chat import encode
from actor_tune.models.inputs import block_inputs
from actor_tune.models.last_token import keys_first, last_tokens, undisturbed, whole_block

LAYER = 1
ROWS = [3, 0, 20, 31]


def gradients(block, output):
    """Of a planted sum of `output` (prompt, d_model) in the block's parameters."""
    (output * torch.arange(32.0)).sum().backward()
    found = {name: parameter.grad.clone() for name, parameter in block.named_parameters()}
    block.zero_grad()
    return found


def plain_output(chat_model, token_ids, rows):
    """What block `LAYER` returns at the last token in forward passes of the whole model, prompt by prompt."""
    states = [
        chat_model.model(torch.tensor([token_ids[row]]), output_hidden_states=True, use_cache=False).hidden_states
        for row in rows
    ]
    return torch.stack([state[LAYER + 1][0, -1] for state in states])


@pytest.mark.parametrize("way", [keys_first, whole_block])
def test_output_and_gradients_are_those_of_the_whole_model(any_family, opened_prompts, way):
    token_ids = encode(any_family.tokenizer, opened_prompts)
    inputs = block_inputs(any_family, LAYER, token_ids)
    ready = way(any_family, inputs, ROWS)
    block = any_family.blocks[LAYER].requires_grad_(True)
    output, expected = ready.output(block, undisturbed), plain_output(any_family, token_ids, ROWS)
    assert torch.allclose(output, expected, atol=1e-5)
    wanted = gradients(block, expected)
    for name, gradient in gradients(block, output).items():
        assert torch.allclose(gradient, wanted[name], rtol=1e-3, atol=1e-3 * float(wanted[name].abs().max())), name


def test_a_block_can_be_run_again_and_again_with_other_weights(chat_model, opened_prompts):
    token_ids = encode(chat_model.tokenizer, opened_prompts)
    ready = last_tokens(chat_model, block_inputs(chat_model, LAYER, token_ids), [ROWS])[0]
    ready.output(chat_model.blocks[LAYER], undisturbed)
    for parameter in chat_model.blocks[LAYER].parameters():
        parameter.mul_(1.3)
    found = ready.output(chat_model.blocks[LAYER], undisturbed)
    assert torch.allclose(found, plain_output(chat_model, token_ids, ROWS), atol=1e-5)


def test_the_feed_forward_part_and_the_queries_see_the_last_token_alone(chat_model, prompts):
    inputs = block_inputs(chat_model, LAYER, encode(chat_model.tokenizer, prompts))
    ready = last_tokens(chat_model, inputs, [ROWS])[0]
    seen = []
    block = chat_model.blocks[LAYER]
    block.mlp.register_forward_hook(lambda _, inputs, __: seen.append(("mlp", *inputs[0].shape[:2])))
    block.self_attn.o_proj.register_forward_hook(lambda _, inputs, __: seen.append(("o", *inputs[0].shape[:2])))
    block.self_attn.k_proj.register_forward_hook(lambda _, inputs, __: seen.append(("k", *inputs[0].shape[:2])))
    ready.output(block, undisturbed)
    others = sum(len(inputs.token_ids[row]) - 1 for row in ROWS)
    assert seen == [("k", 1, others), ("k", 4, 1), ("o", 4, 1), ("mlp", 4, 1)]


def test_disturbance_reaches_every_token_once(chat_model, opened_prompts):
    inputs = block_inputs(chat_model, LAYER, encode(chat_model.tokenizer, opened_prompts))
    shapes = []
    ready = last_tokens(chat_model, inputs, [ROWS])[0]
    ready.output(chat_model.blocks[LAYER], lambda hidden: shapes.append(hidden.shape) or hidden)
    tokens = sum(len(inputs.token_ids[row]) - inputs.opening for row in ROWS) + inputs.opening
    assert shapes == [(tokens, 32)]


class Mixer(nn.Module):
    """A block that mixes tokens without attention: it has no keys."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, hidden_states, **keywords):
        return self.inner(hidden_states).cumsum(dim=1) / 10


def test_a_block_without_keys_is_run_whole_and_that_is_said(chat_model, prompts, caplog):
    chat_model.blocks[LAYER] = Mixer(nn.Linear(32, 32).requires_grad_(False))
    token_ids = encode(chat_model.tokenizer, prompts)
    inputs = block_inputs(chat_model, LAYER, token_ids)
    with caplog.at_level(logging.INFO):
        ready = last_tokens(chat_model, inputs, [[2]])[0]
    assert "Mixer cannot be limited to the last token: training runs it whole" in caplog.text
    expected = (chat_model.blocks[LAYER].inner(inputs.whole(2)).sum(dim=0) / 10)[None]
    assert torch.allclose(ready.output(chat_model.blocks[LAYER], undisturbed), expected, atol=1e-5)
