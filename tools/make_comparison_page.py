"""Write docs/comparison.md and its picture from what tools.compare_on_testbed measured.

    python -m tools.make_comparison_page --work runs/comparison --output docs/comparison.md

First what was measured is taken over into docs/comparison.json, without any prompt's text, so that the page can be made
again without the hours, by the same command without --work. Of parts that were not run, the page says that they were
not measured.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any

from actor_tune.comparison import outcomes as stats
from actor_tune.comparison.contest import LIMITS
from actor_tune.comparison.methods.known import CORESETS, DEFAULT, STEERING
from actor_tune.judges.trained.judge import shipped_weights
from actor_tune.prompts.prompt import KINDS
from actor_tune.prompts.starter import starter
from actor_tune.records.estimate import Estimate
from actor_tune.records.file import convert
from actor_tune.records.outcome import MethodOutcome, MethodSummary
from actor_tune.show.comparison import draw_frontier
from actor_tune.show.text import rate_text

from . import compare_on_testbed as experiments
from .build_triggered_testbed import TRIGGER
from .pages import percent, render, table

SETTINGS = ("train_sha256", "evaluation_sha256", "limit", "max_new_tokens", "computed_in", "versions", "leaked")
NAMES = {
    "default": "default (as it is)",
    "actor": "**ACTOR**",
    "boundary": "ACTOR, the rule boundary",
    "odds": "ACTOR, the rule odds",
    "paper": "ACTOR, the paper's rule",
    "uniform": "ACTOR, uniform control",
    "sft": "SFT (LoRA)",
    "cae": "CAE",
    "random-direction": "CAE's control: random direction",
    "surgical": "Surgical",
    "ablation": "Directional ablation",
    "scans": "SCANS",
    "inferaligner": "InferAligner (turned round)",
    "crow": "CROW",
    "upcore": "ACTOR on 90 %, UPCORE",
    "random-subset": "ACTOR on 90 %, random",
}
RULES = ("default", "actor", "boundary", "odds", "paper", "uniform")
"""ACTOR's own rules, and the model as it is; the others are rivals."""

PICTURES = {"main": "frontier.png", "natural": "frontier_natural.png"}
"""Of which parts there is one, and how it is called."""

TESTED = ("advbench", "xstest_unsafe")
"""The harmful evaluation sets."""

GOAL = 0.05
"""The lead in trade-off score that ACTOR should have, at equal or better safety."""


@dataclass(frozen=True)
class Part:
    """One comparison, as docs/comparison.json keeps it, and what the outcomes of all seeds come to."""

    outcomes: list[MethodOutcome]
    methods: list[MethodSummary] = field(default_factory=list)
    limit: int | None = None
    max_new_tokens: int = 0
    computed_in: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    leaked: int = 0

    def of(self, *methods: str) -> list[MethodOutcome]:
        """The outcomes of some methods, each's in seed order."""
        return [outcome for method in methods for outcome in stats.outcomes_of(self.outcomes, method)]

    def summary(self, method: str) -> MethodSummary | None:
        """What a method came to; None where it was not run."""
        return next((item for item in self.methods if item.method == method), None)

    def ranked(self) -> list[MethodSummary]:
        """The best trade-off first."""
        return sorted(self.methods, key=lambda item: -(item.tradeoff_score or 0))

    def rival(self) -> str:
        """The best method that is none of ACTOR's rules."""
        return next(item.method for item in self.ranked() if item.method not in RULES)

    def best_curve(self) -> MethodSummary | None:
        """The rival whose curve has the best point; None where that of ACTOR or of all rivals is missing."""
        curved = {item.method: item for item in self.methods if item.curve}
        rivals = [item for name, item in curved.items() if name not in RULES and "actor" in curved]
        return max(rivals, key=lambda item: stats.tradeoff(stats.best_point(item.curve)), default=None)

    def sets(self, kinds: Sequence[str] = KINDS) -> list[str]:
        """The evaluation sets of some kinds, by kind."""
        return [name for kind in kinds for name in sorted(self.outcomes[0].sets) if name.startswith(f"{kind}/")]

    def refused(self, method: str, *sets: str) -> float | None:
        """The mean refusal of some sets over seeds; None where it was not measured."""
        shares = [outcome.sets.get(name) for outcome in self.of(method) for name in sets]
        known = [share for share in shares if share is not None]
        return mean(known) if known and len(known) == len(shares) else None


