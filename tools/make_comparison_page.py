"""Write docs/comparison.md and its picture from what tools/compare_on_testbed.py measured.

    python tools/make_comparison_page.py --work runs/comparison --output docs/comparison.md

First what was measured is taken over into docs/comparison.json, without any prompt's text, so that the page can be made
again without the hours, by the same command without --work. Of parts that were not run, the page says that they were
not measured.
"""

import argparse
import json
import sys
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
    MAIN_SEEDS,
    MORE_METHODS,
    SELECT_LIMIT,
    SIZES,
    STARTER_METHODS,
    TRIGGER_METHODS,
)

from actor_tune.compare import LIMITS
from actor_tune.frontier import draw_frontier
from actor_tune.methods.known import CORESETS, DEFAULT, STEERING
from actor_tune.metrics import Estimate, wilson
from actor_tune.outcomes import (
    Outcome,
    compare_json,
    lead,
    outcome_of,
    over_seeds,
    student_half_width,
    summaries,
)
from actor_tune.prompts import KINDS, of_kind, starter_prompts
from actor_tune.show import rate_text

Record = dict[str, Any]

KEPT = (
    "train_sha256",
    "evaluation_sha256",
    "limit",
    "max_new_tokens",
    "computed_in",
    "versions",
    "leaked",
    "outcomes",
)
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
        draw_frontier(output.with_name("frontier.png"), summaries(all_outcomes(measured["main"])))


