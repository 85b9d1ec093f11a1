"""What the benchmark programs share: the machine, peak memory, processes of their own, and how they report.

A benchmark writes progress to stderr, and to stdout exactly one line: its figures as JSON.
"""

import gc
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import torch

import actor_tune as at
from actor_tune.progress import Stages
from actor_tune.prompts.prompt import KINDS, of_kind
from actor_tune.repair.method import fit_block
from actor_tune.storage.versions import VERSIONS_OF

GIB = 2**30
WARM_UP_PROMPTS = 12  # of each kind

Record = dict[str, Any]


def say(text: str) -> None:
    """Progress."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


def report(run: Callable[..., Record], *arguments: object) -> None:
    """Write what `run` returns as the only line of stdout."""
    sys.stdout.write(json.dumps(quietly(run, *arguments), allow_nan=False) + "\n")


def alone(run: Callable[..., Record], *arguments: object) -> Record:
    """What `run` returns in a Python of its own, so that its memory is its own. Raises what it raises."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(quietly, run, *arguments).result()


def quietly(run: Callable[..., Record], *arguments: object) -> Record:
    """What `run` returns; what libraries print goes to stderr."""
    with redirect_stdout(sys.stderr):
        return run(*arguments)


def environment() -> Record:
    """Cores and threads that this process may use, the rest of the machine, and the versions that decide figures."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    versions = {"python": platform.python_version()}
    for name in (*VERSIONS_OF, "accelerate", "peft"):
        versions[name] = "not installed"  # but used from its source
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    machine = {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    return {"machine": machine, "versions": versions}


def now() -> float:
    """The clock, in seconds, when a GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_memory(device: str = "cpu") -> int:
    """Most bytes that this process had resident since it began or `reset_peak` was called; on a GPU, its tensors.

    Read from /proc and not by getrusage, whose figure a child takes over from its parent.
    """
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmHWM: peak memory is measured on Linux only")


def reset_peak(device: str = "cpu") -> bool:
    """Free what is unused and let `peak_memory` begin anew; False where the system does not permit it."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return True
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except PermissionError:
        return False
    return True


class StageReached(Exception):  # noqa: N818 - not an error
    """The stage of a fit after which a benchmark wanted to leave it."""


@dataclass
class Phases:
    """Seconds and peak memory of named phases.

    - `peak`: bytes, of all time that the process has lived, between phases too.
    - `separate`: whether a phase's peak is its own; otherwise it is that of everything before it too.
    """

    records: dict[str, Record] = field(default_factory=dict)
    peak: int = 0
    separate: bool = True

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Record what happens inside under `name`."""
        self.peak = max(self.peak, peak_memory())
        self.separate = reset_peak()
        start = time.perf_counter()
        yield
        seconds, peak = time.perf_counter() - start, peak_memory()
        self.records[name] = {"seconds": round(seconds, 2), "peak_rss_bytes": peak}
        self.peak = max(self.peak, peak)
        say(f"{name}: {seconds:.1f} s, peak {peak / GIB:.2f} GiB")

    @contextmanager
    def of_fit(self, until: str | None = None) -> Iterator[None]:
        """Record the stages of a fit inside, and leave it after the stage `until`."""
        timed = Stages.__call__

        @contextmanager
        def stage(stages: Stages, name: str) -> Iterator[None]:
            with self.phase(name), timed(stages, name):
                yield
            if name == until:
                raise StageReached(name)

        with suppress(StageReached), patch.object(Stages, "__call__", stage):
            yield


def warm_up(chat_model: at.ChatModel, prompts: Sequence[at.Prompt]) -> None:
    """Fit on a few of `prompts`, so that what libraries do once, at first use, is in nobody's seconds."""
    few = [replace(prompt, set=kind) for kind in KINDS for prompt in of_kind(prompts, kind)[:WARM_UP_PROMPTS]]
    fit_block(chat_model, few, at.Settings(layer=len(chat_model.blocks) // 2, starter=False))
