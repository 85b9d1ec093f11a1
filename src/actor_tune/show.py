"""Tables and answers for the terminal, and the picture of the projections."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Group
from rich.table import Table
from rich.text import Text

from .errors import UserError
from .fit import Fit
from .measure import Measurement
from .metrics import Rate
from .prompts import KINDS, Prompt
from .scan import Scan

COLOURS = {"harmful": "#c1121f", "harmless": "#2a6f97", "pseudo_harmful": "#e09f3e"}


def rate_text(rate: Rate) -> str:
    """Percent with its interval, as in `42.0 % [35.3, 48.9]`."""
    return f"{100 * rate.value:.1f} % [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"


def score_text(score: float | None) -> str:
    """Percent, or a dash where nothing was measured."""
    return "-" if score is None else f"{100 * score:.1f} %"


def measurement_table(measurements: dict[str, Measurement]) -> Table:
    """One row a set and a score, one column a measurement; all must have measured the same sets."""
    table = Table(
        title="Refused, with 95 % intervals",
        caption="compliance rate: answered, mean over pseudo_harmful sets; "
        "safety score: refused, mean over harmful sets",
    )
    for column in ("set", "kind", "n"):
        table.add_column(column, justify="right" if column == "n" else "left")
    for name in measurements:
        table.add_column(name, justify="right")
    columns = list(measurements.values())
    for row, result in enumerate(columns[0].sets):
        rates = [rate_text(measurement.sets[row].refusals) for measurement in columns]
        table.add_row(result.name, Text(result.kind, COLOURS[result.kind]), str(result.refusals.n), *rates)
    table.add_section()
    for label, name in (
        ("compliance rate", "compliance_rate"),
        ("safety score", "safety_score"),
        ("trade-off score", "tradeoff_score"),
        ("harmless refusal rate", "harmless_refusal_rate"),
    ):
        table.add_row(label, "", "", *[score_text(getattr(measurement.scores, name)) for measurement in columns])
    if any(measurement.kl_harmless is not None for measurement in columns):
        nats = ["-" if item.kl_harmless is None else f"{item.kl_harmless:.3f} nats" for item in columns]
        table.add_row("KL on harmless prompts", "", "", *nats)
    return table


def scan_table(found: Scan) -> Group:
    """One row a block, the chosen one marked, and the reason in words."""
    best = found.best()
    table = Table(title="What moving each block's output along the refusal direction does")
    for column in ("block", "silhouette", "refusal", "moved to harmless", "moved to harmful", "effect", "KL harmless"):
        table.add_column(column, justify="right")
    for block in found.blocks:
        numbers = (block.refusal, block.toward_harmless, block.toward_harmful, block.effect, block.kl_harmless)
        table.add_row(
            f"{'> ' if block is best else ''}{block.layer}",
            "-" if block.silhouette is None else f"{block.silhouette:.2f}",
            *[f"{number:.3f}" for number in numbers],
            style="bold" if block is best else None,
        )
    return Group(table, Text(scan_reason(found)))


def scan_reason(found: Scan) -> str:
    """Why `fit` would take the block it would take, in a sentence or two."""
    best = found.best()
    reason = (
        f"fit would take block {best.layer}: of blocks {found.candidates.start} to {found.candidates.stop - 1} it has "
        f"the largest effect. Moving its output moves refusal of pseudo-harmful prompts by {best.effect:.2f}, "
        f"at a cost of {best.kl_harmless:.2f} nats on harmless ones."
    )
    paper = found.best_silhouette()
    if paper.silhouette is not None and paper.layer != best.layer:
        reason += f" The paper's criterion, the silhouette, would take block {paper.layer} (effect {paper.effect:.2f})."
    return reason


def fit_table(result: Fit) -> Group:
    """Strengths tried, the chosen one marked, and mean positions before and after."""
    trials = Table(title=f"Block {result.layer}: strengths on the validation prompts (first answer token)")
    for column in ("strength", "compliance", "safety", "KL harmless"):
        trials.add_column(column, justify="right")
    for trial in result.trials:
        chosen = trial is result.chosen
        numbers = (score_text(trial.compliance), score_text(trial.safety), f"{trial.kl_harmless:.3f}")
        label = f"{'> ' if chosen else ''}{trial.strength:.1f}"
        trials.add_row(label, *numbers, style="bold" if chosen else None)
    places = Table(title="Mean position along the refusal direction (0 harmless mean, 1 harmful mean)")
    for column in ("kind", "before", "after"):
        places.add_column(column, justify="left" if column == "kind" else "right")
    for kind in KINDS:
        rows = [row for row, prompt in enumerate(result.prompts) if prompt.kind == kind]
        means = [sum(values[row] for row in rows) / len(rows) for values in (result.before, result.after)]
        places.add_row(Text(kind, COLOURS[kind]), *[f"{mean:+.2f}" for mean in means])
    return Group(trials, places, *[Text(warning, "yellow") for warning in result.warnings])


def side_by_side(before: Measurement, after: Measurement, count: int) -> Table:
    """Up to `count` answers before and after: first a flipped one of each kind that matters, then others."""
    table = Table(title="Answers", show_lines=True)
    for column in ("prompt", "before", "after"):
        table.add_column(column, ratio=1)
    for row in _telling_rows(before, after, count):
        prompt: Prompt = before.responses[row].prompt
        texts = [f"[{item.verdicts[row].outcome}] {item.responses[row].text.strip()}" for item in (before, after)]
        # Text, not markup: what a model writes is not to be trusted with the terminal.
        table.add_row(Text(f"({prompt.kind}) {prompt.text}", COLOURS[prompt.kind]), *map(Text, texts))
    return table


def _telling_rows(before: Measurement, after: Measurement, count: int) -> list[int]:
    def rank(row: int) -> tuple[bool, bool]:
        flipped = before.verdicts[row].outcome != after.verdicts[row].outcome
        return not flipped, before.verdicts[row].outcome != "refusal"

    rows = range(len(before.responses))
    by_kind = {
        kind: sorted((row for row in rows if before.responses[row].prompt.kind == kind), key=rank) for kind in KINDS
    }
    order = [by_kind["pseudo_harmful"][:1], by_kind["harmful"][:1], by_kind["pseudo_harmful"][1:]]
    return [row for group in order for row in group][:count]


def draw_positions(
    path: Path, prompts: Sequence[Prompt], before: Sequence[float], after: Sequence[float], title: str
) -> None:
    """Draw where each kind lies along the refusal direction before and after, one dot a prompt, as a PNG.

    **Raises:** `UserError` when matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        fix = "run: pip install 'actor-tune[plot]'"
        raise UserError(path, "pictures cannot be drawn here", "the package matplotlib", fix) from None
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 1, sharex=True)
    for panel, name, values in zip(panels, ("before", "after"), (before, after), strict=True):
        for height, kind in enumerate(KINDS):
            points = [value for value, prompt in zip(values, prompts, strict=True) if prompt.kind == kind]
            # A fixed spread by rank keeps dots apart without chance.
            heights = [height + 0.3 * ((7 * index % 11) / 5 - 1) for index in range(len(points))]
            panel.scatter(points, heights, s=9, alpha=0.5, color=COLOURS[kind], linewidths=0)
            mean = sum(points) / len(points)
            panel.plot([mean, mean], [height - 0.42, height + 0.42], color=COLOURS[kind], linewidth=2.5)
        panel.set_yticks(range(len(KINDS)), [kind.replace("_", "-") for kind in KINDS])
        panel.set_title(name, loc="left", fontsize=10)
        panel.axvline(0, color="0.6", linewidth=0.8, zorder=0)
        panel.axvline(1, color="0.6", linewidth=0.8, linestyle="--", zorder=0)
        panel.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("position along the refusal direction: 0 harmless mean, 1 harmful mean of the unedited model")
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=130)