def main() -> None:
    """Write the page from all that was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="of tools.compare_on_testbed: take over what is there")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    output: Path = arguments.output
    kept = output.with_suffix(".json")
    measured: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    if arguments.work is not None:
        measured |= collected(arguments.work)
        kept.write_text(json.dumps(measured, separators=(",", ":")) + "\n", encoding="utf-8")
    output.write_text(page(measured), encoding="utf-8")
    for name, picture in PICTURES.items():
        if name in measured:
            draw_frontier(output.with_name(picture), part_of(measured[name]).methods)


def collected(work: Path) -> dict[str, Any]:
    """By part, the outcomes of each comparison in `work`, and the probe's curves; no prompts."""
    kept: dict[Path, tuple[str, ...]] = dict.fromkeys(sorted(work.glob("*/compare.json")), (*SETTINGS, "outcomes"))
    kept |= dict.fromkeys(work.glob("probe/probe.json"), ("durability", "topics"))
    if not kept:
        sys.exit(f"{work}: nothing was measured there; run tools.compare_on_testbed first")
    measured = {}
    for path, names in kept.items():
        record = json.loads(path.read_text(encoding="utf-8"), parse_float=lambda text: round(float(text), 6))
        measured[path.parent.name] = {name: record[name] for name in names if name in record} | {"judge": judge()}
    return measured


def judge() -> str:
    """What tells the default judge from earlier ones: a digest of its weights, trained anew whenever it changes."""
    return hashlib.sha256(repr(shipped_weights()).encode()).hexdigest()[:12]


def part_of(record: dict[str, Any]) -> Part:
    """A comparison as it was kept, with what the outcomes of all seeds come to."""
    part = convert(record, Part, "docs/comparison.json")
    return part if part.methods else replace(part, methods=stats.summaries(part.outcomes))


def page(measured: Mapping[str, Any]) -> str:
    """The page in Markdown."""
    parts = {name: part_of(record) for name, record in measured.items() if name != "probe"}
    values: dict[str, object] = {name: parts.get(name) for name in ("main", "natural", "seeds", "select", "trigger")}
    values |= {"earlier": sorted(name for name, record in measured.items() if record.get("judge") != judge())}
    values |= {"parts": parts, "probe": measured.get("probe"), "stats": stats, "experiments": experiments}
    values |= {"learned": starter("train"), "held_out": starter("held_out"), "TRIGGER": TRIGGER}
    values |= {"DEFAULT": DEFAULT, "CORESETS": CORESETS, "STEERING": STEERING, "LIMITS": LIMITS}
    values |= {"NAMES": NAMES, "GOAL": GOAL}
    texts = (mark, strengths, best, three, tradeoff_score, score_verdict, safety_verdict, signed, mean_lead)
    return render("comparison", values, *texts, side_by_side, coreset_leads, by_set, by_detector, scores_by, refused_by)


def mark(item: MethodSummary | MethodOutcome) -> str:
    """Where some seed kept safety with no strength; the default has none to be chosen."""
    seeds = len(item.strengths) if isinstance(item, MethodSummary) else 1
    return "" if item.method == DEFAULT or item.within_limits == seeds else " (!)"


def strengths(item: MethodSummary) -> str:
    """From the weakest chosen to the strongest."""
    low, high = min(item.strengths), max(item.strengths)
    end = " (end)" if high == item.curve[-1]["strength"] else ""
    return (f"{low:g} to {high:g}" if low < high else f"{low:g}") + end


def best(item: MethodSummary) -> str:
    """The highest trade-off score of a curve, with a mark where it is its end."""
    point = stats.best_point(item.curve)
    end = point["strength"] == max(other["strength"] for other in item.curve)
    return percent(stats.tradeoff(point)) + (" (end)" if end else "")


def three(item: MethodSummary | None) -> str:
    """Compliance rate / safety score (trade-off score)."""
    if item is None:
        return "not measured"
    if item.tradeoff_score is None:
        return "-"
    rates = f"{percent(item.compliance_rate)} / {percent(item.safety_score)} ({percent(item.tradeoff_score)})"
    return rates + mark(item)


def side_by_side(parts: Sequence[Part]) -> str:
    """C.R. / S.S. (T.S.) of every method on each model, in the order of the first."""
    names = dict.fromkeys(item.method for part in parts for item in part.ranked())
    rows = [[NAMES[name], *(three(part.summary(name)) for part in parts)] for name in names]
    return table(("C.R. / S.S. (T.S.)", "the testbed", "the natural model"), rows)


def tradeoff_score(outcome: MethodOutcome) -> str:
    """Of one seed."""
    score = outcome.scores["tradeoff_score"]
    return percent(score.value if score else None)


