"""Train one block so that the last token's activation reaches its target: the loop of the paper's Algorithm 1.

Targets, loss and schedule are a rule's (`rules.py`). Only block l's parameters change; they are trained in float32,
whatever the model's dtype, because bf16 swallows updates of 1e-5 and, at the paper's alpha, most of the target itself.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch

from ..models.inputs import BlockInputs
from ..models.last_token import Disturb, LastTokens, last_tokens, undisturbed
from ..models.machine import give_back
from ..models.model import ChatModel
from ..models.placement import device_of, held
from ..models.state import State, compact, in_float32, state_of
from ..progress import Report, no_report, progress_bar
from ..records.run import Epoch
from .consistency import consistency_loss
from .cost import Cost, Phase, Work
from .direction import RefusalDirection, refusal_direction
from .rules import HARMFUL, HARMLESS, HELD, KIND_CODES, LossFunction, Schedule
from .suited import MOST_PROMPTS

OUTPUT_BATCH = 64  # prompts of which the block's output is read at a time

# AdamW is bound by memory, not by arithmetic: updating a parameter takes as long as about so many FLOPs.
UPDATE_FLOPS = 300

# Values a token, in units of d_model, that a block makes where only its last position is read; one that `last_token`
# cannot cut down makes more.
CUT_VALUES = 6


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
    renewed: Callable[[torch.Tensor], LossFunction] | None = None,
    report: Report = no_report,
) -> TrainedBlock:
    """Train block `inputs.layer` on `inputs` (paper, Algorithm 1). The model itself is left as it was.

    **Arguments:**

    - `kinds`: (prompt) int64 codes as in `rules.KIND_CODES`.
    - `direction`: that of the unedited model.
    - `renewed`: what the loss is from epoch `schedule.renew_after` on, from activations (prompt, d_model) at that time.
    - `report`: takes the loss of each step.
    """
    block, shuffler = chat_model.blocks[inputs.layer], random.Random(seed)
    disturb = _noisy(schedule.noise, torch.Generator(device_of(block)).manual_seed(seed))
    lengths, codes = [len(tokens) for tokens in inputs.token_ids], KIND_CODES | {"held": HELD}
    groups = batches_of_like_length(lengths, schedule.batch_size, shuffler)
    epochs, steps = [], schedule.epochs * len(groups)
    with _in_training(block), progress_bar(steps, "Training one block") as advance:
        batches = _prepared(chat_model, inputs, groups)
        anchors = _anchors(chat_model, inputs, kinds) if schedule.recompute_every else []
        rate = schedule.learning_rate * (_size_of_weights(block) if schedule.relative else 1.0)
        optimizer = torch.optim.AdamW(block.parameters(), lr=rate, weight_decay=0.0, fused=True)
        current, step = direction, 0
        for number in range(schedule.epochs):
            losses, seen = [], torch.empty(len(lengths))
            if renewed and 0 < number == schedule.renew_after:
                loss_function = renewed(_outputs(block, batches))
            shuffler.shuffle(order := list(range(len(batches))))
            for batch in (batches[index] for index in order):
                if schedule.recompute_every and step and step % schedule.recompute_every == 0:
                    current = _current_direction(block, anchors, kinds)
                if schedule.decay:
                    optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
                # On the CPU, where targets are: a batch of them is small, and the method needs no device of its own.
                activations = batch.output(block, disturb).cpu()
                loss = loss_function(activations, torch.tensor(batch.rows), current).mean()
                if schedule.consistency:
                    loss = loss + schedule.consistency * consistency_loss(block, batch).cpu()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
                report("train", {"loss": losses[-1]}, step)
                seen[batch.rows] = direction.position(activations.detach())
                step += 1
                advance()
            positions = {kind: float(seen[kinds == code].mean()) for kind, code in codes.items() if code in kinds}
            epochs.append(Epoch(number, sum(losses) / len(losses), positions))
        del optimizer  # its two moments take as much as two blocks, and the copy below one more
        block.zero_grad()
        return TrainedBlock(state_of(block), epochs)


@contextmanager
def _in_training(block: torch.nn.Module) -> Iterator[None]:
    """Hold the block in float32, with gradients; afterwards it is as it was."""
    before = compact(state_of(block))
    give_back()
    with ExitStack() as undo:
        undo.callback(block.load_state_dict, before)
        undo.enter_context(in_float32(block))
        undo.callback(lambda: block.requires_grad_(False).zero_grad())
        block.requires_grad_(True)
        yield


def batches_of_like_length(lengths: Sequence[int], batch_size: int, shuffler: random.Random) -> list[list[int]]:
    """All rows once, in batches of prompts of like length; batches of one are in the given order."""
    order = list(range(len(lengths)))
    if batch_size > 1:  # shuffled, and sorted by length within stretches of eight batches: little padding
        shuffler.shuffle(order)
        for stretch in (slice(start, start + 8 * batch_size) for start in range(0, len(order), 8 * batch_size)):
            order[stretch] = sorted(order[stretch], key=lambda row: lengths[row])
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _noisy(noise: float, generator: torch.Generator) -> Disturb:
    """Adds Gaussian noise of `noise` times each token's standard deviation to hidden states (token, d_model)."""

    def disturb(hidden: torch.Tensor) -> torch.Tensor:
        drawn = torch.randn(hidden.shape, generator=generator, device=hidden.device)
        return hidden + noise * hidden.std(dim=-1, keepdim=True) * drawn

    return disturb if noise else undisturbed


