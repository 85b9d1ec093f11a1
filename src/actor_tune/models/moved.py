"""What a model says after prompts whose last token was moved at a block: two ways, one quick and one that always holds.

Only the last token is moved, so that what came before it need not be run again: all prompts and all that was moved go
through one block before the next is needed (weights on disk are fetched once), and the moved tokens see the keys of the
others. Where a model does not say the same so, as one whose blocks carry a state, each move is a pass of its own.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from ..progress import track
from .activations import changed, forward, hidden_of, last_logits, not_finite_at, run_block
from .chat import Batch, TokenIds, pad
from .inputs import PREFIX_BATCH, PREFIX_TOKENS, BlockInputs, block_inputs, run_opening
from .kv_cache import Kept, Keys
from .model import ChatModel
from .placement import held
from .trials import alike, groups_of, holds, some_of_all_lengths

MOVED_BATCH = 128  # moved last tokens that are run at a time
TRIAL = 4  # prompts

Shifts = Callable[[torch.Tensor], Sequence[torch.Tensor]]
"""(prompt, d_model) float32 that a block returned at last tokens -> by what to move them, (d_model) float32 each."""


@dataclass(frozen=True)
class Moves:
    """Prompts, and what is to be moved.

    - `movable`: rows of prompts whose last token is moved; `layers`: at which blocks.
    - `shifts`: by what: as many at each block.
    """

    token_ids: Sequence[TokenIds]
    movable: Sequence[int]
    layers: Sequence[int]
    shifts: Shifts


@dataclass(frozen=True)
class Said:
    """Log-probabilities of the first answer token after some prompts whose last token was moved.

    - `move`: which: first all shifts at the first block, then those at the next.
    - `rows`: the prompts; `logprobs`: (prompt, vocabulary) float32.
    """

    move: int
    rows: list[int]
    logprobs: torch.Tensor


@dataclass(frozen=True)
class MovedRun:
    """What was found.

    - `last`: block -> (prompt, d_model) float32 that it returns at last tokens, unmoved.
    - `plain`: log-probabilities of the first answer token, (prompt, vocabulary) float32, unmoved.
    - `said`: the same of what was moved, as it is computed, each prompt and move once.
    """

    last: dict[int, torch.Tensor]
    plain: torch.Tensor
    said: Iterator[Said]


def run_moved(chat_model: ChatModel, moves: Moves) -> MovedRun:
    """What `chat_model` says after prompts as they are, and moved.

    **Raises:** `UserError` when a block returns NaN or infinity.
    """
    rows = some_of_all_lengths([moves.token_ids[row] for row in moves.movable], TRIAL)
    few = [moves.token_ids[moves.movable[row]] for row in rows]
    # As long as what is moved, in a direction that no model knows.
    drawn = torch.Generator().manual_seed(0)

    def shifts(last: torch.Tensor) -> list[torch.Tensor]:
        return [torch.randn(last.shape[1], generator=drawn.manual_seed(0)) * last.std()]

    trial = Moves(few, range(len(few)), moves.layers[len(moves.layers) // 2 :][:1], shifts)

    def exact() -> bool:
        one, other = (_logprobs(way(chat_model, trial)) for way in (block_by_block, pass_by_pass))
        return alike(one, other, chat_model.model.dtype)

    quick = holds(chat_model, "running one block after the other", few, exact)
    return (block_by_block if quick else pass_by_pass)(chat_model, moves)


def _logprobs(run: MovedRun) -> torch.Tensor:
    """Of prompts as they are and moved, one after the other."""
    moved = {(said.move, row): line for said in run.said for row, line in zip(said.rows, said.logprobs, strict=True)}
    return torch.cat([run.plain, torch.stack([moved[key] for key in sorted(moved)])])


@torch.no_grad()
def pass_by_pass(chat_model: ChatModel, moves: Moves) -> MovedRun:
    """Move last tokens within whole forward passes."""
    groups = groups_of(chat_model, moves.token_ids, PREFIX_BATCH, PREFIX_TOKENS)
    batches = [pad(moves.token_ids, rows, chat_model.pad_id, chat_model.device) for rows in groups]
    order = torch.tensor([row for rows in groups for row in rows]).argsort()
    seen: dict[int, list[torch.Tensor]] = {layer: [] for layer in moves.layers}
    logits = []

    def keep(layer: int, _module: nn.Module, _arguments: Any, output: Any) -> None:
        seen[layer].append(hidden_of(output)[:, -1].float().cpu())

    with ExitStack() as hooks:
        for layer in moves.layers:
            hooks.enter_context(chat_model.blocks[layer].register_forward_hook(partial(keep, layer)))
        for batch in track(batches, "Running all prompts"):
            logits.append(_logits(chat_model, batch))
    last = {layer: torch.cat(parts)[order] for layer, parts in seen.items()}

    def said() -> Iterator[Said]:
        shifts = [(layer, shift) for layer in sorted(moves.layers) for shift in moves.shifts(last[layer])]
        movable = set(moves.movable)
        for move, (layer, shift) in enumerate(track(shifts, "Moving each block's output, pass by pass")):
            for batch in batches:
                lines = [line for line, row in enumerate(batch.rows) if row in movable]
                if lines:
                    own = batch.lines(lines)
                    with changed(chat_model.blocks[layer], partial(_with_last, shift)):
                        yield Said(move, own.rows, _logits(chat_model, own))

    return MovedRun(last, torch.cat(logits)[order], torch.no_grad()(said)())


def _with_last(shift: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    moved = hidden.clone()
    moved[:, -1] += shift.to(hidden)
    return moved


def _logits(chat_model: ChatModel, batch: Batch) -> torch.Tensor:
    return forward(chat_model, batch).log_softmax(dim=-1).cpu()


@dataclass
class _Running:
    """Some prompts of like length on their way through the blocks.

    - `hidden`: (prompt, token, d_model) what the next block receives.
    - `movable`: which of these prompts have their last token moved.
    - `moved`: (move, movable, d_model) the same of last tokens that were moved.
    """

    batch: Batch
    hidden: torch.Tensor
    movable: list[int]
    moved: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.moved = self.hidden[self.movable, -1][None, :][:0]

    def parts(self) -> Iterator[tuple[slice, Batch, torch.Tensor]]:
        """As many moves at a time as `MOVED_BATCH` allows: which, their last tokens, what the next block receives."""
        size = max(1, MOVED_BATCH // max(1, len(self.movable)))
        for start in range(0, len(self.moved), size) if self.movable else ():
            moved = self.moved[start : start + size]
            last = self.batch.lines(self.movable).last().repeat(len(moved))
            yield slice(start, start + len(moved)), last, moved.flatten(0, 1)[:, None]


@torch.no_grad()
def block_by_block(chat_model: ChatModel, moves: Moves) -> MovedRun:
    """Run all prompts, and all that was moved, through one block after the other."""
    inputs = block_inputs(chat_model, 0, moves.token_ids)
    movable = set(moves.movable)
    running = [_running(chat_model, inputs, rows, movable) for rows in inputs.groups()]
    opening = inputs.opening_hidden
    seen: dict[int, torch.Tensor] = {}
    with held(chat_model.model.get_input_embeddings()):
        for layer in track(range(len(chat_model.blocks)), "Moving each block's output"):
            with held(chat_model.blocks[layer]):
                opening, keys = run_opening(chat_model, inputs, layer, opening)
                for run in running:
                    _through(chat_model, layer, run, keys)
            if layer in moves.layers:
                last = seen[layer] = _in_order(running, [run.hidden[:, -1].float().cpu() for run in running])
                shifts = moves.shifts(last)
                for run in running:
                    ends = run.hidden[run.movable, -1]
                    run.moved = torch.cat([run.moved, *[(ends + shift.to(ends))[None] for shift in shifts]])
    with held(chat_model.model.get_output_embeddings()):
        plain = _in_order(running, [_first_token(chat_model, run.batch, run.hidden) for run in running])
    return MovedRun(seen, plain, _said(chat_model, running))


def _running(chat_model: ChatModel, inputs: BlockInputs, rows: list[int], movable: set[int]) -> _Running:
    batch, hidden = inputs.batch(rows, chat_model)
    return _Running(batch, hidden, [line for line, row in enumerate(rows) if row in movable])


def _through(chat_model: ChatModel, layer: int, run: _Running, keys: Keys | None) -> None:
    """Run the prompts, then each moved last token after the prompts' other tokens, through one block."""
    opening = Keys() if keys is None else keys
    seen: Kept = {}
    run.hidden = run_block(chat_model, layer, run.batch, run.hidden, Keys(opening.length, opening.kept, seen))
    if not run.hidden.isfinite().all():
        raise not_finite_at(chat_model, layer)
    before = {index: value.without_last().rows(run.movable) for index, value in seen.items()}
    for part, last, moved in run.parts():
        kept = {index: value.repeat(part.stop - part.start) for index, value in before.items()}
        others = Keys(run.batch.attention_mask.shape[1] - 1, kept)
        run.moved[part] = run_block(chat_model, layer, last, moved, others).view_as(run.moved[part])


@torch.no_grad()
def _said(chat_model: ChatModel, running: list[_Running]) -> Iterator[Said]:
    with held(chat_model.model.get_output_embeddings()):
        for run in running:
            rows = [run.batch.rows[line] for line in run.movable]
            for part, last, hidden in run.parts():
                logprobs = _first_token(chat_model, last, hidden).unflatten(0, (-1, len(rows)))
                for move, each in enumerate(logprobs, start=part.start):
                    yield Said(move, rows, each)


def _first_token(chat_model: ChatModel, batch: Batch, hidden: torch.Tensor) -> torch.Tensor:
    return last_logits(chat_model, batch, hidden).log_softmax(dim=-1).cpu()


def _in_order(running: list[_Running], parts: list[torch.Tensor]) -> torch.Tensor:
    """(prompt, ...) in the order of the prompts, from `parts` in that of each of `running`."""
    return torch.cat(parts)[torch.tensor([row for run in running for row in run.batch.rows]).argsort()]
