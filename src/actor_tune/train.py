"""Train one block so that the last token's activation reaches its target. Algorithm 1 of the paper, and schedules.

`fit.py` is the whole method; this is its training. Only block l's parameters change; they are trained in float32,
whatever the model's dtype, because bf16 swallows updates of 1e-5 and, at the paper's alpha, most of the target itself.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from .chat import rows_by_length
from .consistency import consistency_loss
from .direction import RefusalDirection, refusal_direction
from .inputs import BlockInputs
from .last_token import Disturb, LastTokens, last_tokens, undisturbed
from .machine import give_back
from .model import ChatModel
from .placement import device_of, held
from .progress import progress_bar
from .targets import HARMFUL, HARMLESS, KIND_CODES, PSEUDO_HARMFUL

LossFunction = Callable[[torch.Tensor, torch.Tensor, RefusalDirection], torch.Tensor]
"""(activations (prompt, d_model), row of each in the training prompts (prompt), current direction) -> scalar."""

State = dict[str, torch.Tensor]
"""A block's parameters and buffers by name."""

OUTPUT_BATCH = 64
"""Prompts of which the block's output is read at a time."""


@dataclass(frozen=True)
class Schedule:
    """How training proceeds.

    - `learning_rate`: of AdamW without weight decay; falls linearly to 0 if `decay`.
    - `noise`: Gaussian noise added to the block's inputs, in units of each token's standard deviation.
    - `recompute_every`: steps between recomputations of the direction from current activations (K); 0: never.
    - `consistency`: weight of `consistency_loss` in the loss (CROW's alpha); 0: none.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    decay: bool
    noise: float
    recompute_every: int
    consistency: float = 0.0


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training prompts showed.

    - `loss`: mean over its steps.
    - `position`: per kind, the mean position along the direction before each update; 0 harmless mean, 1 harmful mean
      of the unedited model. The loss of Eq. 8 is near 1e-7 and says nothing; this does.
    """

    number: int
    loss: float
    position: dict[str, float]


@dataclass(frozen=True)
class TrainedBlock:
    """What training made: the block's parameters and buffers in float32, and how each epoch went."""

    state: State
    epochs: list[Epoch]


def train_block(
    chat_model: ChatModel,
    inputs: BlockInputs,
    kinds: torch.Tensor,
    direction: RefusalDirection,
    loss_function: LossFunction,
    schedule: Schedule,
    seed: int,
) -> TrainedBlock:
    """Train block `inputs.layer` on `inputs`. The model itself is left as it was.

    **Arguments:**

    - `inputs`: what the block receives for each training prompt.
    - `kinds`: (prompt) int64 codes as in `targets.KIND_CODES`.
    - `direction`: of the unedited model; the first value handed to `loss_function`.
    """
    block = chat_model.blocks[inputs.layer]
    shuffler = random.Random(seed)
    disturb = noisy(schedule.noise, torch.Generator(device_of(block)).manual_seed(seed))
    lengths = [len(tokens) for tokens in inputs.token_ids]
    groups = batches_of_like_length(lengths, schedule.batch_size, shuffler)
    steps = schedule.epochs * len(groups)
    epochs = []
    before = compact(state_of(block))
    give_back()
    with in_float32(block), progress_bar(steps, "Training one block") as advance:
        batches = prepared(chat_model, inputs, groups)
        anchors = _anchors(chat_model, inputs, kinds) if schedule.recompute_every else []
        parameters = list(block.parameters())
        for parameter in parameters:
            parameter.requires_grad_(True)
        optimizer = torch.optim.AdamW(parameters, lr=schedule.learning_rate, weight_decay=0.0, fused=True)
        current, step = direction, 0
        for number in range(schedule.epochs):
            losses, seen = [], torch.empty(len(lengths))
            shuffler.shuffle(order := list(range(len(batches))))
            for batch in (batches[index] for index in order):
                if schedule.recompute_every and step and step % schedule.recompute_every == 0:
                    current = _current_direction(block, anchors, kinds)
                if schedule.decay:
                    optimizer.param_groups[0]["lr"] = schedule.learning_rate * (1 - step / steps)
                # On the CPU, where targets are: a batch of them is small, and the method needs no device of its own.
                activations = batch.output(block, disturb).cpu()
                loss = loss_function(activations, torch.tensor(batch.rows), current)
                if schedule.consistency:
                    loss = loss + schedule.consistency * consistency_loss(block, batch).cpu()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
                seen[batch.rows] = direction.position(activations.detach())
                step += 1
                advance()
            positions = {kind: float(seen[kinds == code].mean()) for kind, code in KIND_CODES.items()}
            epochs.append(Epoch(number, sum(losses) / len(losses), positions))
        del optimizer  # its two moments take as much as two blocks, and the copy below one more
        for parameter in parameters:
            parameter.requires_grad_(False)
            parameter.grad = None
        trained = TrainedBlock(state_of(block), epochs)
    block.load_state_dict(before)
    return trained


