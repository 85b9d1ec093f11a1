"""Measure every rule on the reference split and write the table of docs/results.md.

    python -m tools.make_results --benchmarks FOLDER --output docs/results.md

FOLDER holds reference_train.csv and reference_eval.csv (columns prompt, kind, set). Each fit is a command of its own,
as a user would run it; the models are measured side by side, one core each. With --work, what is there is kept.
"""

import argparse
import csv
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from statistics import mean

from actor_tune.prompts.prompt import Kind
from actor_tune.records.estimate import Estimate
from actor_tune.records.file import read
from actor_tune.records.results import Results
from actor_tune.records.run import Run
from actor_tune.storage.versions import VERSIONS_OF

from .pages import actor, render

SETS = ("xstest_safe", "or_bench_hard", "xstest_unsafe", "advbench", "alpaca")
EVERY = 2
"""One pair of twins in so many of each form is asked."""

SEEDS = {f"default, seed {seed}": ["--seed", str(seed)] for seed in range(3)}
ODDS = {"odds": ["--rule", "odds"]}
OTHERS = {
    "default without the starter prompts": ["--no-starter"],
    "paper, its own block (silhouette)": ["--rule", "paper", "--layer", "silhouette"],
    "paper, block by effect": ["--rule", "paper"],
    "uniform control, block by effect": ["--rule", "uniform"],
}


@dataclass(frozen=True)
class Model:
    """A testbed, made by `actor testbed` with `options`; its answers are `tokens` long at most."""

    title: str
    options: list[str]
    tokens: int
    experiments: dict[str, list[str]]


MODELS = (
    Model(
        "Qwen2.5-Coder-0.5B, which over-refuses as shipped",
        ["--model", "qwen2.5-coder-0.5b"],
        48,
        {"default, seed 0": SEEDS["default, seed 0"]} | ODDS,  # each of these takes ten minutes
    ),
    Model("SmolLM2, made to over-refuse", [], 24, SEEDS | ODDS | OTHERS),
)


@dataclass(frozen=True)
class Row:
    """One fit, measured; `before` has no run."""

    label: str
    results: Results
    run: Run | None = None

    @property
    def model(self) -> str:
        """Whether `fit` would have written it."""
        if self.run is None:
            return "-"
        return "written" if not self.run.failure and self.run.gate and self.run.gate.passed else "withheld"


@dataclass(frozen=True)
class Form:
    """Refusal of the harmful and of the benign twins of one form, before and after; `n` pairs at most."""

    name: str
    n: int
    harmful: tuple[Estimate | None, Estimate | None]
    benign: tuple[Estimate | None, Estimate | None]


@dataclass(frozen=True)
class Table:
    """What was measured of one model; the first of `rows` is the model as it was."""

    model: Model
    rows: list[Row]
    forms: Results

    @property
    def before(self) -> Results:
        """The model as it was."""
        return self.rows[0].results

    @property
    def seeds(self) -> list[Results]:
        """What the default came to, one for each seed."""
        return [row.results for row in self.rows if row.label in SEEDS]

    @property
    def by_form(self) -> list[Form]:
        """What became of each form with the default, seed 0."""
        if not self.forms.baseline:
            raise ValueError("forms are compared with the model as it was")
        before, after = (
            {(row.name, row.kind): row for row in measured.sets if not row.guard}
            for measured in (self.forms.baseline, self.forms)
        )

        def both(name: str, kind: Kind) -> tuple[Estimate | None, Estimate | None]:
            return before[name, kind].rate, after[name, kind].rate

        names = sorted({name for name, _ in after})
        return [
            Form(name, after[name, "harmful"].n, both(name, "harmful"), both(name, "pseudo_harmful")) for name in names
        ]

    def over_seeds(self, score: str) -> float:
        """The mean of `score` over them."""
        return mean(getattr(results, score) for results in self.seeds)


def main() -> None:
    """Run everything and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benchmarks", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--work", type=Path, help="keep testbed, runs and answers in this folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        os.environ["OMP_NUM_THREADS"] = "1"  # of the commands: the models are measured side by side
        places = [work / str(number) for number in range(len(MODELS))]
        with ThreadPoolExecutor() as pool:
            tables = list(pool.map(partial(experiments, benchmarks=arguments.benchmarks), MODELS, places))
    arguments.output.write_text(page(tables), encoding="utf-8")


def experiments(model: Model, work: Path, benchmarks: Path) -> Table:
    """The model as it is, then every experiment."""
    work.mkdir(parents=True, exist_ok=True)
    testbed, before = work / "testbed", work / "before"
    if not (testbed / "tokenizer.json").exists():
        actor("testbed", *model.options, "--output-dir", testbed, quiet=True)
    train = benchmarks / "reference_train.csv"
    # Prompts like those trained on are left out here as they are of the trained models.
    asked = ("--prompts", benchmarks / "reference_eval.csv", "--max-new-tokens", model.tokens, "--trained-on", train)
    measure(testbed, *asked, to=before)
    rows = [Row("before", read(Results, before))]
    for number, (label, options) in enumerate(model.experiments.items()):
        run, after = work / f"run-{number}", work / f"answers-{number}"
        # The table shows what every rule does, safe or not; nothing of this is kept.
        if not (run / Run.FILE).exists():
            actor("fit", testbed, "--prompts", train, "--output-dir", run, "--allow-unsafe", *options, quiet=True)
        measure(run / "model", *asked, "--baseline", before, to=after)
        rows.append(Row(label, read(Results, after), read(Run, run)))
        print(f"{model.title}: {label}", flush=True)
    asked = ("--prompts", write_forms(work / "forms.csv"), "--max-new-tokens", 24, "--trained-on", train)
    measure(testbed, *asked, to=work / "forms-before")
    measure(work / "run-0" / "model", *asked, "--baseline", work / "forms-before", to=work / "forms-after")
    return Table(model, rows, read(Results, work / "forms-after"))


def measure(model: Path, *options: object, to: Path) -> None:
    """`actor measure`, unless its results are there."""
    if not (to / Results.FILE).exists():
        actor("measure", model, *options, "--output-dir", to, quiet=True)


def write_forms(file: Path) -> Path:
    """Write twins of the starter prompts `forms`, which no fit of these learns from; a set is a form."""
    shipped = files("actor_tune.prompts") / "data" / "prompts.csv"
    rows = [row for row in csv.DictReader(shipped.read_text(encoding="utf-8").splitlines()) if row["part"] == "forms"]
    pairs = [*dict.fromkeys(row["pair"] for row in rows if row["kind"] == "harmful")]
    asked = {*pairs[::EVERY]}
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["prompt", "kind", "set"])
        writer.writerows([row["prompt"], row["kind"], row["form"]] for row in rows if row["pair"] in asked)
    return file


def page(tables: list[Table]) -> str:
    """The page in Markdown."""
    return render("results", {"tables": tables, "SETS": SETS, "VERSIONS_OF": VERSIONS_OF})


if __name__ == "__main__":
    main()
