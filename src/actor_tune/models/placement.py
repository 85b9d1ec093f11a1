"""Where weights are: on one device or several, or on disk until they are needed, and in which dtype they are computed.

transformers and accelerate place and fetch weights; this decides what is asked of them.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from accelerate.hooks import AlignDevicesHook
from torch import nn

from ..errors import UserError
from .machine import float32_gain

Offload = Literal["none", "stream"]
Quantization = Literal["none", "bnb_4bit"]
DtypeName = Literal["auto", "float32", "bfloat16", "float16"]

HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}
DTYPES = {"float32": torch.float32, **HALF}  # those that a model can be computed in


@dataclass(frozen=True)
class Placement:
    """Where a model is loaded and how it is computed.

    - `device`: where it runs, as PyTorch names it; "auto" is the GPU where there is one.
    - `dtype`: "auto" is the checkpoint's, or float32 on a processor that is slower in the checkpoint's.
    - `device_map`: "auto" or "balanced" spreads blocks over all devices, as transformers does; None: one device.
    - `offload`: "stream" leaves all weights on disk; one block at a time is in memory.
    - `quantization`: "bnb_4bit" holds all blocks but the trained one in 4 bits (bitsandbytes).
    - `trust_remote_code`: run Python code that comes with the model. Without it none is run, and nobody is asked.
    """

    device: str = "auto"
    dtype: DtypeName = "auto"
    device_map: str | None = None
    offload: Offload = "none"
    quantization: Quantization = "none"
    trust_remote_code: bool = False

    def checked(self) -> "Placement":
        """The same with its device by name.

        **Raises:** `UserError` when two of the values exclude each other, or the machine has no such device.
        """
        both, streamed = "one of the two", self.offload == "stream"
        if streamed and self.device_map:
            raise UserError("`offload=stream`", "together with `device_map=`", both, "leave `device_map=` out")
        if streamed and self.quantization != "none":
            raise UserError("`quantization=`", "together with `offload=stream`", both, "leave `offload=stream` out")
        return replace(self, device=resolve_device(self.device))


def resolve_device(value: str) -> str:
    """`value`, or the best device where it is "auto".

    **Raises:** `UserError` when the machine has no such device.
    """
    if value == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=value)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"`device={value}`", reason, "a device of this machine", "use `device=cpu`") from None
    return value


def resolve_dtype(name: DtypeName, stored: torch.dtype, device: str) -> torch.dtype:
    """The dtype to compute in, for weights that are stored as `stored`."""
    if name != "auto":
        return DTYPES[name]
    if device != "cpu" or stored not in HALF.values():
        return stored
    # Processors without instructions for half precision are several times slower in it than in float32. A factor of
    # 1.5 is far from both kinds of processor, so that one machine always decides alike.
    return torch.float32 if float32_gain(stored) > 1.5 else stored


def device_map_with_disk(model: nn.Module, blocks: nn.ModuleList, device: str, disk: range) -> dict[str, str]:
    """`blocks` in `disk` on disk, and with all of them the embeddings and the head too; everything else on `device`."""
    whole = len(disk) == len(blocks)
    places: dict[str, str] = {}

    def visit(name: str, module: nn.Module) -> None:
        if module is blocks:
            places.update({f"{name}.{index}": "disk" if index in disk else device for index in range(len(blocks))})
        elif any(child is blocks for child in module.modules()):
            for child_name, child in module.named_children():
                visit(f"{name}.{child_name}" if name else child_name, child)
        else:
            large = whole and any(parameter.dim() > 1 for parameter in module.parameters())
            places[name] = "disk" if large else device

    visit("", model)
    return places


def _fetching_hooks(module: nn.Module) -> list[tuple[nn.Module, AlignDevicesHook]]:
    """The submodules whose weights are fetched for each use, with accelerate's hooks that do it."""
    return [
        (child, hook)
        for child in module.modules()
        if isinstance(hook := getattr(child, "_hf_hook", None), AlignDevicesHook) and hook.offload
    ]


def is_elsewhere(module: nn.Module) -> bool:
    """Whether some weights of `module` are not in the memory of the device that it runs on."""
    return bool(_fetching_hooks(module))


def settle(module: nn.Module) -> None:
    """Fetch the weights of `module` once and for all."""
    for child, hook in _fetching_hooks(module):
        hook.pre_forward(child)
        hook.offload = False


@contextmanager
def held(module: nn.Module) -> Iterator[None]:
    """Fetch the weights of `module` and keep them in memory; afterwards those that were elsewhere are there again."""
    with ExitStack() as fetched:
        for child, hook in _fetching_hooks(module):
            hook.pre_forward(child)
            hook.offload = False
            fetched.callback(hook.post_forward, child, None)
            fetched.callback(setattr, hook, "offload", True)  # before the other: what comes in last goes first
        yield


def device_of(module: nn.Module) -> torch.device:
    """Where `module` runs."""
    for child in module.modules():
        hook: Any = getattr(child, "_hf_hook", None)
        if isinstance(hook, AlignDevicesHook) and hook.execution_device is not None:
            return torch.device(hook.execution_device)
    return next(module.parameters()).device
