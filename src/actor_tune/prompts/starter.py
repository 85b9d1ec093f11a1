"""The prompts that ship with the package."""

import csv
import functools
import importlib.resources
import io
import logging
from collections.abc import Sequence
from typing import Literal, cast

from ..storage.text import same_to_a_reader
from .prompt import KINDS, Kind, Prompt, of_kind

log = logging.getLogger(__name__)

TWINS = "starter_twins"
"""The set of harmful prompts in the words of benign ones."""

StarterPart = Literal["train", "held_out", "forms"]


def starter(part: StarterPart = "train") -> list[Prompt]:
    """The prompts that ship with the package: `train` to learn from, or `held_out` to measure on.

    `forms` are more of them, in ten forms (questions, role play, long, casual and others), for training too. `fit` does
    not mix them in by itself (docs/method.md says why).

    ```python
    prompts = at.starter("train")
    ```

    Twins, a harmful and a benign prompt of like words, are in the same part.
    """
    return list(_shipped(part))


@functools.cache
def _shipped(part: StarterPart) -> tuple[Prompt, ...]:
    file = importlib.resources.files(__package__) / "data" / "prompts.csv"
    rows = csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"), newline=""))
    return tuple(Prompt(row["prompt"], cast(Kind, row["kind"]), row["set"]) for row in rows if row["part"] == part)


def with_starter(prompts: Sequence[Prompt]) -> list[Prompt]:
    """`prompts`, and the starter prompts of the training part that are not among them."""
    return [*prompts, *_others(prompts)]


def _others(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The starter prompts of the training part that are not among `prompts`, of whatever kind."""
    given = {same_to_a_reader(prompt.text) for prompt in prompts}
    return [prompt for prompt in starter("train") if same_to_a_reader(prompt.text) not in given]


def with_missing_kinds(prompts: Sequence[Prompt], wanted: bool = True) -> list[Prompt]:
    """`prompts`, and of each kind that is not among them the starter prompts of the training part, which is logged.

    Where those are not `wanted` beside given ones, they come only in the place of all.
    """
    if prompts and not wanted:
        return list(prompts)
    missing = [kind for kind in KINDS if not of_kind(prompts, kind)]
    taken = [prompt for prompt in _others(prompts) if prompt.kind in missing]  # in their order, as `starter` has them
    if taken:
        counts = ", ".join(f"{len(of_kind(taken, kind))} {kind}" for kind in missing)
        log.info("no %s prompts given: built-in starter prompts are taken (%s)", " and no ".join(missing), counts)
    return [*prompts, *taken]
