import torch

from actor_tune.methods.surgical import false_refusal_vector


def test_the_false_refusal_vector_is_orthogonal_to_the_true_one():
    false, true = torch.tensor([3.0, 4.0, 0.0]), torch.tensor([1.0, 0.0, 0.0])
    assert torch.allclose(false_refusal_vector(false, true), torch.tensor([0.0, 1.0, 0.0]))
