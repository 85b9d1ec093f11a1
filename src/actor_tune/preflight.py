"""Preflight: what each phase of a fit needs in memory and time, from a model's `config.json` alone.

Memory is an upper estimate: padded to the longest prompt, all experts of a block counted. Left out, because small for
prompts of usual length: attention's quadratic term, in memory and in time.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from transformers import AutoConfig

from .chat import TokenIds, encode
from .engines.local import AUTO_BATCH_SIZE, AUTO_BATCH_TOKENS
from .errors import UserError
from .fit import BOUNDARY_SCHEDULE, MINIMUM_PROMPTS, SCHEDULES, Rule, strengths_of
from .guard import ANSWER_TOKENS
from .inputs import PREFIX_BATCH, PREFIX_TOKENS
from .machine import Memory, measured_rate
from .model import load_tokenizer, model_folder, stored_dtype
from .placement import Offload, Placement, Quantization, resolve_device, resolve_dtype
from .prompts import KINDS, Prompt, Split
from .scan import MAX_PROMPTS, candidate_layers
from .size import ModelSize, model_size
from .strength import STRENGTHS
from .train import OUTPUT_BATCH, Schedule

LIBRARIES = 560 * 2**20
"""Bytes of what is not counted: the interpreter with its libraries (430 MiB after importing them), the tokenizer, and
what the allocator keeps. Measured in fits of a model of 135 M parameters on Linux."""

FOUR_BIT = 0.55
"""Bytes a parameter in bitsandbytes' 4 bits, with the scales of its groups."""

DISK_RATE = 1e9
"""Bytes a second that weights are read with, unless said otherwise: between a SATA and an NVMe disk."""

UPDATE_FLOPS = 300
"""AdamW is bound by memory, not by arithmetic: updating a parameter takes as long as about so many FLOPs."""

CUT_VALUES = 6
"""Values a token, in units of d_model, that a block makes where only its last position is read; one that `last_token`
cannot cut down makes more."""

FEWEST_ANSWERS = 4
"""Prompts answered at a time below which a shortage of memory is not mended by answering fewer."""


@dataclass(frozen=True)
class Texts:
    """How much text: the number of prompts, their tokens in all, and those of the longest."""

    prompts: int
    tokens: int
    longest: int


def texts_of(token_ids: Sequence[TokenIds]) -> Texts:
    """The size of encoded prompts."""
    lengths = [len(tokens) for tokens in token_ids]
    return Texts(len(lengths), sum(lengths), max(lengths))


@dataclass(frozen=True)
class Work:
    """What a fit is to do.

    - `given`: all prompts of training and validation; `validation_prompts` of them are kept aside.
    - `gate`: the prompts that the safety gate answers, `answer_batch` at a time, before and after.
    - `layer`: the block to train, negative from the end; None where a scan chooses it: then the last candidate counts.
    """

    given: Texts
    validation_prompts: int
    gate: Texts
    layer: int | None
    schedule: Schedule = BOUNDARY_SCHEDULE
    strengths: int = len(STRENGTHS)
    answer_tokens: int = ANSWER_TOKENS
    answer_batch: int = AUTO_BATCH_SIZE


@dataclass(frozen=True)
class Setup:
    """How the model is held.

    - `bytes_per_parameter`: of its dtype in memory.
    - `offload`: "none" holds all blocks (up to the trained one until training has ended, where that is named);
      "stream" reads one block at a time, and embeddings and head one at a time, each time they are needed.
    - `quantization`: "bnb_4bit" holds the linear layers of all blocks but the trained one in 4 bits.
    """

    device: str
    bytes_per_parameter: int
    offload: Offload = "none"
    quantization: Quantization = "none"


@dataclass(frozen=True)
class Speed:
    """What the machine does a second: FLOPs in the model's dtype and in float32, and bytes read from disk."""

    model: float
    float32: float
    disk: float = DISK_RATE


@dataclass(frozen=True)
class Phase:
    """A phase of `fit`, with its peak memory."""

    name: str
    memory: Memory
    seconds: float


