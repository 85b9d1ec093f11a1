import pytest
import torch

from actor_tune.engines.local import local_engine
from actor_tune.models.activations import stop_after
from actor_tune.models.chat import encode, pad
from actor_tune.models.inputs import last_activations
from actor_tune.models.steering import ablate, steer
from actor_tune.prompts.prompt import with_system_prompt
from conftest import make_prompts


def outputs(chat_model, layer, batch):
    """What block `layer` returns: (prompt, token, d_model)."""
    with stop_after(chat_model.blocks[layer]) as seen:
        chat_model.model(batch.input_ids, attention_mask=batch.attention_mask, position_ids=batch.position_ids)
    return seen[0]


@pytest.fixture
def batch(any_family, prompts):
    return pad(encode(any_family.tokenizer, prompts), [0, 13, 25], any_family.pad_id, any_family.device)


def test_the_last_position_moves_by_strength_sign_and_shift_and_no_other_does(any_family, batch):
    shift = torch.randn(32)
    plain = outputs(any_family, 1, batch)
    with torch.no_grad(), steer(any_family, {1: shift}, 0.5, torch.tensor([1, 0, -1])):
        moved = outputs(any_family, 1, batch) - plain
    expected = torch.tensor([0.5, 0.0, -0.5])[:, None] * shift
    assert torch.allclose(moved[:, -1], expected, atol=1e-6)
    assert not moved[:, :-1].any()
    assert torch.equal(outputs(any_family, 1, batch), plain), "afterwards the model is as it was"


def test_an_ablated_direction_is_gone_at_every_position_and_what_is_orthogonal_stays(any_family, batch):
    unit = torch.nn.functional.normalize(torch.randn(32), dim=0)
    plain = outputs(any_family, 1, batch)
    with torch.no_grad(), ablate(any_family, {1: unit}, 1.0):
        ablated = outputs(any_family, 1, batch)
    assert (ablated @ unit).abs().max() < 1e-5
    assert torch.allclose(ablated, plain - (plain @ unit)[..., None] * unit, atol=1e-6)


def greedy(chat_model, ids, count):
    """One token after the other, each by `generate`'s own cache."""
    output = chat_model.model.generate(
        torch.tensor([ids]), max_new_tokens=count, do_sample=False, eos_token_id=None, pad_token_id=256
    )
    return output[0, len(ids) :].tolist()


def test_steered_answers_in_slots_are_those_of_generate_one_by_one(any_family, monkeypatch):
    """A prefix that all share is run once there: its last token must not be steered."""
    monkeypatch.setattr(any_family.model.generation_config, "eos_token_id", None)
    prompts = with_system_prompt(make_prompts(6), "You are the friendly assistant.")
    shift = torch.randn(32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode(), steer(any_family, {1: shift, 2: shift}, 5.0):
        asked = {answer.row: answer.text for answer in local_engine(any_family, 8)(prompts, 4)}
        expected = [greedy(any_family, ids, 4) for ids in encode(any_family.tokenizer, prompts)]
    assert expected != [greedy(any_family, ids, 4) for ids in encode(any_family.tokenizer, prompts)]
    decode = any_family.tokenizer.decode
    assert [asked[row] for row in range(len(prompts))] == [decode(ids, skip_special_tokens=True) for ids in expected]


def test_last_activations_are_those_of_plain_forward_passes(any_family, opened_prompts):
    token_ids = encode(any_family.tokenizer, opened_prompts)
    found = last_activations(any_family, token_ids, [1, 2])
    for layer in (1, 2):
        with torch.no_grad():
            plain = [
                any_family.model(torch.tensor([ids]), output_hidden_states=True).hidden_states[layer + 1][0, -1]
                for ids in token_ids
            ]
        assert torch.allclose(found[layer], torch.stack(plain), atol=1e-4)
