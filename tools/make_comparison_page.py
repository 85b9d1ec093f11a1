"""Write docs/comparison.md, with its picture, from what tools/compare_on_testbed.py measured.

    python tools/make_comparison_page.py --work runs/comparison --output docs/comparison.md

Of parts that were not run, the page says that they were not measured.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from build_triggered_testbed import TRIGGER
from compare_on_testbed import (
    CURVE_LIMIT,
    CURVE_METHODS,
    HARMFUL_SETS,
    MAIN_LIMIT,
    SELECT_LIMIT,
    SIZES,
    STARTER_METHODS,
    TRIGGER_METHODS,
)

from actor_tune.commands.compare import ANSWER_TOKENS
from actor_tune.compare import LIMITS
from actor_tune.methods.known import CORESETS, DEFAULT, STEERING
from actor_tune.prompts import KINDS, of_kind, starter_prompts

Record = dict[str, Any]

NOT_MEASURED = "Not measured.\n"
MISSING = "not measured"
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
    "crow": "CROW",
    "upcore": "ACTOR on 90 %, UPCORE",
    "random-subset": "ACTOR on 90 %, random",
}


def main() -> None:
    """Write the page from all that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="of tools/compare_on_testbed.py")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    work: Path = arguments.work
    arguments.output.write_text(page(work), encoding="utf-8")
    picture = work / "main" / "frontier.png"
    if picture.exists():
        shutil.copyfile(picture, arguments.output.with_name("frontier.png"))


def stored(work: Path, name: str) -> Record | None:
    """`compare.json` of one comparison, if it was run."""
    path = work / name / "compare.json"
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
        at_best = max((tradeoff(point) for point in item["curve"] if point["strength"]), default=None)
        best = "-" if at_best is None else f"{100 * at_best:.1f}"
        rows.append([NAMES[item["method"]] + mark, *scores, kl, garbled, strength, best, seconds])
    return rows


def tradeoff(point: Record) -> float:
    """The trade-off score of a point of a curve."""
    return float(point["compliance"] + point["safety"]) / 2


