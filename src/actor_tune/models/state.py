"""A block's weights: copied, changed, put in and taken out."""

import hashlib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from .model import ChatModel

State = dict[str, torch.Tensor]  # a block's parameters and buffers by name


@contextmanager
def in_float32(block: torch.nn.Module) -> Iterator[None]:
    """Hold the block in float32; afterwards every tensor of it is in the dtype it had."""
    tensors = [*block.parameters(), *block.buffers()]
    dtypes = [tensor.dtype for tensor in tensors]
    block.float()
    try:
        yield
    finally:
        for tensor, dtype in zip([*block.parameters(), *block.buffers()], dtypes, strict=True):
            tensor.data = tensor.data.to(dtype)


def state_of(block: torch.nn.Module) -> State:
    """A copy of the block's parameters and buffers."""
    return {name: tensor.detach().clone() for name, tensor in block.state_dict().items()}


def compact(state: State) -> State:
    """`state` with every tensor in bfloat16 that loses nothing by it, as those of a checkpoint computed in float32."""
    return {
        name: half if torch.equal((half := tensor.to(torch.bfloat16)).to(tensor.dtype), tensor) else tensor
        for name, tensor in state.items()
    }


@contextmanager
def loaded(block: torch.nn.Module, state: State) -> Iterator[None]:
    """Put `state` into the block; afterwards it is as it was."""
    before = state_of(block)
    block.load_state_dict(state)
    try:
        yield
    finally:
        block.load_state_dict(before)


def interpolate(before: State, after: State, strength: float, stored: Mapping[str, torch.dtype]) -> State:
    """before + strength (after - before), computed in float32; in the dtypes `stored` of each parameter."""
    return {
        name: (start.float() + strength * (after[name].float() - start.float())).to(stored.get(name, start.dtype))
        for name, start in before.items()
    }


def fingerprint(chat_model: ChatModel) -> str:
    """SHA-256 (hex) that changes with any weight in memory, and with each forward hook that is put in or removed."""
    digest = hashlib.sha256(weights_in_memory(chat_model).encode())
    for name, module in chat_model.model.named_modules():
        hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
        # transformers leaves hooks of its own when hidden states are asked for first: they only look.
        others = sum(not str(getattr(hook, "__module__", "")).startswith("transformers.") for hook in hooks)
        digest.update(f"{name} {others}\n".encode() if others else b"")
    return digest.hexdigest()


@torch.no_grad()
def weights_in_memory(chat_model: ChatModel) -> str:
    """SHA-256 (hex) over all parameters and buffers: name, dtype, shape and sums of their bits, each on its device."""
    digest = hashlib.sha256()
    for name, tensor in [*chat_model.model.named_parameters(), *chat_model.model.named_buffers()]:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if not tensor.is_meta:  # else it is on disk, which nothing here changes
            digest.update(_sums(tensor))
    return digest.hexdigest()


def _sums(tensor: torch.Tensor) -> bytes:
    """The bits of `tensor` as integers, laid out as a square and summed by rows and by columns, and what is left."""
    # Sums of integers do not depend on the order, so that every device finds the same.
    bits = tensor.contiguous().view(-1).view(torch.uint8)
    bits = bits.clone() if bits.storage_offset() % 8 else bits  # eight bytes are read at a time
    whole = bits[: len(bits) // 8 * 8].view(torch.int64)
    side = math.isqrt(len(whole))
    square = whole[: side**2].view(side, side)
    parts = (square.sum(dim=0), square.sum(dim=1), whole[side**2 :], bits[8 * len(whole) :])
    return b"".join(part.cpu().numpy().tobytes() for part in parts)
