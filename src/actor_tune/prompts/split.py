"""Put prompts aside for validation."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import UserError
from .prompt import KINDS, Kind, Prompt, of_kind


@dataclass(frozen=True)
class Split:
    """Prompts to train on, and prompts to choose settings on."""

    train: list[Prompt]
    validation: list[Prompt]


def split_validation(
    prompts: Sequence[Prompt], share: float, seed: int, apart: Callable[[Prompt], bool] = lambda prompt: False
) -> Split:
    """Put `share` (0..1) of each set's prompts, at least one of every set of two or more, aside. Order is kept.

    Of a set, those that are `apart` are another set here.

    **Raises:** `UserError` when a kind then has no prompt in one of the parts.
    """
    chooser = random.Random(seed)
    groups: dict[tuple[Kind, str, bool], list[int]] = {}
    for index, prompt in enumerate(prompts):
        groups.setdefault((prompt.kind, prompt.set, apart(prompt)), []).append(index)
    aside: set[int] = set()
    for members in groups.values():
        count = min(len(members) - 1, max(1, round(share * len(members))))  # a prompt alone in its set is trained on
        aside.update(chooser.sample(members, count))
    split = Split(
        train=[prompt for index, prompt in enumerate(prompts) if index not in aside],
        validation=[prompt for index, prompt in enumerate(prompts) if index in aside],
    )
    for kind in KINDS:
        if not (of_kind(split.train, kind) and of_kind(split.validation, kind)):
            found = f"the {kind} prompts are alone in their sets"
            raise UserError("prompts", found, "a set of at least two of each kind", "give more prompts the same set")
    return split
