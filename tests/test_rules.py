import numpy as np
import pytest
import torch

from actor_tune.repair.direction import RefusalDirection
from actor_tune.repair.rules import (
    RULES,
    STRENGTHS,
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
    assert cosine_loss(activations, targets).tolist() == pytest.approx([1.0, 0.0], abs=1e-6)
    assert distance_loss(activations, targets, length=2.0).tolist() == pytest.approx([25 / 4, 2 / 4])


ACTIVATIONS = torch.tensor([[11.0, 3.0], [9.0, 1.0], [12.0, 2.0]])
"""Of a harmful, a harmless and a pseudo-harmful prompt, before training; R is (0, 4) from (10, 0)."""

TARGETS = {
    # Twice and once the distance of 2 and 3 from the harmless mean, down and up; the harmless one is held.
    "boundary": [[11.0, 6.0], [9.0, 1.0], [12.0, -2.0]],
    # Eq. 9: the second coordinate is the whole projection on R.
    "paper": [[11.0, 3.0 * 1.0015], [9.0, 0.9985], [12.0, 2.0 * 0.9985]],
    # Eq. 10-11: a tenth of R.
    "uniform": [[11.0, 3.4], [9.0, 0.6], [12.0, 1.6]],
}


@pytest.mark.parametrize("name", TARGETS)
def test_the_loss_of_a_rule_is_nothing_at_its_targets_and_more_elsewhere(name):
    rule, targets = RULES[name], torch.tensor(TARGETS[name])
    loss = rule.objective(ACTIVATIONS, KINDS, DIRECTION)
    rows = torch.tensor([2, 0, 1])
    if name == "boundary":  # fixed by the unedited model
        assert loss(targets[rows], rows, DIRECTION).tolist() == pytest.approx([0, 0, 0], abs=1e-9)
        assert loss(ACTIVATIONS, torch.arange(3), DIRECTION).tolist() == pytest.approx([9 / 16, 0, 1])
    else:  # taken from where the activation is now
        expected = 1 - torch.cosine_similarity(ACTIVATIONS, targets)
        assert loss(ACTIVATIONS[rows], rows, DIRECTION).tolist() == pytest.approx(expected[rows].tolist(), abs=1e-7)


@pytest.mark.parametrize("name", ["paper", "uniform"])
def test_no_gradient_flows_through_the_papers_targets(name):
    """Else the loss would pull the target to the activation as well."""
    now = ACTIVATIONS.clone().requires_grad_(True)
    RULES[name].objective(ACTIVATIONS, KINDS, DIRECTION)(now, torch.arange(3), DIRECTION).sum().backward()
    fixed = ACTIVATIONS.clone().requires_grad_(True)
    cosine_loss(fixed, torch.tensor(TARGETS[name])).sum().backward()
    assert torch.allclose(now.grad, fixed.grad, atol=1e-7)


def test_the_papers_rules_are_kept_to_the_letter():
    """The given prompts alone, one a step, three epochs, and no strength but alpha."""
    for name in ("paper", "uniform"):
        rule = RULES[name]
        assert (rule.starter, rule.searched, rule.strengths) == (False, False, (0.0, 1.0))
        assert (rule.schedule.epochs, rule.schedule.batch_size, rule.schedule.noise) == (3, 1, 0.0)
    assert RULES["paper"].schedule.learning_rate == 1e-5
    assert RULES["paper"].parameters == {"alpha": 0.0015}


def test_strengths_begin_with_the_unedited_block_and_go_through_the_trained_one():
    for name, rule in RULES.items():
        assert rule.name == name
        assert rule.strengths[0] == 0
        assert 1.0 in rule.strengths
        assert rule.compared == tuple(sorted(rule.compared))
        assert set(STRENGTHS[1:]) <= set(rule.compared)


def test_the_papers_rule_warns_of_kinds_that_it_would_push_the_wrong_way():
    below = ACTIVATIONS * torch.tensor([1.0, -1.0])
    warnings = RULES["paper"].warnings(below, KINDS, DIRECTION)
    assert [warning.split(" prompts")[0] for warning in warnings] == [
        "1 of 1 harmful",
        "1 of 1 harmless",
        "1 of 1 pseudo-harmful",
    ]
    assert "push them away from refusal" in warnings[0]
    assert "push them towards refusal" in warnings[1]
    assert RULES["paper"].warnings(ACTIVATIONS, KINDS, DIRECTION) == []
    assert RULES["boundary"].warnings is None
