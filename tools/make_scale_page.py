"""Make docs/scale.md: what models at scale need, by the cost model of `fit`, and what breaks first.

    python -m tools.make_scale_page --output docs/scale.md

Nothing is run: sizes come from configs, the growth with prompts from docs/performance.md, and what a study asks of its
storage from docs/scale/study.json (`make study`). Seconds are work over the rates below, which nobody measured.
"""

import argparse
import csv
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import actor_tune as at
from actor_tune.engines.engine import ANSWER_TOKENS
from actor_tune.engines.local import AUTO_BATCH_SIZE
from actor_tune.judges.trained.judge import judge_trained
from actor_tune.judges.verdict import Exchange
from actor_tune.measurement.damage import KL_PROMPTS
from actor_tune.measurement.gate import FLIPS, needed, pass_probability
from actor_tune.models.machine import Memory
from actor_tune.models.placement import Placement
from actor_tune.models.speed import Rates
from actor_tune.prompts.leakage import CHUNK, traces
from actor_tune.prompts.prompt import KINDS, Prompt, of_kind
from actor_tune.records.estimate import wilson
from actor_tune.records.file import row_json
from actor_tune.records.request import TRIALS, FitRequest, TuneRequest
from actor_tune.records.response import Response, response_row
from actor_tune.repair.cost import Cost, Phase, Speed, Texts
from actor_tune.repair.gate import gate_prompts
from actor_tune.repair.preflight import Preflight, preflight
from actor_tune.repair.rules import RuleName
from actor_tune.tuning.bench import ASKED
from actor_tune.tuning.space import BLOCKS
from actor_tune.tuning.study import ASKED_SHARE, LEARNING, RANDOM, WAIT
from benchmarks.random_models import SHAPES, byte_tokenizer, llama_config

from .make_limits_page import DOCS, passage
from .pages import render, table

STUDY = DOCS / "scale" / "study.json"

MODELS = {"8B": "llama-3-8b", "70B": "llama-3-70b", "405B": "llama-3-405b"}

# Assumptions about a node; the page names each.
DEVICES, DEVICE_BYTES, RAM_BYTES = 8, 80e9, 1e12
BF16_FLOPS, FLOAT32_FLOPS, BANDWIDTH, SHARE = 990e12, 67e12, 3.35e12, 0.4
"""What a device does a second at best, and the share of it that is reached; bytes that it reads from its memory."""

DISK = 5e9

SPREAD, STREAMED = f"`--device-map auto`, {DEVICES} GPUs", "`--offload stream`, one GPU"

WAYS = {
    "one GPU": (Placement("cuda", "bfloat16"), False),
    SPREAD: (Placement("cuda", "bfloat16", device_map="auto"), True),
    STREAMED: (Placement("cuda", "bfloat16", offload="stream"), False),
    "`--quantization bnb_4bit`, one GPU": (Placement("cuda", "bfloat16", quantization="bnb_4bit"), False),
    f"both of `bnb_4bit` and `auto`, {DEVICES} GPUs": (
        Placement("cuda", "bfloat16", device_map="auto", quantization="bnb_4bit"),
        True,
    ),
}

MILLION = 1_000_000
COUNTS = (10_000, 100_000, MILLION)
WORKERS, PROCESSES_A_NODE, STUDY_TRIALS = 64, 8, 1024


@dataclass(frozen=True)
class Placed:
    """A fit of `model`, placed in one `way`, by the cost model.

    - `spread`: over all devices; the trained block, and what is made of prompts, are taken to be on one of them.
    """

    model: str
    way: str
    need: Preflight
    spread: bool

    @property
    def heaviest(self) -> Phase:
        """The phase that needs most of a device."""
        return max(self.need.phases, key=self.on_one)

    def on_one(self, phase: Phase) -> float:
        """Bytes of `phase` on the device that has most."""
        cost = self.need.cost
        weights = cost.weights(cost.every, cost.every, head=True)
        beside = phase.memory.device - weights
        return weights / DEVICES + beside if self.spread else phase.memory.device

    @property
    def fits(self) -> bool:
        """Whether the heaviest phase fits into a device."""
        return self.on_one(self.heaviest) <= DEVICE_BYTES

    @property
    def ram(self) -> int:
        """Bytes in RAM at most."""
        return max(phase.memory.ram for phase in self.need.phases)

    @property
    def read(self) -> float:
        """Bytes from disk, besides loading."""
        return sum(phase.work.read for phase in self.need.phases)

    @property
    def seconds(self) -> dict[str, float]:
        """By phase, at the assumed rates. One device of several computes at a time."""
        rate = speed(self.need.cost)
        return {phase.name: rate.seconds(phase.work) for phase in self.need.phases}

    @property
    def gpu_hours(self) -> float:
        """Of all devices that are held."""
        return sum(self.seconds.values()) * (DEVICES if self.spread else 1) / 3600


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.parse_args().output.write_text(page(), encoding="utf-8")


