"""Write docs/performance.md from what the programs in benchmarks/ reported.

    python tools/make_performance_page.py --bench runs/bench --output docs/performance.md

The folder has a file NAME.json for each, with a line of JSON a run; the last one counts. What was not run is said to be
not measured, and a goal that was missed is said to be missed.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Record = dict[str, Any]

NAMES = ("fit", "memory", "measure", "scale", "gpu")
NOT_MEASURED = "not measured"
GIB = 2**30

MOST_FORWARD_PASSES = 1.5
LEAST_SPEEDUP = 15.0
LEAST_MEASURE_SPEEDUP = 1.3
LEAST_LINEAR, MOST_EXPONENT = 0.99, 1.1
"""R squared of a straight line, and the exponent: a parabola too comes near a line through points decades apart."""

SERIES = ("prompts", "depth")


@dataclass(frozen=True)
class Goal:
    """A goal, and how it went. `met` is None where nothing was measured."""

    what: str
    measured: str
    met: bool | None

    def row(self) -> list[str]:
        """A line of the table of goals."""
        return [self.what, self.measured, {True: "met", False: "**missed**", None: "-"}[self.met]]


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", type=Path, required=True, help="folder with fit.json, memory.json, ...")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    records = {name: last_record(arguments.bench / f"{name}.json") for name in NAMES}
    arguments.output.write_text(page(records), encoding="utf-8")


def last_record(file: Path) -> Record | None:
    """What the last run wrote, or None."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return json.loads(lines[-1]) if lines else None


def page(records: dict[str, Record | None]) -> str:
    """The page in Markdown."""
    everything = goals(records)
    missed = [f"- {goal.what}: {goal.measured}." for goal in everything if goal.met is False]
    sections = {
        "Fit": ("fit", fit_section),
        "Memory": ("memory", memory_section),
        "Answering": ("measure", measure_section),
        "Growth": ("scale", scale_section),
        "GPU": ("gpu", gpu_section),
    }
    parts = [
        "# Performance\n\nMade by `make bench BENCHMARKS=FOLDER`, and `benchmarks/bench_gpu.py` where there is a GPU; "
        "do not edit. All ratios are of one run.",
        "## Goals\n\n" + table(["goal", "measured", ""], [goal.row() for goal in everything]),
        "Missed:\n\n" + "\n".join(missed) if missed else "No goal that was measured was missed.",
    ]
    for title, (name, section) in sections.items():
        record = records[name]
        text = f"{section(record)}\n\n{setting(record)}" if record else f"{NOT_MEASURED.capitalize()}."
        parts.append(f"## {title}\n\n{text}")
    return "\n\n".join(parts) + "\n"


def goals(records: dict[str, Record | None]) -> list[Goal]:
    """Every goal."""
    fit, memory, measure, scale = (records[name] for name in ("fit", "memory", "measure", "scale"))
    return [
        at_most("`fit` takes at most 1.5 forward passes over its prompts", fit, "forward_passes", MOST_FORWARD_PASSES),
        at_least("`fit` is at least 15 times as fast as the plain loop", fit, "speedup_vs_plain_loop", LEAST_SPEEDUP),
        at_least("`fit` is at least 15 times as fast as fine-tuning", fit, "speedup_vs_sft", LEAST_SPEEDUP),
        memory_goal("`--offload stream` fits a 7 B model in at most 5 GiB", memory, "stream"),
        below_goal("blocks 0..l are loaded and run in (l + 1) / L of the weights, and 2 GiB", memory),
        at_least(
            "`measure` answers at least 1.3 times as fast as `generate`",
            measure,
            "speedup_vs_best_fixed",
            LEAST_MEASURE_SPEEDUP,
        ),
        *(linear_goal(f"time grows linearly with {series}", scale, series) for series in SERIES),
    ]


def at_most(what: str, record: Record | None, key: str, limit: float) -> Goal:
    """A goal that a figure of `record` shall not exceed."""
    return Goal(what, f"{record[key]:.2f}", record[key] <= limit) if record else Goal(what, NOT_MEASURED, None)


def at_least(what: str, record: Record | None, key: str, limit: float) -> Goal:
    """A goal that a figure of `record` shall reach."""
    return Goal(what, f"{record[key]:.1f}", record[key] >= limit) if record else Goal(what, NOT_MEASURED, None)


def below_goal(what: str, record: Record | None) -> Goal:
    """A goal for the peak until block l is trained; its training takes the same with all weights in memory or few."""
    if record is None:
        return Goal(what, NOT_MEASURED, None)
    phases = record["below"]["phases"]
    peak = max(phase["peak_rss_bytes"] for name, phase in phases.items() if name != "train")
    limit = record["goal_bytes"]["below"]
    return Goal(what, f"{gib(peak)} of {gib(limit)}", peak <= limit)


