import pytest
import torch

from actor_tune.activations import (
    block_inputs,
    check_wiring,
    forward,
    last_token_activations,
    shifted,
    start_at,
    stop_after,
)
from actor_tune.chat import encode, pad
from actor_tune.errors import UserError

LAYER = 1


def hidden_states(chat_model, batch):
    return chat_model.model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        output_hidden_states=True,
    ).hidden_states


def test_the_hooked_tensor_is_the_hidden_state_after_the_block(any_family, prompts):
    token_ids = encode(any_family.tokenizer, prompts)
    batch = pad(token_ids, [0, 1, 2], any_family.pad_id, any_family.device)
    with stop_after(any_family.blocks[LAYER]) as seen:
        forward(any_family, batch)
    assert torch.equal(seen[0], hidden_states(any_family, batch)[LAYER + 1])


def test_changing_the_hooked_tensor_changes_the_logits(any_family, prompts):
    batch = pad(encode(any_family.tokenizer, prompts), [0, 1], any_family.pad_id, any_family.device)
    plain = forward(any_family, batch)
    with shifted(any_family.blocks[LAYER], 5.0 * torch.arange(32.0)):
        moved = forward(any_family, batch)
    assert not torch.allclose(plain, moved, atol=1e-3)
    assert torch.equal(plain, forward(any_family, batch))


def test_the_last_token_of_every_prompt_is_read_whatever_the_batch(any_family, prompts):
    token_ids = encode(any_family.tokenizer, prompts[:5])
    together = last_token_activations(any_family, token_ids)
    assert together.shape == (5, 4, 32)
    assert together.dtype == torch.float32
    for row in range(5):
        batch = pad(token_ids, [row], any_family.pad_id, any_family.device)
        states = hidden_states(any_family, batch)
        for layer in range(3):  # the last entry of hidden_states is taken after the final norm
            assert torch.allclose(together[row, layer], states[layer + 1][0, -1], atol=1e-4)


def test_starting_at_a_block_from_kept_inputs_gives_the_logits_of_the_whole_model(any_family, prompts):
    token_ids = encode(any_family.tokenizer, prompts)
    inputs = block_inputs(any_family, 2, token_ids)
    batch, hidden = inputs.batch([4, 0, 9], any_family)
    plain = forward(any_family, batch)
    with start_at(any_family, 2, hidden):
        restarted = forward(any_family, batch)
    assert torch.allclose(plain, restarted, atol=1e-4)


def test_blocks_below_are_not_run_when_starting_at_a_block_and_run_again_afterwards(chat_model, prompts):
    token_ids = encode(chat_model.tokenizer, prompts)
    inputs = block_inputs(chat_model, 2, token_ids)
    batch, hidden = inputs.batch([0], chat_model)
    calls = []
    handle = chat_model.blocks[0].mlp.register_forward_hook(lambda *_: calls.append(1))
    with start_at(chat_model, 2, hidden):
        forward(chat_model, batch)
    assert calls == []
    forward(chat_model, batch)
    handle.remove()
    assert calls == [1]


@pytest.mark.filterwarnings("ignore")
def test_hooks_are_removed_when_a_forward_pass_fails(chat_model, prompts):
    batch = pad(encode(chat_model.tokenizer, prompts), [0], chat_model.pad_id, chat_model.device)
    for context in (
        stop_after(chat_model.blocks[3]),
        shifted(chat_model.blocks[0], torch.zeros(32)),
        start_at(chat_model, 2, torch.zeros(1, 1, 32)),
    ):
        with pytest.raises(ZeroDivisionError), context:
            raise ZeroDivisionError
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in chat_model.model.modules())
    assert not any("forward" in vars(block) for block in chat_model.blocks)
    forward(chat_model, batch)


def test_the_wiring_check_passes_for_every_family(any_family, prompts):
    check_wiring(any_family, LAYER, encode(any_family.tokenizer, prompts))


def test_the_wiring_check_fails_where_a_block_has_no_effect(chat_model, prompts):
    chat_model.model.lm_head.weight.zero_()
    with pytest.raises(UserError, match="changing its output does not change the logits"):
        check_wiring(chat_model, LAYER, encode(chat_model.tokenizer, prompts))
