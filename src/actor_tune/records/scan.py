"""What each block's output does to refusal: `scan.json`."""

from dataclasses import dataclass, field
from typing import ClassVar

from .file import Record


@dataclass(frozen=True, kw_only=True)
class BlockEffect:
    """What one block's output does.

    - `silhouette`: the paper's criterion, -1..1; None where it was not asked for.
    - `refusal`: mean first-token refusal, 0..1, on pseudo-harmful prompts as they are.
    - `toward_harmless`, `toward_harmful`: the same with the output moved down and up the direction.
    - `kl_harmless`: nats on harmless prompts, mean of both moves.
    - `effect`: how far refusal moves: toward harmful minus toward harmless.
    """

    layer: int
    silhouette: float | None
    refusal: float
    toward_harmless: float
    toward_harmful: float
    kl_harmless: float
    effect: float


@dataclass(frozen=True, kw_only=True)
class Scan(Record):
    """What each scanned block does.

    - `layer`: the candidate with the largest effect, and the `reason` for it in a sentence or two.
    - `refusal_tokens`: those by which first-token refusal was read.
    - `candidates`: the blocks that may be chosen.
    """

    FILE: ClassVar[str] = "scan.json"
    SCHEMA: ClassVar[int] = 1

    model: str
    layer: int
    reason: str
    refusal_tokens: list[str]
    blocks: list[BlockEffect]
    candidates: list[int] = field(default_factory=list)

    def best(self) -> BlockEffect:
        """The candidate with the largest effect."""
        return next(block for block in self.blocks if block.layer == self.layer)

    def best_silhouette(self) -> BlockEffect:
        """The block the paper would take."""
        return max(self.blocks, key=lambda block: -2.0 if block.silhouette is None else block.silhouette)
