"""A probe in the terminal, and as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ..records.probe import Probe, Step
from .pictures import new_figure, save_figure
from .text import COLOURS, score_text


def probe_tables(probe: Probe) -> Group:
    """What fine-tuning did to each model, step by step, and which topics the edit disturbed."""
    steps = Table(title="Benign fine-tuning: first-token refusal on held-out prompts")
    steps.add_column("steps", justify="right")
    for name in probe.durability:
        for score in ("compliance", "safety"):
            steps.add_column(f"{name}\n{score}", justify="right")
    for row in zip(*probe.durability.values(), strict=True):
        scores = [score_text(value) for step in row for value in (step.compliance, step.safety)]
        steps.add_row(str(row[0].number), *scores)
    table = Table(title="Jensen-Shannon divergence between the models, nats (at most 0.693)")
    for column in ("harmless prompts about", "n", "divergence"):
        table.add_column(column, justify="left" if column != "n" else "right")
    for topic in probe.topics:
        table.add_row(Text(topic.name), str(topic.prompts), f"{topic.divergence:.4f}")
    return Group(steps, table)


def draw_durability(path: Path, curves: Mapping[str, Sequence[Step]]) -> None:
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
    save_figure(figure, path)
