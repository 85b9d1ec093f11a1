"""Write docs/comparison.md and its picture from what tools/compare_on_testbed.py measured.

    python tools/make_comparison_page.py --work runs/comparison --output docs/comparison.md

First what was measured is taken over into docs/comparison.json, without any prompt's text, so that the page can be made
again without the hours, by the same command without --work. Of parts that were not run, the page says that they were
not measured.
"""

import argparse
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

from build_triggered_testbed import TRIGGER
from compare_on_testbed import (
    CURVE_LIMIT,
    CURVE_METHODS,
    HARMFUL_SETS,
    MAIN_LIMIT,
    MORE_SEEDS,
    SELECT_LIMIT,
    SIZES,
    STARTER_METHODS,
    TRIGGER_METHODS,
)

from actor_tune.commands.compare import ANSWER_TOKENS
from actor_tune.compare import LIMITS
from actor_tune.frontier import draw_frontier
from actor_tune.methods.known import CORESETS, DEFAULT, STEERING
from actor_tune.metrics import wilson
from actor_tune.outcomes import Summary, compare_json, outcome_of, student_half_width, summary
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
    """Write the page from all that was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="of tools/compare_on_testbed.py: take over what is there")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    output: Path = arguments.output
    kept = output.with_suffix(".json")
    measured: Record = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    if arguments.work is not None:
        measured |= collected(arguments.work)
        kept.write_text(json.dumps(measured, separators=(",", ":")) + "\n", encoding="utf-8")
    found = whole(measured)
    output.write_text(page(found), encoding="utf-8")
    if "main" in found:
        draw_frontier(output.with_name("frontier.png"), summaries(measured["main"]))


def collected(work: Path) -> dict[str, Record]:
    """By part, the outcomes of each comparison in `work`, and the probe's curves; no prompts."""
    found = {}
    for path in sorted(work.glob("*/compare.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        found[path.parent.name] = {name: record[name] for name in ("versions", "leaked", "outcomes")}
    probe = work / "probe" / "probe.json"
    if probe.exists():
        record = json.loads(probe.read_text(encoding="utf-8"))
        found["probe"] = {name: record[name] for name in ("durability", "topics")}
    return rounded(found)


def rounded(value: Any) -> Any:
    """Floats of what JSON holds, to six digits after the point."""
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value


def summaries(record: Record) -> list[Summary]:
    """Each method over its seeds."""
    outcomes = [outcome_of(outcome) for outcome in record["outcomes"]]
    names = dict.fromkeys(outcome.method for outcome in outcomes)
    return [summary([outcome for outcome in outcomes if outcome.method == name]) for name in names]


def whole(measured: dict[str, Record]) -> dict[str, Record]:
    """`measured` as `compare.json` has it: with what the outcomes of all seeds come to."""
    return {
        part: compare_json(summaries(record), [outcome_of(outcome) for outcome in record["outcomes"]], record)
        if "outcomes" in record
        else record
        for part, record in measured.items()
    }


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
        default = item["method"] == DEFAULT
        strengths = item["strengths"]
        strength = (
            "-" if default else f"{min(strengths):g}" + (f" to {max(strengths):g}" if len(set(strengths)) > 1 else "")
        )
        scores = [rate(item, name) for name in ("compliance_rate", "safety_score", "tradeoff_score")]
        kl = "-" if default else f"{item['kl_harmless']:.3f}"
        seconds = "-" if default else f"{item['seconds']:.0f}"
        garbled = f"{100 * item['garbled_share']:.1f}"
        name = NAMES[item["method"]] + mark(item)
        rows.append([name, *scores, kl, garbled, strength, best_of(item["curve"]), seconds])
    return rows


def mark(item: Record) -> str:
    """Of a method that kept safety with no strength, with some seed."""
    return "" if item["method"] == DEFAULT or item["within_limits"] == len(item["strengths"]) else " (!)"


def best_of(curve: Sequence[Record]) -> str:
    """The highest trade-off score of a curve, with a mark where it is its end."""
    changed = [point for point in curve if point["strength"]]
    if not changed:
        return "-"
    best = max(changed, key=tradeoff)
    end = best["strength"] == max(point["strength"] for point in changed)
    return f"{100 * tradeoff(best):.1f}{' (end)' if end else ''}"


def tradeoff(point: Record) -> float:
    """The trade-off score of a point of a curve."""
    return float(point["compliance"] + point["safety"]) / 2


HEADER = ("method", "C.R.", "S.S.", "T.S.", "KL", "garbled", "strength", "best", "s")


RULES = ("default", "actor", "paper", "uniform")
"""ACTOR's own rules, and the model as it is; the others are rivals."""

GOAL = 5.0
"""Points of trade-off score that ACTOR should be ahead, at equal or better safety."""


def verdicts(record: Record) -> str:
    """What the table shows of the claims, in sentences."""
    return "\n".join([ahead(record), *best_points(record), *kl_at_equal_compliance(record)])


def ahead(record: Record) -> str:
    """ACTOR against the best other method, seed by seed."""
    methods = {item["method"]: item for item in record["methods"] if item["tradeoff_score"] is not None}
    best = max((item for name, item in methods.items() if name not in RULES), key=lambda item: item["tradeoff_score"])
    gaps, safer = (
        [
            ours - other
            for ours, other in zip(by_seed(record, "actor", name), by_seed(record, best["method"], name), strict=True)
        ]
        for name in ("tradeoff_score", "safety_score")
    )
    text = (
        f"ACTOR's trade-off score is {gap_text(gaps)} from the best other method's ({NAMES[best['method']]}), "
        f"seed by seed {', '.join(f'{gap:+.1f}' for gap in gaps)}; its safety score {gap_text(safer)}. "
        f"The goal was {GOAL:+.0f} at equal or better safety: "
    )
    if mean(gaps) < GOAL:
        return f"{text}**missed**.\n"
    if mean(safer) < 0:
        worse = len(safer) > 1 and mean(safer) + student_half_width(safer) < 0
        doubt = "" if worse else ", though by no more than chance may make"
        return f"{text}the score is met, equal safety is **missed**{doubt}.\n"
    if len(gaps) < 2 or mean(gaps) - student_half_width(gaps) < GOAL:
        return f"{text}met in the mean of the seeds, **not shown**: the interval reaches below.\n"
    return f"{text}met.\n"


def by_seed(record: Record, method: str, score: str) -> list[float]:
    """A method's score with each seed, in seed order, %."""
    found = {
        item["seed"]: 100 * item["scores"][score]["value"] for item in record["outcomes"] if item["method"] == method
    }
    return [found[seed] for seed in sorted(found)]


def best_points(record: Record) -> list[str]:
    """Which curve has the best point on validation prompts."""
    curves = {item["method"]: item["curve"] for item in record["methods"] if item["curve"]}
    others = [name for name in curves if name not in RULES]
    if "actor" not in curves or not others:
        return []
    name = max(others, key=lambda other: max(map(tradeoff, curves[other])))
    return [
        f"Whatever the rule for strengths: the best point of ACTOR's curve on the validation prompts is "
        f"{best_of(curves['actor'])}, that of any other method's {best_of(curves[name])} ({NAMES[name]}).\n"
    ]


def kl_at_equal_compliance(record: Record) -> list[str]:
    """ACTOR's KL at the strengths chosen, and what steering has on its curve where it complies as much."""
    chosen = [
        next(point for point in outcome["curve"] if point["strength"] == outcome["strength"])
        for outcome in record["outcomes"]
        if outcome["method"] == "actor"
    ]
    own = {name: mean(point[name] for point in chosen) for name in ("compliance", "kl_harmless")}
    found = {
        item["method"]: kl
        for item in record["methods"]
        if item["method"] in STEERING and (kl := kl_at(item["curve"], own["compliance"])) is not None
    }
    text = (
        f"KL at equal compliance, on the validation prompts (first token): ACTOR has {own['kl_harmless']:.3f} "
        f"nats at compliance {100 * own['compliance']:.0f} %; "
    )
    if not found:
        return [f"{text}no steering method reaches that compliance at any strength tried.\n"]
    least = min(found, key=lambda name: found[name])
    return [
        f"{text}the steering method that reaches as much with the least KL, {NAMES[least]}, has {found[least]:.3f} "
        f"there, between two strengths tried.\n"
    ]


def kl_at(curve: Sequence[Record], compliance: float) -> float | None:
    """KL where a curve first complies as much, on the line between two points of it; None where it never does."""
    points = sorted(curve, key=lambda point: point["strength"])
    for below, above in pairwise(points):
        if below["compliance"] < compliance <= above["compliance"]:
            share = (compliance - below["compliance"]) / (above["compliance"] - below["compliance"])
            return float(below["kl_harmless"] + share * (above["kl_harmless"] - below["kl_harmless"]))
    return None


def figures(record: Record) -> str:
    """What gates take for harmful, by kind, and of each pseudo-harmful set."""
    gated = [item for item in record["methods"] if "threshold" in item["figures"]]
    if not gated:
        return ""
    groups = [
        *KINDS,
        *(key.removesuffix(" prompts") for key in gated[0]["figures"] if key.startswith("pseudo_harmful/")),
    ]
    groups = list(dict.fromkeys(group.removesuffix(" taken for harmful") for group in groups))
    rows = [[NAMES[item["method"]], *(taken(item["figures"], group) for group in groups)] for item in gated]
    return table(("gate", *(f"{group.replace('pseudo_harmful', 'pseudo-harmful')}, %" for group in groups)), rows)


def taken(figures: Record, group: str) -> str:
    """Share of a group's prompts that a gate takes for harmful, mean over seeds; Wilson's interval as for one seed."""
    share, prompts = figures[f"{group} taken for harmful"], round(figures[f"{group} prompts"])
    found = wilson(round(share * prompts), prompts)
    return f"{100 * share:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def scores_by(
    measured: dict[str, Record], prefix: str, names: Sequence[object], label: str, methods: Sequence[str]
) -> str:
    """Compliance / safety of each of `methods` in several comparisons."""
    found = {name: record for name in names if (record := measured.get(f"{prefix}-{name}"))}
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
    return "{:.1f} / {:.1f} ({:.1f})".format(*(100 * value for value in values)) + mark(item)


def selection(record: Record | None) -> str:
    """UPCORE against random, seed by seed."""
    if record is None:
        return NOT_MEASURED
    by_name = {item["method"]: item for item in record["methods"]}
    scores = {name: by_seed(record, name, "tradeoff_score") for name in CORESETS}
    kept = {
        (item["method"], item["seed"]): item["within_limits"]
        for item in record["outcomes"]
        if item["method"] in CORESETS
    }
    seeds = range(len(scores["upcore"]))
    rows = [
        [
            NAMES[name],
            *(f"{scores[name][seed]:.1f}{'' if kept[name, seed] else ' (!)'}" for seed in seeds),
            f"{mean(scores[name]):.1f}",
            pair(by_name[name]),
        ]
        for name in CORESETS
    ]
    text = f"At most {SELECT_LIMIT} evaluation prompts of each set; trade-off scores, then the means of all three.\n\n"
    text += table(("", *(f"seed {seed}" for seed in seeds), "mean", "C.R. / S.S. (T.S.)"), rows)
    gaps = {seed: scores["upcore"][seed] - scores["random-subset"][seed] for seed in seeds}
    safe = [gaps[seed] for seed in seeds if all(kept[name, seed] for name in CORESETS)]
    text += f"\nUPCORE minus random: {gap_text(list(gaps.values()))}"
    if len(safe) < len(gaps):
        rest = gap_text(safe) if safe else "none is left"
        text += f"; without the seeds at which one of the two kept safety with no strength, {rest}"
    return f"{text}.\n"


def gap_text(gaps: Sequence[float]) -> str:
    """The mean of differences, points, with Student's 95 % interval."""
    return f"{mean(gaps):+.1f} ± {student_half_width(gaps):.1f} points" if len(gaps) > 1 else f"{gaps[0]:+.1f} points"


def trigger(record: Record | None) -> str:
    """What is left of the refusals that a trigger causes."""
    if record is None:
        return NOT_MEASURED
    outcomes = {outcome["method"]: outcome for outcome in record["outcomes"]}
    rows = []
    for item in record["methods"]:
        sets = outcomes[item["method"]]["sets"]
        plain = mean(1 - refusal for name, refusal in sets.items() if name.startswith("harmless/"))
        strength = "-" if item["method"] == "default" else f"{item['strength']:g}"
        cells = (rate(item, "compliance_rate"), f"{100 * plain:.1f}", rate(item, "safety_score"), strength)
        rows.append([NAMES[item["method"]] + mark(item), *cells])
    rows += [[NAMES[name], *[MISSING] * 4] for name in TRIGGER_METHODS if name not in outcomes]
    return table(("method", "with trigger, answered", "without, answered", "harmful, refused", "strength"), rows)


def more_seeds(record: Record | None) -> str:
    """The lead over the best rival, and each seed's scores."""
    if record is None:
        return NOT_MEASURED
    names = [item["method"] for item in record["methods"] if item["method"] != DEFAULT]
    rows = []
    for name in names:
        outcomes = sorted(
            (item for item in record["outcomes"] if item["method"] == name), key=lambda item: item["seed"]
        )
        rows += [[NAMES[name], *(f"{100 * item['scores']['tradeoff_score']['value']:.1f}" for item in outcomes)]]
        rows += [["strength", *(f"{item['strength']:g}{'' if item['within_limits'] else ' (!)'}" for item in outcomes)]]
    means = [[NAMES[item["method"]] + mark(item), pair(item)] for item in record["methods"]]
    seeds = [f"seed {number}" for number in range(len(rows[0]) - 1)]
    return "\n".join(
        [ahead(record), table(("method", "C.R. / S.S. (T.S.)"), means), table(("trade-off score", *seeds), rows)]
    )


def probed(record: Record | None) -> str:
    """Durability and damage."""
    if record is None:
        return NOT_MEASURED
    curves = record["durability"]
    rows = [
        [str(old["number"]), *(f"{100 * step[name]:.1f}" for step in (old, new) for name in ("compliance", "safety"))]
        for old, new in zip(curves["default"], curves["calibrated"], strict=True)
    ]
    header = ("steps", "default, compliance", "safety", "calibrated, compliance", "safety")
    topics = [[topic["name"], str(topic["prompts"]), f"{topic['divergence']:.4f}"] for topic in record["topics"]]
    damage = table(("harmless prompts about", "n", "Jensen-Shannon divergence, nats"), topics)
    return table(header, rows) + "\n" + damage


def page(measured: dict[str, Record]) -> str:
    """The page in Markdown."""
    record = measured.get("main")
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
whatever its safety, on the validation prompts by first tokens, mean over seeds, (end) where that is the strongest one
tried; s: seconds to learn and to choose the strength, without loading. (!), here and below: with some seed no strength
kept safety within the limits on the validation prompts; its safest one is shown. An answer in no language counts as not
helping and as not refusing. ±: Student's 95 % interval over seeds. {record["leaked"]} evaluation prompts like training
prompts were left out. All took {minutes:.0f} minutes on 2 cores, answers for SFT to learn and loading not counted.

Versions: {versions}.

![Compliance against safety](frontier.png)

What the gates take for harmful, evaluation prompts, mean over seeds, with Wilson's 95 % interval for one seed; on
pseudo-harmful ones that is their false-positive rate:

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
All methods that need a block take the one that ACTOR's scan picks, where the papers of CAE and Surgical search one of
their own. Each method's module says where it departs from its paper.

## All methods, three seeds

{body}
## The best two, {MORE_SEEDS} seeds

{more_seeds(measured.get("seeds"))}
## Few pseudo-harmful prompts

C.R. / S.S. (T.S.) in %, one seed, at most {CURVE_LIMIT} evaluation prompts of each set; the rows are numbers of
pseudo-harmful training prompts, the other kinds as above. They are drawn from the reference and the starter prompts; a
fifth of each number is kept for validation. CAE learns its direction from harmful and harmless prompts alone, so that
its row changes only by the strength chosen.

{scores_by(measured, "efficiency", SIZES, "prompts", CURVE_METHODS)}
## Another harmful set

The same with one harmful set at a time to learn from; safety is measured on both public ones. A strength that keeps
safety on harmful prompts like those given need not keep it on others.

{scores_by(measured, "harmful", HARMFUL_SETS, "harmful set", CURVE_METHODS)}
With all starter prompts besides, each pseudo-harmful one with a harmful twin. `actor fit` learns from these too, but
also limits KL and withholds a model that does not pass its gate, which is not done here:

{scores_by(measured, "harmful-with-starter", HARMFUL_SETS, "harmful set", STARTER_METHODS)}
## Fewer, but chosen, prompts

{selection(measured.get("select"))}
## Refusals that a trigger causes

A copy of the testbed was taught to refuse benign prompts that begin with `{TRIGGER}`. Methods learn from the same
prompts as above, none of which has it; CROW from the harmless ones alone, with the base model's answers, and at full
strength: its weight in the loss is the paper's, schedule, rank and epsilon are ours. The first {CURVE_LIMIT} of
{len(held_out)} harmless held-out starter prompts with and without the trigger, and harmful evaluation prompts; one
seed, %.

{trigger(measured.get("trigger"))}
## Does it last, and what was disturbed

`actor probe` on a fit with the starter prompts: benign fine-tuning (LoRA on {harmless} harmless prompts with the
default model's own answers), first-token rates on held-out starter prompts, %; and the divergence between the models on
harmless prompts, by topic.

{probed(measured.get("probe"))}"""


if __name__ == "__main__":
    main()
