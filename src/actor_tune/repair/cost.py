"""What a phase of a fit needs in memory and work, from a model's `config.json` alone: the sums that all phases share.

Each phase has its own `cost` beside it; `preflight.py` puts them together. Memory is an upper estimate: padded to the
longest prompt, all experts of a block counted. Attention's quadratic term, small for usual prompts, is left out. What
the work takes in time is measured on the loaded model (`forecast.py`).
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass

from ..models.chat import TokenIds
from ..models.inputs import PREFIX_BATCH, PREFIX_TOKENS
from ..models.machine import Memory
from ..models.placement import Placement
from ..models.size import ModelSize
from ..models.speed import Rates
from .rules import Rule

# Bytes of what is not counted: the interpreter with its libraries (430 MiB after importing them), the tokenizer, and
# what the allocator keeps. Measured in fits of a model of 135 M parameters on Linux.
LIBRARIES = 560 * 2**20
FOUR_BIT = 0.55  # bytes a parameter in bitsandbytes' 4 bits, with the scales of its groups


@dataclass(frozen=True)
class Texts:
    """How much text: the number of prompts, their tokens in all, and those of the longest."""

    prompts: int
    tokens: int
    longest: int


def texts_of(token_ids: Sequence[TokenIds], opening: int = 0) -> Texts:
    """The size of encoded prompts, of which the first `opening` tokens, that all begin with, are run and kept once."""
    lengths = [len(tokens) for tokens in token_ids]
    return Texts(len(lengths), opening + sum(lengths) - opening * len(lengths), max(lengths))


@dataclass(frozen=True)
class Work:
    """What is computed and read.

    - `prompts`, `steps`: FLOPs in the model's dtype, where whole prompts run, and where each has one token more, as in
      an answer; `training`, `training_steps`: the same in float32.
    - `read`: bytes from disk.
    """

    prompts: float = 0.0
    steps: float = 0.0
    training: float = 0.0
    training_steps: float = 0.0
    read: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(*[mine + its for mine, its in zip(astuple(self), astuple(other), strict=True)])

    def __mul__(self, times: float) -> "Work":
        return Work(*[times * each for each in astuple(self)])


@dataclass(frozen=True)
class Speed:
    """What the machine does a second: FLOPs of a block, in the model's dtype and in float32; bytes read from disk."""

    model: Rates
    float32: Rates
    disk: float = 1e9  # between a SATA and an NVMe disk

    def seconds(self, work: Work) -> float:
        """That `work` takes."""
        here = work.prompts / self.model.prompts + work.steps / self.model.steps
        training = work.training / self.float32.prompts + work.training_steps / self.float32.steps
        return here + training + work.read / self.disk


@dataclass(frozen=True)
class Phase:
    """A phase of a fit, with its peak memory."""

    name: str
    memory: Memory
    work: Work


@dataclass(frozen=True)
class Cost:
    """All that an estimate rests on, and the sums that its phases share.

    - `given`: all prompts of training and validation; `validation_prompts` of them are kept aside, of which the model
      answers `own_answers` itself with `own_tokens`, to show how it refuses.
    - `gate`: prompts that the safety gate answers with `answer_tokens`, `answer_batch` at a time, before and after.
    - `layer`: the block to train; where it is `scanned` for, the last that may be chosen.
    - `placement`: where the model is held, its device by name; `value`: bytes of a parameter there. All blocks are held
      (up to the trained one until training has ended, where that is named and the rule reads no odds), or, streamed,
      one at a time, and embeddings and head one at a time, each time they are needed.
    """

    size: ModelSize
    rule: Rule
    given: Texts
    validation_prompts: int
    own_answers: int
    own_tokens: int
    gate: Texts
    answer_tokens: int
    answer_batch: int
    layer: int
    scanned: bool
    placement: Placement
    value: int

    @property
    def every(self) -> range:
        """All blocks."""
        return range(len(self.size.blocks))

    @property
    def early(self) -> range:
        """The blocks that are loaded before training has ended, where they are not streamed."""
        return self.every if self.scanned or self.rule.odds_objective else range(self.layer + 1)

    @property
    def streamed(self) -> bool:
        """Whether blocks come and go."""
        return self.placement.offload == "stream"

    @property
    def mean_tokens(self) -> float:
        """Of a prompt."""
        return self.given.tokens / self.given.prompts

    def weights(self, used: range, loaded: range, head: bool, beside: bool = False) -> int:
        """Bytes of weights where the blocks `used`, and perhaps the head, run: all that are `loaded`, or, streamed, the
        embeddings and the largest of the others, perhaps with the trained block `beside` them.
        """
        size, plain = self.size, self.placement.quantization == "none"
        packed = [0 if plain or index == self.layer else linear for index, linear in enumerate(size.linear)]
        counts = zip(size.blocks, packed, strict=True)
        blocks = [int(FOUR_BIT * small) + (count - small) * self.value for count, small in counts]
        if not self.streamed:
            return sum(blocks[index] for index in loaded) + size.other_parameters * self.value
        other = size.largest_other * self.value
        return other + max([*(blocks[index] for index in used), other * head]) + blocks[self.layer] * beside

    def kept(self) -> int:
        """Bytes of what the trained block receives for all prompts."""
        return self.given.tokens * self.size.d_model * self.value

    def working(self, rows: int, tokens: int) -> int:
        """Bytes of what a block makes of a batch, and of logits at one position, as they are and twice in float32."""
        # Each matrix of a block has d_model inputs or outputs, and makes as many values of a token as it has of others.
        width = max(self.size.blocks) // self.size.d_model
        return rows * (tokens * width * self.value + self.size.vocabulary * (self.value + 8))

    def working_on_given(self) -> int:
        """The same of a batch of the longest of the given prompts, as blocks are run with."""
        longest = self.given.longest
        return self.working(max(1, min(PREFIX_BATCH, PREFIX_TOKENS // longest)), longest)

    def stored(self, blocks: range) -> int:
        """Bytes on disk of `blocks`, embeddings and head."""
        return (self.size.within(blocks) + self.size.other_parameters) * self.size.stored_bytes

    def computing(self, blocks: range, tokens: float, heads: float, steps: float = 0) -> Work:
        """`tokens` of prompts and `steps` of answers through `blocks`, and `heads` positions through the head: 2 FLOPs
        a parameter.
        """
        whole = self.size.within(blocks) * tokens + self.size.d_model * self.size.vocabulary * heads
        return Work(prompts=2 * whole, steps=2 * self.size.within(blocks) * steps)

    def answering(self, prompts: int, tokens: float, answer_tokens: int) -> Work:
        """`prompts` of `tokens` in all, each answered with `answer_tokens`."""
        answered = prompts * answer_tokens
        return self.computing(self.every, tokens, answered, steps=answered)

    @property
    def own_answering(self) -> Work:
        """The model's own answers to some validation prompts."""
        return self.answering(self.own_answers, self.own_answers * self.mean_tokens, self.own_tokens)

    def phase(self, name: str, tensors: int, results: int, work: Work, read: float) -> Phase:
        """From bytes where the model computes and of results in RAM, what is computed, and bytes to read."""
        own, ram = tensors, LIBRARIES + results
        if not self.placement.device.startswith("cuda"):
            own = ram = ram + tensors
        return Phase(name, Memory(own, ram), work + Work(read=read))
