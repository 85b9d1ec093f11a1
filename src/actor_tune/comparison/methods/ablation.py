"""Directional ablation (Arditi et al. 2024, arXiv 2406.11717), the control that shows what it costs in safety."""

from ...models.inputs import last_activations
from ...models.model import ChatModel
from ...prompts.prompt import rows_of_kind
from ...repair.direction import refusal_direction
from .method import Fitted, Task
from .surgical import ablated


def ablation(chat_model: ChatModel, task: Task) -> Fitted:
    """Take the false-refusal direction r, mean a_l(pseudo-harmful) - mean a_l(harmless), out of all blocks' outputs.

    a <- a - strength (a . r) r, at every position, with r (d_model) of length 1. It is what others do to weights: a
    block whose outputs are made orthogonal to r returns the same. Unlike `surgical`, r keeps what it shares with the
    refusal of harmful prompts. Differs from the paper: r is made from pseudo-harmful prompts instead of harmful ones,
    l is the block of the task, where the paper tries all on a validation set, and of less than all of it a share is
    tried.
    """
    train = task.split.train
    found = last_activations(chat_model, chat_model.encode(train), [task.layer])[task.layer]
    harmless, pseudo = (found[rows_of_kind(train, kind)] for kind in ("harmless", "pseudo_harmful"))
    return ablated(chat_model, refusal_direction(pseudo, harmless).unit)
