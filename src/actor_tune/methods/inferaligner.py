"""InferAligner: steering behind a gate (arXiv 2401.11206), turned round for models that refuse too much."""

from collections.abc import Sequence

import torch

from ..chat import TokenIds, encode
from ..direction import refusal_direction
from ..inputs import last_activations
from ..model import ChatModel
from ..steering import steer
from .cae import directions_at
from .method import Fitted, Task, best_threshold, every_second, rows_of_kind

STRENGTHS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75)
"""In units of each block's distance between the means."""

BLOCKS = 3
"""How many blocks are steered: the block of the task and those before it."""


def inferaligner(chat_model: ChatModel, task: Task) -> Fitted:
    """Steer a few blocks where the gate g = 1[a_l(q) . s_l + b_l > 0] says that the prompt is not harmful.

    Differs from the paper. There, a model that answers harmful prompts is steered towards refusal, with vectors of an
    aligned sibling, where the gate says harmful. Here the model itself is the aligned one and refuses too much: where
    the gate says harmful, prompts are left alone, to the last bit; elsewhere the model is steered away from refusal.
    The gate's direction is made from one half of the training prompts, and its threshold b_l fitted on the other,
    harmful against pseudo-harmful; the paper takes the mean projection of the anchors.
    """
    layers = [*range(max(0, task.layer - BLOCKS + 1), task.layer + 1)]
    directions = directions_at(chat_model, task, layers)
    shifts = {layer: -found.vector for layer, found in directions.items()}

    def read(token_ids: Sequence[TokenIds]) -> torch.Tensor:
        return last_activations(chat_model, token_ids, [task.layer])[task.layer]

    train = task.split.train
    seen = read(encode(chat_model.tokenizer, train))
    harmful, held_harmful = every_second(rows_of_kind(train, "harmful"))
    harmless, _ = every_second(rows_of_kind(train, "harmless"))
    _, held_pseudo = every_second(rows_of_kind(train, "pseudo_harmful"))
    gate = refusal_direction(seen[harmful], seen[harmless])
    positions = gate.position(seen)
    threshold = best_threshold(positions[held_harmful], positions[held_pseudo])

    def signs(token_ids: Sequence[TokenIds]) -> list[int]:
        return [0 if position > threshold else 1 for position in gate.position(read(token_ids)).tolist()]

    return Fitted(
        layers[0],
        STRENGTHS,
        lambda strength, sign: steer(chat_model, shifts, strength, sign),
        signs,
        harmful_sign=0,
        figures={"threshold": threshold},
    )
