"""Measure every rule on the reference split and write the table of docs/results.md.

    python -m tools.make_results --benchmarks FOLDER --output docs/results.md

FOLDER holds reference_train.csv and reference_eval.csv (columns prompt, kind, set). Each fit is a command of its own,
as a user would run it, so that its seconds include starting Python and loading the model.
"""

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from actor_tune.records.file import read
from actor_tune.records.results import Results
from actor_tune.records.run import Run
from actor_tune.storage.versions import VERSIONS_OF

from .pages import actor, render

TOKENS = 24
SETS = ("xstest_safe", "or_bench_hard", "xstest_unsafe", "advbench", "alpaca")
EXPERIMENTS = {
    "boundary, seed 0": ["--seed", "0"],
    "boundary, seed 1": ["--seed", "1"],
    "boundary, seed 2": ["--seed", "2"],
    "boundary without the starter prompts": ["--no-starter"],
    "paper, its own block (silhouette)": ["--rule", "paper", "--layer", "silhouette"],
    "paper, block by effect": ["--rule", "paper"],
    "uniform control, block by effect": ["--rule", "uniform"],
}


@dataclass(frozen=True)
class Row:
    """One fit, measured; `before` has no run."""

    label: str
    results: Results
    run: Run | None = None
    seconds: float | None = None

    @property
    def model(self) -> str:
        """Whether `fit` would have written it."""
        if self.run is None:
            return "-"
        return "written" if not self.run.failure and self.run.gate and self.run.gate.passed else "withheld"


def main() -> None:
    """Run everything and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benchmarks", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--work", type=Path, help="keep testbed, runs and answers in this new folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        rows = experiments(arguments.work or Path(temporary), arguments.benchmarks)
    arguments.output.write_text(page(rows), encoding="utf-8")


def experiments(work: Path, benchmarks: Path) -> list[Row]:
    """The testbed as it is, then every experiment."""
    testbed, before = work / "testbed", work / "before"
    actor("testbed", "--output-dir", testbed, quiet=True)
    train = benchmarks / "reference_train.csv"
    # Prompts like those trained on are left out here as they are of the trained models.
    asked = ("--prompts", benchmarks / "reference_eval.csv", "--max-new-tokens", TOKENS, "--trained-on", train)
    actor("measure", testbed, *asked, "--output-dir", before, quiet=True)
    rows = [Row("before", read(Results, before))]
    for number, (label, options) in enumerate(EXPERIMENTS.items()):
        run, after = work / f"run-{number}", work / f"answers-{number}"
        start = time.perf_counter()
        # The table shows what every rule does, safe or not; nothing of this is kept.
        actor("fit", testbed, "--prompts", train, "--output-dir", run, "--allow-unsafe", *options, quiet=True)
        seconds = time.perf_counter() - start
        actor("measure", run / "model", *asked, "--output-dir", after, "--baseline", before, quiet=True)
        rows.append(Row(label, read(Results, after), read(Run, run), seconds))
        print(f"{label}: {seconds:.0f} s", flush=True)
    return rows


def page(rows: list[Row]) -> str:
    """The page in Markdown."""
    seeds = [row.results for row in rows if row.label.startswith("boundary, seed")]

    def over_seeds(score: str) -> float:
        return mean(getattr(results, score) for results in seeds)

    values = {"rows": rows, "before": rows[0].results, "seeds": seeds, "SETS": SETS}
    return render("results", values | {"TOKENS": TOKENS, "VERSIONS_OF": VERSIONS_OF}, over_seeds)


if __name__ == "__main__":
    main()
