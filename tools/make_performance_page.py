"""Write docs/performance.md from what the programs in benchmarks/ reported.

    python -m tools.make_performance_page --bench runs/bench --output docs/performance.md

The folder has a file NAME.json for each, with a line of JSON a run; the last one counts. What was not run is said to be
not measured, and a goal that was missed is said to be missed.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .pages import fixed, gib, render

Record = dict[str, Any]
Judged = tuple[str, bool]
"""What was measured, and whether it meets the goal."""

NAMES = ("fit", "memory", "measure", "scale", "gpu")

LEAST_LINEAR, MOST_EXPONENT = 0.99, 1.1
"""R squared of a straight line, and the exponent: a parabola too comes near a line through points decades apart."""

SERIES = ("prompts", "depth")


@dataclass(frozen=True)
class Goal:
    """A goal, and how it went. `met` is None where nothing was measured."""

    what: str
    measured: str = "not measured"
    met: bool | None = None


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", type=Path, required=True, help="folder with fit.json, memory.json, ...")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    records = {name: last_record(arguments.bench / f"{name}.json") for name in NAMES}
    arguments.output.write_text(page(records), encoding="utf-8")


def last_record(file: Path) -> Record | None:
    """What the last run wrote, or None."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return json.loads(lines[-1]) if lines else None


def page(records: dict[str, Record | None]) -> str:
    """The page in Markdown."""
    return render("performance", records | {"goals": goals(records), "SERIES": SERIES})


def goals(records: dict[str, Record | None]) -> list[Goal]:
    """Every goal."""
    linear = [(f"time grows linearly with {name}", (records["scale"] or {}).get(name), is_linear) for name in SERIES]
    judged: list[tuple[str, Record | None, Callable[[Record], Judged]]] = [
        ("`fit` takes at most 1.5 forward passes over its prompts", records["fit"], in_few_passes),
        ("`fit` is at least 15 times as fast as the plain loop", records["fit"], at_least(15, "speedup_vs_plain_loop")),
        ("`fit` is at least 15 times as fast as fine-tuning", records["fit"], at_least(15, "speedup_vs_sft")),
        ("`--offload stream` fits a 7 B model in at most 5 GiB", records["memory"], is_streamed),
        ("blocks 0..l are loaded and run in (l + 1) / L of the weights, and 2 GiB", records["memory"], is_below),
        (
            "`measure` answers at least 1.3 times as fast as `generate`",
            records["measure"],
            at_least(1.3, "speedup_vs_best_fixed"),
        ),
        *linear,
    ]
    return [Goal(what, *judge(record)) if record else Goal(what) for what, record, judge in judged]


def at_least(limit: float, key: str) -> Callable[[Record], Judged]:
    """A figure reaches `limit`."""
    return lambda record: (fixed(record[key]), record[key] >= limit)


def in_few_passes(fit: Record) -> Judged:
    """The whole fit, in passes of the model over its prompts."""
    return fixed(fit["forward_passes"], 2), fit["forward_passes"] <= 1.5


def is_streamed(memory: Record) -> Judged:
    """The peak where the model is never whole in memory."""
    peak, limit = memory["stream"]["peak_rss_bytes"], memory["goal_bytes"]["stream"]
    return f"{gib(peak)} (goal {gib(limit)}, {memory['shape']['name']})", peak <= limit


def is_below(memory: Record) -> Judged:
    """The peak until block l is trained; its training takes the same with all weights in memory or few."""
    phases, limit = memory["below"]["phases"].items(), memory["goal_bytes"]["below"]
    peak = max(phase["peak_rss_bytes"] for name, phase in phases if name != "train")
    return f"{gib(peak)} of {gib(limit)}", peak <= limit


def is_linear(series: Record) -> Judged:
    """A straight line through the points, and no higher power."""
    r2, exponent = series["seconds"]["linear"]["r2"], series["seconds"]["log_log"]["slope"]
    measured = f"R² {r2:.4f} over {len(series['points'])} points, exponent {exponent:.2f}"
    return measured, r2 >= LEAST_LINEAR and exponent <= MOST_EXPONENT


if __name__ == "__main__":
    main()
