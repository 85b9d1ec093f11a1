"""ACTOR (arXiv 2507.04250): one trained block, by each of the rules of `fit`."""

from contextlib import AbstractContextManager

from ...models.inputs import block_inputs
from ...models.model import ChatModel
from ...models.state import interpolate, loaded, state_of
from ...models.stored import stored_block
from ...prompts.split import Split
from ...repair.coreset import Selection
from ...repair.method import learn, selected
from ...repair.rules import RuleChoice
from ...repair.settings import DEFAULTS, Settings
from .method import Fitted, Method, Task


def actor(rule: RuleChoice = DEFAULTS.rule, select: Selection = "none") -> Method:
    """`rule` of `fit`, by default the one that suits the model, on the block of the task.

    The strength is a point between the old block and the new one.

    Trained on all prompts, or on a share of them by `select`.

    Differs from the paper, which has no strength: for its own rule and the uniform control the line is drawn too, so
    that all methods are chosen alike.
    """

    def method(chat_model: ChatModel, task: Task) -> Fitted:
        settings = Settings(rule=rule, seed=task.seed, select=select)
        inputs = block_inputs(chat_model, task.layer, chat_model.encode(task.split.train))
        chosen, inputs = selected(Split(task.split.train, []), inputs, settings)
        learned = learn(chat_model, chosen.train, inputs, settings, task.refusals)
        block = chat_model.blocks[task.layer]
        before, stored = state_of(block), stored_block(chat_model, task.layer).dtypes

        def changed(strength: float, _sign: int) -> AbstractContextManager[None]:
            return loaded(block, interpolate(before, learned.trained.state, strength, stored))

        return Fitted(task.layer, learned.rule.compared, changed)

    return method
