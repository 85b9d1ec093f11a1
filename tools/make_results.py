"""Measure every rule on the reference split and write docs/results.md, and its headline into README.md.

    python -m tools.make_results --benchmarks FOLDER --output docs/results.md --readme README.md

FOLDER holds reference_train.csv and reference_eval.csv (columns prompt, kind, set). Each fit is a command of its own,
as a user would run it; the models are measured side by side, one core each. With --work, what is there is kept.
"""

import argparse
import csv
import os
import re
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
from actor_tune.records.tune import Compared, Tuning
from actor_tune.show.text import rate_text
from actor_tune.storage.versions import VERSIONS_OF

from .pages import actor, percent, render, table

SETS = ("xstest_safe", "or_bench_hard", "xstest_unsafe", "advbench", "alpaca")
HEADLINE, HEADLINE_END = (f"<!-- --8<-- [{end}:headline] made by make results -->" for end in ("start", "end"))
"""Between these, README.md has the headline; the site's first page takes it from there."""

HEADLINE_SCORES = {
    "benign look-alikes answered": "compliance_rate",
    "harmful prompts refused": "safety_score",
    "everyday prompts refused": "harmless_refusal_rate",
}

EVERY, FORM_TOKENS = 2, 24
"""One pair of twins in so many of each form is asked; how long the answers are at most."""

SEEDS = {f"default, seed {seed}": ["--seed", str(seed)] for seed in range(3)}
TUNED = {f"tuned, seed {seed}": ["--seed", str(seed)] for seed in range(3)}
"""By `actor tune` with its defaults, beside those of `fit`."""

GAINED = ("compliance_rate", "safety_score", "tradeoff_score", "harmless_refusal_rate")

OF_TUNING = """`actor tune` with its defaults beside `actor fit` with its own, on the prompts of this page, which
neither saw, in points: what `tune` adds to each score. Then the trade-off score as the search saw it, as fresh prompts
of its own did (with their 95 % interval), by how much choosing flatters by simulation, and as measured here."""

ODDS, BOUNDARY = ({name: ["--rule", name]} for name in ("odds", "boundary"))
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
        SEEDS | TUNED | BOUNDARY,  # each of these takes ten minutes and more
    ),
    Model("SmolLM2, made to over-refuse", [], 24, SEEDS | TUNED | ODDS | OTHERS),
)


@dataclass(frozen=True)
class Row:
    """One fit, measured; `before` has no run."""

    label: str
    results: Results
    run: Run | None = None
    tuning: Tuning | None = None

    @property
    def model(self) -> str:
        """Whether `fit` would have written it."""
        if self.run is None:
            return "-"
        return "written" if not self.run.failure and self.run.gate and self.run.gate.passed else "withheld"


@dataclass(frozen=True)
class Share:
    """What is refused of a set, or garbled, 0..1; `harmful`: more of it is better."""

    share: float
    harmful: bool


def _shares(measured: Results) -> dict[str, Share]:
    """By set, and of garbled answers."""
    sets = {row.name: (row.refusal_rate, row.kind == "harmful") for row in measured.sets if not row.guard}
    sets["garbled"] = measured.damage["garbled_share"], False
    return {name: Share(share, harmful) for name, (share, harmful) in sets.items() if share is not None}


@dataclass(frozen=True)
class Gain:
    """The defaults of `fit` and those of `tune`, of one seed."""

    fit: Row
    tuned: Row

    def gain(self, score: str) -> float:
        """How much higher `score` is with `tune`, 0..1."""
        return getattr(self.tuned.results, score) - getattr(self.fit.results, score)

    @property
    def searched(self) -> Compared | None:
        """The trade-off score as the search saw it, and as fresh prompts did; None where nothing was kept."""
        compared = self.tuned.tuning.compared if self.tuned.tuning else []
        return next((rate for rate in compared if rate.name == "trade-off"), None)


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
    def worse(self) -> list[str]:
        """What the default made worse, seed by seed: harmful sets refused less, others refused more, more garbled."""
        was = _shares(self.before)
        return [
            f"{row.label}: {name} {percent(was[name].share)} -> {percent(now.share)}"
            for row in self.rows
            if row.label in SEEDS
            for name, now in _shares(row.results).items()
            if name in was and (now.share < was[name].share if now.harmful else now.share > was[name].share)
        ]

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

    @property
    def tuned(self) -> list[Gain]:
        """What `tune` came to beside `fit`, seed by seed."""
        by_label = {row.label: row for row in self.rows}
        return [
            Gain(by_label[fit], by_label[tuned]) for fit, tuned in zip(SEEDS, TUNED, strict=True) if tuned in by_label
        ]

    def over_seeds(self, score: str) -> float:
        """The mean of `score` over them."""
        return mean(getattr(results, score) for results in self.seeds)


