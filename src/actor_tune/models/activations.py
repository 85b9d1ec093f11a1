"""Read and inject activations: hooks that always let go, and single blocks.

Blocks are passed through rather than left out, so that the family's own code still makes masks and rotary embeddings.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import Cache

from ..errors import UserError
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


def run_model(chat_model: ChatModel, batch: Batch, keys: Cache | None = None, keep: int = 1) -> Any:
    """What transformers returns for `batch`: logits of the last `keep` positions.

    `keys` are of the tokens before those of `batch`.
    """
    with compact_head(chat_model), finite_logits(chat_model, batch):
        return chat_model.model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            past_key_values=keys,
            use_cache=keys is not None,
            logits_to_keep=keep,
        )


def forward(chat_model: ChatModel, batch: Batch, keys: Cache | None = None) -> torch.Tensor:
    """Logits (prompt, vocabulary) float32 at the last position; `keys` are of the tokens before those of `batch`."""
    logits: torch.Tensor = run_model(chat_model, batch, keys).logits
    return logits[:, -1].float()


@contextmanager
def finite_logits(chat_model: ChatModel, batch: Batch) -> Iterator[None]:
    """Stop where logits are NaN or infinite: the answer would be token 0 again and again, `!!!!` in most vocabularies.

    **Raises:** `UserError` naming the first block that returns such numbers for `batch`.
    """

    def check(_module: nn.Module, _arguments: Any, logits: torch.Tensor) -> None:
        if not logits.amax(dim=-1).isfinite().all():
            raise _NotFinite

    with chat_model.model.get_output_embeddings().register_forward_hook(check):
        try:
            yield
        except _NotFinite:
            pass
        else:
            return
    raise not_finite(chat_model, batch)


class _NotFinite(Exception):  # noqa: N818 - leaves a forward pass
    pass


@torch.no_grad()
def not_finite(chat_model: ChatModel, batch: Batch) -> UserError:
    """The error that names the first block which returns NaN or infinity for `batch`, run anew."""
    bad: list[int] = []

    def look(layer: int, output: Any) -> None:
        if not hidden_of(output).isfinite().all():
            bad.append(layer)
            raise _LeaveForwardPass

    with ExitStack() as hooks:
        hooks.enter_context(suppress(_LeaveForwardPass))
        for layer, block in enumerate(chat_model.blocks):
            hooks.enter_context(block.register_forward_hook(lambda _m, _a, output, at=layer: look(at, output)))
        chat_model.model(batch.input_ids, attention_mask=batch.attention_mask[:, -batch.input_ids.shape[1] :])
    return not_finite_at(chat_model, bad[0] if bad else None)


def not_finite_at(chat_model: ChatModel, layer: int | None) -> UserError:
    """The error that says so of block `layer`; None: of the logits alone."""
    where = "its logits are" if layer is None else f"block {layer} returns"
    others = [name for name in ("float32", "bfloat16") if name != chat_model.computed_in]
    fix = f"try {' or '.join(f'`dtype={name}`' for name in others)}, or download it again"
    return UserError(chat_model.name, f"{where} NaN or infinity in {chat_model.computed_in}", "finite numbers", fix)


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
            injected = chat_model.blocks[-1].register_forward_hook(lambda *_: _as_returned(chat_model, -1, hidden))
        with injected:
            yield


def _as_returned(chat_model: ChatModel, layer: int, hidden: torch.Tensor) -> Any:
    """`hidden` in the form in which block `layer` returns it; what else it returns is asked for by nothing here."""
    values = chat_model.returned[layer]
    return (hidden, *[None] * (values - 1)) if values else hidden


@contextmanager
def pass_through(chat_model: ChatModel, layers: range) -> Iterator[None]:
    """Let the blocks `layers` return what they receive."""

    def forward_of(layer: int) -> Callable[..., Any]:
        def forward(hidden_states: torch.Tensor, *_arguments: object, **_keywords: object) -> Any:
            return _as_returned(chat_model, layer, hidden_states)

        return forward

    # Set on the instance, so that the class and any other block keep theirs; an instance attribute that was there
    # before (accelerate puts one) comes back.
    before = {layer: chat_model.blocks[layer].__dict__.pop("forward", None) for layer in layers}
    for layer in layers:
        chat_model.blocks[layer].__dict__["forward"] = forward_of(layer)
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