@dataclass(frozen=True)
class Plan:
    """All that an estimate rests on, and the sums that its phases share."""

    size: ModelSize
    work: Work
    setup: Setup
    speed: Speed

    @property
    def every(self) -> range:
        """All blocks."""
        return range(len(self.size.blocks))

    @property
    def layer(self) -> int:
        """The block that is trained."""
        count = len(self.size.blocks)
        return candidate_layers(count)[-1] if self.work.layer is None else self.work.layer % count

    @property
    def early(self) -> range:
        """The blocks that are loaded before training has ended, where they are not streamed."""
        return self.every if self.work.layer is None else range(self.layer + 1)

    @property
    def streamed(self) -> bool:
        """Whether blocks come and go."""
        return self.setup.offload == "stream"

    @property
    def mean_tokens(self) -> float:
        """Of a prompt."""
        return self.work.given.tokens / self.work.given.prompts

    def block(self, index: int) -> int:
        """Bytes of a block as it is held."""
        packed = 0 if self.setup.quantization == "none" or index == self.layer else self.size.linear[index]
        return int(FOUR_BIT * packed) + (self.size.blocks[index] - packed) * self.setup.bytes_per_parameter

    def weights(self, used: range, loaded: range, head: bool) -> int:
        """Bytes of weights where the blocks `used`, and perhaps the head, run: all that are `loaded`, or, streamed, the
        embeddings and the largest of the others.
        """
        if not self.streamed:
            return sum(map(self.block, loaded)) + self.size.other_parameters * self.setup.bytes_per_parameter
        other = self.size.largest_other * self.setup.bytes_per_parameter
        return other + max([*map(self.block, used), other * head])

    def beside(self) -> int:
        """Bytes of the trained block, which stays where all others are streamed."""
        return self.block(self.layer) if self.streamed else 0

    def kept(self) -> int:
        """Bytes of what the trained block receives for all prompts."""
        return self.work.given.tokens * self.size.d_model * self.setup.bytes_per_parameter

    def working(self, rows: int, tokens: int) -> int:
        """Bytes of what a block makes of a batch, and of logits at one position, as they are and twice in float32."""
        value = self.setup.bytes_per_parameter
        # Each matrix of a block has d_model inputs or outputs, and makes as many values of a token as it has of others.
        width = max(self.size.blocks) // self.size.d_model
        return rows * (tokens * width * value + self.size.vocabulary * (value + 8))

    def stored(self, blocks: range) -> int:
        """Bytes on disk of `blocks`, embeddings and head."""
        return (self.size.within(blocks) + self.size.other_parameters) * self.size.stored_bytes

    def computing(self, blocks: range, tokens: float, heads: float) -> float:
        """Seconds for `tokens` through `blocks` and `heads` positions through the head: 2 FLOPs a parameter."""
        flops = 2 * (self.size.within(blocks) * tokens + self.size.d_model * self.size.vocabulary * heads)
        return flops / self.speed.model

    def phase(self, name: str, tensors: int, results: int, computing: float, read: float) -> Phase:
        """From bytes where the model computes and of results in RAM, seconds of computing, and bytes to read."""
        seconds = computing + read / self.speed.disk
        if self.setup.device.startswith("cuda"):
            return Phase(name, Memory(tensors, LIBRARIES + results), seconds)
        return Phase(name, Memory(*[LIBRARIES + tensors + results] * 2), seconds)


def plan_of(
    name: str, split: Split, gate: Sequence[Prompt], placement: Placement, layer: int | None, rule: Rule
) -> Plan:
    """What fitting the model `name` on `split` will do, with the safety gate on `gate`. Its weights are not touched.

    **Raises:** `UserError` when its config or tokenizer cannot be had.
    """
    folder = model_folder(name, weights=False)
    tokenizer = load_tokenizer(name, folder)
    texts = [texts_of(encode(tokenizer, prompts)) for prompts in ([*split.train, *split.validation], gate)]
    device = resolve_device(placement.device)
    dtype = resolve_dtype(placement.dtype, stored_dtype(AutoConfig.from_pretrained(folder)), device)
    work = Work(texts[0], len(split.validation), texts[1], layer, SCHEDULES[rule], len(strengths_of(rule)))
    speed = Speed(measured_rate(device, dtype), measured_rate(device, torch.float32))
    setup = Setup(device, dtype.itemsize, placement.offload, placement.quantization)
    return Plan(model_size(folder), work, setup, speed)


