import numpy as np
import pytest
import torch

from actor_tune.repair.direction import raw_projection, refusal_direction, tsne_silhouette


def planted(count=200, size=16, distance=5.0):
    generator = torch.Generator().manual_seed(3)
    axis = torch.zeros(size)
    axis[4] = distance
    noise = torch.randn(2, count, size, generator=generator)
    origin = torch.arange(size, dtype=torch.float32)
    return origin, axis, origin + axis + noise[0], origin + noise[1]


def test_a_planted_direction_is_recovered():
    origin, axis, harmful, harmless = planted()
    direction = refusal_direction(harmful, harmless)
    assert torch.cosine_similarity(direction.vector, axis, dim=0) > 0.99
    assert direction.length == pytest.approx(5.0, abs=0.3)
    assert (direction.origin - origin).abs().max() < 0.3


def test_position_is_0_at_the_harmless_mean_and_1_at_the_harmful_mean():
    _, _, harmful, harmless = planted()
    direction = refusal_direction(harmful, harmless)
    position = direction.position(torch.stack([harmless.mean(dim=0), harmful.mean(dim=0)]))
    assert position.tolist() == pytest.approx([0.0, 1.0], abs=1e-5)


def test_raw_projection_is_equation_3():
    generator = np.random.default_rng(0)
    activations, vector = generator.normal(size=(5, 7)), generator.normal(size=7)
    expected = [(vector @ a) / np.linalg.norm(vector) ** 2 * vector for a in activations]
    found = raw_projection(torch.tensor(activations), torch.tensor(vector))
    np.testing.assert_allclose(found.numpy(), expected)


def test_the_silhouette_is_high_for_kinds_apart_and_low_for_kinds_mixed():
    _, _, harmful, harmless = planted(count=40, distance=30.0)
    assert tsne_silhouette(harmful, harmless, seed=0) > 0.5
    mixed = torch.cat([harmful, harmless])
    assert tsne_silhouette(mixed[::2], mixed[1::2], seed=0) < 0.1