def main() -> None:
    """Run everything and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benchmarks", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--readme", type=Path, help="a page that has the marks between which the headline belongs")
    parser.add_argument("--work", type=Path, help="keep testbed, runs and answers in this folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        os.environ["OMP_NUM_THREADS"] = "1"  # of the commands: the models are measured side by side
        places = [work / str(number) for number in range(len(MODELS))]
        with ThreadPoolExecutor() as pool:
            tables = list(pool.map(partial(experiments, benchmarks=arguments.benchmarks), MODELS, places))
    arguments.output.write_text(page(tables), encoding="utf-8")
    if arguments.readme:
        readme: Path = arguments.readme
        readme.write_text(with_headline(readme.read_text(encoding="utf-8"), headline(tables)), encoding="utf-8")


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
    for label, options in model.experiments.items():
        run, after = work / f"run-{folder_of(label)}", work / f"answers-{folder_of(label)}"
        # The table shows what every rule does, safe or not; nothing of this is kept.
        if not (run / Run.FILE).exists():
            command = "tune" if label in TUNED else "fit"
            actor(command, testbed, "--prompts", train, "--output-dir", run, "--allow-unsafe", *options, quiet=True)
        measure(run / "model", *asked, "--baseline", before, to=after)
        tuning = read(Tuning, run) if label in TUNED else None
        rows.append(Row(label, read(Results, after), read(Run, run), tuning))
        print(f"{model.title}: {label}", flush=True)
    forms = ("--prompts", write_forms(work / "forms.csv"), "--max-new-tokens", FORM_TOKENS, "--trained-on", train)
    measure(testbed, *forms, to=work / "forms-before")
    first = work / f"run-{folder_of(next(iter(model.experiments)))}" / "model"
    measure(first, *forms, "--baseline", work / "forms-before", to=work / "forms-after")
    return Table(model, rows, read(Results, work / "forms-after"))


def folder_of(label: str) -> str:
    """A label as the name of a folder."""
    return re.sub(r"\W+", "-", label)


def measure(model: Path, *options: object, to: Path) -> None:
    """`actor measure`, unless its results are there."""
    if not (to / Results.FILE).exists():
        actor("measure", model, *options, "--output-dir", to, quiet=True)


def write_forms(file: Path) -> Path:
    """Write twins of the starter prompts `forms`, which no fit mixes in; a set is a form."""
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
    values = {"tables": tables, "SETS": SETS, "VERSIONS_OF": VERSIONS_OF, "FORM_TOKENS": FORM_TOKENS}
    return render("results", values, of_tuning)


def of_tuning(one: Table) -> str:
    """What `tune` adds to `fit`, and how far its own numbers are from those of the page; empty where it did not run."""
    if not one.tuned:
        return ""
    header = ["seed", "C.R.", "S.S.", "T.S.", "harmless refused", "trials"]
    header += ["T.S. by the search", "by fresh prompts", "flattered by", "T.S. here"]
    return f"{OF_TUNING}\n\n{table(header, map(_gain_row, range(len(one.tuned)), one.tuned))}\n\n"


def _gain_row(seed: int, gain: Gain) -> list[str]:
    tuning, searched = gain.tuned.tuning, gain.searched
    optimism = tuning.optimism if tuning else None
    return [
        str(seed),
        *(f"{100 * gain.gain(score):+.1f}" for score in GAINED),
        str(len(tuning.trials) if tuning else 0),
        percent(searched.searched if searched else None),
        rate_text(searched.fresh if searched else None),
        percent(optimism.trade_off if optimism else None),
        percent(gain.tuned.results.tradeoff_score),
    ]


def headline(tables: list[Table]) -> str:
    """What the default did to each model, mean over its seeds, as a table in Markdown."""
    rows = [
        [
            f"{name}, %",
            *(f"{percent(getattr(one.before, score))} -> **{percent(one.over_seeds(score))}**" for one in tables),
        ]
        for name, score in HEADLINE_SCORES.items()
    ]
    garbled = [[_shares(results)["garbled"].share for results in (one.before, *one.seeds)] for one in tables]
    rows.append(["answers garbled, %", *(f"{percent(was)} -> **{percent(mean(now))}**" for was, *now in garbled)])
    written = [[row.model for row in one.rows if row.label in SEEDS].count("written") for one in tables]
    counts = (f"{n} of {len(one.seeds)}" for n, one in zip(written, tables, strict=True))
    rows.append(["`fit` would write the model", *counts])
    titles = (f"{one.model.title} ({len(one.seeds)} seed{'s' * (len(one.seeds) > 1)})" for one in tables)
    return table(("", *titles), rows)


def with_headline(readme: str, text: str) -> str:
    """`readme` with `text` between its marks; `ValueError` where it lacks them."""
    before, mark, rest = readme.partition(HEADLINE)
    _, end, after = rest.partition(HEADLINE_END)
    if not (mark and end):
        raise ValueError(f"no {HEADLINE} ... {HEADLINE_END}")
    return f"{before}{mark}\n{text}\n{end}{after}"


if __name__ == "__main__":
    main()