def memory_goal(what: str, record: Record | None, part: str) -> Goal:
    """A goal for the peak of one part."""
    if record is None:
        return Goal(what, NOT_MEASURED, None)
    peak, limit = record[part]["peak_rss_bytes"], record["goal_bytes"][part]
    return Goal(what, f"{gib(peak)} (goal {gib(limit)}, {record['shape']['name']})", peak <= limit)


def linear_goal(what: str, record: Record | None, series: str) -> Goal:
    """A goal for one series: that it is linear."""
    if record is None or record[series] is None:
        return Goal(what, NOT_MEASURED, None)
    lines = record[series]["seconds"]
    r2, exponent = lines["linear"]["r2"], lines["log_log"]["slope"]
    points = len(record[series]["points"])
    return Goal(
        what,
        f"R² {r2:.4f} over {points} points, exponent {exponent:.2f}",
        r2 >= LEAST_LINEAR and exponent <= MOST_EXPONENT,
    )


def fit_section(record: Record) -> str:
    """Seconds of everything that `bench_fit.py` timed."""
    prompts, seconds = record["prompts"], record["fit"]["seconds"]
    model, loops, sft = record["model"], record["plain_loop"], record["sft"]
    rows = [["`fit`", f"{seconds:.1f}", "-", "whole, without loading, gate and writing"]]
    rows += [[f"- {name}", f"{value:.1f}", "-", ""] for name, value in record["fit"]["stages"].items()]
    forward = record["forward_pass"]
    rows.append(times("one forward pass", forward["seconds"], seconds, f"batches of {forward['batch_size']}"))
    for name, loop in loops.items():
        how = f"{loop['epochs']} epochs of {loop['seconds_per_epoch']:.1f} s, of which {loop['epochs_timed']} timed"
        rows.append(times(f"plain loop, {name.replace('_', ' ')}", loop["seconds"], seconds, how))
    for way in ("full", "lora"):
        part = sft[way]
        how = f"{sft['steps']} steps of {part['seconds_per_step']:.2f} s, of which {part['steps_timed']} timed"
        rows.append(times(f"fine-tuning, {way}", part["seconds"], seconds, how))
    likes = [f"speedup_vs_plain_loop{ending}_like_for_like" for ending in ("", "_batched")]
    headless = [f"speedup_vs_plain_loop{ending}_without_head" for ending in ("", "_batched")]
    return f"""`benchmarks/bench_fit.py`: {model["name"]}, {model["parameters"] / 1e6:.0f} M parameters,
{model["dtype"]}; {prompts["train"]} training and {prompts["validation"]} validation prompts
({prompts["given"]} given, the others are starter prompts), {prompts["tokens"]} tokens.

{table(["what", "seconds", "times `fit`", "how"], rows)}

The plain loop is Algorithm 1 as printed, with transformers alone: every step runs the whole model and reads
`hidden_states`; per query, and in batches as the default rule trains. Fine-tuning is `transformers.Trainer` on the
training prompts with answers of at most 16 tokens, {sft["epochs"]} epochs in batches of {sft["batch_size"]}; the goal
counts the faster way. Both are timed for a part and scaled. The fine-tuning of
`actor compare` runs what prompts share once, and the head on answers alone; that was not timed here.

Like for like, the blocks below and the training alone ({record["fit"]["train_seconds"]:.1f} s), without choice of block
and of strength: {record[likes[0]]:.1f} times as fast as the plain loop per query, {record[likes[1]]:.1f} as the batched
one. Had the plain loop left out the output head, which it does not need, the whole fit would be
{record[headless[0]]:.1f} and {record[headless[1]]:.1f} times as fast."""


def times(what: str, seconds: float, fit_seconds: float, how: str) -> list[str]:
    """A line of the table of `fit_section`."""
    return [what, f"{seconds:.1f}", f"{seconds / fit_seconds:.2f}", how]


def memory_section(record: Record) -> str:
    """Peaks of all phases."""
    rows = [
        [part, name, f"{phase['seconds']:.1f}", gib(phase["peak_rss_bytes"])]
        for part in ("stream", "below")
        for name, phase in record[part]["phases"].items()
    ]
    stream, below, shape = record["stream"], record["below"], record["shape"]
    separate = stream["peaks_are_separate"] and below["peaks_are_separate"]
    note = "" if separate else " The peak of a phase includes those before it: this system cannot reset it."
    return f"""`benchmarks/bench_memory.py`: random weights of the shape of {shape["name"]} ({shape["blocks"]} blocks,
{gib(record["weights_bytes"])} in bfloat16), block {record["layer"]}. Peaks are of resident memory, Python and libraries
included.{note}

- `stream`: {stream["prompts"]} prompts, `--offload stream`; peak {gib(stream["peak_rss_bytes"])}. A few answers of two
  tokens stand for the gate, which answers 304 prompts twice with 24 tokens.
- `below`: {below["prompts"]} prompts, weights in bfloat16, until training has ended; peak
  {gib(below["peak_rss_bytes"])}, of which the trained block in float32 with gradients and AdamW's moments is a part.

{table(["part", "phase", "seconds", "peak"], rows)}"""


