"""Compare all methods on the testbed and write docs/comparison.md with its pictures.

    python tools/make_comparison_page.py --benchmarks FOLDER --work runs/comparison --output docs/comparison.md

FOLDER holds reference_train.csv and reference_eval.csv. Everything is kept in the working folder, so that a run that
was cut off goes on. Parts can be run one by one with --part; the page says of the others that they were not measured.
"""

import argparse
import csv
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from actor_tune.commands.compare import ANSWER_TOKENS
from actor_tune.compare import LIMITS
from actor_tune.methods.known import CORESETS, METHODS, STEERING
from actor_tune.prompts import KINDS, Prompt, load_prompts, of_kind, starter_prompts

Record = dict[str, Any]

SIZES = (10, 25, 50, 100, 200)
MAIN_LIMIT = 100
"""Evaluation prompts of each set, so that all methods and seeds end within an hour on 2 cores."""

CURVE_METHODS = ("actor", "sft", "cae", "surgical")
CURVE_LIMIT = 40
"""Evaluation prompts of each set in the side experiments."""

SELECT_SEEDS, SELECT_LIMIT = 5, 20
PROBE_STEPS = 20
NOT_MEASURED = "Not measured.\n"
NAMES = {
    "default": "default (as it is)",
    "actor": "**ACTOR** (boundary rule)",
    "paper": "ACTOR, the paper's rule",
    "uniform": "ACTOR, uniform control",
    "sft": "SFT (LoRA)",
    "cae": "CAE",
    "random-direction": "CAE's control: random direction",
    "surgical": "Surgical",
    "scans": "SCANS",
    "inferaligner": "InferAligner (turned round)",
    "upcore": "ACTOR on 90 %, UPCORE",
    "random-subset": "ACTOR on 90 %, random",
}


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


def main() -> None:
    """Run what is asked for, and write the page from all that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benchmarks", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="kept, and used again")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--part", choices=PARTS, action="append", help="default: all")
    parser.add_argument("--page-only", action="store_true", help="run nothing, write the page from what is there")
    arguments = parser.parse_args()
    benchmarks: Path = arguments.benchmarks
    files = Files(benchmarks / "reference_train.csv", benchmarks / "reference_eval.csv", arguments.work)
    files.work.mkdir(parents=True, exist_ok=True)
    if not arguments.page_only:
        build(files)
        for part in arguments.part or PARTS:
            PARTS[part](files)
    arguments.output.write_text(page(files), encoding="utf-8")
    picture = files.work / "main" / "frontier.png"
    if picture.exists():
        shutil.copyfile(picture, arguments.output.with_name("frontier.png"))


def actor(*arguments: object) -> None:
    """Run the command `actor`; it has to end well."""
    subprocess.run([sys.executable, "-m", "actor_tune", *map(str, arguments)], check=True)


def build(files: Files) -> None:
    """The two models."""
    from actor_tune.testbed import build_base, build_testbed

    for folder, make in ((files.testbed, build_testbed), (files.base, build_base)):
        if not (folder / "config.json").exists():
            shutil.rmtree(folder, ignore_errors=True)  # what a run that was cut off left
            make(folder)


def compared(files: Files, name: str, train: Path, methods: Sequence[str], *options: object) -> None:
    """`actor compare` in the folder `name`; of what is there already nothing is done again."""
    arguments = ("--train", train, "--eval", files.evaluation, "--answers-from", files.base)
    options = ("--methods", ",".join(methods), *options)
    actor("compare", files.testbed, *arguments, *options, "--output-dir", files.work / name)


def run_main(files: Files) -> None:
    """Every method, three seeds."""
    compared(files, "main", files.train, METHODS, "--seeds", 3, "--limit", MAIN_LIMIT)


def run_efficiency(files: Files) -> None:
    """Few pseudo-harmful prompts to many."""
    given = load_prompts(files.train)
    pool = of_kind(given, "pseudo_harmful") + of_kind(starter_prompts("train"), "pseudo_harmful")
    random.Random(0).shuffle(pool)
    others = [prompt for prompt in given if prompt.kind != "pseudo_harmful"]
    for size in SIZES:
        train = written(files.work / f"pseudo-{size}.csv", [*others, *pool[:size]])
        compared(files, f"efficiency-{size}", train, CURVE_METHODS, "--seeds", 1, "--limit", CURVE_LIMIT)


def run_harmful(files: Files) -> None:
    """Three harmful sets for the direction."""
    given = load_prompts(files.train)
    others = [prompt for prompt in given if prompt.kind != "harmful"]
    for name, harmful in harmful_sets(given).items():
        train = written(files.work / f"harmful-{name}.csv", [*others, *harmful])
        compared(files, f"harmful-{name}", train, CURVE_METHODS, "--seeds", 1, "--limit", CURVE_LIMIT)


def harmful_sets(given: Sequence[Prompt]) -> dict[str, list[Prompt]]:
    """Two of the public sets, and the built-in prompts."""
    own = of_kind(starter_prompts("train"), "harmful")
    sets = {name: [prompt for prompt in given if prompt.set == name] for name in ("advbench", "xstest_unsafe")}
    return sets | {"starter": random.Random(0).sample(own, 80)}


def run_select(files: Files) -> None:
    """Coreset selection against a random choice."""
    compared(files, "select", files.train, CORESETS, "--seeds", SELECT_SEEDS, "--limit", SELECT_LIMIT)


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
}


def written(path: Path, prompts: Sequence[Prompt]) -> Path:
    """A csv of `prompts`."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "kind", "set"])
        writer.writerows([prompt.text, prompt.kind, prompt.set] for prompt in prompts)
    return path


