"""Surgical: single vector ablation (arXiv 2410.03415)."""

import torch

from ...models.inputs import last_activations
from ...models.model import ChatModel
from ...models.steering import ablate
from ...prompts.prompt import rows_of_kind
from ...repair.direction import refusal_direction
from .method import Fitted, Task

STRENGTHS = (0.25, 0.5, 0.75, 1.0)
"""Share of the direction that is taken out; the paper takes all of it."""


def surgical(chat_model: ChatModel, task: Task) -> Fitted:
    """Ablate the false-refusal vector w, mean a_l(pseudo-harmful) - mean a_l(harmless): a <- a - strength (a . w) w.

    First w (d_model) is made orthogonal to the true refusal vector, mean a_l(harmful) - mean a_l(harmless), wholly (the
    paper's lambda = 1), so that harmful prompts keep theirs, and of length 1. Differs from the paper: l is the block of
    the task, where the paper tries all blocks on a validation set; w is taken out of what each block returns, at every
    position, and not between attention and MLP; and of less than all of it a share is tried.
    """
    train = task.split.train
    found = last_activations(chat_model, chat_model.encode(train), [task.layer])[task.layer]
    harmful, harmless, pseudo = (found[rows_of_kind(train, kind)] for kind in ("harmful", "harmless", "pseudo_harmful"))
    false, true = refusal_direction(pseudo, harmless).vector, refusal_direction(harmful, harmless).unit
    return ablated(chat_model, false_refusal_vector(false, true))


def ablated(chat_model: ChatModel, vector: torch.Tensor) -> Fitted:
    """Takes `vector` (d_model), of length 1, out of what every block returns."""
    directions = dict.fromkeys(range(len(chat_model.blocks)), vector)
    return Fitted(0, STRENGTHS, lambda strength, _sign: ablate(chat_model, directions, strength))


def false_refusal_vector(false: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """`false` (d_model) without its part along the unit vector `true`, of length 1."""
    rest = false - (false @ true) * true
    return rest / rest.norm()
