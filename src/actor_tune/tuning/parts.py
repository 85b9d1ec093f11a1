"""Prompts in three parts: to train on, to search by, and to judge by what was found. No prompt is in two of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import UserError
from ..prompts.prompt import Prompt
from ..prompts.split import split_validation
from ..repair.method import prepare
from ..repair.settings import Settings

SEARCH_SHARE = 0.25
"""Of what `fit` would train on, this share of each set is searched by; the recipe found is trained on both."""


@dataclass(frozen=True)
class Parts:
    """- `train`: every trial learns from these; `search`: what trials are compared on.
    - `fresh`: what `fit` validates on with the same settings; no trial sees them.
    """

    train: list[Prompt]
    search: list[Prompt]
    fresh: list[Prompt]


def parts_of(prompts: Sequence[Prompt], settings: Settings) -> Parts:
    """Divide as `fit` does, and what it would train on once more.

    **Raises:** `UserError` when some benign prompts are to be held, which trials are not chosen by; when a prompt is
    given under two kinds, or sets are too small to be divided.
    """
    if settings.aims.holds_some:
        where = "`strengthen=True`" if settings.strengthen else f"`categories={','.join(settings.categories)}`"
        raise UserError(where, "a search", "`fit`, which can hold some benign prompts", "leave it out, or use `fit`")
    outer = prepare(prompts, settings)
    inner = split_validation(outer.train, SEARCH_SHARE, settings.seed + 1)
    return Parts(inner.train, inner.validation, outer.validation)
