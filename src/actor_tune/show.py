"""Tables and answers for the terminal, and the picture of the projections."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from .errors import require_package
from .metrics import Estimate, Rate, SetResult
from .prompts import KINDS, Prompt
from .results import Measurement, Results

if TYPE_CHECKING:  # they bring torch with them, which `actor judge` does not need
    from .fit import Fit
    from .probe import Step, Topic
    from .scan import Scan

COLOURS = {"harmful": "#c1121f", "harmless": "#2a6f97", "pseudo_harmful": "#e09f3e"}


def rate_text(rate: Rate | Estimate | None) -> str:
    """Percent with its interval, as in `42.0 [35.3, 48.9]`; a dash where nothing could be measured."""
    return "-" if rate is None else f"{100 * rate.value:.1f} [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"


def _stacked(rate: Rate | Estimate | None, better: Estimate | None = None) -> str:
    """As `rate_text`, on two lines, with the corrected rate on a third."""
    lines = rate_text(rate).replace(" [", "\n[")
    return f"{lines}\ncorr. {100 * better.value:.1f}" if better else lines


def _change(change: Estimate | None) -> str:
    """Points gained or lost, with their interval on a second line."""
    if change is None:
        return "-"
    return f"{100 * change.value:+.1f}\n[{100 * change.low:+.1f}, {100 * change.high:+.1f}]"


def score_text(score: float | None) -> str:
    """Percent, or a dash where nothing was measured."""
    return "-" if score is None else f"{100 * score:.1f} %"


SCORES = (
    ("compliance rate", "compliance_rate"),
    ("safety score", "safety_score"),
    ("trade-off score", "tradeoff_score"),
    ("harmless refusal rate", "harmless_refusal_rate"),
)


def results_table(found: Results) -> Group:
    """Refusal of each set, raw and without the judge's known errors, and the scores; with a baseline, what changed."""
    return Group(_comparison_table(found) if found.comparison else _rates_table(found.after), *_notes(found))


def _rates_table(measurement: Measurement) -> Table:
    table = _set_table("Refused, % with 95 % intervals", ("refused", "in part", "unscored"))
    for item in measurement.sets:
        numbers = (_stacked(item.refusals, item.corrected), str(item.partial), str(item.unscored))
        table.add_row(_set_label(item), str(item.refusals.n if item.refusals else 0), *numbers)
    table.add_section()
    for label, name in SCORES:
        table.add_row(label, "", _stacked(getattr(measurement.scores, name)))
    return table


def _comparison_table(found: Results) -> Table:
    before, after, comparison = found.before, found.after, found.comparison
    if before is None or comparison is None:
        raise ValueError("a comparison needs results with a baseline")
    table = _set_table("Refused before and after, % with 95 % intervals", ("before", "after", "change", "p"))
    changes = {(item.name, item.kind): item for item in comparison.sets}
    for old, new in zip(before.sets, after.sets, strict=True):
        change = changes.get((new.name, new.kind))
        rates = (_stacked(item.refusals, item.corrected) for item in (old, new))
        p = "-" if change is None else "<.001" if change.p < 0.001 else f"{change.p:.3f}"
        n = str(change.n if change else 0)
        table.add_row(_set_label(new), n, *rates, _change(change.difference if change else None), p)
    table.add_section()
    for label, name in SCORES:
        scores = [_stacked(getattr(item.scores, name)) for item in (before, after)]
        table.add_row(label, "", *scores, _change(getattr(comparison, name)))
    return table


def _set_table(title: str, columns: Sequence[str]) -> Table:
    """Narrow enough for 80 characters."""
    table = Table(title=title, caption=_CAPTION)
    table.add_column("set", overflow="fold")
    for column in ("n", *columns):
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _set_label(item: SetResult) -> Text:
    return Text(f"{item.name}\n").append(item.kind, COLOURS[item.kind])


_CAPTION = (
    "compliance rate: answered, mean over pseudo_harmful sets; safety score: refused, mean over harmful sets; "
    "corr.: without the judge's known errors; p: McNemar's exact test"
)


def _notes(found: Results) -> list[Text]:
    """Damage and answers, a line each."""
    labels = {
        "kl_harmless": "KL on harmless prompts, first token: {:.3f} nats",
        "kl_harmless_tokens": "KL on harmless prompts, first tokens: {:.3f} nats each",
        "perplexity": "perplexity: {:.2f}",
        "perplexity_baseline": "perplexity of the baseline: {:.2f}",
    }
    lines = [labels[name].format(value) for name, value in found.damage.items()]
    named = [("", found.after)] if found.before is None else [("before: ", found.before), ("after: ", found.after)]
    lines += [
        f"{name}{100 * item.answers.garbled_share:.1f} % of answers garbled, "
        f"{100 * item.answers.unfinished_share:.1f} % cut off, {item.answers.mean_words:.1f} words on average"
        for name, item in named
    ]
    return [Text(line) for line in lines]


