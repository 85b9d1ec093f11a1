import pytest
import torch

from actor_tune.errors import UserError
from actor_tune.models.activations import forward, last_logits, start_at
from actor_tune.models.chat import encode, pad
from actor_tune.models.inputs import advance, block_inputs, opening_keys
from conftest import plain_logprobs


def test_kept_inputs_are_what_the_block_receives_in_a_plain_forward_pass(any_family, opened_prompts):
    token_ids = encode(any_family.tokenizer, opened_prompts)
    inputs = block_inputs(any_family, 2, token_ids)
    for row in range(len(token_ids)):
        states = any_family.model(torch.tensor([token_ids[row]]), output_hidden_states=True).hidden_states
        assert torch.allclose(inputs.whole(row), states[2][0], atol=1e-5)


def test_the_opening_that_all_prompts_share_is_kept_once_where_attention_sees_all_of_it(opened_prompts, any_family):
    token_ids = encode(any_family.tokenizer, opened_prompts)
    inputs = block_inputs(any_family, 2, token_ids)
    has_system_prompt = bool(opened_prompts[0].context)
    windowed = type(any_family.model).__name__ == "Gemma2ForCausalLM"  # 16 tokens, fewer than a prompt has
    assert (inputs.opening > 20) == (has_system_prompt and not windowed)
    assert len(inputs.hidden) == sum(map(len, token_ids)) - len(token_ids) * inputs.opening


def test_starting_at_a_block_from_kept_inputs_gives_the_logits_of_the_whole_model(any_family, opened_prompts):
    token_ids = encode(any_family.tokenizer, opened_prompts)
    inputs = block_inputs(any_family, 2, token_ids)
    batch, hidden = inputs.batch([4, 0, 9], any_family)
    plain = forward(any_family, pad(token_ids, [4, 0, 9], any_family.pad_id, any_family.device))
    with start_at(any_family, 2, hidden):
        restarted = forward(any_family, batch, opening_keys(any_family, inputs))
    assert torch.allclose(plain, restarted, atol=1e-4)


def test_going_on_block_by_block_gives_what_one_pass_gives(any_family, opened_prompts):
    token_ids = encode(any_family.tokenizer, opened_prompts)
    stepwise = advance(any_family, block_inputs(any_family, 0, token_ids), 3)
    at_once = block_inputs(any_family, 3, token_ids)
    assert stepwise.layer == at_once.layer == 3
    for row in range(len(token_ids)):
        assert torch.allclose(stepwise.whole(row), at_once.whole(row), atol=1e-5)


def test_logits_can_be_read_off_what_the_last_block_returns(any_family, prompts):
    token_ids = encode(any_family.tokenizer, prompts)
    inputs = advance(any_family, block_inputs(any_family, 0, token_ids), len(any_family.blocks))
    logits = last_logits(any_family, *inputs.batch([3, 1], any_family))
    assert torch.allclose(logits.log_softmax(-1), plain_logprobs(any_family, [token_ids[3], token_ids[1]]), atol=1e-4)


def test_inputs_that_memory_has_no_room_for_are_kept_in_a_file(chat_model, prompts, monkeypatch):
    token_ids = encode(chat_model.tokenizer, prompts)
    in_memory = block_inputs(chat_model, 2, token_ids)
    monkeypatch.setattr("actor_tune.models.inputs.KEPT_SHARE", 0.0)
    in_file = block_inputs(chat_model, 2, token_ids)
    assert in_file.hidden.untyped_storage().filename is not None
    assert torch.equal(in_file.hidden, in_memory.hidden)


def test_out_of_memory_halves_the_batch_and_goes_on(chat_model, prompts, caplog):
    token_ids = encode(chat_model.tokenizer, prompts)
    expected = block_inputs(chat_model, 2, token_ids)
    sizes = []

    def short_of_memory(_module, arguments):
        sizes.append(len(arguments[0]))
        if len(arguments[0]) > 9:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    handle = chat_model.blocks[0].register_forward_pre_hook(short_of_memory)
    found = block_inputs(chat_model, 2, token_ids)
    handle.remove()
    assert max(size for size in sizes if size <= 9) == 8
    assert torch.allclose(found.hidden, expected.hidden, atol=1e-6)
    assert "going on with 16 prompts at a time" in caplog.text


def test_activations_that_are_not_finite_are_refused(chat_model, prompts):
    chat_model.blocks[0].mlp.up_proj.weight[3, 3] = float("nan")
    with pytest.raises(UserError, match="block 0 returns NaN or infinity in float32"):
        block_inputs(chat_model, 2, encode(chat_model.tokenizer, prompts))
