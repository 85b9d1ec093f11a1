"""Keys and values of tokens that were run before, so that they are not run again for each prompt or for each query.

Two uses, both exact, through the cache that transformers' attention takes. All prompts of a model begin alike, with its
template and the system prompt: that opening is run once. And where only a block's last position is read, its other
tokens matter as keys and values alone: neither their queries nor their feed-forward part are computed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Cache, DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from .chat import TokenIds

SHORTEST_OPENING = 8  # fewer tokens save less than a forward pass of their own costs


@dataclass(frozen=True)
class KeyValue:
    """What attention keeps of some tokens, each (prompt, head, token, d_head); one row where all prompts share them."""

    keys: torch.Tensor
    values: torch.Tensor

    def before(self, keys: torch.Tensor, values: torch.Tensor) -> "KeyValue":
        """These tokens, then those of `keys` and `values`."""
        pairs = ((self.keys, keys), (self.values, values))
        return KeyValue(*[torch.cat([old.expand(len(new), -1, -1, -1), new], dim=2) for old, new in pairs])

    def without_last(self) -> "KeyValue":
        """All tokens but the last."""
        return KeyValue(self.keys[:, :, :-1], self.values[:, :, :-1])

    def rows(self, rows: list[int]) -> "KeyValue":
        """Of the prompts `rows` alone."""
        return KeyValue(self.keys[rows], self.values[rows])

    def repeat(self, times: int) -> "KeyValue":
        """All prompts, `times` times."""
        return KeyValue(self.keys.repeat(times, 1, 1, 1), self.values.repeat(times, 1, 1, 1))


Kept = dict[int, KeyValue]  # block -> keys and values


class KeysRead(Exception):  # noqa: N818 - not an error
    """Leaves a block as soon as its keys and values are known."""


class Keys(Cache):
    """A cache that can be read any number of times: what a forward pass adds does not stay in it.

    - `length`: tokens that came before, whatever block is asked.
    - `kept`: those of these tokens.
    - `seen`: where a pass shall be recorded: those of all tokens so far; else None.
    - `leave`: raise `KeysRead` once a block's keys and values are in `seen`.
    """

    def __init__(
        self, length: int = 0, kept: Kept | None = None, seen: Kept | None = None, leave: bool = False
    ) -> None:
        super().__init__(layer_class_to_replicate=DynamicLayer)
        self.length, self.kept, self.seen, self.leave = length, {} if kept is None else kept, seen, leave

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *_arguments: Any, **_keywords: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What attention shall see: the kept tokens, then the given ones."""
        new = KeyValue(key_states, value_states)
        if self.length:
            new = self.kept[layer_idx].before(key_states, value_states)
        if self.seen is not None:
            self.seen[layer_idx] = new
            if self.leave:
                raise KeysRead
        return new.keys, new.values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens that came before; the same for all blocks, also those that are passed through."""
        return self.length

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Length and offset of the keys that a mask is made for."""
        return self.length + query_length, 0


def common_opening(config: PreTrainedConfig, token_ids: Sequence[TokenIds]) -> int:
    """With how many tokens all prompts begin alike, 0 where running them apart is not worth it or not exact."""
    # A window counts the padding between opening and prompt, so every window must be as long as the longest prompt.
    opening = opening_length(token_ids)
    return opening if opening and attends_to_all(config, max(map(len, token_ids))) else 0


def opening_length(token_ids: Sequence[TokenIds]) -> int:
    """With how many tokens all prompts begin alike, without the last token of any; 0 where that is few."""
    first, last = min(token_ids), max(token_ids)  # in the order of lists, all others lie between these
    longest = min(map(len, token_ids)) - 1
    length = next((at for at in range(longest) if first[at] != last[at]), longest)
    return length if length >= SHORTEST_OPENING else 0


def attends_to_all(config: PreTrainedConfig, tokens: int) -> bool:
    """Whether every block attends to all of up to `tokens` tokens, told by the cache that transformers makes for it."""
    layers = DynamicCache(config=config).layers
    return bool(layers) and all(
        type(layer) is DynamicLayer or (type(layer) is DynamicSlidingWindowLayer and layer.sliding_window >= tokens)
        for layer in layers
    )