def measure_section(record: Record) -> str:
    """Answers a second."""
    rows = [["`actor measure`", f"{record['answers_per_second']:.2f}"]]
    rows += [[f"`generate`, batches of {size}", f"{rate:.2f}"] for size, rate in record["generate_fixed"].items()]
    rows.append(["`generate`, one at a time", f"{record['generate_batch_1']:.2f}"])
    return f"""`benchmarks/bench_measure.py`: {record["model"]}, {record["dtype"]}, {record["prompts"]} prompts,
at most {record["max_new_tokens"]} new tokens.
{record["speedup_vs_best_fixed"]:.2f} times as fast as the best fixed batch size ({record["best_fixed_size"]}),
{record["speedup_vs_batch_1"]:.2f} times as fast as one at a time; {100 * record["equal_texts"]:.1f} % of the answers
are those given one at a time word for word, and {100 * record["equal_verdicts"]:.1f} % have the same verdict.

{table(["what", "answers a second"], rows)}"""


def scale_section(record: Record) -> str:
    """Both series."""
    rows = [
        [str(point["prompts"]), str(point["blocks"]), f"{point['seconds']:.1f}", gib(point["peak_rss_bytes"])]
        for series in SERIES
        for point in (record[series]["points"] if record[series] else [])
    ]
    lines = [
        f"- {series}: {record[series]['seconds']['linear']['slope']:.4f} s and "
        f"{record[series]['peak_rss_bytes']['linear']['slope'] / 2**20:.2f} MiB for one more; exponents "
        f"{record[series]['seconds']['log_log']['slope']:.2f} and "
        f"{record[series]['peak_rss_bytes']['log_log']['slope']:.2f}."
        for series in SERIES
        if record[series]
    ]
    shape = record["shape"]
    return f"""`benchmarks/bench_scale.py`: random weights of width {shape["d_model"]}; the middle block,
named. An exponent is the slope between logarithms: 1 is linear.

{table(["prompts", "blocks", "seconds", "peak"], rows)}

{chr(10).join(lines)}"""


def gpu_section(record: Record) -> str:
    """Every model."""
    rows = []
    for name, model in record["models"].items():
        fine = {way: part["seconds"] for way, part in model["sft"].items()}
        rows.append(
            [
                name,
                f"{model['prefix_seconds']:.2f}",
                f"{100 * model['prefix_utilisation']:.0f} %",
                *(f"{model[f'{rule}_seconds']:.2f}" for rule in ("paper", "boundary")),
                *(f"{fine[way]:.0f}" if fine.get(way) is not None else NOT_MEASURED for way in ("full", "lora")),
                gib(model["peak_bytes"]),
            ]
        )
    some = next(iter(record["models"].values()))
    header = ["model", "blocks below, s", "use", "paper, s", "boundary, s", "full, s", "LoRA, s", "peak"]
    return f"""`benchmarks/bench_gpu.py` on {record["device"]}: random weights, {record["dtype"]},
{some["prompts"]} prompts ({some["tokens"]} tokens), three epochs of batches of 20 by each rule; seconds after loading,
blocks below included. Use is 2 x parameters x tokens / seconds of the blocks below, as a share of the
{record["matmul_flops"] / 1e12:.1f} TFLOP/s that a large matrix product reached in the same run. Fine-tuning is three
epochs, scaled from timed steps.

{table(header, rows)}"""


def setting(record: Record) -> str:
    """The machine and the versions of a record."""
    machine = record["machine"]
    parts = [machine["cpu"], f"{machine['cores']} cores", f"{machine['threads']} threads"]
    if "memory_bytes" in machine:
        parts.append(f"{gib(machine['memory_bytes'])} of memory")
    parts.append(machine["gpu"] or "no GPU")
    return f"{', '.join(parts)}. {', '.join(f'{name} {number}' for name, number in record['versions'].items())}."


def gib(amount: float) -> str:
    """Bytes in GiB."""
    return f"{amount / GIB:.2f} GiB"


def table(header: list[str], rows: list[list[str]]) -> str:
    """In Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