def _prepared(chat_model: ChatModel, inputs: BlockInputs, groups: Sequence[list[int]]) -> list[LastTokens]:
    """`last_tokens` with the embeddings, which it needs, in memory."""
    with held(chat_model.model.get_input_embeddings()):
        return last_tokens(chat_model, inputs, groups)


def _size_of_weights(block: torch.nn.Module) -> float:
    """The root mean square of all values in the block's matrices."""
    matrices = [parameter.detach() for parameter in block.parameters() if parameter.dim() > 1]
    total = sum(float(matrix.float().square().sum()) for matrix in matrices)
    return (total / sum(matrix.numel() for matrix in matrices)) ** 0.5


@torch.no_grad()
def _outputs(block: torch.nn.Module, batches: Sequence[LastTokens]) -> torch.Tensor:
    """What the block, as it is, returns at the last tokens of all prompts: (prompt, d_model) float32, on the CPU."""
    rows = torch.tensor([row for batch in batches for row in batch.rows])
    return torch.cat([batch.output(block, undisturbed).cpu() for batch in batches])[rows.argsort()]


@torch.no_grad()
def block_outputs(chat_model: ChatModel, inputs: BlockInputs) -> torch.Tensor:
    """What the block, in float32, returns at the last token of all prompts: (prompt, d_model) float32, on the CPU."""
    block = chat_model.blocks[inputs.layer]
    with in_float32(block):
        return _outputs(block, _prepared(chat_model, inputs, inputs.batches(OUTPUT_BATCH)))


def _anchors(chat_model: ChatModel, inputs: BlockInputs, kinds: torch.Tensor) -> list[LastTokens]:
    """The prompts that the refusal direction is made from, in large batches."""
    rows = ((kinds == HARMFUL) | (kinds == HARMLESS)).nonzero().flatten().tolist()
    groups = inputs.select(rows).batches(OUTPUT_BATCH)
    return _prepared(chat_model, inputs, [[rows[index] for index in group] for group in groups])


@torch.no_grad()
def _current_direction(block: torch.nn.Module, anchors: Sequence[LastTokens], kinds: torch.Tensor) -> RefusalDirection:
    """The refusal direction with the block's current parameters, from the training prompts themselves (Eq. 1)."""
    activations = torch.cat([batch.output(block, undisturbed).cpu() for batch in anchors])
    of = kinds[torch.tensor([row for batch in anchors for row in batch.rows])]
    return refusal_direction(activations[of == HARMFUL], activations[of == HARMLESS])


def cost(need: Cost) -> Phase:
    """What training needs."""
    size, given, schedule = need.size, need.given, need.rule.schedule
    here, parameters = range(need.layer, need.layer + 1), size.blocks[need.layer]
    token = CUT_VALUES * size.d_model * 4
    step = 12 * parameters + schedule.batch_size * given.longest * token  # gradients and AdamW's two moments
    outputs = min(OUTPUT_BATCH, given.prompts) * given.longest * token
    # The unedited block is among the weights; the trained one is beside it, in float32.
    used = range(need.layer, len(need.every)) if need.rule.odds_objective else here
    # Of all tokens the keys in the blocks above, and what goes through these while they are made.
    above = given.tokens * size.kv_values_per_token * need.value * len(used[1:]) // len(need.every)
    above += need.kept() if need.rule.odds_objective else 0
    tensors = need.weights(used, need.early, head=bool(need.rule.odds_objective)) + need.kept() + 4 * parameters
    tensors += max(step, outputs) + above
    prompts = given.prompts - need.validation_prompts
    steps = schedule.epochs * math.ceil(prompts / schedule.batch_size)
    runs = 3 * schedule.epochs  # a backward pass is two forward passes
    runs += steps // schedule.recompute_every if schedule.recompute_every else 0
    # Only keys and values are computed for every token; their weights have d_model inputs.
    keys = need.mean_tokens * size.d_model * size.kv_values_per_token / len(need.every)
    whole = 2 * runs * prompts * keys + steps * UPDATE_FLOPS * parameters
    computing = Work(training=whole, training_steps=2 * runs * prompts * parameters)
    # To choose the rule: log-probabilities of first tokens, as they come, together, and normalised once more.
    results = 3 * MOST_PROMPTS * size.vocabulary * 4 if need.rule.odds_objective else 0
    return need.phase("train", tensors, results, computing, need.stored(here) if need.streamed else 0)
