import pytest
import torch

from actor_tune.models.activations import forward, shifted, start_at, stop_after
from actor_tune.models.chat import encode, pad
from actor_tune.models.inputs import block_inputs

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


def test_blocks_below_are_not_run_when_starting_at_a_block_and_run_again_afterwards(chat_model, prompts):
    token_ids = encode(chat_model.tokenizer, prompts)
    inputs = block_inputs(chat_model, 2, token_ids)
    batch, hidden = inputs.batch([0], chat_model)
    assert inputs.opening == 0
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
