"""The prompts that ship with the package."""

import csv
import functools
import importlib.resources
import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from .prompt import Kind, Prompt

StarterPart = Literal["train", "held_out"]

MIXED = 1600
"""So many starter prompts, or one more, are mixed into training prompts: with more of them training takes longer."""


@dataclass(frozen=True)
class Shipped:
    """A starter prompt; `pair` is the same of twins and empty without one, `form` empty where none was set to it."""

    prompt: Prompt
    part: StarterPart
    category: str
    pair: str
    form: str


def starter(part: StarterPart = "train") -> list[Prompt]:
    """The prompts that ship with the package: `train` to learn from, or `held_out` to measure on.

    ```python
    prompts = at.starter("train")
    ```

    Twins, a harmful and a benign prompt of like words, are in the same part.
    """
    return [item.prompt for item in shipped() if item.part == part]


@functools.cache
def shipped() -> tuple[Shipped, ...]:
    """All of them, with what is known of each."""
    file = importlib.resources.files(__package__) / "data" / "prompts.csv"
    rows = csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"), newline=""))
    return tuple(
        Shipped(
            Prompt(row["prompt"], cast(Kind, row["kind"]), row["set"]),
            cast(StarterPart, row["part"]),
            row["category"],
            row["pair"],
            row["form"],
        )
        for row in rows
    )


def with_starter(prompts: Sequence[Prompt], seed: int = 0) -> list[Prompt]:
    """`prompts`, and starter prompts of the training part, drawn by `seed`, until `MIXED` of those are among them.

    Twins are drawn together.
    """
    given = {prompt.text for prompt in prompts}
    groups: dict[str, list[Prompt]] = {}
    for item in shipped():
        if item.part == "train" and item.prompt.text not in given:
            groups.setdefault(item.pair or item.prompt.text, []).append(item.prompt)
    drawn, count = set(), sum(item.part == "train" and item.prompt.text in given for item in shipped())
    for name in random.Random(seed).sample([*groups], len(groups)):
        if count < MIXED:
            drawn.add(name)
            count += len(groups[name])
    return [*prompts, *(prompt for name, group in groups.items() if name in drawn for prompt in group)]


def draw(seed: int) -> list[Prompt]:
    """The starter prompts to train on where none are given: as many as are mixed into others."""
    return with_starter([], seed)
