import itertools
import random
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from actor_tune.models import machine as module
from actor_tune.models.machine import PAIRS, Memory, float32_gain, free_memory, measured_rate

GIB = 2**30


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_rate_is_measured(dtype):
    assert 1e6 < measured_rate("cpu", dtype) < 1e15


@pytest.mark.parametrize(("half", "gain"), [(0.02, 0.5), (0.16, 4.0)])
def test_a_processor_that_is_taken_away_for_moments_is_judged_as_it_is(monkeypatch, half, gain):
    chooser, disturbed, count = random.Random(0), {1, 4, 5, 9, 12, 20, 27}, itertools.count()

    def seconds(_width, dtype):
        usual = half if dtype == torch.bfloat16 else 0.04
        return usual * (chooser.choice([10, 50]) if next(count) in disturbed else 1)

    monkeypatch.setattr(module, "_product_seconds", seconds)
    assert len(disturbed) < PAIRS / 2
    assert float32_gain.__wrapped__(torch.bfloat16) == pytest.approx(gain)


def test_the_gain_is_that_of_products_on_this_processor():
    assert 0.01 < float32_gain.__wrapped__(torch.bfloat16) < 100
    assert float32_gain.__wrapped__(torch.float32) == pytest.approx(1, abs=0.5)
    assert float32_gain(torch.bfloat16) == float32_gain(torch.bfloat16), "once a process"


@pytest.fixture
def machine(monkeypatch, tmp_path) -> Path:
    """A machine with 8 GiB available and a process that holds 1 GiB: the root of its proc and sys."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=8 * GIB))
    monkeypatch.setattr(psutil, "Process", lambda: SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=GIB)))
    return tmp_path


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_free_memory_is_what_is_available_and_what_the_process_holds(machine):
    assert free_memory("cpu", machine) == Memory(9 * GIB, 9 * GIB)


def group(folder: str, limit: str, used: int, cached: int = 0) -> dict[str, str]:
    stat = f"anon 1\nactive_file {cached}\ninactive_file {2 * cached}\n"
    return {f"{folder}/memory.max": limit, f"{folder}/memory.current": str(used), f"{folder}/memory.stat": stat}


def test_a_container_bounds_free_memory_and_file_caches_do_not_count(machine):
    write(machine, {"proc/self/cgroup": "0::/\n"} | group("sys/fs/cgroup", str(4 * GIB), 3 * GIB, GIB // 4))
    assert free_memory("mps", machine).device == GIB + 3 * GIB // 4 + GIB


def test_the_tightest_of_nested_groups_counts(machine):
    write(machine, {"proc/self/cgroup": "1:name=systemd:/\n0::/outer/inner\n"})
    write(machine, group("sys/fs/cgroup/outer/inner", "max\n", GIB))
    write(machine, group("sys/fs/cgroup/outer", f"{3 * GIB}\n", GIB))
    assert free_memory("cpu", machine).ram == 2 * GIB + GIB


def test_a_group_of_the_host_that_the_container_does_not_see_is_its_root(machine):
    v1 = "sys/fs/cgroup/memory"
    write(
        machine,
        {
            "proc/self/cgroup": "4:cpu,memory:/docker/abc\n3:pids:/\n0::/\n",
            f"{v1}/memory.limit_in_bytes": str(5 * GIB),
            f"{v1}/memory.usage_in_bytes": str(4 * GIB),
            f"{v1}/memory.stat": f"active_file 0\ninactive_file 0\ntotal_active_file {GIB}\ntotal_inactive_file 0\n",
        },
    )
    assert free_memory("cpu", machine).ram == 2 * GIB + GIB


def test_a_gpus_own_memory_is_apart(machine, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (20 * GIB, 24 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: GIB)
    assert free_memory("cuda:0", machine) == Memory(21 * GIB, 9 * GIB)
