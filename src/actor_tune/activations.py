"""Read and inject activations: hooks that always let go, the last token of every block, and the inputs of one block.

Blocks below the trained one never change, so what it receives is computed once (`block_inputs`) and put in its place
afterwards (`start_at`): the blocks below are passed through, while the family's own code still makes masks and rotary
embeddings. Nothing here knows a family.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from .chat import Batch, TokenIds, pad, rows_by_length
from .errors import UserError
from .model import ChatModel
from .progress import track

PREFIX_BATCH = 32


class _LeaveForwardPass(Exception):  # noqa: N818 - not an error
    """Raised by a hook to leave a forward pass whose remaining blocks are not needed."""


def hidden_of(output: Any) -> torch.Tensor:
    """The hidden state (prompt, token, d_model) in what a block returns: a tensor, or a tuple that begins with it."""
    return output if isinstance(output, torch.Tensor) else output[0]


def with_hidden(output: Any, hidden: torch.Tensor) -> Any:
    """`output` with its hidden state replaced."""
    return hidden if isinstance(output, torch.Tensor) else (hidden, *output[1:])


def forward(chat_model: ChatModel, batch: Batch) -> torch.Tensor:
    """Run the model. Returns logits (prompt, vocabulary) float32 at the last position."""
    with compact_head(chat_model):
        logits = chat_model.model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            use_cache=False,
            logits_to_keep=1,
        ).logits
    return logits[:, -1].float()


@contextmanager
def compact_head(chat_model: ChatModel) -> Iterator[None]:
    """Give the output head a contiguous input.

    Families slice the last position out of (prompt, token, d_model), and for such a view PyTorch's CPU matmul copies
    the whole vocabulary matrix once a prompt, which takes longer than all blocks of a small model together.
    """
    head = chat_model.model.get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda _module, arguments: (arguments[0].contiguous(), *arguments[1:]))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def stop_after(block: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Leave the forward pass after `block`; the list then holds its hidden state (prompt, token, d_model)."""
    seen: list[torch.Tensor] = []

    def keep(_module: nn.Module, _arguments: Any, output: Any) -> None:
        seen.append(hidden_of(output))
        raise _LeaveForwardPass

    handle = block.register_forward_hook(keep)
    try:
        yield seen
    except _LeaveForwardPass:
        pass
    finally:
        handle.remove()


@contextmanager
def last_tokens(blocks: Iterable[nn.Module]) -> Iterator[dict[int, torch.Tensor]]:
    """Keep what each block returns at the last position: index in `blocks` -> (prompt, d_model) float32."""
    seen: dict[int, torch.Tensor] = {}
    with ExitStack() as hooks:
        for index, block in enumerate(blocks):

            def keep(_module: nn.Module, _arguments: Any, output: Any, index: int = index) -> None:
                seen[index] = hidden_of(output)[:, -1].float()

            hooks.callback(block.register_forward_hook(keep).remove)
        yield seen


@contextmanager
def shifted(block: nn.Module, shift: torch.Tensor) -> Iterator[None]:
    """Add `shift`, broadcast to (prompt, token, d_model), to what `block` returns."""

    def add(_module: nn.Module, _arguments: Any, output: Any) -> Any:
        hidden = hidden_of(output)
        return with_hidden(output, hidden + shift.to(hidden))

    handle = block.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def start_at(chat_model: ChatModel, layer: int, hidden: torch.Tensor) -> Iterator[None]:
    """Hand `hidden` (prompt, token, d_model) to block `layer`; the blocks below it pass their input through unused."""

    def replace_input(_module: nn.Module, arguments: Any, keywords: Any) -> Any:
        if arguments:
            return (hidden, *arguments[1:]), keywords
        return arguments, keywords | {"hidden_states": hidden}

    with ExitStack() as undo:
        for block in chat_model.blocks[:layer]:
            undo.enter_context(_passed_through(block))
        undo.callback(chat_model.blocks[layer].register_forward_pre_hook(replace_input, with_kwargs=True).remove)
        yield


@contextmanager
def _passed_through(block: nn.Module) -> Iterator[None]:
    # Set on the instance, so that the class and any other block keep theirs; an instance attribute that was there
    # before (accelerate puts one) comes back.
    before = block.__dict__.get("forward")

    def forward(hidden_states: torch.Tensor, *_arguments: object, **_keywords: object) -> torch.Tensor:
        return hidden_states

    block.__dict__["forward"] = forward
    try:
        yield
    finally:
        if before is None:
            del block.__dict__["forward"]
        else:
            block.__dict__["forward"] = before