def page() -> str:
    """The whole page."""
    told: dict[str, Any] = {name: value for name, value in globals().items() if name.isupper()}
    told |= {"at": at, "FLIPS": FLIPS, "KL_PROMPTS": KL_PROMPTS, "CHUNK": CHUNK, "WAIT": WAIT}
    told |= {"placed": all_placed(), "prompts": with_prompts(), "study": of_study(), "nightly": of_nights()}
    told |= {"computing": computing_hours("405B"), "least": with_least("405B")}
    return render("scale", told, gb, hours, whole, table)


def speed(cost: Cost) -> Speed:
    """The assumed rates. A step of answers reads the weights once for all that are answered together."""

    def bounded(flops: float, rows: int, value: int) -> Rates:
        return Rates(SHARE * flops, SHARE * min(flops, 2 * rows * BANDWIDTH / value))

    training = bounded(FLOAT32_FLOPS, cost.rule.schedule.batch_size, 4)
    return Speed(bounded(BF16_FLOPS, cost.answer_batch, cost.value), training, DISK)


@cache
def planned(model: str) -> Cost:
    """What a fit of `model` on the starter prompts rests on, wherever it is placed: from a config and a tokenizer."""
    with tempfile.TemporaryDirectory() as folder:
        llama_config(SHAPES[MODELS[model]]).save_pretrained(folder)
        byte_tokenizer().save_pretrained(folder)
        cost = preflight(folder, at.starter("train"), placement=Placement("cpu", "bfloat16")).cost
    return replace(cost, answer_batch=AUTO_BATCH_SIZE)  # whatever is free on the machine that makes this page


def placed(model: str, way: str) -> Placed:
    """`model` in one of `WAYS`, with as many answers at a time as fit."""
    placement, spread = WAYS[way]
    need = Preflight(model, replace(planned(model), placement=placement), Memory(int(DEVICE_BYTES), int(RAM_BYTES)))
    return Placed(model, way, need if spread else need.with_fewer_answers(), spread)


def computing_hours(model: str) -> float:
    """GPU-hours of a fit's work, were there nothing to read."""
    rate = speed(planned(model))
    phases = placed(model, STREAMED).need.phases
    return sum(rate.seconds(replace(phase.work, read=0)) for phase in phases) / 3600


