import logging

import torch
from torch import nn

from actor_tune.activations import block_inputs
from actor_tune.chat import encode
from actor_tune.last_token import last_token_only
from actor_tune.train import block_output


def gradients(chat_model, inputs):
    block = chat_model.blocks[inputs.layer]
    block.requires_grad_(True)
    output = block_output(chat_model, inputs, [0, 1, 2, 3])
    (output * torch.arange(32.0)).sum().backward()
    found = {name: parameter.grad.clone() for name, parameter in block.named_parameters()}
    block.zero_grad()
    block.requires_grad_(False)
    return output.detach(), found


def test_output_and_gradients_are_those_of_the_whole_block(any_family, prompts):
    inputs = block_inputs(any_family, 1, encode(any_family.tokenizer, prompts))
    output, expected = gradients(any_family, inputs)
    block = any_family.blocks[1]
    with last_token_only(block, lambda: block_output(any_family, inputs, [0, 1, 2])) as cut:
        short_output, found = gradients(any_family, inputs)
    assert cut
    assert torch.allclose(output, short_output, atol=1e-5)
    for name, gradient in expected.items():
        assert torch.allclose(gradient, found[name], rtol=1e-3, atol=1e-4), name


def test_the_feed_forward_part_and_the_output_projection_are_cut_but_keys_and_values_are_not(chat_model, prompts):
    inputs = block_inputs(chat_model, 1, encode(chat_model.tokenizer, prompts))
    seen = []
    with last_token_only(chat_model.blocks[1], lambda: block_output(chat_model, inputs, [0, 1])) as cut:
        handle = chat_model.blocks[1].mlp.up_proj.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
        block_output(chat_model, inputs, [0, 1])
        handle.remove()
    assert {"mlp", "self_attn.o_proj"} <= set(cut)
    assert not {"self_attn.k_proj", "self_attn.v_proj", "input_layernorm"} & set(cut)
    assert seen[0].shape[1] == 1


def test_a_block_that_mixes_tokens_everywhere_is_run_whole_and_that_is_said(caplog):
    class Mixer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, hidden):
            return self.inner(hidden.cumsum(dim=1)).cumsum(dim=1)

    block, hidden = Mixer(), torch.randn(2, 5, 4)
    with caplog.at_level(logging.INFO), last_token_only(block, lambda: block(hidden)[:, -1]) as cut:
        assert cut == []
    assert "no part of Mixer can be limited to the last token" in caplog.text
