"""ACTOR (arXiv 2507.04250): one trained block, by each of the three rules of `fit`."""

from contextlib import AbstractContextManager

from ..chat import encode
from ..checkpoint import stored_dtype_of_block
from ..coreset import Selection
from ..fit import Rule, Settings, learn, selected
from ..inputs import block_inputs
from ..model import ChatModel
from ..prompts import Split
from ..strength import STRENGTHS
from ..train import interpolate, loaded, state_of
from .method import Fitted, Method, Task

WEAK_STRENGTHS = (0.05, 0.1, 0.25)
"""Tried besides for the rules that `fit` does not use on its own: the uniform control costs safety early."""


def actor(rule: Rule, select: Selection = "none") -> Method:
    """`rule` of `fit` on the block of the task; the strength is a point between the old block and the new one.

    Trained on all prompts, or on a share of them by `select`.

    Differs from the paper, which has no strength: for its own rule and the uniform control the line is drawn too, so
    that all methods are chosen alike.
    """

    def method(chat_model: ChatModel, task: Task) -> Fitted:
        settings = Settings(rule=rule, seed=task.seed, select=select)
        inputs = block_inputs(chat_model, task.layer, encode(chat_model.tokenizer, task.split.train))
        chosen, inputs = selected(Split(task.split.train, []), inputs, settings)
        trained = learn(chat_model, chosen.train, inputs, settings).trained.state
        block = chat_model.blocks[task.layer]
        before, stored = state_of(block), stored_dtype_of_block(chat_model, task.layer)

        def changed(strength: float, _sign: int) -> AbstractContextManager[None]:
            return loaded(block, interpolate(before, trained, strength, stored))

        strengths = STRENGTHS[1:] if rule == "boundary" else (*WEAK_STRENGTHS, *STRENGTHS[1:])
        return Fitted(task.layer, strengths, changed)

    return method
