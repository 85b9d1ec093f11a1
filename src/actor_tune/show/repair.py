"""A scan and a fit in the terminal: what it comes to, and in detail."""

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..prompts.prompt import KINDS
from ..records.scan import Scan
from ..repair.harm import harm_by_tokens
from .categories import own_rows, own_table
from .gate import harm_table
from .text import COLOURS, score_text

if TYPE_CHECKING:  # it brings torch with it
    from ..repair.gated import Fit
    from ..repair.method import FittedBlock


def scan_table(scan: Scan) -> Group:
    """One row a block, the chosen one marked, and the reason in words."""
    best = scan.best()
    table = Table(title="What moving each block's output along the refusal direction does")
    for column in ("block", "silhouette", "refusal", "moved to harmless", "moved to harmful", "effect", "KL harmless"):
        table.add_column(column, justify="right")
    for block in scan.blocks:
        numbers = (block.refusal, block.toward_harmless, block.toward_harmful, block.effect, block.kl_harmless)
        table.add_row(
            f"{'> ' if block is best else ''}{block.layer}",
            "-" if block.silhouette is None else f"{block.silhouette:.2f}",
            *[f"{number:.3f}" for number in numbers],
            style="bold" if block is best else None,
        )
    return Group(table, Text(scan.reason))


def fit_table(block: "FittedBlock") -> Group:
    """Of the validation prompts: strengths tried, the chosen one marked, what it did to each harmful set, and mean
    positions before and after. Why the rule was taken.
    """
    alone = "compliance: of the prompts that were freed alone" if block.chosen.held else None
    title = f"Block {block.layer}: strengths on the validation prompts (first answer token)"
    trials = Table(title=title, caption=alone)
    for column in ("strength", "compliance", "safety", "KL harmless"):
        trials.add_column(column, justify="right")
    for trial in block.trials:
        chosen = trial is block.chosen
        numbers = (score_text(trial.compliance), score_text(trial.safety), f"{trial.kl_harmless:.3f}")
        label = f"{'> ' if chosen else ''}{trial.strength:.1f}"
        trials.add_row(label, *numbers, style="bold" if chosen else None)
    unit = "0 harmless mean, 1 harmful mean"
    places = Table(title=f"Mean position along the refusal direction, validation prompts ({unit})")
    for column in ("kind", "before", "after"):
        places.add_column(column, justify="left" if column == "kind" else "right")
    for kind in KINDS:
        rows = [row for row, prompt in enumerate(block.prompts) if prompt.kind == kind and block.validation[row]]
        means = [sum(values[row] for row in rows) / len(rows) for values in (block.before, block.after)]
        places.add_row(Text(kind, COLOURS[kind]), *[f"{mean:+.2f}" for mean in means])
    at = f"strength {block.chosen.strength:.1f}"
    title = f"Refusal of harmful sets at {at}, by first answer tokens"
    sets = harm_table(title, harm_by_tokens(block.trials[0], block.chosen))
    notes = [Text(block.suited.reason)] if block.suited else []
    if block.experts:
        notes.append(Text(f"Experts of the block that training changed: {sum(block.experts)} of {len(block.experts)}"))
    if block.opening:
        notes.append(Text(f"All answers begin with {block.opening!r}: trained behind that"))
    return Group(trials, sets, places, *notes)


def limits_told(block: "FittedBlock") -> Group:
    """The limits of a fit as they were applied to the strength kept, what is to be known, and why it failed."""
    scale = "on the validation prompts, by first answer tokens where not said otherwise"
    told = [Text(f"Limits as they were applied to strength {block.chosen.strength:.1f}, {scale}:")]
    told += [Text(f"- {item.sentence}") for item in block.limits]
    told += [Text(warning, "yellow") for warning in block.warnings]
    return Group(*told, *([Text(block.failure, "bold red")] if block.failure else []))


def benign_told(fit: "Fit") -> Group:
    """What became of benign prompts, by judged answers: of the user's own, and of those kept aside."""
    told: list[RenderableType] = [Text(f"{fit.yours.sentence}.")] if fit.yours else []
    if rows := own_rows(fit.yours):
        told.append(own_table(rows))
    rate = next((rate for rate in fit.block.chosen.answers or [] if rate.name == "compliance"), None)
    if rate:
        shares = f"{100 * rate.before:.1f} -> {100 * rate.after:.1f} % answered"
        which = "of these categories" if fit.settings.categories else "starter prompts among them"
        said = f"Benign prompts kept aside, {which}, by which the strength was chosen"
        told.append(Text(f"{said}: {shares} (n = {rate.n})."))
    return Group(*told)
