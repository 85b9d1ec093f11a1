"""The prompts that ship with the package."""

import csv
import functools
import importlib.resources
import io
from collections.abc import Sequence
from typing import Literal, cast

from ..storage.text import same_to_a_reader
from .prompt import Kind, Prompt

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
    given = {same_to_a_reader(prompt.text) for prompt in prompts}
    return [*prompts, *(prompt for prompt in starter("train") if same_to_a_reader(prompt.text) not in given)]
