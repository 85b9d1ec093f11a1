"""Which training prompts to keep: coreset selection (UPCORE, arXiv 2502.15082), and a random choice as its control."""

import random
from collections.abc import Sequence
from typing import Literal

import torch
from sklearn.ensemble import IsolationForest

from ..errors import UserError
from ..prompts.prompt import KINDS, Prompt, rows_of_kind

Selection = Literal["none", "upcore", "random"]

FRACTION = 0.9  # of the prompts of each kind; the paper's contamination of 0.1
FEWEST = 4  # prompts of a kind that must be left: a direction of fewer is that of their topics


def select(
    activations: torch.Tensor, prompts: Sequence[Prompt], selection: Selection, fraction: float, seed: int
) -> list[int]:
    """Which of `prompts` to keep, in order: `fraction` (0..1) of each kind.

    "upcore" keeps those that an isolation forest on `activations`, (prompt, d_model) float32 at last tokens, takes for
    the least outlying (section 3.2); "random" keeps any. Differs from the paper: each kind has a forest of its own, so
    that none is lost as the others' outliers.
    """
    kept: list[int] = []
    for rows in (rows_of_kind(prompts, kind) for kind in KINDS):
        count = round(fraction * len(rows))
        if not rows or selection == "none":
            kept += rows
        elif selection == "random":
            kept += random.Random(seed).sample(rows, count)
        else:
            values = activations[rows].numpy()
            scores = IsolationForest(random_state=seed).fit(values).score_samples(values)  # higher: less of an outlier
            kept += [rows[index] for index in sorted(range(len(rows)), key=lambda index: -scores[index])[:count]]
    return sorted(kept)


def check_fraction(prompts: Sequence[Prompt], fraction: float) -> None:
    """Stop with a `UserError` where `fraction` (0..1) leaves too few of `prompts`, before anything is computed."""
    for kind in KINDS:
        all_of_kind = len(rows_of_kind(prompts, kind))
        if (count := round(fraction * all_of_kind)) < FEWEST:
            found = f"leaves {count} of {all_of_kind} {kind} training prompts"
            raise UserError(f"`select_fraction={fraction:g}`", found, f"at least {FEWEST}", "take a larger share")
