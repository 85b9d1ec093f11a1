"""Peak memory of `fit` on a checkpoint of the shape of Llama-2-7b with random weights.

    python benchmarks/bench_memory.py --work DIR

- `stream`: the whole model is never in memory. Fit (blocks below, training, strengths), the patch, and a few answers of
  two tokens: each kind of work that `actor fit` does. Its gate answers 304 prompts twice with 24 tokens; that is left
  out.
- `below`: blocks 0 to l in memory, in the dtype they are stored in, until training has ended.

Each is a Python of its own. The checkpoint (13.5 GB) is built in DIR once and used again.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from common import (
    GIB,
    SHAPES,
    Phases,
    Record,
    answers,
    environment,
    in_subprocess,
    load,
    random_checkpoint,
    random_prompts,
    report,
    say,
    stages_as_phases,
    write_patch,
)

from actor_tune.fit import Settings, fit
from actor_tune.model import weight_files

LAYERS = {"llama-2-7b": 13, "llama-3-8b": 13}  # the paper's for the first
STREAM_PROMPTS, BELOW_PROMPTS, ANSWERS, ANSWER_TOKENS = 64, 24, 4, 2
GOAL_STREAM = 5 * GIB
GOAL_BELOW = 2 * GIB
"""Beyond the share (l + 1) / L of the weights."""


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the checkpoint, kept and used again")
    parser.add_argument("--shape", choices=SHAPES, default="llama-2-7b")
    parser.add_argument("--only", choices=PARTS, help="measure one part, here")
    arguments = parser.parse_args()
    folder = random_checkpoint(arguments.work, SHAPES[arguments.shape])
    layer = LAYERS.get(arguments.shape, SHAPES[arguments.shape].blocks // 2)
    if arguments.only:
        report(lambda: PARTS[arguments.only](folder, layer, arguments.work))
    else:
        report(lambda: measure(arguments.work, arguments.shape, folder, layer))


def measure(work: Path, shape: str, folder: Path, layer: int) -> Record:
    """Both parts, and what they were meant to need."""
    weights = sum(file.stat().st_size for file in weight_files(folder))
    parts = {}
    for name in PARTS:
        say(f"{name}")
        parts[name] = in_subprocess(__file__, ["--work", work, "--shape", shape, "--only", name])
    return {
        "benchmark": "memory",
        **environment(),
        "shape": {"name": shape, **asdict(SHAPES[shape])},
        "layer": layer,
        "weights_bytes": weights,
        "goal_bytes": {
            "stream": GOAL_STREAM,
            "below": weights * (layer + 1) // SHAPES[shape].blocks + GOAL_BELOW,
        },
        **parts,
    }


def stream(folder: Path, layer: int, work: Path) -> Record:
    """Everything that `actor fit` does, without the whole model."""
    phases = Phases()
    with phases.phase("load"):
        chat_model = load(folder, offload="stream")
    prompts = random_prompts(STREAM_PROMPTS)
    start = time.perf_counter()
    with stages_as_phases(phases):
        # So that there is something to save: on random weights no strength need be within the limits.
        result = fit(chat_model, prompts, Settings(layer=layer, starter=False, allow_unsafe=True))
    seconds = time.perf_counter() - start
    with phases.phase("patch"):
        write_patch(chat_model, result, work / "patch.safetensors")
    with phases.phase("answers"):
        texts = answers(chat_model, prompts[:ANSWERS], ANSWER_TOKENS)
    return record(phases, STREAM_PROMPTS) | {"fit_seconds": seconds, "answers": len(texts)}


def below(folder: Path, layer: int, work: Path) -> Record:
    """Until training has ended."""
    phases = Phases()
    with phases.phase("load"):
        chat_model = load(folder, dtype="bfloat16", last_block=layer)
    with stages_as_phases(phases, until="train"):
        fit(chat_model, random_prompts(BELOW_PROMPTS), Settings(layer=layer, starter=False))
    return record(phases, BELOW_PROMPTS)


def record(phases: Phases, prompts: int) -> Record:
    """What was measured."""
    phases.note_peak()
    return {
        "prompts": prompts,
        "peak_rss_bytes": phases.peak,
        "phases": phases.records,
        "peaks_are_separate": phases.separate,
    }


PARTS: dict[str, Callable[[Path, int, Path], Record]] = {"stream": stream, "below": below}


if __name__ == "__main__":
    main()
