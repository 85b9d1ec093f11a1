"""Peak memory of `fit` on a checkpoint of the shape of Llama-2-7b with random weights.

    python -m benchmarks.bench_memory --work DIR

- `stream`: the whole model is never in memory. Fit (blocks below, training, strengths), the patch, and a few answers of
  two tokens: each kind of work that `actor fit` does. Its gate answers 304 prompts twice with 24 tokens; that is left
  out.
- `below`: blocks 0 to l in memory, in the dtype they are stored in, until training has ended.

Each is a Python of its own. The checkpoint (13.5 GB) is built in DIR once and used again.
"""

import argparse
import time
from dataclasses import asdict
from pathlib import Path

import actor_tune as at
from actor_tune.engines.local import local_engine
from actor_tune.engines.respond import respond
from actor_tune.models.patch import base_hash
from actor_tune.repair.method import fit_block
from actor_tune.storage.model_folder import weight_files

from .common import GIB, Phases, Record, alone, environment, report, say
from .random_models import SHAPES, random_checkpoint, random_prompts

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
    parser.add_argument("--only", choices=PARTS, help="measure one part")
    arguments = parser.parse_args()
    report(measure, arguments.work, arguments.shape, [arguments.only] if arguments.only else list(PARTS))


def measure(work: Path, shape: str, parts: list[str]) -> Record:
    """Some parts, and what both were meant to need."""
    folder, sizes = random_checkpoint(work, SHAPES[shape]), SHAPES[shape]
    layer = LAYERS.get(shape, sizes.blocks // 2)
    weights = sum(file.stat().st_size for file in weight_files(folder))
    record = {
        "benchmark": "memory",
        **environment(),
        "shape": {"name": shape, **asdict(sizes)},
        "layer": layer,
        "weights_bytes": weights,
        "goal_bytes": {"stream": GOAL_STREAM, "below": weights * (layer + 1) // sizes.blocks + GOAL_BELOW},
    }
    for name in parts:
        say(name)
        record[name] = alone(PARTS[name], folder, layer)
    return record


def stream(folder: Path, layer: int) -> Record:
    """Everything that `actor fit` does, without the whole model."""
    phases, prompts = Phases(), random_prompts(STREAM_PROMPTS)
    with phases.phase("load"):
        chat_model = at.load(str(folder), at.Placement(offload="stream"))
    start = time.perf_counter()
    with phases.of_fit():
        # So that there is something to save: on random weights no strength need be within the limits.
        block = fit_block(chat_model, prompts, at.Settings(layer=layer, starter=False, allow_unsafe=True))
    seconds = time.perf_counter() - start
    with phases.phase("patch"):
        tensors = block.stored.on_disk(block.state)
        patch = at.Patch(layer, tensors, chat_model.name, base_hash(chat_model), "random weights")
        patch.save(folder.parent / "patch.safetensors")
    with phases.phase("answers"):
        answers = respond(local_engine(chat_model), prompts[:ANSWERS], ANSWER_TOKENS)
    return measured(phases, STREAM_PROMPTS) | {"fit_seconds": seconds, "answers": len(answers)}


def below(folder: Path, layer: int) -> Record:
    """Until training by the rule `boundary` has ended, which needs no block above."""
    phases = Phases()
    with phases.phase("load"):
        chat_model = at.load(str(folder), at.Placement(dtype="bfloat16"), layer)
    with phases.of_fit(until="train"):
        fit_block(chat_model, random_prompts(BELOW_PROMPTS), at.Settings("boundary", layer=layer, starter=False))
    return measured(phases, BELOW_PROMPTS)


def measured(phases: Phases, prompts: int) -> Record:
    """The peaks."""
    peaks = {"peak_rss_bytes": phases.peak, "phases": phases.records, "peaks_are_separate": phases.separate}
    return {"prompts": prompts, **peaks}


PARTS = {"stream": stream, "below": below}


if __name__ == "__main__":
    main()
