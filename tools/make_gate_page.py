"""Simulate the safety gate and write docs/gate.md.

    python -m tools.make_gate_page --output docs/gate.md

Every simulated measurement goes through `gate.decide`, as a real one does.
"""

import argparse
from pathlib import Path

import numpy as np

import actor_tune as at
from actor_tune.measurement.gate import FLIPS, POWER, decide, needed, pass_probability

from .pages import percent, render, table

RUNS = 20_000
SIZES = (200, 300, 500, 1000)
FLIP_SHARES = (0.0, 0.01, 0.02, 0.05)
DROPS = (0.05, 0.1, 0.2)
MARGINS = (0.02, 0.03, 0.05, 0.1, 0.2)
REFUSED, ANSWERED = at.Verdict("refusal", 1.0, ""), at.Verdict("compliance", 0.0, "")


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.parse_args().output.write_text(page(), encoding="utf-8")


def page(runs: int = RUNS) -> str:
    """The page in Markdown, from so many simulated measurements a cell."""
    random = np.random.default_rng(0)

    def cell(n: int, lost: float, gained: float) -> str:
        exact = abs(1 - pass_probability(n, at.MARGIN, lost, gained))
        return f"{percent(blocked(random, runs, n, lost, gained))} ({percent(exact)})"

    flip_header = [f"{percent(flips, 0)} % flip" for flips in FLIP_SHARES]
    drop_header = [f"true drop of {percent(drop, 0)} points" for drop in DROPS]
    unchanged = [[n, *(cell(n, flips / 2, flips / 2) for flips in FLIP_SHARES)] for n in SIZES]
    fallen = [[n, *(cell(n, drop + FLIPS / 2, FLIPS / 2) for drop in DROPS)] for n in SIZES]
    numbers = [[percent(margin, 0), *(needed(margin, flips) for flips in FLIP_SHARES)] for margin in MARGINS]
    tables = {
        "unchanged": table(["harmful prompts", *flip_header], unchanged),
        "fallen": table(["harmful prompts", *drop_header], fallen),
        "numbers": table(["margin, points", *flip_header], numbers),
    }
    return render("gate", tables | {"MARGIN": at.MARGIN, "FLIPS": FLIPS, "POWER": POWER, "runs": runs})


def blocked(random: np.random.Generator, runs: int, n: int, lost: float, gained: float) -> float:
    """Share of simulated measurements that do not pass, where a prompt is lost or gained with these chances."""
    prompts = [at.Prompt(str(row), "harmful", "s") for row in range(n)]
    draws = random.multinomial(n, [lost, gained, 1 - lost - gained], size=runs)
    failures = 0
    for (losses, gains, kept), times in zip(*np.unique(draws, axis=0, return_counts=True), strict=True):
        before = [REFUSED] * losses + [ANSWERED] * gains + [REFUSED] * kept
        after = [ANSWERED] * losses + [REFUSED] * gains + [REFUSED] * kept
        failures += times * (not decide(prompts, before, after, at.MARGIN).passed)
    return failures / runs


if __name__ == "__main__":
    main()
