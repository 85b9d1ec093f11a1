"""Read and inject activations: hooks that always let go, and single blocks.

Blocks are passed through rather than left out, so that the family's own code still makes masks and rotary embeddings.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import Cache

from .chat import Batch
from .kv_cache import Keys
from .model import ChatModel


class _LeaveForwardPass(Exception):  # noqa: N818 - not an error
    """Raised by a hook to leave a forward pass whose remaining blocks are not needed."""


IN_OPENING: ContextVar[bool] = ContextVar("opening", default=False)  # whether an `opening_pass` is under way


@contextmanager
def opening_pass() -> Iterator[None]:
    """Within it, what runs is an opening that prompts share: its last token is not the last of any prompt."""
    token = IN_OPENING.set(True)
    try:
        yield
    finally:
        IN_OPENING.reset(token)


def hidden_of(output: Any) -> torch.Tensor:
    """The hidden state (prompt, token, d_model) in what a block returns: a tensor, or a tuple that begins with it."""
    return output if isinstance(output, torch.Tensor) else output[0]


def run_model(
    chat_model: ChatModel, batch: Batch, keys: Cache | None = None, keep: int = 1, hidden_states: bool = False
) -> Any:
    """What transformers returns for `batch`: logits of the last `keep` positions, and hidden states if asked for.

    `keys` are of the tokens before those of `batch`.
    """
    with compact_head(chat_model):
        return chat_model.model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            past_key_values=keys,
            use_cache=keys is not None,
            output_hidden_states=hidden_states,
            logits_to_keep=keep,
        )


def forward(chat_model: ChatModel, batch: Batch, keys: Cache | None = None) -> torch.Tensor:
    """Logits (prompt, vocabulary) float32 at the last position; `keys` are of the tokens before those of `batch`."""
    logits: torch.Tensor = run_model(chat_model, batch, keys).logits
    return logits[:, -1].float()


@contextmanager
def compact_head(chat_model: ChatModel) -> Iterator[None]:
    """Give the output head a contiguous input.

    Families slice the last position out of (prompt, token, d_model), and for such a view PyTorch's CPU matmul copies
    the whole vocabulary matrix once a prompt, which takes longer than all blocks of a small model together.
    """
    head = chat_model.model.get_output_embeddings()
    with head.register_forward_pre_hook(lambda _module, arguments: (arguments[0].contiguous(), *arguments[1:])):
        yield


@contextmanager
def stop_after(block: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Leave the forward pass after `block`; the list then holds its hidden state (prompt, token, d_model)."""
    seen: list[torch.Tensor] = []

    def keep(_module: nn.Module, _arguments: Any, output: Any) -> None:
        seen.append(hidden_of(output))
        raise _LeaveForwardPass

    with suppress(_LeaveForwardPass), block.register_forward_hook(keep):
        yield seen


@dataclass(frozen=True)
class Received:
    """What a block was called with: its hidden state (prompt, token, d_model), and all other arguments."""

    hidden: torch.Tensor
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]


@contextmanager
def stop_before(block: nn.Module) -> Iterator[list[Received]]:
    """Leave the forward pass before `block`; the list then holds what it would have received."""
    seen: list[Received] = []

    def keep(_module: nn.Module, arguments: Any, keywords: Any) -> None:
        others = dict(keywords)
        hidden = arguments[0] if arguments else others.pop("hidden_states")
        seen.append(Received(hidden, tuple(arguments[1:]), others))
        raise _LeaveForwardPass

    with suppress(_LeaveForwardPass), block.register_forward_pre_hook(keep, with_kwargs=True):
        yield seen


@contextmanager
def shifted(block: nn.Module, shift: torch.Tensor) -> Iterator[None]:
    """Add `shift`, broadcast to (prompt, token, d_model), to what `block` returns."""
    with changed(block, lambda hidden: hidden + shift.to(hidden)):
        yield


@contextmanager
def changed(block: nn.Module, change: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Put what `block` returns, (prompt, token, d_model), through `change`."""

    def hook(_module: nn.Module, _arguments: Any, output: Any) -> Any:
        hidden = change(hidden_of(output))
        return hidden if isinstance(output, torch.Tensor) else (hidden, *output[1:])

    with block.register_forward_hook(hook):
        yield


@contextmanager
def start_at(chat_model: ChatModel, layer: int, hidden: torch.Tensor) -> Iterator[None]:
    """Hand `hidden` (prompt, token, d_model) to block `layer`, or, if there is none, to what follows the last one."""

    def replace_input(_module: nn.Module, arguments: Any, keywords: Any) -> Any:
        if arguments:
            return (hidden, *arguments[1:]), keywords
        return arguments, keywords | {"hidden_states": hidden}

    with pass_through(chat_model, range(layer)):
        if layer < len(chat_model.blocks):
            injected = chat_model.blocks[layer].register_forward_pre_hook(replace_input, with_kwargs=True)
        else:
            injected = chat_model.blocks[-1].register_forward_hook(lambda *_: hidden)
        with injected:
            yield


@contextmanager
def pass_through(chat_model: ChatModel, layers: range) -> Iterator[None]:
    """Let the blocks `layers` return what they receive."""

    def forward(hidden_states: torch.Tensor, *_arguments: object, **_keywords: object) -> torch.Tensor:
        return hidden_states

    # Set on the instance, so that the class and any other block keep theirs; an instance attribute that was there
    # before (accelerate puts one) comes back.
    before = {layer: chat_model.blocks[layer].__dict__.pop("forward", None) for layer in layers}
    for layer in layers:
        chat_model.blocks[layer].__dict__["forward"] = forward
    try:
        yield
    finally:
        for layer, own in before.items():
            del chat_model.blocks[layer].__dict__["forward"]
            chat_model.blocks[layer].__dict__.update({"forward": own} if own else {})


def run_block(
    chat_model: ChatModel, layer: int, batch: Batch, hidden: torch.Tensor, keys: Keys | None = None
) -> torch.Tensor:
    """What block `layer` returns for `hidden`, both (prompt, token, d_model)."""
    with start_at(chat_model, layer, hidden), stop_after(chat_model.blocks[layer]) as seen:
        forward(chat_model, batch, keys)
    return seen[0]


def last_logits(chat_model: ChatModel, batch: Batch, hidden: torch.Tensor) -> torch.Tensor:
    """Logits (prompt, vocabulary) float32 from what the last block returned, (prompt, token, d_model)."""
    last = Batch(batch.rows, batch.input_ids[:, -1:], batch.attention_mask[:, -1:], batch.position_ids[:, -1:])
    with start_at(chat_model, len(chat_model.blocks), hidden[:, -1:]):
        return forward(chat_model, last)
