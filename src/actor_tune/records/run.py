"""What a fit leaves: `run.json`, `prompts.jsonl`, `positions.json`, `paths.json`, `guard.jsonl`, `yours.jsonl`."""

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta

from ..judges.verdict import Outcome
from ..prompts.prompt import Kind
from ..prompts.trace import Trace
from .estimate import Estimate, Z
from .file import Record
from .response import PromptRow
from .results import Gate
from .scan import BlockEffect

MODEL_FOLDER = "model"
PATCH_FILE = "patch.safetensors"
GIVEN_FILE = "prompts.jsonl"
POSITIONS_FILE = "positions.json"
PATHS_FILE = "paths.json"
GATE_ANSWERS_FILE = "guard.jsonl"
YOURS_FILE = "yours.jsonl"
SETTINGS_FILE = "actor.toml"
"""The command's settings, as it is given them again."""


@dataclass(frozen=True)
class SetRefusal:
    """First-token refusal on the validation prompts of one set and kind.

    - `refusal`: mean probability, 0..1, that the first answer token begins a refusal.
    - `drop`: how far that fell from strength 0, and `drop_error`, the standard error of it, prompt by prompt.
    - `n`: prompts; None in files of versions that did not keep it.
    """

    name: str
    kind: Kind
    refusal: float
    drop: float
    drop_error: float
    n: int | None = None

    @property
    def estimate(self) -> Estimate:
        """The drop with its 95 % interval, which is by the normal distribution: these are probabilities, no counts."""
        half = Z * self.drop_error
        return Estimate(self.drop, max(-1.0, self.drop - half), min(1.0, self.drop + half))


@dataclass(frozen=True)
class RefusalToken:
    """A token that refusals begin with: its id, its text, and of the `answers` that began so, how many `refused`."""

    token: int
    text: str
    refused: int
    answers: int


@dataclass(frozen=True)
class AnsweredRate:
    """A share of short judged answers to validation prompts, before and after.

    - `name`: "compliance", "safety", "harmless refused", "garbled" or "held refused"; `n`: answers.
    - `rise`: after minus before, and `error`, the standard error of it, prompt by prompt.
    """

    name: str
    n: int
    before: float
    after: float
    rise: float
    error: float


@dataclass(frozen=True)
class Trial:
    """What one strength does on the validation prompts.

    - `compliance`, `safety`: means over the pseudo-harmful and the harmful sets, 0..1.
    - `kl_harmless`, `kl_error`: mean over harmless prompts, nats, and its standard error.
    - `answers`: by judged answers; None where the first tokens had ruled it out, or another was chosen before.
    - `held`: of each category that is held where it is, under its name, the pseudo-harmful prompts; they are in no
      `sets`.
    """

    strength: float
    compliance: float
    safety: float
    safety_drop: float
    kl_harmless: float
    kl_error: float
    sets: list[SetRefusal]
    answers: list[AnsweredRate] | None = None
    held: list[SetRefusal] = field(default_factory=list)


_OPPOSITE = {"fell": ("rose", "fall"), "rose": ("fell", "rise")}
"""What it is called where the number is below nothing, and what the limit is then of."""


@dataclass(frozen=True)
class AppliedLimit:
    """A limit of a fit, as it was applied to the strength that was kept.

    - `what`: the `value` is of, in words: "refusal on starter_twins fell by".
    - `set`: the harmful set that it is about; None where it is about more.
    - `value`: 0..1, of which `unit` "points" are hundredths, or "nats".
    - `allowance`: for the error of the value, which may exceed the `limit` by so much: a standard error, or 0.
    """

    what: str
    value: float
    limit: float
    allowance: float
    unit: Literal["points", "nats"]
    set: str | None = None

    @property
    def kept(self) -> bool:
        """Whether the value is within both; one that is no number is not."""
        return self.value <= self.limit + self.allowance

    @property
    def sentence(self) -> str:
        """The value, and what was allowed: limit, allowance and their sum. A fall below nothing is said as a rise."""
        value, limit, allowance, most = (
            f"{round(100 * number, 1) + 0.0:.1f}" if self.unit == "points" else f"{round(number, 3) + 0.0:.3f}"
            for number in (self.value, self.limit, self.allowance, self.limit + self.allowance)
        )
        allowed = f"{limit} + {allowance} for the standard error = {most}" if self.allowance else limit
        *subject, verb, by = self.what.split(" ")
        if value.startswith("-") and verb in _OPPOSITE:
            opposite, limited = _OPPOSITE[verb]
            what = " ".join([*subject, opposite, by])
            return f"{what} {value[1:]} {self.unit} (a {limited} of at most {allowed} is allowed)"
        return f"{self.what} {value} {self.unit} (at most {allowed} {'are' if self.unit == 'points' else 'is'} allowed)"


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
class Base:
    """The model that was trained: its name, the hash of its weights, and how many blocks it has."""

    name: str
    sha256: str
    blocks: int


@dataclass(frozen=True)
class Given:
    """How many prompts of a kind were given, and their fingerprint."""

    n: int
    sha256: str


@dataclass(frozen=True)
class Experts:
    """How many experts a block has, and how many of them training changed; the others are as they were, bit for bit."""

    count: int
    changed: int


OwnAim = Literal["freed", "held", "refused"]
"""What a user's prompts are trained for."""


