"""Prompts in three parts: to train on, to search by, and to judge by what was found. No prompt is in two of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import UserError
from ..prompts.prompt import Prompt
from ..prompts.split import split_validation
from ..repair.changes import UNCHANGED
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

    **Raises:** `UserError` when the settings have what a search would ignore, a prompt is
    given under two kinds, or sets are too small to be divided.
    """
    _check(settings)
    outer = prepare(prompts, settings)
    inner = split_validation(outer.train, SEARCH_SHARE, settings.seed + 1)
    return Parts(inner.train, inner.validation, outer.validation)


def _check(settings: Settings) -> None:
    """Stop at what trials would choose themselves, or are not chosen by."""
    ignored = {
        "`strengthen=True`": settings.strengthen,
        f"`categories={','.join(settings.categories)}`": bool(settings.categories),
        f"`rule={settings.rule}`": settings.rule in ("paper", "uniform"),
        f"`select={settings.select}`": settings.select != "none",
        "`changes=`": settings.changes != UNCHANGED,
    }
    for where in (name for name, given in ignored.items() if given):
        raise UserError(where, "a search, which does not take it", "`fit`, which does", "leave it out, or use `fit`")
