import pytest
import torch

from actor_tune.errors import UserError
from actor_tune.models.block_checks import check_effect, check_reading
from actor_tune.models.chat import encode

LAYER = 1


def test_the_wiring_checks_pass_for_every_family(any_family, opened_prompts):
    token_ids = encode(any_family.tokenizer, opened_prompts)
    check_reading(any_family, LAYER, token_ids)
    check_effect(any_family, LAYER, token_ids)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_wiring_check_fails_where_a_block_has_no_effect(dtype, chat_model, prompts):
    chat_model.model.to(dtype)
    chat_model.model.lm_head.weight.zero_()
    with pytest.raises(UserError, match="changing its output does not change the logits"):
        check_effect(chat_model, LAYER, encode(chat_model.tokenizer, prompts))


def test_reading_fails_where_the_next_block_receives_something_else(chat_model, prompts):
    def add(_module, arguments):
        return (arguments[0] + 1, *arguments[1:])

    chat_model.blocks[LAYER + 1].register_forward_pre_hook(add)
    with pytest.raises(UserError, match="what it returns is not what the next block receives"):
        check_reading(chat_model, LAYER, encode(chat_model.tokenizer, prompts))


def test_reading_is_checked_without_running_the_blocks_above(chat_model, prompts):
    calls = []
    chat_model.blocks[LAYER + 1].mlp.register_forward_hook(lambda *_: calls.append(1))
    check_reading(chat_model, LAYER, encode(chat_model.tokenizer, prompts))
    assert calls == []
