"""Contrastive activation engineering (CAE, arXiv 2505.03189), and a random direction of equal length as its control."""

import torch

from ...models.inputs import last_activations
from ...models.model import ChatModel
from ...prompts.prompt import rows_of_kind
from ...repair.direction import RefusalDirection, refusal_direction
from .method import Fitted, Task, steered

STRENGTHS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
"""In units of the distance between the harmless and the harmful mean. The paper's do not carry over to other models."""


def cae(chat_model: ChatModel, task: Task) -> Fitted:
    """x_l += alpha v_l, v_l = mean a_l(D+) - mean a_l(D-): D+ harmless, D- harmful prompts, so away from refusal.

    a_l: what block l returns at the last token of a prompt, (d_model) float32. Differs from the paper: l is that of
    the task, where the paper sweeps blocks, and the last token of the prompt is moved too (`steer`).
    """
    vector = directions_at(chat_model, task, [task.layer])[task.layer].vector
    return steered(chat_model, {task.layer: -vector}, STRENGTHS)


def random_direction(chat_model: ChatModel, task: Task) -> Fitted:
    """The control of CAE: a direction drawn at random with the length of v_l."""
    vector = directions_at(chat_model, task, [task.layer])[task.layer].vector
    drawn = torch.randn(len(vector), generator=torch.Generator().manual_seed(task.seed))
    return steered(chat_model, {task.layer: drawn / drawn.norm() * vector.norm()}, STRENGTHS)


def directions_at(chat_model: ChatModel, task: Task, layers: list[int]) -> dict[int, RefusalDirection]:
    """The refusal direction of the training prompts at each of `layers`."""
    train = task.split.train
    activations = last_activations(chat_model, chat_model.encode(train), layers)
    harmful, harmless = (rows_of_kind(train, kind) for kind in ("harmful", "harmless"))
    return {layer: refusal_direction(found[harmful], found[harmless]) for layer, found in activations.items()}