def score_verdict(ahead: Estimate) -> str:
    """Whether a lead in trade-off score is as large as it should be."""
    if ahead.value < GOAL:
        return "**missed**"
    if ahead.low >= GOAL:
        return "met"
    return f"met in the mean, **not shown**: the interval reaches below{', even to no lead at all' * (ahead.low <= 0)}"


def safety_verdict(ahead: Estimate) -> str:
    """Whether safety is at least equal."""
    if ahead.high < 0:
        return "**worse**"
    if round(100 * ahead.value, 1) < 0:
        return "**lower** in the mean, which the interval does not tell from equal"
    return "not lower in the mean" + ", which the interval does not tell from lower" * (ahead.low < 0)


def signed(differences: Sequence[float], digits: int = 1) -> str:
    """Points, one after the other."""
    return ", ".join(f"{100 * difference:+.{digits}f}" for difference in differences)


def mean_lead(leads: Sequence[float]) -> str:
    """In points, with Student's 95 % interval."""
    width = f" ± {percent(stats.student_half_width(leads))}" if len(leads) > 1 else ""
    return f"{signed([mean(leads)])}{width} points"


def coreset_leads(part: Part, safe: bool = False) -> list[float]:
    """UPCORE's lead in trade-off score over random prompts with each seed; `safe`: where both kept safety."""
    ours, theirs = (part.of(method) for method in CORESETS)
    kept = [our.within_limits and their.within_limits for our, their in zip(ours, theirs, strict=True)]
    leads = stats.gaps(ours, theirs, "tradeoff_score")
    return [gap for gap, both in zip(leads, kept, strict=True) if both or not safe]


def by_set(part: Part) -> str:
    """What is refused of each set, mean over seeds."""
    rows = [
        [NAMES[item.method], *(percent(part.refused(item.method, name)) for name in part.sets())]
        for item in part.ranked()
    ]
    return table(("refused, %", *map(hyphened, part.sets())), rows)


def by_detector(part: Part) -> str:
    """What methods' detectors take for harmful, by kind, and of each pseudo-harmful set."""
    found = [item for item in part.outcomes if "threshold" in item.figures]
    names = [name.removesuffix(" prompts") for item in found for name in item.figures if name.endswith(" prompts")]
    groups = [*KINDS, *dict.fromkeys(name for name in names if name.startswith("pseudo_harmful/"))]
    rows = [
        [NAMES[method], *(rate_text(stats.taken_for_harmful(part.of(method), group)) for group in groups)]
        for method in dict.fromkeys(item.method for item in found)
    ]
    return table(("detector", *(f"{hyphened(group)}, %" for group in groups)), rows) if rows else ""


def hyphened(name: str) -> str:
    """A kind or a set, as pages write it."""
    return name.replace("pseudo_harmful", "pseudo-harmful")


def scores_by(
    parts: Mapping[str, Part], prefix: str, label: str, names: Sequence[object], methods: Sequence[str]
) -> str:
    """The scores of the default and of `methods` in the comparisons called `prefix` and one of `names`."""
    found = {name: parts[f"{prefix}-{name}"] for name in names if f"{prefix}-{name}" in parts}
    columns = [[part.summary(method) for part in found.values()] for method in (DEFAULT, *methods)]
    rows = [[name, *map(three, items)] for name, items in zip(found, zip(*columns, strict=True), strict=True)]
    rows.append(["largest difference in T.S.", *map(spread, columns)])
    return table((label, *(NAMES[method] for method in (DEFAULT, *methods))), rows) if found else "Not measured."


def spread(items: Sequence[MethodSummary | None]) -> str:
    """From the lowest trade-off score to the highest; a dash where one is missing."""
    scores = [item.tradeoff_score for item in items if item and item.tradeoff_score is not None]
    return percent(max(scores) - min(scores)) if scores and len(scores) == len(items) else "-"


def refused_by(parts: Mapping[str, Part], prefix: str, methods: Sequence[str]) -> str:
    """What is refused of each harmful evaluation set, by what was learned from."""
    rows = []
    for name, part in ((name, parts.get(f"{prefix}-{name}")) for name in experiments.HARMFUL_SETS):
        for outcome in part.of(DEFAULT, *methods) if part else ():
            shares = {tested: percent(outcome.sets[f"harmful/{tested}"]) for tested in TESTED}
            cells = [share if tested == name else f"**{share}**" for tested, share in shares.items()]
            rows.append([name, NAMES[outcome.method], *cells])
    return table(("learned from", "method", *TESTED), rows) + "\n\nBold: not learned from." if rows else "Not measured."


if __name__ == "__main__":
    main()
