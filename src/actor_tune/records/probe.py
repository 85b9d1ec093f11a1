"""What a probe of a trained model found: `probe.json`."""

from dataclasses import dataclass, field
from typing import ClassVar

from .file import Record


@dataclass(frozen=True)
class Step:
    """After `number` steps of fine-tuning: first-token compliance and refusal, means over held-out prompts, 0..1."""

    number: int
    compliance: float
    safety: float


@dataclass(frozen=True)
class Topic:
    """Harmless prompts about like things, named by their heaviest words.

    - `divergence`: mean Jensen-Shannon divergence of the models over the first tokens of answers, nats, 0..ln 2.
    """

    name: str
    prompts: int
    divergence: float


@dataclass(frozen=True, kw_only=True)
class Probe(Record):
    """How long safety lasts under benign fine-tuning, by model, and what the edit disturbed, by topic."""

    FILE: ClassVar[str] = "probe.json"
    SCHEMA: ClassVar[int] = 1

    model: str
    base: str
    command: str = ""
    durability: dict[str, list[Step]] = field(default_factory=dict)
    topics: list[Topic] = field(default_factory=list)
