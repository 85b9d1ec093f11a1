"""ACTOR (arXiv 2507.04250): one trained block, by each of the three rules of `fit`."""

from contextlib import AbstractContextManager

from ..checkpoint import stored_dtype_of_block
from ..coreset import Selection
from ..fit import Rule, Settings, fit
from ..model import ChatModel
from ..strength import STRENGTHS
from ..train import interpolate, loaded, state_of
from .method import Fitted, Method, Task


def actor(rule: Rule, select: Selection = "none") -> Method:
    """`rule` of `fit` on the block of the task; the strength is a point between the old block and the new one.

    Trained on all prompts, or on a share of them by `select`.

    Differs from the paper, which has no strength: for its own rule and the uniform control the line is drawn too, so
    that all methods are chosen alike.
    """

    def method(chat_model: ChatModel, task: Task) -> Fitted:
        settings = Settings(rule=rule, layer=task.layer, seed=task.seed, starter=task.starter, select=select)
        found = fit(chat_model, task.given, settings)
        block = chat_model.blocks[found.layer]
        before, stored = state_of(block), stored_dtype_of_block(chat_model, found.layer)

        def changed(strength: float, _sign: int) -> AbstractContextManager[None]:
            return loaded(block, interpolate(before, found.trained, strength, stored))

        return Fitted(found.layer, STRENGTHS[1:], changed)

    return method
