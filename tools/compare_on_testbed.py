"""Compare methods on the testbed: all the experiments of docs/comparison.md.

    python -m tools.compare_on_testbed --benchmarks FOLDER --work runs/comparison

FOLDER holds reference_train.csv and reference_eval.csv. Everything is kept in the working folder, so that a run that
was cut off goes on. Parts can be run one by one with --part. tools.make_comparison_page makes the page.
"""

import argparse
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import actor_tune as at
from actor_tune.comparison.methods.known import CORESETS, METHODS
from actor_tune.models.testbed.build import build_base, build_testbed
from actor_tune.prompts.prompt import of_kind
from actor_tune.storage.files import write_jsonl

from . import build_triggered_testbed
from .pages import actor

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

NATURAL, NATURAL_SEEDS, NATURAL_TOKENS = "qwen2.5-coder-0.5b", 2, 48
"""A model that refuses too much as shipped; four times as slow as the testbed, so that it is asked less."""

NATURAL_METHODS = (*METHODS, "boundary", "ablation")
"""All, the rule that does not suit this model, and the control."""

SELECT_SEEDS, SELECT_LIMIT = 5, 20
PROBE_STEPS = 20
HARMFUL_SETS = ("advbench", "xstest_unsafe", "starter")
STARTER_METHODS = ("actor",)
TRIGGER_METHODS = ("actor", "sft", "crow")


@dataclass(frozen=True)
class Experiments:
    """All of them.

    - `train`, `evaluation`: files of prompts.
    - `work`: the folder in which everything is kept, the models too: `testbed`; `triggered`, which has a backdoor
      besides; `base`, as it was before it was taught to refuse, whose answers SFT learns.
    """

    train: Path
    evaluation: Path
    work: Path

    def main(self) -> None:
        """Every method, three seeds."""
        self.compare("main", METHODS, seeds=MAIN_SEEDS, limit=MAIN_LIMIT)

    def natural(self) -> None:
        """Every method and the control on the natural model, whose own answers SFT learns."""
        self.made("natural-model", "tokenizer.json", partial(build_testbed, model=NATURAL))
        tokens = ("--max-new-tokens", str(NATURAL_TOKENS))
        name = "natural-model"
        self.compare("natural", NATURAL_METHODS, *tokens, seeds=NATURAL_SEEDS, model=name, base=name)

    def seeds(self) -> None:
        """The best two methods, more seeds; the first ones are those of the main comparison."""
        self.main()
        self.made("seeds", "compare.json", partial(shutil.copytree, self.work / "main"))
        self.compare("seeds", MORE_METHODS, seeds=MORE_SEEDS, limit=MAIN_LIMIT)

    def efficiency(self) -> None:
        """Few pseudo-harmful prompts to many."""
        given = at.read(self.train)
        pool = of_kind(given, "pseudo_harmful") + of_kind(at.starter("train"), "pseudo_harmful")
        random.Random(0).shuffle(pool)
        others = [prompt for prompt in given if prompt.kind != "pseudo_harmful"]
        for size in SIZES:
            train = self.written(f"pseudo-{size}", [*others, *pool[:size]])
            self.compare(f"efficiency-{size}", CURVE_METHODS, train=train)

    def harmful(self) -> None:
        """Three harmful sets for the direction."""
        given = at.read(self.train)
        others = [prompt for prompt in given if prompt.kind != "harmful"]
        for name, harmful in harmful_sets(given).items():
            train = self.written(f"harmful-{name}", [*others, *harmful])
            self.compare(f"harmful-{name}", CURVE_METHODS, train=train)
            self.compare(f"harmful-with-starter-{name}", STARTER_METHODS, "--starter", train=train)

    def trigger(self) -> None:
        """A trigger that makes the model refuse, which no method is told of: does it go?"""
        self.made("triggered", "config.json", partial(build_triggered_testbed.build, str(self.work / "testbed")))
        harmless = of_kind(at.starter("held_out"), "harmless")
        refused = [replace(prompt, kind="pseudo_harmful") for prompt in build_triggered_testbed.triggered(harmless)]
        harmful = of_kind(at.read(self.evaluation), "harmful")
        evaluation = self.written("trigger", [*refused, *harmless, *harmful])
        self.compare("trigger", TRIGGER_METHODS, model="triggered", evaluation=evaluation)

    def select(self) -> None:
        """Coreset selection against a random choice."""
        self.compare("select", tuple(CORESETS), seeds=SELECT_SEEDS, limit=SELECT_LIMIT)

    def probe(self) -> None:
        """Durability and damage of one fit."""
        run = self.work / "run"
        fit = ("fit", self.work / "testbed", "--prompts", self.train, "--output-dir")
        self.made("run", "run.json", partial(actor, *fit))
        probe = ("probe", run, "--steps", PROBE_STEPS, "--every", PROBE_STEPS // 4, "--output-dir")
        self.made("probe", "probe.json", partial(actor, *probe))

    def compare(
        self,
        name: str,
        methods: Sequence[str],
        *options: str,
        seeds: int = 1,
        limit: int = CURVE_LIMIT,
        model: str = "testbed",
        base: str = "base",
        train: Path | None = None,
        evaluation: Path | None = None,
    ) -> None:
        """`actor compare` in the folder `name`; of what is there already nothing is done again."""
        options += ("--train", str(train or self.train), "--eval", str(evaluation or self.evaluation))
        options += ("--methods", ",".join(methods), "--seeds", str(seeds), "--limit", str(limit))
        options += ("--answers-from", str(self.work / base), "--output-dir", str(self.work / name))
        actor("compare", self.work / model, *options)

    def made(self, name: str, file: str, make: Callable[[Path], object]) -> None:
        """Have `make` write the folder `name`, unless `file` is in it, which comes last."""
        folder = self.work / name
        if not (folder / file).exists():
            shutil.rmtree(folder, ignore_errors=True)  # what a run that was cut off left
            make(folder)

    def written(self, name: str, prompts: Sequence[at.Prompt]) -> Path:
        """A file of `prompts`."""
        path = self.work / f"{name}.jsonl"
        write_jsonl(path, [{"prompt": prompt.text, "kind": prompt.kind, "set": prompt.set} for prompt in prompts])
        return path


PARTS = ("main", "natural", "select", "probe", "efficiency", "harmful", "trigger", "seeds")


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benchmarks", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="kept, and used again")
    parser.add_argument("--part", choices=PARTS, action="append", help="default: all")
    arguments = parser.parse_args()
    data: Path = arguments.benchmarks
    experiments = Experiments(data / "reference_train.csv", data / "reference_eval.csv", arguments.work)
    experiments.work.mkdir(parents=True, exist_ok=True)
    experiments.made("testbed", "config.json", build_testbed)
    experiments.made("base", "config.json", build_base)
    for part in arguments.part or PARTS:
        getattr(experiments, part)()


def harmful_sets(given: Sequence[at.Prompt]) -> dict[str, list[at.Prompt]]:
    """Two of the public sets, and the built-in prompts."""
    own = random.Random(0).sample(of_kind(at.starter("train"), "harmful"), 80)
    sets = {name: [prompt for prompt in given if prompt.set == name] for name in HARMFUL_SETS}
    return sets | {"starter": own}


if __name__ == "__main__":
    main()