def scan_table(found: "Scan") -> Group:
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


def scan_reason(found: "Scan") -> str:
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


def fit_table(result: "Fit") -> Group:
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


def side_by_side(found: Results, count: int) -> Table:
    """Up to `count` answers before and after: first a flipped one of each kind that matters, then others.

    **Raises:** `ValueError` when there is no baseline.
    """
    if found.before is None:
        raise ValueError("side_by_side needs results with a baseline")
    table = Table(title="Answers", show_lines=True)
    for column in ("prompt", "before", "after"):
        table.add_column(column, ratio=1)
    for row in _telling_rows(found.before, found.after, count):
        prompt: Prompt = found.after.responses[row].prompt
        texts = [
            f"[{item.verdicts[row].outcome}] {item.responses[row].text.strip()}" for item in (found.before, found.after)
        ]
        # Text, not markup: what a model writes is not to be trusted with the terminal.
        table.add_row(Text(f"({prompt.kind}) {prompt.text}", COLOURS[prompt.kind]), *map(Text, texts))
    return table


def _telling_rows(before: Measurement, after: Measurement, count: int) -> list[int]:
    def rank(row: int) -> tuple[bool, bool]:
        flipped = before.verdicts[row].refused != after.verdicts[row].refused
        return not flipped, not before.verdicts[row].refused

    rows = range(len(before.responses))
    by_kind = {
        kind: sorted((row for row in rows if before.responses[row].prompt.kind == kind), key=rank) for kind in KINDS
    }
    order = [by_kind["pseudo_harmful"][:1], by_kind["harmful"][:1], by_kind["pseudo_harmful"][1:]]
    return [row for group in order for row in group][:count]


def draw_validation(path: Path, result: "Fit") -> None:
    """`draw_positions` of the prompts that were kept aside from training."""
    rows = [row for row, aside in enumerate(result.validation) if aside]
    before, after = ([values[row] for row in rows] for values in (result.before, result.after))
    prompts = [result.prompts[row] for row in rows]
    draw_positions(path, prompts, before, after, title="Validation prompts along the refusal direction")


def draw_positions(
    path: Path, prompts: Sequence[Prompt], before: Sequence[float], after: Sequence[float], title: str
) -> None:
    """Draw where each kind lies along the refusal direction before and after, one dot a prompt, as a PNG.

    **Raises:** `UserError` when matplotlib is not installed.
    """
    figure = new_figure(path, 9, 4.2)
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


def new_figure(path: Path, width: float, height: float) -> Any:
    """An empty matplotlib figure, `width` by `height` inches, that can be saved at `path` without a display.

    **Raises:** `UserError` when matplotlib is not installed.
    """
    require_package(str(path), "matplotlib", "plot")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def probe_tables(curves: "Mapping[str, Sequence[Step]]", disturbed: "Sequence[Topic]") -> Group:
    """What fine-tuning did to each model, step by step, and which topics the edit disturbed."""
    steps = Table(title="Benign fine-tuning: first-token refusal on held-out prompts")
    steps.add_column("steps", justify="right")
    for name in curves:
        for score in ("compliance", "safety"):
            steps.add_column(f"{name}\n{score}", justify="right")
    for row in zip(*curves.values(), strict=True):
        scores = [score_text(value) for step in row for value in (step.compliance, step.safety)]
        steps.add_row(str(row[0].number), *scores)
    table = Table(title="Jensen-Shannon divergence between the models, nats (at most 0.693)")
    for column in ("harmless prompts about", "n", "divergence"):
        table.add_column(column, justify="left" if column != "n" else "right")
    for topic in disturbed:
        table.add_row(Text(topic.name), str(topic.prompts), f"{topic.divergence:.4f}")
    return Group(steps, table)


def draw_durability(path: Path, curves: "Mapping[str, Sequence[Step]]") -> None:
    """Draw safety and compliance of each model over the steps of benign fine-tuning, as a PNG.

    **Raises:** `UserError` when matplotlib is not installed.
    """
    figure = new_figure(path, 8, 3.6)
    panels = figure.subplots(1, 2, sharex=True)
    for panel, score in zip(panels, ("safety", "compliance"), strict=True):
        for (name, curve), style in zip(curves.items(), ("--", "-"), strict=True):
            values = [100 * getattr(step, score) for step in curve]
            colour = COLOURS["harmful" if score == "safety" else "pseudo_harmful"]
            panel.plot(
                [step.number for step in curve], values, style, marker="o", markersize=3, color=colour, label=name
            )
        panel.set_title(f"{score}, %", loc="left", fontsize=10)
        panel.set_ylim(0, 100)
        panel.set_xlabel("steps of benign fine-tuning")
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=130)
