import numpy as np
import pytest
import torch

from actor_tune.direction import RefusalDirection
from actor_tune.targets import (
    Shifts,
    boundary_targets,
    cosine_loss,
    distance_loss,
    kind_codes,
    paper_targets,
    uniform_targets,
)

KINDS = kind_codes(["harmful", "harmless", "pseudo_harmful"])
# A planted direction: the harmless mean at (10, 0), the harmful one at (10, 4).
DIRECTION = RefusalDirection(vector=torch.tensor([0.0, 4.0]), origin=torch.tensor([10.0, 0.0]))


def test_the_boundary_rule_moves_each_prompt_by_its_own_distance_from_the_harmless_mean():
    activations = torch.tensor([[11.0, 3.0], [9.0, 1.0], [12.0, 2.0]])
    targets = boundary_targets(activations, KINDS, DIRECTION, Shifts(pseudo_harmful=1.5, harmful=1.0))
    assert targets.tolist() == [[11.0, 6.0], [9.0, 1.0], [12.0, -1.0]]


def test_prompts_beyond_the_harmless_mean_are_held_in_place_whatever_their_kind():
    activations = torch.tensor([[11.0, -3.0], [9.0, -1.0], [12.0, -2.0]])
    targets = boundary_targets(activations, KINDS, DIRECTION, Shifts(pseudo_harmful=1.5, harmful=1.0))
    assert torch.equal(targets, activations)


def test_the_boundary_rule_does_not_depend_on_where_the_zero_of_activation_space_is():
    activations = torch.tensor([[11.0, 3.0], [9.0, 1.0], [12.0, 2.0]])
    shifts = Shifts(pseudo_harmful=1.5, harmful=1.0)
    away = torch.tensor([0.0, -100.0])
    moved = RefusalDirection(DIRECTION.vector, DIRECTION.origin + away)
    there = boundary_targets(activations + away, KINDS, moved, shifts)
    assert torch.allclose(there - away, boundary_targets(activations, KINDS, DIRECTION, shifts))


def test_the_papers_targets_are_equation_9():
    generator = np.random.default_rng(1)
    activations, vector = generator.normal(size=(3, 6)), generator.normal(size=6)
    projections = [(vector @ a) / (vector @ vector) * vector for a in activations]
    expected = [
        activations[0] + 0.2 * projections[0],
        activations[1] - 0.2 * projections[1],
        activations[2] - 0.2 * projections[2],
    ]
    found = paper_targets(torch.tensor(activations), KINDS, torch.tensor(vector), alpha=0.2)
    np.testing.assert_allclose(found.numpy(), expected)


def test_the_uniform_control_shifts_all_prompts_alike():
    activations = torch.zeros(3, 2)
    targets = uniform_targets(activations, KINDS, torch.tensor([2.0, 0.0]), alpha=0.5)
    assert targets.tolist() == [[1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]]


def test_the_losses_have_their_known_values():
    activations, targets = torch.tensor([[3.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 4.0], [2.0, 2.0]])
    assert cosine_loss(activations, targets).item() == pytest.approx(0.5)
    assert distance_loss(activations, targets, length=2.0).item() == pytest.approx((25 + 2) / 2 / 4)
