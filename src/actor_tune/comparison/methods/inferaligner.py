"""InferAligner: steering behind a detector (arXiv 2401.11206), turned round for models that refuse too much."""

from collections.abc import Sequence

from ...models.chat import TokenIds
from ...models.inputs import last_activations
from ...models.model import ChatModel
from ...prompts.prompt import rows_of_kind
from ...repair.direction import refusal_direction
from .method import Detector, Fitted, Task, best_threshold, every_second, steered

STRENGTHS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75)
"""In units of each block's distance between the means."""

BLOCKS = 3
"""How many blocks are steered: the block of the task and those before it."""


def inferaligner(chat_model: ChatModel, task: Task) -> Fitted:
    """Steer a few blocks where the detector g = 1[a_l(q) . s_l + b_l > 0] says that the prompt is not harmful.

    s_l (d_model), of length 1, is the refusal direction, and b_l minus the threshold. What is added to a_l is
    -alpha theta_l, theta_l (d_model) the refusal direction as long as it is between the means.

    Differs from the paper. There, a model that answers harmful prompts is steered towards refusal, with the directions
    of an aligned sibling, where the detector says harmful. Here the model itself is an aligned one and refuses too
    much, so that it is its own sibling: where the detector says harmful, prompts are left alone, to the last bit;
    elsewhere the model is steered away from refusal. The detector's direction is made from one half of the training
    prompts, and its threshold fitted on the other, harmful against pseudo-harmful; the paper takes the mean projection
    of the anchors. It is read at the block of the task alone and holds for all blocks steered; theta_l is not of length
    1.
    """
    layers = [*range(max(0, task.layer - BLOCKS + 1), task.layer + 1)]
    train = task.split.train
    seen = last_activations(chat_model, chat_model.encode(train), layers)
    harmful, harmless, pseudo = (rows_of_kind(train, kind) for kind in ("harmful", "harmless", "pseudo_harmful"))
    shifts = {layer: -refusal_direction(found[harmful], found[harmless]).vector for layer, found in seen.items()}

    at_layer = seen[task.layer]
    anchors, held_harmful = every_second(harmful)
    direction = refusal_direction(at_layer[anchors], at_layer[every_second(harmless)[0]])
    positions = direction.position(at_layer)
    threshold = best_threshold(positions[held_harmful], positions[every_second(pseudo)[1]])

    def signs(token_ids: Sequence[TokenIds]) -> list[int]:
        found = last_activations(chat_model, token_ids, [task.layer])[task.layer]
        return [0 if position > threshold else 1 for position in direction.position(found).tolist()]

    return steered(chat_model, shifts, STRENGTHS, Detector(signs, harmful_sign=0, threshold=threshold))