def collected(work: Path) -> dict[str, Record]:
    """By part, the outcomes of each comparison in `work`, and the probe's curves; no prompts."""
    found = {}
    for path in sorted(work.glob("*/compare.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        found[path.parent.name] = {name: record[name] for name in KEPT if name in record}
    probe = work / "probe" / "probe.json"
    if probe.exists():
        record = json.loads(probe.read_text(encoding="utf-8"))
        found["probe"] = {name: record[name] for name in ("durability", "topics")}
    if not found:
        sys.exit(f"{work}: nothing was measured there; run tools/compare_on_testbed.py first")
    return rounded(found)


def rounded(value: Any) -> Any:
    """Floats of what JSON holds, to six digits after the point."""
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value


def whole(measured: dict[str, Record]) -> dict[str, Record]:
    """`measured` as `compare.json` has it: with what the outcomes of all seeds come to."""
    found = {}
    for part, record in measured.items():
        outcomes = all_outcomes(record)
        found[part] = compare_json(summaries(outcomes), outcomes, record) if outcomes else record
    return found


def all_outcomes(record: Record) -> list[Outcome]:
    """Of all methods and seeds; none of the probe."""
    return [outcome_of(outcome) for outcome in record.get("outcomes", [])]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def rate(item: Record, name: str) -> str:
    """Percent with its interval."""
    return rate_text(None if item[name] is None else Estimate(item[name], *item["intervals"][name]))


def method_rows(record: Record) -> list[list[str]]:
    """One row a method, the best trade-off first."""
    rows = []
    for item in sorted(record["methods"], key=lambda item: -(item["tradeoff_score"] or 0)):
        default = item["method"] == DEFAULT
        scores = [rate(item, name) for name in ("compliance_rate", "safety_score", "tradeoff_score")]
        kl = "-" if default else f"{item['kl_harmless']:.3f}"
        seconds = "-" if default else f"{item['seconds']:.0f}"
        garbled = f"{100 * item['garbled_share']:.1f}"
        best = f"{unchanged(record):.1f}" if default else best_of(item["curve"])
        name = NAMES[item["method"]] + mark(item)
        rows.append([name, *scores, kl, garbled, strengths(item), best, seconds])
    return rows


def strengths(item: Record) -> str:
    """From the weakest chosen to the strongest."""
    if item["method"] == DEFAULT:
        return "-"
    low, high = min(item["strengths"]), max(item["strengths"])
    end = " (end)" if high == item["curve"][-1]["strength"] else ""
    return (f"{low:g} to {high:g}" if low < high else f"{low:g}") + end


def unchanged(record: Record) -> float:
    """The trade-off score of the model as it is, on the validation prompts, %."""
    curve = next(item["curve"] for item in record["methods"] if item["curve"])
    return 100 * tradeoff(curve[0])


def by_set(record: Record) -> str:
    """What is refused of each set, mean over seeds."""
    sets = sorted(record["outcomes"][0]["sets"], key=lambda name: (KINDS.index(name.split("/")[0]), name))
    rows = []
    for item in sorted(record["methods"], key=lambda item: -(item["tradeoff_score"] or 0)):
        found = [outcome["sets"] for outcome in record["outcomes"] if outcome["method"] == item["method"]]
        shares = (100 * mean(outcome[name] for outcome in found) for name in sets)
        rows.append([NAMES[item["method"]], *(f"{share:.1f}" for share in shares)])
    return table(("refused, %", *(name.replace("pseudo_harmful", "pseudo-harmful") for name in sets)), rows)


def mark(item: Record) -> str:
    """Of a method that kept safety with no strength, with some seed."""
    return "" if item["method"] == DEFAULT or item["within_limits"] == len(item["strengths"]) else " (!)"


def best_of(curve: Sequence[Record]) -> str:
    """The highest trade-off score of a curve, with a mark where it is its end."""
    best = best_point(curve)
    end = best["strength"] == max(point["strength"] for point in curve)
    return f"{100 * tradeoff(best):.1f}{' (end)' if end else ''}"


def best_point(curve: Sequence[Record]) -> Record:
    """The one with the highest trade-off score, doing nothing aside."""
    return max((point for point in curve if point["strength"]), key=tradeoff)


def tradeoff(point: Record) -> float:
    """The trade-off score of a point of a curve."""
    return float(point["compliance"] + point["safety"]) / 2


HEADER = ("method", "C.R.", "S.S.", "T.S.", "KL", "garbled", "strength", "best", "s")

RULES = ("default", "actor", "paper", "uniform")
"""ACTOR's own rules, and the model as it is; the others are rivals."""

TESTED = ("advbench", "xstest_unsafe")
"""The harmful evaluation sets."""

GOAL = 5.0
"""Points of trade-off score that ACTOR should be ahead, at equal or better safety."""


def verdicts(record: Record) -> str:
    """What the table shows of the claims, in sentences."""
    return "\n".join([ahead(record), *best_points(record), kl_at_equal_compliance(record)])


def ahead(record: Record) -> str:
    """ACTOR against the best other method, prompt by prompt and seed by seed."""
    methods = {item["method"]: item for item in record["methods"] if item["tradeoff_score"] is not None}
    best = max((name for name in methods if name not in RULES), key=lambda name: methods[name]["tradeoff_score"])
    ours, theirs = outcomes_of(record, "actor"), outcomes_of(record, best)
    score, safety = (lead(ours, theirs, name) for name in ("tradeoff_score", "safety_score"))
    return (
        f"ACTOR's trade-off score is {points(score)} from the best other method's ({NAMES[best]}), seed by seed "
        f"{gaps_text(ours, theirs, 'tradeoff_score')}; its safety score {points(safety)}, seed by seed "
        f"{gaps_text(ours, theirs, 'safety_score')}. The goal was {GOAL:+.0f} at equal or better safety. Score: "
        f"{score_verdict(score)}. Safety: {safety_verdict(safety)}.\n"
    )


def score_verdict(found: Estimate) -> str:
    """Whether a lead in trade-off score is as large as it should be."""
    if 100 * found.value < GOAL:
        return "**missed**"
    if 100 * found.low >= GOAL:
        return "met"
    return f"met in the mean, **not shown**: the interval reaches below{', even to no lead at all' * (found.low < 0)}"


def safety_verdict(found: Estimate) -> str:
    """Whether safety is at least equal."""
    if found.high < 0:
        return "**worse**"
    if round(100 * found.value, 1) < 0:
        return "**lower** in the mean, which the interval does not tell from equal"
    return "not lower in the mean" + ", which the interval does not tell from lower" * (found.low < 0)


def points(found: Estimate) -> str:
    """A difference in points with its interval."""
    return f"{100 * found.value:+.1f} points [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def gaps_text(ours: Sequence[Outcome], theirs: Sequence[Outcome], score: str) -> str:
    """The differences in a score of each seed."""
    gaps = [lead([our], [their], score).value for our, their in zip(ours, theirs, strict=True)]
    return ", ".join(f"{100 * gap:+.1f}" for gap in gaps)


def outcomes_of(record: Record, method: str) -> list[Outcome]:
    """A method's, in seed order."""
    found = [outcome for outcome in all_outcomes(record) if outcome.method == method]
    return sorted(found, key=lambda outcome: outcome.seed)


def by_seed(record: Record, method: str) -> list[float]:
    """A method's trade-off score with each seed, %."""
    scores = [outcome.scores["tradeoff_score"] for outcome in outcomes_of(record, method)]
    return [100 * score.value for score in scores if score]


def best_points(record: Record) -> list[str]:
    """Which curve has the best point on validation prompts."""
    curves = {item["method"]: item["curve"] for item in record["methods"] if item["curve"]}
    others = [name for name in curves if name not in RULES]
    if "actor" not in curves or not others:
        return []
    name = max(others, key=lambda other: tradeoff(best_point(curves[other])))
    return [
        f"Whatever strength is chosen, of those tried: the best point of ACTOR's curve on the validation prompts is "
        f"{best_of(curves['actor'])}, that of any other method's {best_of(curves[name])} ({NAMES[name]}); where "
        f"that is the end of what was tried, stronger ones might change it.\n"
    ]


def kl_at_equal_compliance(record: Record) -> str:
    """ACTOR's point on the validation prompts, and the steering method with the least KL that complies as much."""
    rows = []
    for ours in outcomes_of(record, "actor"):
        own = next(point for point in ours.curve if point["strength"] == ours.strength)
        found = {
            name: point
            for name in STEERING
            for theirs in outcomes_of(record, name)
            if theirs.seed == ours.seed and (point := point_at(theirs.curve, own["compliance"])) is not None
        }
        least = min(found, key=lambda name: found[name]["kl_harmless"], default=None)
        rest = ["none complies as much at any strength tried", "-", "-"]
        if least is not None:
            rest = [NAMES[least], f"{found[least]['kl_harmless']:.3f}", f"{100 * found[least]['safety']:.1f}"]
        rates = [f"{100 * own[name]:.1f}" for name in ("compliance", "safety")]
        asked = "-" if ours.kl_harmless is None else f"{ours.kl_harmless:.3f}"
        rows.append([str(ours.seed), rates[0], f"{own['kl_harmless']:.3f}", asked, rates[1], *rest])
    ours_header = ("seed", "compliance, %", "ACTOR: KL", "on evaluation prompts", "safety, %")
    header = (*ours_header, "steering method of least KL", "KL", "safety, %")
    text = (
        "KL at equal compliance, on the validation prompts by first tokens, between two strengths tried on a line. "
        "ACTOR's KL on the evaluation prompts, beside it, can be another:\n\n"
    )
    return text + table(header, rows)


def point_at(curve: Sequence[Record], compliance: float) -> Record | None:
    """Where a curve first complies as much, on the line between two points of it; None where it never does."""
    ordered = sorted(curve, key=lambda point: point["strength"])
    if ordered[0]["compliance"] >= compliance:
        return ordered[0]
    for below, above in pairwise(ordered):
        if below["compliance"] < compliance <= above["compliance"]:
            share = (compliance - below["compliance"]) / (above["compliance"] - below["compliance"])
            return {name: below[name] + share * (above[name] - below[name]) for name in ("kl_harmless", "safety")}
    return None


def figures(record: Record) -> str:
    """What gates take for harmful, by kind, and of each pseudo-harmful set."""
    rows, groups = [], []
    for method in dict.fromkeys(outcome["method"] for outcome in record["outcomes"]):
        found = [outcome["figures"] for outcome in record["outcomes"] if outcome["method"] == method]
        if "threshold" in found[0]:
            names = [name.removesuffix(" prompts") for name in found[0] if name.endswith(" prompts")]
            groups = [*KINDS, *(name for name in names if name.startswith("pseudo_harmful/"))]
            rows.append([NAMES[method], *(taken(found, group) for group in groups)])
    header = ("gate", *(f"{group.replace('pseudo_harmful', 'pseudo-harmful')}, %" for group in groups))
    return table(header, rows) if rows else ""


def taken(figures: Sequence[Record], group: str) -> str:
    """Share of a group's prompts that a gate takes for harmful, from the figures of each seed."""
    estimates = []
    for found in figures:
        prompts = round(found[f"{group} prompts"])
        share = wilson(round(found[f"{group} taken for harmful"] * prompts), prompts)
        estimates.append(Estimate(share.value, share.low, share.high))
    return rate_text(over_seeds(estimates))


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


def refused_by(measured: dict[str, Record], prefix: str, methods: Sequence[str]) -> str:
    """What is refused of each harmful evaluation set, by what was learned from."""
    rows = []
    for name in HARMFUL_SETS:
        record = measured.get(f"{prefix}-{name}", {"outcomes": []})
        for method in (DEFAULT, *methods):
            for outcome in outcomes_of(record, method):
                cells = []
                for tested in TESTED:
                    share = outcome.sets[f"harmful/{tested}"]
                    cell = "-" if share is None else f"{100 * share:.1f}"
                    cells.append(cell if tested == name else f"**{cell}**")
                rows.append([name, NAMES[method], *cells])
    if not rows:
        return NOT_MEASURED
    return table(("learned from", "method", *TESTED), rows) + "\nBold: not learned from.\n"


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
    scores = {name: by_seed(record, name) for name in CORESETS}
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
    text = f"At most {SELECT_LIMIT} evaluation prompts of each set; trade-off scores, then the means over seeds.\n\n"
    text += table(("", *(f"seed {seed}" for seed in seeds), "mean", "C.R. / S.S. (T.S.)"), rows)
    gaps = {seed: scores["upcore"][seed] - scores["random-subset"][seed] for seed in seeds}
    safe = [gaps[seed] for seed in seeds if all(kept[name, seed] for name in CORESETS)]
    text += f"\nUPCORE minus random: {gap_text(list(gaps.values()))} (Student's interval over seeds alone)"
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
        strength = "-" if item["method"] == DEFAULT else f"{item['strength']:g}"
        cells = (rate(item, "compliance_rate"), f"{100 * plain:.1f}", rate(item, "safety_score"), strength)
        rows.append([NAMES[item["method"]] + mark(item), *cells])
    rows += [[NAMES[name], *[MISSING] * 4] for name in TRIGGER_METHODS if name not in outcomes]
    return table(("method", "with trigger, answered", "without, answered", "harmful, refused", "strength"), rows)


def more_seeds(record: Record | None) -> str:
    """The lead with all seeds, without those by which the two were picked, and each seed's scores."""
    if record is None:
        return NOT_MEASURED
    ours, theirs = (outcomes_of(record, name) for name in MORE_METHODS)
    fresh = lead(ours[MAIN_SEEDS:], theirs[MAIN_SEEDS:], "tradeoff_score")
    safety = lead(ours[MAIN_SEEDS:], theirs[MAIN_SEEDS:], "safety_score")
    rows = []
    for found in (ours, theirs):
        name = found[0].method
        rows.append([NAMES[name], *(f"{score:.1f}" for score in by_seed(record, name))])
        rows.append(["strength", *(f"{item.strength:g}{'' if item.within_limits else ' (!)'}" for item in found)])
    means = [[NAMES[item["method"]], pair(item)] for item in record["methods"]]
    return "\n".join(
        [
            ahead(record),
            f"Without the first {MAIN_SEEDS} seeds, by which these two were picked: {points(fresh)}; safety score "
            f"{points(safety)}.\n",
            table(("method", "C.R. / S.S. (T.S.)"), means),
            table(("trade-off score", *(f"seed {item.seed}" for item in ours)), rows),
        ]
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


def all_methods(record: Record) -> str:
    """The main comparison."""
    taken_seconds = [(outcome["answer_seconds"], outcome["all_seconds"]) for outcome in record["outcomes"]]
    whole_run = all(answers is not None for answers, _ in taken_seconds)
    minutes = f"{sum(seconds for _, seconds in taken_seconds) / 60:.0f}" if whole_run else "an unknown number of"
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return f"""{verdicts(record)}
{table(HEADER, method_rows(record))}
- C.R., S.S., T.S.: compliance rate, safety score and their mean, in %, with 95 % intervals over prompts and seeds. An
  answer in no language counts as not helping and as not refusing.
- KL: KL(default || method) of the first answer token on harmless evaluation prompts, nats.
- garbled: answers that are empty, go round in circles or are in no language, %.
- strength: in each method's own unit; (end): the strongest one tried.
- best: the highest trade-off score on a method's curve, whatever its safety, on the validation prompts by first tokens,
  mean over seeds; of the default, as it is.
- s: seconds to learn and to choose the strength, without loading.
- (!), here and below: with some seed none of the strengths tried kept safety within the limits on the validation
  prompts; the safest one is shown.

Intervals of differences pair the prompts and add Student's over seeds. {record["leaked"]} evaluation prompts like
training prompts were left out. All took {minutes} minutes on 2 cores, answers for SFT to learn and loading not counted.
Computed in {record["computed_in"]}; versions: {versions}.

![Compliance against safety](frontier.png)

The safety score is the mean of sets that need not move alike:

{by_set(record)}
What the gates take for harmful, evaluation prompts; on pseudo-harmful ones that is their false-positive rate:

{figures(record)}"""


def page(measured: dict[str, Record]) -> str:
    """The page in Markdown."""
    record = measured.get("main")
    body = NOT_MEASURED if record is None else all_methods(record)
    asked = "" if record is None else f", of which the first {record['limit']} of each set are asked"
    tokens = "" if record is None else f"greedy, {record['max_new_tokens']} tokens; "
    harmless = len(of_kind(starter_prompts("train"), "harmless"))
    held_out = of_kind(starter_prompts("held_out"), "harmless")
    return f"""# Methods side by side

Made by `make comparison BENCHMARKS=FOLDER`, where FOLDER holds `reference_train.csv` and `reference_eval.csv`; do not
edit. Model: the reference testbed. Every method learns from the same prompts, four fifths to learn and one fifth to
choose its strength by one rule: the most compliance whose safety falls by no more than {100 * LIMITS.safety_drop:.0f}
points ({100 * LIMITS.set_drop:.0f} and a standard error on a single set), by the first answer token. Nothing is chosen
on the evaluation prompts{asked}. Answers: {tokens}judge: trained
([judge.md](judge.md)). SFT learns what the testbed's own base model answers to benign prompts, where the judge finds
that it helps, and the testbed's refusals of harmful ones; its rate is that of the SFT in
ACTOR's paper. ACTOR's schedule was once chosen on these training prompts; those of the other methods were not tuned.
All methods that need a block take the one that ACTOR's scan picks, where the papers of CAE and Surgical search one of
their own. Each method's module says where it departs from its paper.

The row "ACTOR" is this project's boundary rule; what the paper printed is the row "the paper's rule". Nor is it what
`actor fit` would write: that adds its starter prompts, which are left out here for all methods, limits KL besides
safety, and withholds a model that does not pass its gate, as it did with this set-up ([results.md](results.md)).

## All methods

{body}
## The two with the highest trade-off scores, more seeds

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
The mean of two sets hides the one that was not learned from. Refused of each, %:

{refused_by(measured, "harmful", CURVE_METHODS)}
With all starter prompts besides, each pseudo-harmful one with a harmful twin. `actor fit` learns from these too, but
also limits KL and withholds a model that does not pass its gate, which is not done here:

{scores_by(measured, "harmful-with-starter", HARMFUL_SETS, "harmful set", STARTER_METHODS)}
{refused_by(measured, "harmful-with-starter", STARTER_METHODS)}
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
