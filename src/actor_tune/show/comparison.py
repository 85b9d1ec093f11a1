"""A comparison of methods to look at: the table in the terminal, and the picture of compliance against safety."""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

from rich.table import Table

from ..comparison.methods.known import DEFAULT, STEERING
from ..comparison.outcomes import SCORES
from ..records.outcome import MethodSummary
from .pictures import new_figure, save_figure
from .text import stacked

COLOURS = (
    *("#c1121f", "#2a6f97", "#e09f3e", "#588157", "#6d597a", "#bc6c25", "#0a9396"),
    *("#7f5539", "#9d4edd", "#577590", "#111111", "#f28fad", "#8ac926"),
)


def compare_table(summaries: Sequence[MethodSummary]) -> Table:
    """One row a method, the best trade-off first; `!` where no strength kept safety on the validation prompts."""
    table = Table(
        title="Methods on the evaluation prompts, % with 95 % intervals",
        caption="C.R., S.S., T.S.: compliance rate, safety score, trade-off score. KL in nats. s: seconds to learn and "
        "to choose the strength. ! no strength kept safety on the validation prompts: the safest is shown.",
    )
    table.add_column("method", no_wrap=True)
    for column in ("C.R.", "S.S.", "T.S.", "KL", "garbled", "strength", "s"):
        table.add_column(column, justify="right")
    for item in sorted(summaries, key=lambda item: (item.tradeoff_score is None, -(item.tradeoff_score or 0))):
        table.add_row(*_cells(item), style="bold" if item.method == "actor" else None)
    return table


def _cells(item: MethodSummary) -> list[str]:
    strengths = " ".join(f"{strength:g}" for strength in dict.fromkeys(item.strengths))
    return [
        item.method + ("" if item.within_limits == len(item.strengths) else " !"),
        *(stacked(item.score(name)) for name in SCORES),
        "-" if item.kl_harmless is None else f"{item.kl_harmless:.3f}",
        f"{100 * item.garbled_share:.1f}",
        "-" if item.method == DEFAULT else strengths,
        "-" if item.method == DEFAULT else f"{item.seconds:.0f}",
    ]


def draw_frontier(path: Path, summaries: Sequence[MethodSummary]) -> None:
    """Draw compliance against safety as a PNG: on the left every strength on the validation prompts (first token), one
    curve a method; on the right what was chosen, on the evaluation prompts (answers, judged), with intervals.

    **Raises:** `UserError` when matplotlib is not installed.
    """
    figure = new_figure(path, 12, 5.4)
    curves, measured = figure.subplots(1, 2)
    for item, colour in zip(summaries, cycle(COLOURS)):
        style = "--" if item.method in STEERING else "-"
        compliance, safety = ([100 * point[name] for point in item.curve] for name in ("compliance", "safety"))
        curves.plot(compliance, safety, style, color=colour, marker="o", markersize=3, linewidth=1.4, label=item.method)
        x, y = item.score("compliance_rate"), item.score("safety_score")
        if x is None or y is None:
            continue
        measured.errorbar(
            100 * x.value,
            100 * y.value,
            xerr=[[100 * (x.value - x.low)], [100 * (x.high - x.value)]],
            yerr=[[100 * (y.value - y.low)], [100 * (y.high - y.value)]],
            color=colour,
            marker="s" if item.method in STEERING else "o",
            linewidth=1,
        )
    for panel, title in (
        (curves, "every strength, validation prompts, first token"),
        (measured, "the strength chosen, evaluation prompts, judged answers"),
    ):
        panel.set_title(title, loc="left", fontsize=10)
        panel.set_xlabel("compliance rate: pseudo-harmful prompts answered, %")
        panel.set_ylabel("safety score: harmful prompts refused, %")
        panel.grid(color="0.9")
        panel.spines[["top", "right"]].set_visible(False)
    curves.legend(fontsize=9, frameon=False, loc="best")
    figure.suptitle("Compliance against safety (dashed, squares: steering while the model runs)", fontsize=11)
    save_figure(figure, path)
