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

NAMES = ("fit", "memory", "measure", "scale", "gpu")

MOST_FORWARD_PASSES = 1.5
LEAST_SPEEDUP = 15.0
LEAST_MEASURE_SPEEDUP = 1.3
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
    fit, memory, measure, scale = (records[name] for name in NAMES[:4])

    def goal(what: str, record: Record | None, judged: Callable[[str, Record], Goal]) -> Goal:
        return judged(what, record) if record else Goal(what)

    series = {name: scale and scale[name] for name in SERIES}
    return [
        goal("`fit` takes at most 1.5 forward passes over its prompts", fit, forward_passes),
        goal(
            "`fit` is at least 15 times as fast as the plain loop",
            fit,
            at_least("speedup_vs_plain_loop", LEAST_SPEEDUP),
        ),
        goal("`fit` is at least 15 times as fast as fine-tuning", fit, at_least("speedup_vs_sft", LEAST_SPEEDUP)),
        goal("`--offload stream` fits a 7 B model in at most 5 GiB", memory, streamed),
        goal("blocks 0..l are loaded and run in (l + 1) / L of the weights, and 2 GiB", memory, loaded_below),
        goal(
            "`measure` answers at least 1.3 times as fast as `generate`",
            measure,
            at_least("speedup_vs_best_fixed", LEAST_MEASURE_SPEEDUP),
        ),
        *(goal(f"time grows linearly with {name}", points, linear) for name, points in series.items()),
    ]


def at_least(key: str, limit: float) -> Callable[[str, Record], Goal]:
    """A figure shall reach `limit`."""
    return lambda what, record: Goal(what, fixed(record[key]), record[key] >= limit)


def forward_passes(what: str, record: Record) -> Goal:
    """The whole fit, in passes of the model over its prompts."""
    passes = record["forward_passes"]
    return Goal(what, fixed(passes, 2), passes <= MOST_FORWARD_PASSES)


def streamed(what: str, record: Record) -> Goal:
    """The peak where the model is never whole in memory."""
    peak, limit = record["stream"]["peak_rss_bytes"], record["goal_bytes"]["stream"]
    return Goal(what, f"{gib(peak)} (goal {gib(limit)}, {record['shape']['name']})", peak <= limit)


def loaded_below(what: str, record: Record) -> Goal:
    """The peak until block l is trained; its training takes the same with all weights in memory or few."""
    phases = record["below"]["phases"].items()
    peak = max(phase["peak_rss_bytes"] for name, phase in phases if name != "train")
    limit = record["goal_bytes"]["below"]
    return Goal(what, f"{gib(peak)} of {gib(limit)}", peak <= limit)


def linear(what: str, series: Record) -> Goal:
    """A straight line through the points, and no higher power."""
    r2, exponent = series["seconds"]["linear"]["r2"], series["seconds"]["log_log"]["slope"]
    measured = f"R² {r2:.4f} over {len(series['points'])} points, exponent {exponent:.2f}"
    return Goal(what, measured, r2 >= LEAST_LINEAR and exponent <= MOST_EXPONENT)


if __name__ == "__main__":
    main()