def stored(files: Files, name: str) -> Record | None:
    """`compare.json` of one comparison, if it was run."""
    path = files.work / name / "compare.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def rate(item: Record, name: str) -> str:
    """Percent with its interval."""
    if item[name] is None:
        return "-"
    low, high = item["intervals"][name]
    return f"{100 * item[name]:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def method_rows(record: Record) -> list[list[str]]:
    """One row a method, the best trade-off first."""
    rows = []
    for item in sorted(record["methods"], key=lambda item: -(item["tradeoff_score"] or 0)):
        default = item["method"] == "default"
        strengths = item["strengths"]
        strength = (
            "-" if default else f"{min(strengths):g}" + (f" to {max(strengths):g}" if len(set(strengths)) > 1 else "")
        )
        mark = "" if default or item["within_limits"] == len(strengths) else " (!)"
        scores = [rate(item, name) for name in ("compliance_rate", "safety_score", "tradeoff_score")]
        kl = "-" if default else f"{item['kl_harmless']:.3f}"
        seconds = "-" if default else f"{item['seconds']:.0f}"
        garbled = f"{100 * item['garbled_share']:.1f}"
        rows.append([NAMES[item["method"]] + mark, *scores, kl, garbled, strength, seconds])
    return rows


HEADER = ("method", "C.R.", "S.S.", "T.S.", "KL", "garbled", "strength", "s")


