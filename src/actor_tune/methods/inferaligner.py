"""InferAligner: steering behind a gate (arXiv 2401.11206), turned round for models that refuse too much."""

from collections.abc import Sequence

from ..chat import TokenIds, encode
from ..direction import refusal_direction
from ..errors import UserError
from ..inputs import last_activations
from ..model import ChatModel
from ..prompts import rows_of_kind
from .method import Fitted, Gate, Method, Task, best_threshold, every_second, steered

STRENGTHS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75)
"""In units of each block's distance between the means."""

BLOCKS = 3
"""How many blocks are steered: the block of the task and those before it."""


def inferaligner(sibling: ChatModel | None = None) -> Method:
    """Steer a few blocks where the gate g = 1[a_l(q) . s_l + b_l > 0] says that the prompt is not harmful.

    s_l (d_model), of length 1, is the model's own refusal direction, and b_l minus the threshold. What is added to a_l
    is -alpha theta_l, theta_l (d_model) the refusal direction of `sibling`.

    Differs from the paper. There, a model that answers harmful prompts is steered towards refusal, with the directions
    of an aligned sibling, where the gate says harmful. Here the model itself is an aligned one and refuses too much:
    where the gate says harmful, prompts are left alone, to the last bit; elsewhere the model is steered away from
    refusal. The gate's direction is made from one half of the training prompts, and its threshold fitted on the other,
    harmful against pseudo-harmful; the paper takes the mean projection of the anchors. The gate is read at the block of
    the task alone and holds for all blocks steered; theta_l has the length between the means instead of 1.

    **Arguments:**

    - `sibling`: an aligned model with blocks of the same number and width; None: the model itself.

    **Raises:** `UserError` when the sibling's blocks are others.
    """

    def method(chat_model: ChatModel, task: Task) -> Fitted:
        layers = [*range(max(0, task.layer - BLOCKS + 1), task.layer + 1)]
        train = task.split.train
        seen = last_activations(chat_model, encode(chat_model.tokenizer, train), layers)
        aligned = seen
        if sibling is not None:
            if len(sibling.blocks) != len(chat_model.blocks):
                raise _other_blocks(sibling, len(sibling.blocks), len(chat_model.blocks), "blocks")
            aligned = last_activations(sibling, encode(sibling.tokenizer, train), layers)
            if (width := aligned[task.layer].shape[1]) != (wanted := seen[task.layer].shape[1]):
                raise _other_blocks(sibling, width, wanted, "numbers in an activation")
        harmful, harmless, pseudo = (rows_of_kind(train, kind) for kind in ("harmful", "harmless", "pseudo_harmful"))
        shifts = {layer: -refusal_direction(found[harmful], found[harmless]).vector for layer, found in aligned.items()}

        at_gate = seen[task.layer]
        anchors, held_harmful = every_second(harmful)
        direction = refusal_direction(at_gate[anchors], at_gate[every_second(harmless)[0]])
        positions = direction.position(at_gate)
        threshold = best_threshold(positions[held_harmful], positions[every_second(pseudo)[1]])

        def signs(token_ids: Sequence[TokenIds]) -> list[int]:
            found = last_activations(chat_model, token_ids, [task.layer])[task.layer]
            return [0 if position > threshold else 1 for position in direction.position(found).tolist()]

        return steered(chat_model, shifts, STRENGTHS, Gate(signs, harmful_sign=0, threshold=threshold))

    return method


def _other_blocks(sibling: ChatModel, found: int, expected: int, what: str) -> UserError:
    return UserError(sibling.name, f"{found} {what}", f"{expected}, as in the model", "take a sibling of its size")
