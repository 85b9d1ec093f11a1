"""What this machine has: how fast it multiplies, and how much memory is free."""

import ctypes
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil
import torch
from torch import nn

PAIRS = 15
"""Products that are timed in each of two dtypes: odd, and more than moments can disturb."""


@dataclass(frozen=True)
class Memory:
    """Bytes, needed or free: where the model computes, and in RAM. The same where the model computes in RAM."""

    device: int
    ram: int


def give_back() -> None:
    """Let the C library return to the system what was freed; glibc keeps gigabytes of it after a large model's pass."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


@torch.inference_mode()
def measured_rate(device: str, dtype: torch.dtype) -> float:
    """FLOPs a second of a matrix product in `dtype` on `device`, measured in well under a second."""
    rates = []  # of growing matrices, until a product takes 50 ms: processors differ by factors of thousands
    for width in (128, 256, 512, 1024, 2048, 4096):
        for _ in range(3):
            seconds = _product_seconds(width, dtype, device)
            rates.append(2 * width**3 / seconds)
            if seconds > 0.05 and width > 128:  # at 128 that is the start of threads, not the product
                return max(rates)
    return max(rates)


@cache
@torch.inference_mode()
def float32_gain(dtype: torch.dtype) -> float:
    """How many times as fast as in `dtype` the processor multiplies matrices in float32, measured once a process.

    It decides numbers, and must come out alike also where other programs take the processor for moments. So it is the
    median over pairs of products, of which both are disturbed alike or one pair of many is.
    """
    for width in (128, 256, 512, 1024):
        slower = max(_product_seconds(width, dtype), _product_seconds(width, torch.float32))
        if slower > 0.005 and width > 128:  # at 128 that is the start of threads, not the product
            break
    pairs = [_product_seconds(width, dtype) / _product_seconds(width, torch.float32) for _ in range(PAIRS)]
    return statistics.median(pairs)


def _product_seconds(width: int, dtype: torch.dtype, device: str = "cpu") -> float:
    rows, weight = torch.ones(2, width, width, dtype=dtype, device=device)
    start = time.perf_counter()
    nn.functional.linear(rows, weight)[0, 0].item()  # reading a value waits for the device
    return time.perf_counter() - start


def free_memory(device: str, root: Path = Path("/")) -> Memory:
    """What this process may hold in all: what is free, in a container within its limit, and what it holds already."""
    free = min([psutil.virtual_memory().available, *_container_room(root)]) + psutil.Process().memory_info().rss
    if device.startswith("cuda"):
        return Memory(torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device), free)
    return Memory(free, free)


def _container_room(root: Path) -> Iterator[int]:
    """Bytes that the control groups of this process, and those above them, still allow (versions 2 and 1)."""
    groups = root / "proc/self/cgroup"
    for line in groups.read_text().splitlines() if groups.is_file() else []:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        base, limit, used = ("memory", "limit_in_bytes", "usage_in_bytes") if controllers else ("", "max", "current")
        limit, used = f"memory.{limit}", f"memory.{used}"
        # Not there where a container sees its own group as the root.
        own = root / "sys/fs/cgroup" / base / path.lstrip("/")
        for folder in [own, *own.parents]:
            if (folder / limit).is_file() and (value := (folder / limit).read_text().strip()) != "max":
                yield int(value) - int((folder / used).read_text()) + _file_cache(folder / "memory.stat")


def _file_cache(stat: Path) -> int:
    """Bytes of files in memory, which the system gives up for whatever needs the room."""
    values = dict(line.split() for line in stat.read_text().splitlines()) if stat.is_file() else {}
    names = ("active_file", "inactive_file")
    # Version 1 has another count that includes the groups below.
    return sum(int(values.get(f"total_{name}", values.get(name, 0))) for name in names)