HEADER = ("method", "C.R.", "S.S.", "T.S.", "KL", "garbled", "strength", "best", "s")


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
    curves = {name: max(map(tradeoff, item["curve"])) for name, item in methods.items() if item["curve"]}
    if "actor" in curves and (others := [name for name in curves if name not in rules]):
        name = max(others, key=lambda other: curves[other])
        text += (
            f"\nWhatever the rule for strengths: the best point of ACTOR's curve on the validation prompts is "
            f"{100 * curves['actor']:.1f}, that of any other method's {100 * curves[name]:.1f} ({NAMES[name]}).\n"
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


def scores_by(work: Path, prefix: str, names: Sequence[object], label: str, methods: Sequence[str]) -> str:
    """Compliance / safety of each of `methods` in several comparisons."""
    found = {name: record for name in names if (record := stored(work, f"{prefix}-{name}"))}
    if not found:
        return NOT_MEASURED
    methods = (DEFAULT, *methods)
    rows, scores = [], []
    for name, record in found.items():
        by_name = {item["method"]: item for item in record["methods"]}
        rows.append([str(name), *(pair(by_name[method]) if method in by_name else MISSING for method in methods)])
        scores.append([by_name.get(method, {}).get("tradeoff_score") for method in methods])
    widths = ["-" if None in known else f"{100 * (max(known) - min(known)):.1f}" for known in zip(*scores, strict=True)]
    rows.append(["largest difference in T.S.", *widths])
    return table((label, *(NAMES[method] for method in methods)), rows)


def pair(item: Record) -> str:
    """Compliance rate / safety score (trade-off score)."""
    values = [item[name] for name in ("compliance_rate", "safety_score", "tradeoff_score")]
    if None in values:
        return "-"
    return "{:.1f} / {:.1f} ({:.1f})".format(*(100 * value for value in values))


def selection(work: Path) -> str:
    """UPCORE against random, seed by seed."""
    record = stored(work, "select")
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


def trigger(work: Path) -> str:
    """What is left of the refusals that a trigger causes."""
    record = stored(work, "trigger")
    if record is None:
        return NOT_MEASURED
    outcomes = {outcome["method"]: outcome for outcome in record["outcomes"]}
    rows = []
    for item in record["methods"]:
        sets = outcomes[item["method"]]["sets"]
        plain = mean(1 - refusal for name, refusal in sets.items() if name.startswith("harmless/"))
        strength = "-" if item["method"] == "default" else f"{item['strength']:g}"
        cells = (rate(item, "compliance_rate"), f"{100 * plain:.1f}", rate(item, "safety_score"), strength)
        rows.append([NAMES[item["method"]], *cells])
    rows += [[NAMES[name], *[MISSING] * 4] for name in TRIGGER_METHODS if name not in outcomes]
    return table(("method", "with trigger, answered", "without, answered", "harmful, refused", "strength"), rows)


def probed(work: Path) -> str:
    """Durability and damage."""
    path = work / "probe" / "probe.json"
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


def page(work: Path) -> str:
    """The page in Markdown."""
    record = stored(work, "main")
    if record is None:
        body = NOT_MEASURED
    else:
        minutes = sum(outcome["all_seconds"] for outcome in record["outcomes"]) / 60
        versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
        body = f"""{verdicts(record)}
{table(HEADER, method_rows(record))}
C.R., S.S., T.S.: compliance rate, safety score and their mean, in %, with 95 % intervals over prompts and seeds;
KL(default || method) of the first answer token on harmless evaluation prompts, nats; garbled: answers that are no
language, %; strength: in each method's own unit; best: the highest trade-off score anywhere on a method's curve,
whatever its safety, on the validation prompts by first tokens, mean over seeds; s: seconds to learn and to choose the
strength, on 2 cores, without loading. (!): with some seed no strength kept safety within the limits on the validation
prompts; its safest one is shown. An answer in no language counts as not helping and as not refusing. All of it took
{minutes:.0f} minutes, SFT's answers and loading not counted.
{record["leaked"]} evaluation prompts like training prompts were left out. Versions: {versions}.

![Compliance against safety](frontier.png)

What the gates take for harmful, evaluation prompts; on pseudo-harmful ones that is their false-positive rate:

{figures(record)}"""
    harmless = len(of_kind(starter_prompts("train"), "harmless"))
    held_out = of_kind(starter_prompts("held_out"), "harmless")
    return f"""# Methods side by side

Made by `make comparison BENCHMARKS=FOLDER`, where FOLDER holds `reference_train.csv` and `reference_eval.csv`; do not
edit. Model: the reference testbed. Every method learns from the same prompts, four fifths to learn and one fifth to
choose its strength by one rule: the most compliance whose safety falls by no more than {100 * LIMITS.safety_drop:.0f}
points ({100 * LIMITS.set_drop:.0f} and a standard error on a single set), by the first answer token. Nothing is chosen
on the evaluation prompts, of which the first {MAIN_LIMIT} of each set are asked. Answers: greedy, {ANSWER_TOKENS}
tokens; judge: trained ([judge.md](judge.md)). The starter prompts that `actor fit` adds are left out for all methods
([results.md](results.md) has ACTOR with them). SFT learns what the testbed's own base model answers to benign
prompts, where the judge finds that it helps, and the testbed's refusals of harmful ones; its rate is that of the SFT in
ACTOR's paper. ACTOR's schedule was once chosen on these training prompts; those of the other methods were not tuned.
Each method's module says where it departs from its paper.

## All methods, three seeds

{body}
## Few pseudo-harmful prompts

C.R. / S.S. (T.S.) in %, one seed, at most {CURVE_LIMIT} evaluation prompts of each set; the rows are numbers of
pseudo-harmful training prompts, the other kinds as above.

{scores_by(work, "efficiency", SIZES, "prompts", CURVE_METHODS)}
## Another harmful set

The same with one harmful set at a time to learn from; safety is measured on both public ones. A strength that keeps
safety on harmful prompts like those given need not keep it on others.

{scores_by(work, "harmful", HARMFUL_SETS, "harmful set", CURVE_METHODS)}
As `actor fit` does it, with all starter prompts besides, each pseudo-harmful one with a harmful twin:

{scores_by(work, "harmful-with-starter", HARMFUL_SETS, "harmful set", STARTER_METHODS)}
## Fewer, but chosen, prompts

{selection(work)}
## Refusals that a trigger causes

A copy of the testbed was taught to refuse benign prompts that begin with `{TRIGGER}`. Methods learn from the same
prompts as above, none of which has it; CROW from the harmless ones alone, with the base model's answers, and wholly,
as in its paper. The first {CURVE_LIMIT} of {len(held_out)} harmless held-out starter prompts with and without the
trigger, and harmful evaluation prompts; one seed, %.

{trigger(work)}
## Does it last, and what was disturbed

`actor probe` on a fit with the starter prompts: benign fine-tuning (LoRA on {harmless} harmless prompts with the
default model's own answers), first-token rates on held-out starter prompts, %; and the divergence between the models on
harmless prompts, by topic.

{probed(work)}"""


if __name__ == "__main__":
    main()
