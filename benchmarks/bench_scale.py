"""How time and memory of `fit` grow with prompts and with depth, on random weights.

    python -m benchmarks.bench_scale --work DIR

Every point is a Python of its own. The block is the middle one, named, so that no block is chosen. To each series a
straight line is fitted, by least squares, to the figures themselves and to their logarithms: the second slope is the
exponent, 1 where time grows as the prompts do.
"""

import argparse
import math
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import linregress

import actor_tune as at
from actor_tune.repair.method import fit_block

from .common import Record, alone, environment, peak_memory, report, say, warm_up
from .random_models import SHAPES, random_checkpoint, random_prompts


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the checkpoints, kept and used again")
    parser.add_argument("--shape", choices=SHAPES, default="testbed")
    counts = [100, 1_000, 10_000]
    parser.add_argument("--prompts", type=int, nargs="*", default=counts, help="first series; none: leave it out")
    parser.add_argument("--depths", type=int, nargs="*", default=[12, 24, 48], help="second series")
    parser.add_argument("--depth-prompts", type=int, default=300, help="prompts of each point of the second series")
    arguments = parser.parse_args()
    report(measure, arguments.work, arguments.shape, arguments.prompts, arguments.depths, arguments.depth_prompts)


def measure(work: Path, shape: str, prompts: list[int], depths: list[int], depth_prompts: int) -> Record:
    """Both series."""
    own = SHAPES[shape]
    by_prompts = [alone(point, random_checkpoint(work, own), count) for count in prompts]
    deep = [random_checkpoint(work, replace(own, blocks=depth)) for depth in depths]
    return {
        "benchmark": "scale",
        **environment(),
        "shape": {"name": shape, **asdict(own)},
        "prompts": series(by_prompts, "prompts"),
        "depth": series([alone(point, folder, depth_prompts) for folder in deep], "blocks"),
    }


def point(folder: Path, count: int) -> Record:
    """Fit the middle block of the model in `folder` on `count` prompts."""
    say(f"{folder.name}: {count} prompts")
    chat_model = at.load(str(folder))
    blocks = len(chat_model.blocks)
    loaded_peak = peak_memory()
    prompts = random_prompts(count)
    warm_up(chat_model, prompts)
    start = time.perf_counter()
    # Every strength is within these limits, so that each point tries as few as a fit that goes well.
    limits = at.Limits(safety_drop=math.inf, set_drop=math.inf, kl_harmless=math.inf)
    block = fit_block(chat_model, prompts, at.Settings(layer=blocks // 2, starter=False, limits=limits))
    seconds = time.perf_counter() - start
    say(f"{folder.name}: {seconds:.1f} s")
    peaks = {"loaded_peak_rss_bytes": loaded_peak, "peak_rss_bytes": peak_memory()}
    return {"prompts": count, "blocks": blocks, "seconds": seconds, "stages": block.seconds, **peaks}


def series(points: list[Record], by: str) -> Record | None:
    """The points, and the lines through them; None where there are no points."""
    if not points:
        return None
    sizes = [point[by] for point in points]
    record: Record = {"points": points}
    for what in ("seconds", "peak_rss_bytes"):
        values = [point[what] for point in points]
        logarithms = straight_line(np.log(sizes), np.log(values))
        record[what] = {"linear": straight_line(sizes, values), "log_log": logarithms}
    return record


def straight_line(x: ArrayLike, y: ArrayLike) -> dict[str, float]:
    """The least-squares line through two points or more, and the share of y's variance that it explains."""
    line = linregress(x, y)
    return {"slope": float(line.slope), "intercept": float(line.intercept), "r2": float(line.rvalue**2)}


if __name__ == "__main__":
    main()