def phases(plan: Plan) -> list[Phase]:
    """Every phase of a fit in order, with its peak memory and its time."""
    chosen = [_choose_block(plan)] if plan.work.layer is None else []
    return [*chosen, _run_blocks_below(plan), _train(plan), _choose_strength(plan), _answer(plan)]


def prefix_rows(longest: int) -> int:
    """Prompts of the longest kind that are run at a time."""
    return max(1, min(PREFIX_BATCH, PREFIX_TOKENS // longest))


def _choose_block(plan: Plan) -> Phase:
    size, longest, value = plan.size, plan.work.given.longest, plan.setup.bytes_per_parameter
    rows = len(KINDS) * MAX_PROMPTS
    # Prompts go through one block at a time: what it receives and returns, and the keys of one kind, twice.
    states = 2 * rows * longest * size.d_model * value
    keys = 2 * MAX_PROMPTS * longest * size.kv_values_per_token * value // len(plan.every)
    tensors = plan.weights(plan.every, plan.every, head=True) + states + keys + plan.working(MAX_PROMPTS, longest)
    moved = 4 * MAX_PROMPTS * len(candidate_layers(len(plan.every)))  # last tokens of two kinds, in two directions
    computing = plan.computing(plan.every, rows * plan.mean_tokens + moved, rows + moved)
    read = plan.stored(plan.every)
    return plan.phase("choose block", tensors, (rows + moved) * size.vocabulary * 4, computing, read)


def _run_blocks_below(plan: Plan) -> Phase:
    below, given = range(plan.layer), plan.work.given
    tensors = plan.weights(below, plan.early, head=False) + plan.beside() + plan.kept()
    read = plan.stored(below) if plan.streamed else 0 if plan.work.layer is None else plan.stored(plan.early)
    computing = plan.computing(below, given.tokens, 0)
    return plan.phase(
        "run blocks below", tensors + plan.working(prefix_rows(given.longest), given.longest), 0, computing, read
    )


def _train(plan: Plan) -> Phase:
    size, work, schedule = plan.size, plan.work, plan.work.schedule
    here, parameters = range(plan.layer, plan.layer + 1), size.blocks[plan.layer]
    token = CUT_VALUES * size.d_model * 4
    step = 12 * parameters + schedule.batch_size * work.given.longest * token  # gradients and AdamW's two moments
    outputs = min(OUTPUT_BATCH, work.given.prompts) * work.given.longest * token
    # The unedited block is among the weights; the trained one is beside it, in float32.
    tensors = plan.weights(here, plan.early, head=False) + plan.kept() + 4 * parameters + max(step, outputs)
    prompts = work.given.prompts - work.validation_prompts
    steps = schedule.epochs * math.ceil(prompts / schedule.batch_size)
    runs = 3 * schedule.epochs  # a backward pass is two forward passes
    runs += steps // schedule.recompute_every if schedule.recompute_every else 0
    # Only keys and values are computed for every token; their weights have d_model inputs.
    prompt = plan.mean_tokens * size.d_model * size.kv_values_per_token / len(plan.every) + parameters
    flops = 2 * runs * prompts * prompt + steps * UPDATE_FLOPS * parameters
    return plan.phase("train", tensors, 0, flops / plan.speed.float32, plan.stored(here) if plan.streamed else 0)


def _choose_strength(plan: Plan) -> Phase:
    work, above, value = plan.work, range(plan.layer, len(plan.every)), plan.setup.bytes_per_parameter
    blocks = (value + 4) * plan.size.blocks[plan.layer] + plan.beside()  # as it was, and as trained
    kept = plan.kept() * (2 if plan.streamed else 1)  # they go through the blocks above in a copy
    tensors = plan.weights(above, plan.every, head=True) + blocks + kept
    # Log-probabilities of the unedited model, of the strength tried, and the rows that those are put together from.
    results = 3 * work.validation_prompts * plan.size.vocabulary * 4
    prompts = work.strengths * work.validation_prompts
    computing = plan.computing(above, prompts * plan.mean_tokens, prompts)
    rest = plan.stored(plan.every) - plan.stored(plan.early)
    read = work.strengths * plan.stored(above) if plan.streamed else rest
    working = plan.working(prefix_rows(work.given.longest), work.given.longest)
    return plan.phase("choose strength", tensors + working, results, computing, read)


def _answer(plan: Plan) -> Phase:
    work, gate, value = plan.work, plan.work.gate, plan.setup.bytes_per_parameter
    length = gate.longest + work.answer_tokens
    rows = min(work.answer_batch, max(1, AUTO_BATCH_TOKENS // length), gate.prompts)
    cache = rows * length * plan.size.kv_values_per_token * value
    blocks = 2 * value * plan.size.blocks[plan.layer]  # as it was, and as it will be
    tensors = plan.weights(plan.every, plan.every, head=True) + blocks + cache + plan.working(rows, gate.longest)
    answered = gate.prompts * work.answer_tokens
    computing = 2 * plan.computing(plan.every, gate.tokens + answered, answered)  # before and after
    passes = 2 * work.answer_tokens * math.ceil(gate.prompts / rows)
    return plan.phase("answer", tensors, 0, computing, passes * plan.stored(plan.every) if plan.streamed else 0)


def heaviest(found: Sequence[Phase]) -> Phase:
    """The phase that needs the most memory where the model computes."""
    return max(found, key=lambda phase: phase.memory.device)


def sentence(found: Sequence[Phase], free: Memory) -> str:
    """What a command prints: the heaviest phase, the longest one, and what is free."""
    heavy, longest = heaviest(found), max(found, key=lambda phase: phase.seconds)
    times = f"about {_duration(longest.seconds)} of {_duration(sum(phase.seconds for phase in found))}"
    return (
        f"Heaviest phase: {heavy.name}, about {_gib(heavy.memory.device)}; longest: {longest.name}, {times}; "
        f"{_gib(free.device)} free"
    )


def smaller_answers(plan: Plan, free: Memory) -> Plan:
    """`plan` with as many prompts answered at a time as there is room for, halved to at least `FEWEST_ANSWERS`."""
    while plan.work.answer_batch > FEWEST_ANSWERS and _lack(plan, free):
        plan = replace(plan, work=replace(plan.work, answer_batch=plan.work.answer_batch // 2))
    return plan


def check(plan: Plan, free: Memory, name: str) -> None:
    """Stop where `plan`, of the model `name`, does not fit into what is `free`.

    **Raises:** `UserError` whose advice is the first change that does fit, by the same estimate.
    """
    lack = _lack(plan, free)
    if lack:
        raise UserError(name, lack, "enough memory", _advice(plan, free))


def _lack(plan: Plan, free: Memory) -> str | None:
    """Which phase does not fit, in words."""
    found = phases(plan)
    heavy = heaviest(found)
    if heavy.memory.device > free.device:
        return f"{heavy.name} needs about {_gib(heavy.memory.device)} and {_gib(free.device)} are free"
    heavy = max(found, key=lambda phase: phase.memory.ram)
    if heavy.memory.ram > free.ram:
        return f"{heavy.name} needs about {_gib(heavy.memory.ram)} of RAM and {_gib(free.ram)} are free"
    return None


def _advice(plan: Plan, free: Memory) -> str:
    """The first change after which `plan` fits; those that leave the method as it is come first."""
    setup, work = plan.setup, plan.work
    streamed = replace(setup, offload="stream", quantization="none")
    alone = "" if setup.quantization == "none" else " without --quantization"
    small = min(2, setup.bytes_per_parameter)
    setups = {
        f"use --offload stream{alone}": streamed,
        "use --dtype bfloat16": replace(setup, bytes_per_parameter=small),
        f"use --offload stream --dtype bfloat16{alone}": replace(streamed, bytes_per_parameter=small),
    }
    changes = {change: replace(plan, setup=changed) for change, changed in setups.items()}
    while (work := _half(work)).given.prompts >= len(KINDS) * MINIMUM_PROMPTS:
        changes[f"give fewer prompts, {work.given.prompts} in all"] = replace(plan, work=work)
    if not plan.streamed:  # one excludes the other
        changes["use --quantization bnb_4bit"] = replace(plan, setup=replace(setup, quantization="bnb_4bit"))
    for change, changed in changes.items():
        if _lack(changed, free) is None:
            return f"{change} (needs about {_gib(heaviest(phases(changed)).memory.device)})"
    return "choose a smaller model"


def _half(work: Work) -> Work:
    """Half the prompts, with the longest still among them."""
    given = Texts(work.given.prompts // 2, work.given.tokens // 2, work.given.longest)
    return replace(work, given=given, validation_prompts=work.validation_prompts // 2)


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
