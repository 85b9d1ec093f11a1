"""Whether a way of saving work says the same as plain forward passes: tried on this very model before it is used."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from weakref import WeakKeyDictionary

import torch
from torch import nn

from .activations import forward, stop_before
from .batches import is_out_of_memory
from .chat import TokenIds, pad, rows_by_length
from .model import ChatModel

log = logging.getLogger(__name__)

PROMPTS = 8  # of a trial, the shortest and the longest among them
TOKENS = 8192  # of a trial, padding included, where that leaves two prompts


def some_of_all_lengths(token_ids: Sequence[TokenIds], most: int = PROMPTS) -> list[int]:
    """At most `most` rows, of lengths as different as there are: the shortest first, the longest last."""
    order = sorted(range(len(token_ids)), key=lambda row: len(token_ids[row]))
    last, count = len(order) - 1, min(most, max(2, TOKENS // len(token_ids[order[-1]])))
    return [order[place] for place in dict.fromkeys(round(at * last / max(1, count - 1)) for at in range(count))]


def alike(found: torch.Tensor, plain: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether logits `found` are `plain`, both (prompt, vocabulary), but for the rounding of `dtype`.

    Their difference is measured in spreads of the plain ones. In float32, each prompt's is at most the root of the
    dtype's epsilon, 0.03 %. In half precision that is 9 %, and rounding alone may make a single prompt differ by more
    (in bfloat16 by 14 % on the testbed); there the median prompt counts, at 3 %, while a single token that is left out
    makes it 15 %.
    """
    apart = ((found.float() - plain.float()).std(dim=-1) / plain.float().std(dim=-1)).tolist()
    root = float(torch.finfo(dtype).eps ** 0.5)
    if dtype in (torch.float32, torch.float64):
        return max(apart) <= root
    return median(apart) <= root and max(apart) <= 4 * root


@dataclass(frozen=True)
class _Tried:
    """How a trial went, with prompts of at most `longest` tokens."""

    exact: bool
    longest: int


_TRIED: WeakKeyDictionary[nn.Module, dict[str, _Tried]] = WeakKeyDictionary()  # by model, and what was tried


def holds(chat_model: ChatModel, what: str, token_ids: Sequence[TokenIds], trial: Callable[[], bool]) -> bool:
    """Whether `trial`, on some of `token_ids`, finds that `what` is exact; where the model cannot be run so, it is not.

    Tried once for each model, and again where prompts are longer.
    """
    known, longest = _TRIED.setdefault(chat_model.model, {}), max(map(len, token_ids))
    if what in known and (longest <= known[what].longest or not known[what].exact):
        return known[what].exact
    reason = "it says something else then"
    try:
        exact = trial()
    except (RuntimeError, ValueError, IndexError, KeyError, TypeError, AttributeError, AssertionError) as error:
        if isinstance(error, RuntimeError) and is_out_of_memory(error):
            raise
        exact, reason = False, (str(error) or type(error).__name__).splitlines()[0]
    if not exact:
        log.info("%s is not for %s: %s", what, type(chat_model.model).__name__, reason)
    known[what] = _Tried(exact, longest)
    return exact


@torch.no_grad()
def padding_is_exact(chat_model: ChatModel, token_ids: Sequence[TokenIds], layer: int | None = None) -> bool:
    """Whether prompts may be padded to one length: not where padding is taken for text, as some recurrent models do.

    By the model's logits, or by what block `layer` receives, so that no block above is run.
    """
    rows = some_of_all_lengths(token_ids)
    if len(token_ids[rows[0]]) == len(token_ids[rows[-1]]):
        return True

    def trial() -> bool:
        return alike(found(rows), torch.cat([found([row]) for row in rows]), chat_model.model.dtype)

    def found(rows: list[int]) -> torch.Tensor:
        batch = pad(token_ids, rows, chat_model.pad_id, chat_model.device)
        if layer is None:
            return forward(chat_model, batch)
        with stop_before(chat_model.blocks[layer]) as received:
            forward(chat_model, batch)
        return received[0].hidden[:, -1]

    what = "padding" if layer is None else f"padding, up to block {layer},"
    return holds(chat_model, what, token_ids, trial)


def groups_of(
    chat_model: ChatModel, token_ids: Sequence[TokenIds], batch_size: int, batch_tokens: int = 0
) -> list[list[int]]:
    """All rows in batches of like length, or of one length where padding is not exact."""
    equal = not padding_is_exact(chat_model, token_ids)
    return list(rows_by_length(token_ids, batch_size, batch_tokens, equal))
