from dataclasses import replace

import pytest
import torch

from actor_tune.errors import UserError
from actor_tune.models import block_checks
from actor_tune.models.block_checks import check_effect, check_reading
from actor_tune.models.chat import encode
from actor_tune.models.inputs import block_inputs

LAYER = 1


def test_the_wiring_checks_pass_for_every_family(any_family, opened_prompts):
    token_ids = encode(any_family.tokenizer, opened_prompts)
    check_reading(any_family, LAYER, token_ids)
    check_effect(any_family, LAYER, token_ids)


def other_inputs(monkeypatch, change):
    """What the block receives from kept inputs is `change` of what it should be."""
    monkeypatch.setattr(block_checks, "block_inputs", lambda *arguments: changed(block_inputs(*arguments), change))


def changed(inputs, change):
    return replace(inputs, hidden=change(inputs.hidden))


def test_as_much_rounding_as_a_real_model_in_bfloat16_has_passes_there_and_not_in_float32(
    chat_model, prompts, monkeypatch
):
    """The testbed's logits differ by up to 0.11 of their spread; a tiny model's hardly at all: noise stands for it."""
    token_ids = encode(chat_model.tokenizer, prompts)
    with pytest.raises(UserError, match="running it from kept inputs gives other logits"):
        check_with_noise(chat_model, token_ids, 0.1, monkeypatch)
    chat_model.model.bfloat16()
    check_with_noise(chat_model, token_ids, 0.1, monkeypatch)
    with pytest.raises(UserError, match="running it from kept inputs gives other logits"):
        check_with_noise(chat_model, token_ids, 0.5, monkeypatch)
    chat_model.model.half()
    with pytest.raises(UserError, match="running it from kept inputs gives other logits"):
        check_with_noise(chat_model, token_ids, 0.1, monkeypatch)


def check_with_noise(chat_model, token_ids, share, monkeypatch):
    """What the block receives is off by a `share` of each of its numbers."""
    noise = torch.Generator().manual_seed(0)
    other_inputs(
        monkeypatch, lambda hidden: hidden * (1 + share * torch.randn(hidden.shape, generator=noise)).to(hidden)
    )
    check_effect(chat_model, LAYER, token_ids)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_wiring_check_fails_where_a_block_starts_from_the_states_of_other_tokens(
    dtype, chat_model, opened_prompts, monkeypatch
):
    token_ids = encode(chat_model.tokenizer, opened_prompts)
    chat_model.model.to(dtype)
    other_inputs(monkeypatch, lambda hidden: hidden.roll(1, 0))
    with pytest.raises(UserError, match="running it from kept inputs gives other logits"):
        check_effect(chat_model, LAYER, token_ids)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_wiring_check_fails_where_a_block_has_no_effect(dtype, chat_model, prompts):
    chat_model.model.to(dtype)
    chat_model.model.lm_head.weight.zero_()
    with pytest.raises(UserError, match="changing its output does not change the logits"):
        check_effect(chat_model, LAYER, encode(chat_model.tokenizer, prompts))


def test_the_wiring_check_fails_where_blocks_pass_on_more_than_the_hidden_state(chat_model, prompts):
    """What block 2 returns also depends on something that block 0 left behind, which kept inputs do not have."""
    left = []
    chat_model.blocks[0].register_forward_hook(lambda _module, _arguments, output: left.append(output.mean()))
    chat_model.blocks[2].register_forward_hook(
        lambda _module, _arguments, output: output + 30 * left.pop() if left else output
    )
    with pytest.raises(UserError, match="running it from kept inputs gives other logits"):
        check_effect(chat_model, LAYER, encode(chat_model.tokenizer, prompts))


def test_reading_is_checked_without_running_the_blocks_above(chat_model, prompts):
    calls = []
    chat_model.blocks[3].mlp.register_forward_hook(lambda *_: calls.append(1))
    check_reading(chat_model, LAYER, encode(chat_model.tokenizer, prompts))
    assert calls == []
