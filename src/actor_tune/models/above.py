"""What moving last tokens at one block does to the first token of answers: values read off logits, and their gradients.

Only last tokens are run again, through the blocks above; they see the keys of the other tokens as the unedited model
has them. All prompts go through one block before the next is needed, up and, for gradients, down again, so that weights
on disk are fetched once each way. Where a model does not say the same so, as one whose blocks carry a state, it runs
whole.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

import torch

from ..progress import track
from .activations import changed, forward, last_logits, run_block
from .chat import Batch, pad
from .inputs import PREFIX_BATCH, PREFIX_TOKENS, BlockInputs, advance, run_opening
from .kv_cache import Kept, Keys
from .model import ChatModel
from .placement import held
from .trials import alike, groups_of, holds, some_of_all_lengths

Reading = Callable[[torch.Tensor], torch.Tensor]
"""Logits (prompt, vocabulary) float32 of the first answer token -> a number each (prompt)."""


@dataclass(frozen=True)
class Slope:
    """A number read off the first answer token of prompts, and how it changes with what a block returns.

    - `values`: (prompt) float32.
    - `gradients`: (prompt, d_model) float32, by what the block returns at the last token.
    """

    values: torch.Tensor
    gradients: torch.Tensor

    def of(self, rows: torch.Tensor) -> "Slope":
        """That of the prompts `rows` (row) int64."""
        return Slope(self.values[rows], self.gradients[rows])


# (activations (prompt, d_model) float32 that the block is taken to return at last tokens, what is read) -> the slope
Slopes = Callable[[torch.Tensor, Reading], Slope]


@dataclass(frozen=True)
class Above:
    """The way up from a block: `slope`, and whether it leaves that block out, so that this may be in training."""

    slope: Slopes
    alone: bool


def blocks_above(chat_model: ChatModel, inputs: BlockInputs) -> Above:
    """What runs last tokens of the prompts of `inputs` from what block `inputs.layer` returns up to the first token.

    The keys of all other tokens are made now, by the blocks as they are.
    """
    few = inputs.select(some_of_all_lengths(inputs.token_ids))

    last = few.last()

    def exact() -> bool:
        ways = (_last_tokens(chat_model, few), _whole(chat_model, few))
        one, other = (way.slope(last, lambda logits: logits.log_softmax(dim=-1)[:, ::2].mean(dim=-1)) for way in ways)
        return alike(one.gradients, other.gradients, chat_model.model.dtype)

    what = f"running last tokens from block {inputs.layer} on"
    return (_last_tokens if holds(chat_model, what, few.token_ids, exact) else _whole)(chat_model, inputs)


@dataclass(frozen=True)
class _Group:
    """Some prompts, and the keys of all but their last tokens in each block above."""

    batch: Batch
    kept: list[Kept]


def _last_tokens(chat_model: ChatModel, inputs: BlockInputs) -> Above:
    layers = range(inputs.layer + 1, len(chat_model.blocks))
    embeddings = chat_model.model.get_input_embeddings()
    with held(embeddings):
        groups = _with_keys(chat_model, inputs, layers)

    def through(layer: int, group: _Group, last: torch.Tensor) -> torch.Tensor:
        keys = Keys(group.batch.attention_mask.shape[1] - 1, group.kept[layer - layers.start])
        return run_block(chat_model, layer, group.batch.last(), last, keys)

    def first_token(group: _Group, read: Reading, top: torch.Tensor) -> torch.Tensor:
        return read(last_logits(chat_model, group.batch, top))

    def slope(activations: torch.Tensor, read: Reading) -> Slope:
        values, gradients = torch.empty(len(activations)), torch.empty_like(activations)
        like = inputs.opening_hidden
        states = [[activations[group.batch.rows].to(like)[:, None] for group in groups]]
        with ExitStack() as memory:
            memory.enter_context(held(embeddings))
            for layer in track(layers, "Last tokens through the blocks above"):
                with held(chat_model.blocks[layer]), torch.no_grad():
                    states.append([through(layer, *pair) for pair in zip(groups, states[-1], strict=True)])
            down = []
            with held(chat_model.model.get_output_embeddings()):
                for group, last in zip(groups, states.pop(), strict=True):
                    found, gradient = _gradient(partial(first_token, group, read), last)
                    values[group.batch.rows] = found.float().cpu()
                    down.append(gradient)
            for layer in reversed(layers):
                with held(chat_model.blocks[layer]):
                    pairs = zip(groups, states.pop(), down, strict=True)
                    down = [_gradient(partial(through, layer, group), last, out)[1] for group, last, out in pairs]
        for group, gradient in zip(groups, down, strict=True):
            gradients[group.batch.rows] = gradient[:, 0].float().cpu()
        return Slope(values, gradients)

    return Above(slope, alone=True)


@torch.no_grad()
def _with_keys(chat_model: ChatModel, inputs: BlockInputs, layers: range) -> list[_Group]:
    """All prompts in groups, with the keys that their last tokens see in the blocks `layers`."""
    own = replace(inputs, hidden=inputs.hidden.clone())
    own = advance(chat_model, own, layers.start)
    opening, groups = own.opening_hidden, own.batches(2 * PREFIX_BATCH, PREFIX_TOKENS)
    running = [own.batch(rows, chat_model) for rows in groups]
    found = [_Group(batch, []) for batch, _ in running]
    states = [hidden for _, hidden in running]
    del own, running
    for layer in track(layers, "Keys in the blocks above"):
        with held(chat_model.blocks[layer]):
            opening, keys = run_opening(chat_model, inputs, layer, opening)
            before = Keys() if keys is None else keys
            for index, group in enumerate(found):
                seen: Kept = {}
                both = Keys(before.length, before.kept, seen)
                states[index] = run_block(chat_model, layer, group.batch, states[index], both)
                group.kept.append({at: value.without_last() for at, value in seen.items()})
    return found


def _gradient(
    function: Callable[[torch.Tensor], torch.Tensor], at: torch.Tensor, outer: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """What `function` returns for `at`, and the gradient of its sum, or of its product with `outer`."""
    with torch.enable_grad():
        point = at.detach().requires_grad_(True)
        found = function(point)
        (gradient,) = torch.autograd.grad(found, point, torch.ones_like(found) if outer is None else outer)
    return found.detach(), gradient


def _whole(chat_model: ChatModel, inputs: BlockInputs) -> Above:
    """The same with whole forward passes, in which the last token's activation is put into what the block returns."""
    groups = groups_of(chat_model, inputs.token_ids, PREFIX_BATCH, PREFIX_TOKENS)

    def slope(activations: torch.Tensor, read: Reading) -> Slope:
        values, gradients = torch.empty(len(activations)), torch.empty_like(activations)
        for rows in track(groups, "Reading first tokens, pass by pass"):
            found, gradient = _gradient(partial(run, rows, read), activations[rows].to(chat_model.device))
            values[rows], gradients[rows] = found.float().cpu(), gradient.float().cpu()
        return Slope(values, gradients)

    def run(rows: list[int], read: Reading, last: torch.Tensor) -> torch.Tensor:
        def put(hidden: torch.Tensor) -> torch.Tensor:
            return torch.cat([hidden[:, :-1], last.to(hidden)[:, None]], dim=1)

        batch = pad(inputs.token_ids, rows, chat_model.pad_id, chat_model.device)
        with changed(chat_model.blocks[inputs.layer], put):
            return read(forward(chat_model, batch))

    return Above(slope, alone=False)
