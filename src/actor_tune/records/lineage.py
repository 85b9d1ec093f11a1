"""What a trained model carries in its own folder, `actor_tune.json`: it is known for what it is wherever it goes."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from ..errors import UnsafeError
from ..prompts.leakage import traces
from ..prompts.trace import Trace
from .file import Record, read, read_value
from .results import Gate
from .run import POSITIONS_FILE, Position, Run


@dataclass(frozen=True, kw_only=True)
class Lineage(Record):
    """How a model was trained, on what, and what the safety gate said.

    - `base_sha256`: of the model that block `layer` was trained in, by `rule`, of which `strength` is kept; None where
      nothing but the patch is known.
    - `passed`: whether it may be used; if not, the `reasons`, in sentences.
    - `trained_on`: what tells the prompts it was trained on from others, without their words.
    """

    FILE: ClassVar[str] = "actor_tune.json"
    SCHEMA: ClassVar[int] = 1

    base_sha256: str
    layer: int
    rule: str | None
    strength: float | None
    passed: bool
    reasons: list[str]
    gate: Gate | None
    trained_on: list[Trace]
    versions: dict[str, str] = field(default_factory=dict)

    def with_earlier(self, earlier: Sequence[Trace]) -> "Lineage":
        """This, of a base that was trained before, on prompts of which `earlier` tells."""
        return replace(self, trained_on=list(dict.fromkeys([*earlier, *self.trained_on])))


def lineage_of(run: Path) -> Lineage:
    """What the model of the fit in the folder `run` carries, as its record says.

    **Raises:** `UserError` when that is missing or damaged.
    """
    return lineage_from(read(Run, run), read_value(list[Position], run / POSITIONS_FILE))


def lineage_from(record: Run, positions: Sequence[Position]) -> Lineage:
    """The same of a fit's `record`, and of the prompts that it learned from."""
    return Lineage(
        base_sha256=record.model.sha256,
        layer=record.layer,
        rule=record.training.get("rule"),
        strength=record.strength,
        passed=not record.reasons,
        reasons=record.reasons,
        gate=record.gate,
        trained_on=[*record.trained_before, *traces([position.asked for position in positions])],
        versions=record.versions,
    )


def check_safe(where: object, reasons: Sequence[str], allow_unsafe: bool) -> None:
    """Stop where there are `reasons` not to give out a model, and `allow_unsafe` is not set.

    **Raises:** `UnsafeError`.
    """
    if reasons and not allow_unsafe:
        fix = "`allow_unsafe=True` gives it out all the same"
        raise UnsafeError(where, " ".join(reasons).rstrip("."), "a model that passed the gate", fix)
