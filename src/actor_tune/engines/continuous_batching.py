"""A key-value cache with slots: prompts that begin alike share the beginning, and an answered one makes room at once.

Each slot holds one prompt and its answer so far, as keys and values of every block at these columns:

    shared prefix | left padding, masked | rest of the prompt | answer | unused, masked

The prefix is computed once and copied to every slot. Prompts come and go one by one, so that slots reach to different
columns; the mask says which count, and `position_ids` count real tokens only. For a block whose attention sees all
earlier tokens this changes nothing but the last bits; `attends_to_all` keeps every other kind of block out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from ..models.activations import forward, opening_pass, run_model
from ..models.chat import Batch, TokenIds, pad
from ..models.kv_cache import opening_length
from ..models.model import ChatModel
from ..models.trials import PROMPTS, alike, holds, some_of_all_lengths

GROWTH = 32
"""Columns that are added when the longest slot is full."""
SLOTS_OF_CHECK = 3
"""That `slots_agree` needs."""


def shared_prefix(token_ids: Sequence[TokenIds]) -> TokenIds:
    """What all prompts begin with, without the last token of any; empty where that is short."""
    return token_ids[0][: opening_length(token_ids)]


@dataclass
class _Place:
    """Where the tokens of a forward pass go: into the slots from `first` on, behind `past` columns at most.

    - `columns`: (slot) int64, each slot's own for its one token; None puts all tokens behind `past` columns.
    """

    first: int
    past: int
    columns: torch.Tensor | None


class _SlotLayer(DynamicLayer):
    """Keys and values of one block, (slot, head, column, head_dim), written in place."""

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, slots: int, place: _Place):
        super().__init__()
        self.slots = slots
        self.place = place

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        # Zeros and not empty: what is masked is multiplied by zero, which leaves a NaN a NaN.
        self.keys, self.values = (
            states.new_zeros(self.slots, states.shape[1], 0, states.shape[3]) for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_arguments: object, **_keywords: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        place = self.place
        end = place.past + key_states.shape[2]
        if end > self.keys.shape[2]:
            more = end - self.keys.shape[2] + GROWTH
            self.keys, self.values = (nn.functional.pad(old, (0, 0, 0, more)) for old in (self.keys, self.values))
        rows = slice(place.first, place.first + len(key_states))
        for held, new in ((self.keys, key_states), (self.values, value_states)):
            if place.columns is None:
                held[rows, :, place.past : end] = new
            else:
                _put(held, new, place.columns.to(new.device))
        return self.keys[rows, :, :end], self.values[rows, :, :end]

    def get_seq_length(self) -> int:
        return self.place.past


def _put(held: torch.Tensor, new: torch.Tensor, columns: torch.Tensor) -> None:
    """Put `new` (slot, head, 1, head_dim) into `held` at `columns` (slot)."""
    slots, heads, _, size = new.shape
    lines = torch.arange(slots * heads, device=new.device).view(slots, heads)
    # One line for each slot, head and column: indexing with several tensors takes many times as long.
    held.view(-1, size).index_copy_(0, (lines * held.shape[2] + columns[:, None]).flatten(), new.reshape(-1, size))


class Slots:
    """Up to `size` prompts under way, in the slots 0 to `len(slots) - 1`."""

    def __init__(self, chat_model: ChatModel, prefix: TokenIds, size: int):
        """Compute `prefix`, which all prompts begin with and may be empty."""
        self.chat_model, self.size = chat_model, size
        self._prefix = len(prefix)
        device = chat_model.device
        # Of each slot: where its own tokens begin, and the column that its next token goes to.
        self._begin, self._next = (torch.zeros(0, dtype=torch.int64, device=device) for _ in range(2))
        self._place = _Place(0, 0, None)
        blocks = len(DynamicCache(config=chat_model.model.config).layers)
        self._layers = [_SlotLayer(size, self._place) for _ in range(blocks)]
        self._cache = Cache(layers=[*self._layers])
        if prefix:
            input_ids = torch.tensor([prefix], device=device)
            with opening_pass():
                self._run(input_ids, torch.ones_like(input_ids), torch.arange(self._prefix, device=device)[None])
            for layer in self._layers:
                for states in (layer.keys, layer.values):
                    states[1:, :, : self._prefix] = states[:1, :, : self._prefix]

    def __len__(self) -> int:
        return len(self._next)

    def admit(self, token_ids: Sequence[TokenIds]) -> torch.Tensor:
        """Put prompts into the next free slots. Returns the logits (prompt, vocabulary) of their first new token."""
        device = self.chat_model.device
        own = [ids[self._prefix :] for ids in token_ids]
        batch = pad(own, list(range(len(own))), self.chat_model.pad_id, device)
        width = batch.input_ids.shape[1]
        self._place.first, self._place.past, self._place.columns = len(self), self._prefix, None
        free = slice(len(self), len(self) + len(own))
        for layer in self._layers:
            if layer.is_initialized:  # What other prompts left there is masked, and yet no NaN may be among it.
                layer.keys[free, :, self._prefix :] = 0
                layer.values[free, :, self._prefix :] = 0
        prefix_mask = torch.ones(len(own), self._prefix, dtype=torch.int64, device=device)
        mask = torch.cat([prefix_mask, batch.attention_mask], dim=1)
        logits = self._run(batch.input_ids, mask, self._prefix + batch.position_ids)
        self._begin = torch.cat([self._begin, self._prefix + width - batch.attention_mask.sum(dim=1)])
        self._next = torch.cat([self._next, torch.full_like(self._begin[-len(own) :], self._prefix + width)])
        return logits

    def advance(self, tokens: torch.Tensor) -> torch.Tensor:
        """Append `tokens` (slot) int64. Returns the logits (slot, vocabulary) of the next ones."""
        past = int(self._next.max())
        self._place.first, self._place.past, self._place.columns = 0, past, self._next
        columns = torch.arange(past + 1, device=tokens.device)
        own = (columns >= self._begin[:, None]) & (columns <= self._next[:, None])
        position_ids = (self._prefix + self._next - self._begin)[:, None]
        logits = self._run(tokens[:, None], (own | (columns < self._prefix)).long(), position_ids)
        self._next = self._next + 1
        return logits

    def keep(self, slots: Sequence[int]) -> list[int]:
        """Keep the prompts of `slots` alone. Returns for each of the slots 0, 1, ... which one it was before."""
        kept = set(slots)
        order = list(range(len(self)))
        spare = sorted(slot for slot in kept if slot >= len(kept))  # the last ones move into the gaps
        gaps = [slot for slot in range(len(kept)) if slot not in kept]
        for gap, slot in zip(gaps, spare, strict=True):
            order[gap] = slot
        order = order[: len(kept)]
        if gaps:
            for layer in self._layers:
                for states in (layer.keys, layer.values):
                    for gap, slot in zip(gaps, spare, strict=True):
                        states[gap] = states[slot]
        self._begin, self._next = self._begin[order], self._next[order]
        return order

    def _run(self, input_ids: torch.Tensor, mask: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        batch = Batch([*range(len(input_ids))], input_ids, mask, position_ids)
        logits: torch.Tensor = run_model(self.chat_model, batch, self._cache).logits
        return logits[:, -1]


@torch.inference_mode()
def slots_agree(slots: Slots, token_ids: Sequence[TokenIds]) -> bool:
    """Whether slots give the logits of plain forward passes after the first token to some of the prompts.

    Types of cache layers do not tell all, such as rotary embeddings that depend on the length of the whole sequence.
    `slots` must be empty, and are so afterwards.
    """
    prompts = [token_ids[row] for row in some_of_all_lengths(token_ids, min(PROMPTS, slots.size - 1))]

    def trial() -> bool:
        # The shortest comes twice: behind padding, and with unused columns after it.
        first = torch.cat([slots.admit(prompts), slots.admit(prompts[:1])])
        tokens = first.argmax(dim=-1)
        tokens[-1] = tokens[0]
        logits = slots.advance(tokens)
        slots.keep([])
        plain = [_plain(slots.chat_model, ids, int(token)) for ids, token in zip(prompts, tokens, strict=False)]
        return alike(logits, torch.stack([*plain, plain[0]]), logits.dtype)

    return holds(slots.chat_model, "a shared prefix, and prompts that come and go", token_ids, trial)


def _plain(chat_model: ChatModel, ids: TokenIds, token: int) -> torch.Tensor:
    """Logits (vocabulary) after `token`, which follows the prompt `ids`, as `generate` has them, token after token."""
    prompt, cache = pad([ids], [0], chat_model.pad_id, chat_model.device), DynamicCache(config=chat_model.model.config)
    forward(chat_model, prompt, cache)
    one = torch.tensor([[token]], device=chat_model.device)
    mask = torch.ones(1, len(ids) + 1, dtype=torch.int64, device=chat_model.device)
    return forward(chat_model, Batch([0], one, mask, torch.full_like(one, len(ids))), cache)[0]
