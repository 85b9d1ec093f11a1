import torch

from actor_tune.models.state import fingerprint, weights_in_memory
from actor_tune.models.steering import steer
from conftest import make_model


def test_a_fingerprint_is_that_of_the_weights_and_not_of_the_object(any_family):
    assert fingerprint(any_family) == fingerprint(make_model(any_family.name))


def test_any_weight_or_buffer_that_changes_changes_it_and_comes_back_with_it(chat_model):
    before = fingerprint(chat_model)
    tensors = [*chat_model.model.parameters(), *chat_model.model.buffers()]
    seen = {before}
    for tensor in tensors:
        flat = tensor.data.view(-1)
        value = flat[-1].clone()
        flat[-1] += 1
        seen.add(fingerprint(chat_model))
        flat[-1] = value
    assert len(seen) == 1 + len(tensors)
    assert fingerprint(chat_model) == before


def test_two_weights_that_change_places_change_it(chat_model):
    before = weights_in_memory(chat_model)
    flat = chat_model.blocks[1].mlp.up_proj.weight.data.view(-1)
    for first, second in ((0, 2), (0, 700), (5, 1535), (8, 9)):
        flat[[first, second]] = flat[[second, first]]
        assert weights_in_memory(chat_model) != before
        flat[[first, second]] = flat[[second, first]]
    assert weights_in_memory(chat_model) == before


def test_weights_of_every_dtype_and_place_in_memory_can_be_read():
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        chat_model = make_model(dtype=dtype)
        norm = chat_model.blocks[0].input_layernorm
        before = weights_in_memory(chat_model)
        aside = torch.empty(len(norm.weight) + 1, dtype=dtype)[1:]  # begins in the middle of eight bytes
        aside.copy_(norm.weight.data)
        norm.weight.data = aside
        chat_model.blocks[1].mlp.up_proj.weight.data = chat_model.blocks[1].mlp.up_proj.weight.data.t().contiguous().t()
        assert weights_in_memory(chat_model) == before
        norm.register_buffer("flags", torch.tensor([True]))
        norm.register_buffer("number", torch.tensor(3))
        assert weights_in_memory(chat_model) != before


def test_a_hook_that_is_registered_changes_it_and_leaves_the_weights_alone(chat_model):
    before, weights = fingerprint(chat_model), weights_in_memory(chat_model)
    with steer(chat_model, {1: torch.ones(32)}, 0.5):
        assert fingerprint(chat_model) != before
        assert weights_in_memory(chat_model) == weights
    assert fingerprint(chat_model) == before