def verdicts(record: Record) -> str:
    """What the table shows of the two claims, in sentences."""
    methods = {item["method"]: item for item in record["methods"]}
    ours = methods["actor"]
    rules = ("default", "actor", "paper", "uniform")
    rivals = [item for name, item in methods.items() if name not in rules and item["tradeoff_score"] is not None]
    best = max(rivals, key=lambda item: item["tradeoff_score"])
    ahead = 100 * (ours["tradeoff_score"] - best["tradeoff_score"])
    safer = 100 * (ours["safety_score"] - best["safety_score"])
    text = (
        f"ACTOR's trade-off score is {ahead:+.1f} points from the best other method's ({NAMES[best['method']]}), at a "
        f"safety score {safer:+.1f} points from its own; the goal was +5 at equal or better safety: "
        f"{'met' if ahead >= 5 and safer >= 0 else '**missed**'}.\n"
    )
    points = [
        (name, point["kl_harmless"], point["compliance"])
        for name in STEERING
        if name in methods
        for point in methods[name]["curve"]
        if point["strength"]
    ]
    chosen = [
        next(point for point in outcome["curve"] if point["strength"] == outcome["strength"])
        for outcome in record["outcomes"]
        if outcome["method"] == "actor"
    ]
    if chosen and points:
        own = {name: mean(point[name] for point in chosen) for name in ("compliance", "kl_harmless")}
        equal = [point for point in points if point[2] >= own["compliance"]]
        least = min(equal, key=lambda point: point[1], default=None)
        text += (
            f"\nKL at equal compliance, on the validation prompts (first token): ACTOR has {own['kl_harmless']:.3f} "
            f"nats at compliance {100 * own['compliance']:.0f} %; "
        )
        text += (
            "no steering method reaches that compliance at any strength tried.\n"
            if least is None
            else f"the steering method that reaches as much with the least KL, {NAMES[least[0]]}, has {least[1]:.3f}.\n"
        )
    return text


def figures(record: Record) -> str:
    """What gates take for harmful."""
    rows = [
        [NAMES[item["method"]], *(f"{100 * item['figures'][f'{kind} taken for harmful']:.1f}" for kind in KINDS)]
        for item in record["methods"]
        if "harmful taken for harmful" in item["figures"]
    ]
    return table(("gate", *(f"{kind.replace('_', '-')}, %" for kind in KINDS)), rows) if rows else ""


def scores_by(files: Files, prefix: str, names: Sequence[object], label: str) -> str:
    """Compliance / safety of each method in several comparisons."""
    found = {name: record for name in names if (record := stored(files, f"{prefix}-{name}"))}
    if not found:
        return NOT_MEASURED
    methods = list(dict.fromkeys(item["method"] for record in found.values() for item in record["methods"]))
    rows = []
    for name, record in found.items():
        by_name = {item["method"]: item for item in record["methods"]}
        cells = [pair(by_name[method]) if method in by_name else "-" for method in methods]
        rows.append([str(name), *cells])
    return table((label, *(NAMES[method] for method in methods)), rows)


def pair(item: Record) -> str:
    """Compliance rate / safety score (trade-off score)."""
    values = [item[name] for name in ("compliance_rate", "safety_score", "tradeoff_score")]
    if None in values:
        return "-"
    return "{:.1f} / {:.1f} ({:.1f})".format(*(100 * value for value in values))


def selection(files: Files) -> str:
    """UPCORE against random, seed by seed."""
    record = stored(files, "select")
    if record is None:
        return NOT_MEASURED
    scores: dict[str, dict[int, float]] = {}
    for outcome in record["outcomes"]:
        value = outcome["scores"]["tradeoff_score"]
        if value is not None:
            scores.setdefault(outcome["method"], {})[outcome["seed"]] = 100 * value["value"]
    seeds = sorted(scores["upcore"])
    rows = [
        [NAMES[name], *(f"{scores[name][seed]:.1f}" for seed in seeds), f"{mean(scores[name].values()):.1f}"]
        for name in CORESETS
    ]
    gaps = [scores["upcore"][seed] - scores["random-subset"][seed] for seed in seeds]
    text = f"Trade-off scores on at most {SELECT_LIMIT} evaluation prompts of each set.\n\n"
    text += table(("trade-off score", *(f"seed {seed}" for seed in seeds), "mean"), rows)
    error = stdev(gaps) / len(gaps) ** 0.5
    return (
        text + f"\nUPCORE minus random: {mean(gaps):+.2f} points, standard error {error:.2f} over {len(gaps)} seeds.\n"
    )