def with_least(model: str) -> Placed:
    """`model` streamed, with its block and `boundary` named, and the fewest gate prompts that the margin takes."""
    cost = planned(model)
    asked = gate_prompts(at.starter("train"), at.MARGIN, count=needed(at.MARGIN))
    fewer = replace(cost.gate, prompts=len(asked), tokens=cost.gate.tokens * len(asked) // cost.gate.prompts)
    rule = at.Settings(rule="boundary").foreseen
    cost = replace(cost, placement=WAYS[STREAMED][0], gate=fewer, rule=rule, scanned=False)
    return Placed(model, STREAMED, Preflight(model, cost, Memory(int(DEVICE_BYTES), int(RAM_BYTES))), False)


def all_placed() -> dict[str, dict[str, Placed]]:
    """By model and way."""
    return {model: {way: placed(model, way) for way in WAYS} for model in MODELS}


def with_prompts() -> dict[str, Any]:
    """What grows with prompts, of training and of measuring."""
    train, validation, tokens = (
        int(passage(rf"(\d+) {what}", "performance")) for what in ("training and", "validation prompts", "tokens")
    )
    mean = tokens / (train + validation)
    answers = bytes_of_answers()
    return {
        "tokens": mean,
        "fits": {model: {count: many(model, count, mean) for count in COUNTS} for model in MODELS},
        "most": {(model, rule): most_prompts(model, rule, mean) for model in ("8B", "70B") for rule in RULES},
        "answer_bytes": sum(answers) / len(answers),
        "answers": len(answers),
        "trace_bytes": sum(len(each.grams) for each in traces(at.starter("train"))) / len(at.starter("train")),
        "widths": {count: 100 * (wilson(count // 2, count).high - 0.5) for count in (400, *COUNTS)},
        "measuring": {model: answering(model, MILLION, mean) for model in MODELS},
        "slope": passage(r"^- prompts: ([\d.]+) s", "performance"),
        "exponent": passage(r"^- prompts: .+? exponents ([\d.]+) and", "performance"),
    }


RULES: tuple[RuleName, ...] = ("odds", "boundary")


def many(model: str, count: int, mean: float, rule: RuleName = "odds") -> Placed:
    """A fit of `model` on one device and `count` prompts of `mean` tokens."""
    cost = planned(model)
    placement = Placement("cuda", "bfloat16", offload="none" if model == "8B" else "stream")
    share = cost.validation_prompts / cost.given.prompts
    cost = replace(
        cost,
        placement=placement,
        given=Texts(count, round(count * mean), cost.given.longest),
        validation_prompts=round(count * share),
        rule=at.Settings(rule=rule).foreseen,
    )
    return Placed(model, rule, Preflight(model, cost, Memory(int(DEVICE_BYTES), int(RAM_BYTES))), False)


def most_prompts(model: str, rule: RuleName, mean: float) -> int:
    """How many prompts fit, by the cost model, to a hundred."""
    low, high = 0, 100 * MILLION
    while high - low > 100:
        middle = (low + high) // 2
        low, high = (middle, high) if many(model, middle, mean, rule).need.lack is None else (low, middle)
    return low // 100 * 100


def answering(model: str, count: int, mean: float) -> float:
    """GPU-seconds of answers to `count` prompts, `AUTO_BATCH_SIZE` at a time."""
    cost = planned(model)
    return speed(cost).seconds(cost.answering(count, count * mean, ANSWER_TOKENS))


def bytes_of_answers() -> list[int]:
    """Of rows of responses.jsonl with answers that the judge was trained on, every twentieth."""
    file = Path(__file__).parent / "judge_training.csv"
    rows = list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))[::20]
    verdicts = judge_trained([Exchange(row["prompt"], row["answer"]) for row in rows])
    told = (
        response_row(Response(Prompt(row["prompt"], "pseudo_harmful", "prompts"), row["answer"], True), verdict)
        for row, verdict in zip(rows, verdicts, strict=True)
    )
    return [len(json.dumps(row_json(each), ensure_ascii=False).encode()) + 1 for each in told]


def of_nights() -> dict[str, Any]:
    """What a night costs, and how often chance alone stops it."""
    held_out = at.starter("held_out")
    harmful = len(of_kind(held_out, "harmful"))
    stopped = [365 * (1 - pass_probability(n, at.MARGIN, FLIPS / 2, FLIPS / 2)) for n in (harmful, needed(at.MARGIN))]
    return {
        "fit": [each.name for each in fields(FitRequest)],
        "tune": [each.name for each in fields(TuneRequest)],
        "harmful": harmful,
        "needed": needed(at.MARGIN),
        "alarms": stopped,
        "hours": {model: night(model) for model in ("8B", "70B")},
    }


def night(model: str) -> dict[str, float | None]:
    """GPU-hours by what is done, on one device or spread over all; a process that tunes has one device."""
    one, cost, held_out = placed(model, "one GPU"), planned(model), at.starter("held_out")
    fitting = (one if one.fits else placed(model, SPREAD)).gpu_hours
    measuring = answering(model, len(held_out), cost.mean_tokens) * (1 if one.fits else DEVICES) / 3600
    preparing, _, asked = trial_seconds(model)
    return {"fit": fitting, "measure": measuring, "tune": (preparing + TRIALS * asked) / 3600 if one.fits else None}


def trial_seconds(model: str) -> tuple[float, float, float]:
    """Of preparing a process to work on a study, of a trial that is given up, and of one that is asked for answers."""
    cost = replace(planned(model), own_answers=len(KINDS) * ASKED, placement=Placement("cuda", "bfloat16"))
    seconds = Placed(model, "", Preflight(model, cost, Memory(0, 0)), False).seconds
    preparing = sum(seconds[name] for name in ("own answers", "choose block", "run blocks below"))
    asked = speed(cost).seconds(cost.own_answering)
    first = (seconds["choose strength"] - asked) / len(cost.rule.strengths)
    return preparing, seconds["train"] + first, seconds["train"] + first + asked


def of_study() -> dict[str, Any]:
    """A study of many processes at once, by what was counted on a real PostgreSQL."""
    counted = json.loads(STUDY.read_text(encoding="utf-8"))
    return counted | {
        "inputs": BLOCKS * planned("8B").kept(),
        "seconds": trial_seconds("8B"),
        "random": WORKERS + RANDOM - 1,
        "rows": [*running()],
    }


def running() -> Iterator[dict[str, float]]:
    """A study of `STUDY_TRIALS` by some numbers of processes: hours, GPU-hours, trials by chance."""
    preparing, given_up, asked = trial_seconds("8B")
    load = planned("8B").size.parameters * 2 / DISK
    for workers in (1, PROCESSES_A_NODE, WORKERS):
        blind = workers + LEARNING - 1  # begun before so many had ended that one is given up
        rest = STUDY_TRIALS - blind
        work = blind * asked + rest * (ASKED_SHARE * asked + (1 - ASKED_SHARE) * given_up)
        first = load + preparing
        yield {
            "workers": workers,
            "random": workers + RANDOM - 1,
            "hours": (first + work / workers) / 3600,
            "gpu_hours": (workers * first + work) / 3600,
            "preparing": workers * first / (workers * first + work),
            "a_second": workers * STUDY_TRIALS / work,
        }


def gb(amount: float, digits: int = 1) -> str:
    """Bytes in units of a thousand."""
    unit, size = next((unit, size) for unit, size in UNITS if amount >= size or size == 1)
    return f"{amount / size:.{digits}f} {unit}" if size > 1 else f"{amount:.0f} {unit}"


UNITS = [(name, 10**power) for name, power in (("TB", 12), ("GB", 9), ("MB", 6), ("kB", 3), ("bytes", 0))]


def hours(seconds: float) -> str:
    """Seconds, minutes or hours, as people say them."""
    unit, size = next(
        (unit, size) for unit, size in (("h", 3600), ("min", 60), ("s", 1)) if seconds >= size or size == 1
    )
    return f"{seconds / size:.1f} {unit}"


def whole(number: float) -> str:
    """Without a part, thousands apart."""
    return f"{number:,.0f}"


if __name__ == "__main__":
    main()
