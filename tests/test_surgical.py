import pytest
import torch

from actor_tune.comparison.methods.ablation import ablation
from actor_tune.comparison.methods.surgical import false_refusal_vector, surgical
from actor_tune.models.activations import forward, stop_after
from actor_tune.models.chat import encode, pad
from actor_tune.models.inputs import last_activations
from actor_tune.prompts.prompt import KINDS, rows_of_kind


def test_the_false_refusal_vector_is_orthogonal_to_the_true_one():
    false, true = torch.tensor([3.0, 4.0, 0.0]), torch.tensor([1.0, 0.0, 0.0])
    assert torch.allclose(false_refusal_vector(false, true), torch.tensor([0.0, 1.0, 0.0]))


@pytest.mark.parametrize("method", [surgical, ablation])
def test_at_strength_1_no_block_returns_anything_along_the_false_refusal_vector(chat_model, task, method):
    """The vector, written down anew: the false refusal, by `surgical` without what it shares with the true one."""
    token_ids = encode(chat_model.tokenizer, task.split.train)
    seen = last_activations(chat_model, token_ids, [task.layer])[task.layer]
    means = {kind: seen[rows_of_kind(task.split.train, kind)].mean(dim=0) for kind in KINDS}
    false, true = (means[kind] - means["harmless"] for kind in ("pseudo_harmful", "harmful"))
    vector = false - true * (false @ true) / (true @ true) if method is surgical else false
    fitted = method(chat_model, task)
    batch = pad(token_ids, [0, 5], chat_model.pad_id, chat_model.device)

    def along(layer):
        with stop_after(chat_model.blocks[layer]) as returned:
            forward(chat_model, batch)
        return (returned[0][batch.attention_mask.bool()] @ (vector / vector.norm())).abs().max()

    assert min(along(layer) for layer in range(4)) > 1e-3, "otherwise nothing is shown below"
    with fitted.changed(1.0, 1):
        assert max(along(layer) for layer in range(4)) < 1e-5