@torch.inference_mode()
def last_token_activations(chat_model: ChatModel, token_ids: Sequence[TokenIds]) -> torch.Tensor:
    """What every block returns at the last token of the template: (prompt, block, d_model) float32, on the CPU."""
    rows_done: list[int] = []
    parts: list[torch.Tensor] = []
    groups = list(rows_by_length(token_ids, PREFIX_BATCH))
    for rows in track(groups, "Reading activations"):
        batch = pad(token_ids, rows, chat_model.pad_id, chat_model.device)
        with last_tokens(chat_model.blocks) as seen:
            forward(chat_model, batch)
        parts.append(torch.stack([seen[index].cpu() for index in range(len(chat_model.blocks))], dim=1))
        rows_done += rows
    return torch.cat(parts)[torch.tensor(rows_done).argsort()]


@dataclass(frozen=True)
class BlockInputs:
    """What block `layer` receives for some prompts, from blocks that never change.

    - `token_ids`: one list a prompt, chat template included.
    - `hidden`: one tensor a prompt, (token, d_model), in the dtype of the model.
    """

    layer: int
    token_ids: list[TokenIds]
    hidden: list[torch.Tensor]

    def batch(self, rows: list[int], chat_model: ChatModel) -> tuple[Batch, torch.Tensor]:
        """The prompts `rows`, left-padded: tokens, and hidden state (prompt, token, d_model)."""
        batch = pad(self.token_ids, rows, chat_model.pad_id, chat_model.device)
        width = batch.input_ids.shape[1]
        hidden = self.hidden[rows[0]].new_zeros(len(rows), width, self.hidden[rows[0]].shape[-1])
        for line, row in enumerate(rows):
            hidden[line, width - len(self.token_ids[row]) :] = self.hidden[row]
        return batch, hidden

    def select(self, rows: Sequence[int]) -> "BlockInputs":
        """The prompts `rows` alone."""
        return replace(self, token_ids=[self.token_ids[row] for row in rows], hidden=[self.hidden[row] for row in rows])


@torch.inference_mode()
def block_inputs(chat_model: ChatModel, layer: int, token_ids: Sequence[TokenIds]) -> BlockInputs:
    """Run blocks 0..layer-1 once over all prompts and keep what block `layer` receives."""
    hidden: dict[int, torch.Tensor] = {}
    groups = list(rows_by_length(token_ids, PREFIX_BATCH))
    for rows in track(groups, f"Running blocks 0 to {layer - 1} once"):
        batch = pad(token_ids, rows, chat_model.pad_id, chat_model.device)
        states = _input_of(chat_model, layer, batch)
        for line, row in enumerate(rows):
            hidden[row] = states[line, -len(token_ids[row]) :].clone()
    return BlockInputs(layer, list(token_ids), [hidden[row] for row in range(len(token_ids))])


def _input_of(chat_model: ChatModel, layer: int, batch: Batch) -> torch.Tensor:
    """What block `layer` receives: (prompt, token, d_model)."""
    seen: list[torch.Tensor] = []

    def keep(_module: nn.Module, arguments: Any, keywords: Any) -> None:
        seen.append(arguments[0] if arguments else keywords["hidden_states"])
        raise _LeaveForwardPass

    handle = chat_model.blocks[layer].register_forward_pre_hook(keep, with_kwargs=True)
    try:
        forward(chat_model, batch)
    except _LeaveForwardPass:
        pass
    finally:
        handle.remove()
    return seen[0]


@torch.inference_mode()
def check_wiring(chat_model: ChatModel, layer: int, token_ids: Sequence[TokenIds]) -> None:
    """Prove on one batch that what is read at block `layer` is what the method means, and that it matters.

    The hooked tensor has the shape (prompt, token, d_model), equals `hidden_states[layer + 1]`, changing it changes the
    logits, and starting at the block from kept inputs gives the logits of the whole model.

    **Raises:** `UserError` naming the property that fails: the architecture is not supported.
    """
    batch = pad(token_ids, list(range(min(2, len(token_ids)))), chat_model.pad_id, chat_model.device)
    block = chat_model.blocks[layer]
    plain = forward(chat_model, batch)
    with stop_after(block) as seen:
        forward(chat_model, batch)
    states = chat_model.model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
        output_hidden_states=True,
    ).hidden_states
    hidden = _input_of(chat_model, layer, batch)
    with start_at(chat_model, layer, hidden):
        restarted = forward(chat_model, batch)
    # As long as the activations themselves, and not the same in all features: a norm would remove that.
    shift = torch.randn(seen[0].shape[-1], generator=torch.Generator().manual_seed(0)).to(seen[0])
    with shifted(block, shift / shift.norm() * seen[0].norm(dim=-1).mean()):
        moved = forward(chat_model, batch)
    real = batch.attention_mask.bool()
    failures = {
        "its output is not `hidden_states[layer + 1]`": not torch.equal(seen[0][real], states[layer + 1][real]),
        "running it from kept inputs gives other logits": not torch.allclose(plain, restarted, rtol=1e-3, atol=1e-3),
        "changing its output does not change the logits": torch.allclose(plain, moved, rtol=1e-3, atol=1e-3),
    }
    for failure, failed in failures.items():
        if failed:
            where = f"block {layer} of {type(chat_model.model).__name__}"
            raise UserError(where, failure, "a plain decoder block", "report this architecture")
