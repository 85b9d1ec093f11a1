import pytest
import torch

from actor_tune.models.chat import encode
from actor_tune.models.kv_cache import Keys, KeysRead, KeyValue, attends_to_all, common_opening
from actor_tune.prompts.prompt import with_system_prompt
from conftest import CONFIGS, make_model, make_prompts


def key_value(rows, tokens, start=0.0):
    values = torch.arange(start, start + rows * 2 * tokens * 3).reshape(rows, 2, tokens, 3)
    return KeyValue(values, -values)


def test_kept_keys_come_first_and_one_row_stands_for_all():
    kept, new = key_value(1, 4), key_value(3, 2, start=100)
    keys, values = Keys(4, {7: kept}).update(new.keys, new.values, 7)
    assert keys.shape == values.shape == (3, 2, 6, 3)
    assert torch.equal(keys[:, :, :4], kept.keys.expand(3, -1, -1, -1))
    assert torch.equal(keys[:, :, 4:], new.keys)
    assert torch.equal(values, -keys)


def test_reading_does_not_change_what_is_kept():
    cache, new = Keys(4, {0: key_value(1, 4)}), key_value(2, 1)
    first = cache.update(new.keys, new.values, 0)[0]
    assert torch.equal(first, cache.update(new.keys, new.values, 0)[0])
    assert cache.get_seq_length() == 4
    assert cache.get_mask_sizes(1, 0) == (5, 0)


def test_a_recorded_pass_can_be_left_once_the_keys_are_known():
    seen = {}
    new = key_value(2, 3)
    with pytest.raises(KeysRead):
        Keys(seen=seen, leave=True).update(new.keys, new.values, 5)
    assert torch.equal(seen[5].keys, new.keys)
    assert seen[5].without_last().values.shape == (2, 2, 2, 3)


def test_the_opening_ends_where_prompts_differ_and_leaves_each_a_token():
    model = make_model().model
    same = list(range(1, 9))
    assert common_opening(model.config, [[*same, 5, 6], [*same, 9], [*same, 7]]) == 8
    assert common_opening(model.config, [[*same, 5, 6], [*same, 5]]) == 8
    assert common_opening(model.config, [[*same[1:], 5, 6], [*same[1:], 5]]) == 0  # too short to pay


def test_no_opening_is_run_apart_where_a_window_is_shorter_than_a_prompt(monkeypatch):
    chat_model = make_model("gemma2")
    token_ids = encode(chat_model.tokenizer, with_system_prompt(make_prompts(), "You are a friendly assistant."))
    assert common_opening(chat_model.model.config, token_ids) == 0
    monkeypatch.setattr(chat_model.model.config, "sliding_window", max(map(len, token_ids)))
    assert common_opening(chat_model.model.config, token_ids) > 20


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_attention_over_all_tokens_is_told_by_the_cache_that_a_model_uses(family):
    model = make_model(family).model
    assert attends_to_all(model.config, 16)
    assert attends_to_all(model.config, 17) == (family != "gemma2")