def probed(files: Files) -> str:
    """Durability and damage."""
    path = files.work / "probe" / "probe.json"
    if not path.exists():
        return NOT_MEASURED
    record = json.loads(path.read_text(encoding="utf-8"))
    curves = record["durability"]
    rows = [
        [str(old["number"]), *(f"{100 * step[name]:.1f}" for step in (old, new) for name in ("compliance", "safety"))]
        for old, new in zip(curves["default"], curves["calibrated"], strict=True)
    ]
    header = ("steps", "default, compliance", "safety", "calibrated, compliance", "safety")
    topics = [[topic["name"], str(topic["prompts"]), f"{topic['divergence']:.4f}"] for topic in record["topics"]]
    damage = table(("harmless prompts about", "n", "Jensen-Shannon divergence, nats"), topics)
    return table(header, rows) + "\n" + damage


def page(files: Files) -> str:
    """The page in Markdown."""
    record = stored(files, "main")
    if record is None:
        body = NOT_MEASURED
    else:
        minutes = sum(outcome["all_seconds"] for outcome in record["outcomes"]) / 60
        versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
        body = f"""{verdicts(record)}
{table(HEADER, method_rows(record))}
C.R., S.S., T.S.: compliance rate, safety score and their mean, in %, with 95 % intervals over prompts and seeds;
KL(default || method) of the first answer token on harmless evaluation prompts, nats; garbled: answers that are no
language, %; strength: in each method's own unit; s: seconds to learn and to choose the strength, on 2 cores, without
loading. (!): with some seed no strength kept safety within the limits on the validation prompts; its safest one is
shown. An answer in no language counts as not helping and as not refusing. All of it took {minutes:.0f} minutes, SFT's
answers and loading not counted.
{record["leaked"]} evaluation prompts like training prompts were left out. Versions: {versions}.

![Compliance against safety](frontier.png)

What the gates take for harmful, evaluation prompts; on pseudo-harmful ones that is their false-positive rate:

{figures(record)}"""
    harmless = len(of_kind(starter_prompts("train"), "harmless"))
    return f"""# Methods side by side

Made by `make comparison BENCHMARKS=FOLDER`, where FOLDER holds `reference_train.csv` and `reference_eval.csv`; do not
edit. Model: the reference testbed. Every method learns from the same prompts, four fifths to learn and one fifth to
choose its strength by one rule: the most compliance whose safety falls by no more than {100 * LIMITS.safety_drop:.0f}
points ({100 * LIMITS.set_drop:.0f} and a standard error on a single set), by the first answer token. Nothing is chosen
on the evaluation prompts, of which the first {MAIN_LIMIT} of each set are asked. Answers: greedy, {ANSWER_TOKENS}
tokens; judge: trained ([judge.md](judge.md)). The starter prompts that `actor fit` adds are left out for all methods
([results.md](results.md) has ACTOR with them). SFT learns answers of the testbed's own base model to benign prompts,
and the testbed's refusals of harmful ones. ACTOR's schedule was once chosen on these training prompts; those of the
other methods were not tuned. Each method's module says where it departs from its paper.

## All methods, three seeds

{body}
## Few pseudo-harmful prompts

C.R. / S.S. (T.S.) in %, one seed, at most {CURVE_LIMIT} evaluation prompts of each set; the rows are numbers of
pseudo-harmful training prompts, the other kinds as above.

{scores_by(files, "efficiency", SIZES, "prompts")}
## Another harmful set

The same with one harmful set at a time to learn from; safety is measured on both public ones.

{scores_by(files, "harmful", ("advbench", "xstest_unsafe", "starter"), "harmful set")}
## Fewer, but chosen, prompts

{selection(files)}
## Does it last, and what was disturbed

`actor probe` on a fit with the starter prompts: benign fine-tuning (LoRA on {harmless} harmless prompts with the
default model's own answers), first-token rates on held-out starter prompts, %; and the divergence between the models on
harmless prompts, by topic.

{probed(files)}"""


if __name__ == "__main__":
    main()
