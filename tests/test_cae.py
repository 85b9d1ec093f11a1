from dataclasses import replace

import pytest
import torch

from actor_tune.comparison.methods.cae import cae, random_direction
from actor_tune.models.chat import encode
from actor_tune.models.inputs import last_activations
from actor_tune.prompts.prompt import rows_of_kind


def test_cae_at_strength_1_moves_the_harmful_mean_to_the_harmless_one(chat_model, task):
    fitted = cae(chat_model, task)
    train = task.split.train
    token_ids = encode(chat_model.tokenizer, train)
    harmful, harmless = (rows_of_kind(train, kind) for kind in ("harmful", "harmless"))
    plain = last_activations(chat_model, token_ids, [1])[1]
    with fitted.changed(1.0, 1):
        moved = last_activations(chat_model, token_ids, [1])[1]
    # The hook that reads was there after the one that steers, so it sees what the next block sees.
    assert torch.allclose(moved[harmful].mean(dim=0), plain[harmless].mean(dim=0), atol=1e-4)


def test_the_random_control_is_as_long_as_the_vector_and_another_with_another_seed(chat_model, task):
    token_ids = encode(chat_model.tokenizer, task.split.train[:2])
    plain = last_activations(chat_model, token_ids, [1])[1]

    def shift(fitted):
        with fitted.changed(1.0, 1):
            return (last_activations(chat_model, token_ids, [1])[1] - plain)[0]

    other = replace(task, seed=1)
    vector, drawn, again = (
        shift(each)
        for each in (cae(chat_model, task), random_direction(chat_model, task), random_direction(chat_model, other))
    )
    assert drawn.norm() == pytest.approx(float(vector.norm()), rel=1e-4)
    assert abs(torch.cosine_similarity(drawn, again, dim=0)) < 0.9
