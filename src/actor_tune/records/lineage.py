"""What a trained model carries in its own folder, `actor_tune.json`: it is known for what it is wherever it goes."""

from dataclasses import dataclass, field
from typing import ClassVar

from ..prompts.leakage import Trace
from .file import Record
from .results import Gate


@dataclass(frozen=True, kw_only=True)
class Lineage(Record):
    """How a model was trained, on what, and what the safety gate said.

    - `base_sha256`: of the model that block `layer` was trained in, by `rule`, of which `strength` is kept.
    - `passed`: whether it may be used; if not, the `reasons`, in sentences.
    - `trained_on`: what tells the prompts it was trained on from others, without their words.
    """

    FILE: ClassVar[str] = "actor_tune.json"
    SCHEMA: ClassVar[int] = 1

    base_sha256: str
    layer: int
    rule: str
    strength: float
    passed: bool
    reasons: list[str]
    gate: Gate | None
    trained_on: list[Trace]
    versions: dict[str, str] = field(default_factory=dict)
