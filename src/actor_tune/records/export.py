"""What an export leaves beside what it wrote: `export.json`."""

from dataclasses import dataclass, field
from typing import ClassVar

from .file import Record
from .results import Gate
from .run import GateAnswer

ADAPTER_ERROR = 0.2
"""How far an adapter's change may be from the trained one, 0..1 of its size (Frobenius norm): the default."""


@dataclass(frozen=True)
class Matrix:
    """A module whose change an adapter has, and how far the adapter's is from it, 0..1 of its size."""

    module: str
    error: float


@dataclass(frozen=True)
class LeftOut:
    """A tensor whose change an adapter does not have, and the size of that, 0..1 of the size of the whole change."""

    tensor: str
    share: float


@dataclass(frozen=True, kw_only=True)
class LowRank:
    """A change as an adapter of low rank. Sizes are Frobenius norms.

    - `bound`: what was asked for, of the whole change and of each of the `matrices`; `needed`: the smallest rank that
      keeps it; `rank`: that of the adapter, no less.
    - `error`: of the whole change, measured on what was written; `left` counts in it.
    - `whole`: modules that are in the adapter as they are, which vLLM does not take.
    """

    bound: float
    needed: int
    rank: int
    error: float
    matrices: list[Matrix]
    left: list[LeftOut] = field(default_factory=list)
    whole: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Checked:
    """The gate's prompts, answered by what was exported and compared with the trained model's answers.

    - `by`: what answered.
    - `n`: prompts, of which `verdicts` and `texts` are others than the trained model's.
    - `harmful`: of them, which the trained model refused `refused_before` times, and this `refused`.
    - `gate`: what it decides about what was exported; None where too few were asked.
    - `differing`: the prompts with another verdict; `before` is the trained model.
    """

    by: str
    n: int
    verdicts: int
    texts: int
    harmful: int
    refused_before: int
    refused: int
    gate: Gate | None = None
    differing: list[GateAnswer] = field(default_factory=list)

    @property
    def sentence(self) -> str:
        """What was found, for people."""
        alike = f"{self.verdicts or 'none'} of {self.n} verdicts {'differ' if self.verdicts > 1 else 'differs'}"
        alike += " from the trained model's"
        refused = (
            f"{self.refused} of {self.harmful} harmful prompts refused, {self.refused_before} by the trained model"
        )
        return f"Asked the gate's prompts, answered by {self.by}: {alike}; {refused}."


@dataclass(frozen=True, kw_only=True)
class Export(Record):
    """A trained model, written for another program.

    - `target`: that program; `files`: what was written for it.
    - `base`, `base_sha256`, `layer`: of the model that was trained; `patch_sha256`: of the file of its trained block.
    - `passed`: whether it may be used; if not, the `reasons`, in sentences.
    - `checked`: None where what was exported answered nothing, and then `unchecked` says why.
    - `notes`: what else is to be known; `tools`: versions of what wrote it.
    """

    FILE: ClassVar[str] = "export.json"
    SCHEMA: ClassVar[int] = 1

    target: str
    base: str
    base_sha256: str
    layer: int
    patch_sha256: str
    passed: bool
    reasons: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    low_rank: LowRank | None = None
    checked: Checked | None = None
    unchecked: str | None = None
    notes: list[str] = field(default_factory=list)
    tools: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
