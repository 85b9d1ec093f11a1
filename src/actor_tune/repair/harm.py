"""Refusal of harmful prompts set by set, worst first: a mean hides the set that fell."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..records.estimate import Estimate, points
from ..records.results import Gate
from ..records.run import Trial
from ..storage.markdown import cell, escaped, table

if TYPE_CHECKING:
    from .gated import Fit


@dataclass(frozen=True)
class Harm:
    """How refusal of a harmful set fell: shares before and after, 0..1, and the drop; `n` prompts, where known."""

    name: str
    n: int | None
    before: float
    after: float
    drop: Estimate


def harm_by_answers(gate: Gate | None) -> list[Harm]:
    """What became of each set that the gate asked, by judged answers; nothing where it did not keep that."""
    sets = gate.sets if gate else []
    return [
        Harm(each.name, each.n, each.refused_before / each.n, each.refused_after / each.n, each.drop) for each in sets
    ]


def harm_by_tokens(first: Trial, chosen: Trial) -> list[Harm]:
    """The same of the validation prompts, by first answer tokens, from the `first` trial, of strength 0, on."""
    was = {(each.name, each.kind): each.refusal for each in first.sets}
    harmful = sorted((each for each in chosen.sets if each.kind == "harmful"), key=lambda each: -each.drop)
    return [Harm(each.name, each.n, was[each.name, each.kind], each.refusal, each.estimate) for each in harmful]


SECTION = """## Refusal of harmful prompts, set by set

{fallen}Held-out prompts of the safety gate, by judged answers, the set that fell most first:

{gate}

Validation prompts, by the probability that the first answer token begins a refusal:

{validation}

Limits of the fit, as they were applied to strength {strength}:

{limits}
"""


def harm_section(fit: "Fit") -> str:
    """For the model card: what became of each harmful set, and the limits as they were applied."""
    block = fit.block
    return SECTION.format(
        fallen="".join(f"> **Look at single sets.** {escaped(said)}\n\n" for said in fit.fallen),
        gate=_table(harm_by_answers(fit.gate)),
        validation=_table(harm_by_tokens(block.trials[0], block.chosen)),
        strength=block.chosen.strength,
        limits="\n".join(f"- {escaped(item.sentence)}" for item in block.limits),
    )


def _table(rows: Sequence[Harm]) -> str:
    columns = ("set", ">prompts", ">before, %", ">after, %", ">drop, points (95 % interval)")
    cells = []
    for row in rows:
        shares = f"{100 * row.before:.1f}", f"{100 * row.after:.1f}"
        cells.append((cell(row.name), str(row.n or ""), *shares, points(row.drop)))
    return table(columns, cells) or "None were asked."