def batches_of_like_length(lengths: Sequence[int], batch_size: int, shuffler: random.Random) -> list[list[int]]:
    """All rows once, in batches of prompts of like length, so that little is spent on padding.

    Rows are shuffled, and sorted by length within stretches of eight batches. Batches of one are in the given order.
    """
    order = list(range(len(lengths)))
    if batch_size == 1:
        return [[row] for row in order]
    shuffler.shuffle(order)
    stretch = 8 * batch_size
    for start in range(0, len(order), stretch):
        order[start : start + stretch] = sorted(order[start : start + stretch], key=lambda row: lengths[row])
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def noisy(noise: float, generator: torch.Generator) -> Disturb:
    """Adds Gaussian noise of `noise` times each token's standard deviation to hidden states (token, d_model)."""

    def disturb(hidden: torch.Tensor) -> torch.Tensor:
        drawn = torch.randn(hidden.shape, generator=generator, device=hidden.device)
        return hidden + noise * hidden.std(dim=-1, keepdim=True) * drawn

    return disturb if noise else undisturbed


def prepared(chat_model: ChatModel, inputs: BlockInputs, groups: Sequence[list[int]]) -> list[LastTokens]:
    """`last_tokens` with the embeddings, which it needs, in memory."""
    with held(chat_model.model.get_input_embeddings()):
        return last_tokens(chat_model, inputs, groups)


@torch.no_grad()
def block_outputs(chat_model: ChatModel, inputs: BlockInputs) -> torch.Tensor:
    """What the block, in float32, returns at the last token of all prompts: (prompt, d_model) float32, on the CPU."""
    block = chat_model.blocks[inputs.layer]
    outputs = torch.empty(len(inputs.token_ids), inputs.hidden.shape[1])
    with in_float32(block):
        for batch in prepared(chat_model, inputs, list(rows_by_length(inputs.token_ids, OUTPUT_BATCH))):
            outputs[batch.rows] = batch.output(block, undisturbed).cpu()
    return outputs


def _anchors(chat_model: ChatModel, inputs: BlockInputs, kinds: torch.Tensor) -> list[LastTokens]:
    """The prompts that the refusal direction is made from, in large batches."""
    rows = (kinds != PSEUDO_HARMFUL).nonzero().flatten().tolist()
    groups = rows_by_length([inputs.token_ids[row] for row in rows], OUTPUT_BATCH)
    return prepared(chat_model, inputs, [[rows[index] for index in group] for group in groups])


@torch.no_grad()
def _current_direction(block: torch.nn.Module, anchors: Sequence[LastTokens], kinds: torch.Tensor) -> RefusalDirection:
    """The refusal direction with the block's current parameters, from the training prompts themselves (Eq. 1)."""
    activations = torch.cat([batch.output(block, undisturbed).cpu() for batch in anchors])
    of = kinds[torch.tensor([row for batch in anchors for row in batch.rows])]
    return refusal_direction(activations[of == HARMFUL], activations[of == HARMLESS])


@contextmanager
def in_float32(block: torch.nn.Module) -> Iterator[None]:
    """Hold the block in float32; afterwards every tensor of it is in the dtype it had."""
    tensors = [*block.parameters(), *block.buffers()]
    dtypes = [tensor.dtype for tensor in tensors]
    block.float()
    try:
        yield
    finally:
        for tensor, dtype in zip([*block.parameters(), *block.buffers()], dtypes, strict=True):
            tensor.data = tensor.data.to(dtype)


def state_of(block: torch.nn.Module) -> State:
    """A copy of the block's parameters and buffers."""
    return {name: tensor.detach().clone() for name, tensor in block.state_dict().items()}


def compact(state: State) -> State:
    """`state` with every tensor in bfloat16 that loses nothing by it, as those of a checkpoint computed in float32."""
    return {
        name: half if torch.equal((half := tensor.to(torch.bfloat16)).to(tensor.dtype), tensor) else tensor
        for name, tensor in state.items()
    }


@contextmanager
def loaded(block: torch.nn.Module, state: State) -> Iterator[None]:
    """Put `state` into the block; afterwards it is as it was."""
    before = state_of(block)
    block.load_state_dict(state)
    try:
        yield
    finally:
        block.load_state_dict(before)


def interpolate(before: State, after: State, strength: float, stored: Mapping[str, torch.dtype]) -> State:
    """before + strength (after - before), computed in float32; 0 is the unedited block.

    **Arguments:**

    - `stored`: the dtype of each parameter in the checkpoint, which the result has, wherever it is computed.
    """
    return {
        name: (start.float() + strength * (after[name].float() - start.float())).to(stored.get(name, start.dtype))
        for name, start in before.items()
    }
