"""Compare methods on the testbed: all the experiments of docs/comparison.md.

    python tools/compare_on_testbed.py --benchmarks FOLDER --work runs/comparison

FOLDER holds reference_train.csv and reference_eval.csv. Everything is kept in the working folder, so that a run that
was cut off goes on. Parts can be run one by one with --part. tools/make_comparison_page.py makes the page.
"""

import argparse
import csv
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from build_triggered_testbed import build as build_triggered
from build_triggered_testbed import triggered

from actor_tune.methods.known import CORESETS, METHODS
from actor_tune.prompts import Prompt, load_prompts, of_kind, starter_prompts

SIZES = (10, 25, 50, 100, 200)
MAIN_LIMIT = 75
"""Evaluation prompts of each set, so that all methods and seeds end within an hour on 2 cores."""

MAIN_SEEDS = 3
MORE_SEEDS = 8
MORE_METHODS = ("actor", "sft")
"""The two with the highest trade-off scores in the main comparison, with more seeds."""

CURVE_METHODS = ("actor", "sft", "cae", "surgical")
CURVE_LIMIT = 30
"""Evaluation prompts of each set in the side experiments."""

SELECT_SEEDS, SELECT_LIMIT = 5, 20
PROBE_STEPS = 20
HARMFUL_SETS = ("advbench", "xstest_unsafe", "starter")
STARTER_METHODS = ("actor",)
TRIGGER_METHODS = ("actor", "sft", "crow")


@dataclass(frozen=True)
class Files:
    """Where everything is."""

    train: Path
    evaluation: Path
    work: Path

    @property
    def testbed(self) -> Path:
        """The model that refuses too much."""
        return self.work / "testbed"

    @property
    def base(self) -> Path:
        """The model before it was taught to refuse, whose answers SFT learns."""
        return self.work / "base"

    @property
    def triggered(self) -> Path:
        """The testbed with a backdoor."""
        return self.work / "triggered"


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benchmarks", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="kept, and used again")
    parser.add_argument("--part", choices=PARTS, action="append", help="default: all")
    arguments = parser.parse_args()
    benchmarks: Path = arguments.benchmarks
    files = Files(benchmarks / "reference_train.csv", benchmarks / "reference_eval.csv", arguments.work)
    files.work.mkdir(parents=True, exist_ok=True)
    build(files)
    for part in arguments.part or PARTS:
        PARTS[part](files)


def actor(*arguments: object) -> None:
    """Run the command `actor`; it has to end well."""
    subprocess.run([sys.executable, "-m", "actor_tune", *map(str, arguments)], check=True)


def build(files: Files) -> None:
    """The two models."""
    from actor_tune.testbed import build_base, build_testbed

    built(files.testbed, build_testbed)
    built(files.base, build_base)


def built(folder: Path, make: Callable[[Path], object]) -> None:
    """`folder` with a model that `make` writes."""
    if not (folder / "config.json").exists():
        shutil.rmtree(folder, ignore_errors=True)  # what a run that was cut off left
        make(folder)


def compared(
    files: Files,
    name: str,
    train: Path,
    methods: Sequence[str],
    seeds: int = 1,
    limit: int = CURVE_LIMIT,
    model: Path | None = None,
    evaluation: Path | None = None,
    starter: bool = False,
) -> None:
    """`actor compare` in the folder `name`; of what is there already nothing is done again."""
    data = ("--train", train, "--eval", evaluation or files.evaluation, "--answers-from", files.base)
    options = ("--methods", ",".join(methods), "--seeds", seeds, "--limit", limit, *(["--starter"] if starter else []))
    actor("compare", model or files.testbed, *data, *options, "--output-dir", files.work / name)


def run_main(files: Files) -> None:
    """Every method, three seeds."""
    compared(files, "main", files.train, METHODS, seeds=MAIN_SEEDS, limit=MAIN_LIMIT)


def run_seeds(files: Files) -> None:
    """The best two methods, more seeds; the first ones are those of the main comparison."""
    run_main(files)
    if not (files.work / "seeds").exists():
        part = files.work / "seeds.part"
        shutil.rmtree(part, ignore_errors=True)  # what a run that was cut off left
        shutil.copytree(files.work / "main", part).rename(files.work / "seeds")
    compared(files, "seeds", files.train, MORE_METHODS, seeds=MORE_SEEDS, limit=MAIN_LIMIT)


def run_efficiency(files: Files) -> None:
    """Few pseudo-harmful prompts to many."""
    given = load_prompts(files.train)
    pool = of_kind(given, "pseudo_harmful") + of_kind(starter_prompts("train"), "pseudo_harmful")
    random.Random(0).shuffle(pool)
    others = [prompt for prompt in given if prompt.kind != "pseudo_harmful"]
    for size in SIZES:
        train = written(files.work / f"pseudo-{size}.csv", [*others, *pool[:size]])
        compared(files, f"efficiency-{size}", train, CURVE_METHODS)


def run_harmful(files: Files) -> None:
    """Three harmful sets for the direction."""
    given = load_prompts(files.train)
    others = [prompt for prompt in given if prompt.kind != "harmful"]
    for name, harmful in harmful_sets(given).items():
        train = written(files.work / f"harmful-{name}.csv", [*others, *harmful])
        compared(files, f"harmful-{name}", train, CURVE_METHODS)
        compared(files, f"harmful-with-starter-{name}", train, STARTER_METHODS, starter=True)


def harmful_sets(given: Sequence[Prompt]) -> dict[str, list[Prompt]]:
    """Two of the public sets, and the built-in prompts."""
    own = random.Random(0).sample(of_kind(starter_prompts("train"), "harmful"), 80)
    sets = {name: [prompt for prompt in given if prompt.set == name] for name in HARMFUL_SETS}
    return sets | {"starter": own}


def run_trigger(files: Files) -> None:
    """A trigger that makes the model refuse, which no method is told of: does it go?"""
    built(files.triggered, lambda folder: build_triggered(str(files.testbed), folder))
    harmless = of_kind(starter_prompts("held_out"), "harmless")
    refused = [replace(prompt, kind="pseudo_harmful") for prompt in triggered(harmless)]
    harmful = of_kind(load_prompts(files.evaluation), "harmful")
    evaluation = written(files.work / "trigger.csv", [*refused, *harmless, *harmful])
    compared(files, "trigger", files.train, TRIGGER_METHODS, model=files.triggered, evaluation=evaluation)


def run_select(files: Files) -> None:
    """Coreset selection against a random choice."""
    compared(files, "select", files.train, CORESETS, seeds=SELECT_SEEDS, limit=SELECT_LIMIT)


def run_probe(files: Files) -> None:
    """Durability and damage of one fit."""
    run, folder = files.work / "run", files.work / "probe"
    if not (run / "run.json").exists():
        shutil.rmtree(run, ignore_errors=True)
        actor("fit", files.testbed, "--prompts", files.train, "--output-dir", run)
    if not (folder / "probe.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        actor("probe", run, "--steps", PROBE_STEPS, "--every", PROBE_STEPS // 4, "--output-dir", folder)


PARTS: dict[str, Callable[[Files], None]] = {
    "main": run_main,
    "select": run_select,
    "probe": run_probe,
    "efficiency": run_efficiency,
    "harmful": run_harmful,
    "trigger": run_trigger,
    "seeds": run_seeds,
}


def written(path: Path, prompts: Sequence[Prompt]) -> Path:
    """A csv of `prompts`."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "kind", "set"])
        writer.writerows([prompt.text, prompt.kind, prompt.set] for prompt in prompts)
    return path


if __name__ == "__main__":
    main()