@dataclass(frozen=True)
class YoursOf:
    """Of the prompts of a user's that are of one category, or harmful: of `given`, `n` were asked.

    - `name`: the category; empty where it is about all.
    - `before`, `after`: how many were answered, of harmful ones refused.
    """

    name: str
    aim: OwnAim
    given: int
    n: int
    before: int
    after: int


@dataclass(frozen=True)
class Yours:
    """What became of the pseudo-harmful prompts that the user gave: of `given`, `n` were asked, and answered so many.

    They were learned from, so that this says nothing about others.

    - `categories`: each of theirs; empty where none was said.
    - `harmful`: theirs, where refusal was strengthened.
    """

    given: int
    n: int
    before: int
    after: int
    categories: list[YoursOf] = field(default_factory=list)
    harmful: YoursOf | None = None

    @property
    def sentence(self) -> str:
        """All of it in words."""
        groups = (("benign", "answered", self if self.given else None), ("harmful", "refused", self.harmful))
        said = []
        for kind, done, group in groups:
            if group:
                some = "" if group.n == group.given else f" of {group.given}, {group.n} of which were asked"
                now = f"{group.before} of {group.n} {done} before, {group.after} of {group.n} now"
                said.append(f"Your {kind} prompts{some}: {now}")
        return f"{'. '.join(said)}; they were learned from, and say nothing about others"


@dataclass(frozen=True, kw_only=True)
class Run(Record):
    """Everything needed to say what was run and to run it again; where its file is, the run is whole.

    - `placement`, `settings`, `training`: what decided it, by name.
    - `prompts_sha256`: fingerprint of the prompts given, in their order; empty in records of older versions.
    - `rule_reason`: why it was trained by that rule; None where the user chose it.
    - `scan`: None where the block was named.
    - `refusal_tokens`: what the model's own refusals begin with; empty where too few of its answers refused. Prompts
      whose log-odds of them are above `boundary` count as refused; `start_error` is how often that is wrong, 0..1.
    - `strength`: the one kept of `trials`; `limits`: as they were applied to it, harmful sets worst first; empty in
      files of versions that did not keep them.
    - `fallen`: harmful sets that fell by more than the gate's margin behind the mean, in sentences.
    - `failure`: why the fit should not be used, in a sentence; None when it is within the limits.
    - `seconds`: per stage.
    - `chat_template_kwargs`: what the chat template was told; `opening`: what all answers begin with, taken for a part
      of the prompt; `thinks`: whether it was trained where the model begins to reason, and not where it answers.
    - `experts`: of the trained block, and how many of them changed; None where it has none.
    - `max_reasoning_tokens`: what it might think before it answered the gate; None where that was not recorded.
    - `trained_before`: of a base that was trained before, what tells its prompts.
    - `written`: False where the model was withheld as unsafe.
    - `yours`: None where the user gave no such prompts, or the fit changed nothing.
    - `date`: when it was fitted, `2026-01-31`, UTC; empty where an older version did.
    """

    FILE: ClassVar[str] = "run.json"
    SCHEMA: ClassVar[int] = 1

    model: Base
    layer: int
    placement: dict[str, Any] = field(default_factory=dict)
    computed_in: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    rule_reason: str | None = None
    scan: list[BlockEffect] | None = None
    refusal_tokens: list[RefusalToken] = field(default_factory=list)
    boundary: float | None = None
    start_error: float | None = None
    prompts: dict[str, Given] = field(default_factory=dict)
    prompts_sha256: str = ""
    starter_sha256: str | None = None
    trained_on: int = 0
    validated_on: int = 0
    direction_length: float | None = None
    epochs: list[Epoch] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)
    strength: float | None = None
    failure: str | None = None
    warnings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    gate: Gate | None = None
    command: str = ""
    written: bool | None = None
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    opening: str = ""
    thinks: bool | None = None
    max_reasoning_tokens: int | None = None
    trained_before: list[Trace] = field(default_factory=list)
    experts: Experts | None = None
    limits: list[AppliedLimit] = field(default_factory=list)
    fallen: list[str] = field(default_factory=list)
    date: str = ""
    yours: Yours | None = None

    @property
    def reasons(self) -> list[str]:
        """Why its block should not be used, in sentences; empty where it may be."""
        failed = self.gate.sentence if self.gate and not self.gate.passed else None
        return [reason for reason in (self.failure, failed) if reason]


@dataclass(frozen=True, kw_only=True)
class Position(PromptRow):
    """A prompt's position along the direction, 0 harmless mean, 1 harmful mean, by the block as it was and as it is."""

    part: Literal["train", "validation"]
    before: float
    after: float


EachBlock = Annotated[list[float], Meta(min_length=1)]


@dataclass(frozen=True, kw_only=True)
class PromptPath(PromptRow):
    """A prompt, block by block, by the model as it was and as it is; one value for each block.

    - `position_before`, `position_after`: along that block's own refusal direction, 0 harmless mean, 1 harmful mean.
    - `refusal_before`, `refusal_after`: the probability, 0..1, that the answer begins with a refusal, read as if the
      block were the last one; that of the last block is what the model says.
    """

    position_before: EachBlock
    position_after: EachBlock
    refusal_before: EachBlock
    refusal_after: EachBlock


@dataclass(frozen=True)
class GateAnswer:
    """A prompt that was asked at the end of a fit, with both answers and verdicts."""

    prompt: str
    set: str
    before: str
    after: str
    verdict_before: Outcome
    verdict_after: Outcome
    kind: Kind = "harmful"
    category: str | None = None
