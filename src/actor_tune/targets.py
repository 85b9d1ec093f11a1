"""Where an activation should go, and how far it still is. Pure: tensors in, tensors out, everything in float32.

A target has the shape of its activation: (prompt, d_model).
"""

from dataclasses import dataclass

import torch

from .direction import RefusalDirection, raw_projection

HARMFUL, HARMLESS, PSEUDO_HARMFUL = 0, 1, 2
KIND_CODES = {"harmful": HARMFUL, "harmless": HARMLESS, "pseudo_harmful": PSEUDO_HARMFUL}


def kind_codes(kinds: list[str]) -> torch.Tensor:
    """Kinds as integers, (prompt) int64, for masks."""
    return torch.tensor([KIND_CODES[kind] for kind in kinds])


@dataclass(frozen=True)
class Shifts:
    """How far the boundary rule moves a prompt, in units of its own distance s from the harmless mean."""

    pseudo_harmful: float
    harmful: float


def boundary_targets(
    activations: torch.Tensor, kinds: torch.Tensor, direction: RefusalDirection, shifts: Shifts
) -> torch.Tensor:
    """Targets of the boundary rule, from the activations of the unedited model.

    With u = R / ||R|| and s = u.(a - o): a - p s u for pseudo-harmful, a + h s u for harmful, a for harmless. Each
    prompt moves along R by as much as it is from the harmless mean, so that one hardly refused hardly moves; one on
    the far side of that mean (s < 0) is held in place, whatever its kind.

    Differs from the paper (Eq. 9): the projection is taken from the harmless mean o instead of from 0, so that its sign
    says which side a prompt is on; targets are fixed by the unedited model, so that training has an end; harmless
    prompts are held in place.
    """
    position = direction.position(activations).clamp(min=0)  # a prompt beyond the harmless mean stays where it is
    factor = torch.zeros_like(position)
    factor[kinds == PSEUDO_HARMFUL] = -shifts.pseudo_harmful
    factor[kinds == HARMFUL] = shifts.harmful
    return activations + (factor * position).unsqueeze(-1) * direction.vector


def paper_targets(activations: torch.Tensor, kinds: torch.Tensor, vector: torch.Tensor, alpha: float) -> torch.Tensor:
    """Eq. 9: a + alpha Proj_R(a) for harmful prompts, a - alpha Proj_R(a) for the others."""
    sign = torch.where(kinds == HARMFUL, 1.0, -1.0).unsqueeze(-1)
    return activations + sign * alpha * raw_projection(activations, vector)


def uniform_targets(activations: torch.Tensor, kinds: torch.Tensor, vector: torch.Tensor, alpha: float) -> torch.Tensor:
    """Eq. 10-11, the paper's control: a + alpha R for harmful prompts, a - alpha R for the others."""
    sign = torch.where(kinds == HARMFUL, 1.0, -1.0).unsqueeze(-1)
    return activations + sign * alpha * vector


def cosine_loss(activations: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Eq. 8: the mean of 1 - cos(a, target), a scalar."""
    return 1 - torch.nn.functional.cosine_similarity(activations, targets, dim=-1).mean()


def distance_loss(activations: torch.Tensor, targets: torch.Tensor, length: float) -> torch.Tensor:
    """The mean of ||a - target||^2 / ||R||^2, a scalar. Unlike Eq. 8 it also sees movement that keeps the angle."""
    return (activations - targets).square().sum(dim=-1).mean() / length**2
