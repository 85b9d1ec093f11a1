"""Each benchmark program runs on a tiny model and reports one line; the page made of such lines says what they say."""

import csv
import importlib
import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import actor_tune as at
from actor_tune.models.chat import encode
from benchmarks import bench_fit, bench_gpu, bench_scale
from benchmarks.common import Phases
from benchmarks.random_models import PEAKY, SHAPES, byte_tokenizer, random_checkpoint, random_prompts
from conftest import make_prompts
from postgresql import postgresql
from tools import make_performance_page
from tools.pages import gib

ROOT = Path(__file__).parents[1]


# One thread: tiny models only wait for a second one, and long where other programs run.
ALONE = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def run_alone(name, *arguments):
    """What a program reports."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *map(str, arguments)]
    outcome = subprocess.run(command, capture_output=True, text=True, env=os.environ | ALONE, cwd=ROOT)
    assert outcome.returncode == 0, outcome.stderr
    return checked(name, outcome.stdout)


def run_here(name, *arguments):
    """The same of a program that measures in processes of its own."""
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output):
        patch.setattr(sys, "argv", [name, *map(str, arguments)])
        for variable, value in ALONE.items():
            patch.setenv(variable, value)
        importlib.import_module(f"benchmarks.{name}").main()
    return checked(name, output.getvalue())


def checked(name, output):
    """The record in what a program wrote to stdout, which must be one line."""
    (line,) = output.splitlines()
    record = json.loads(line)
    assert record["benchmark"] == name.removeprefix("bench_")
    assert record["machine"]["cpu"]
    assert record["machine"]["memory_bytes"] > 2**28
    assert {"torch", "peft", "accelerate", "python"} <= set(record["versions"])
    return record


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def fit_record(work):
    file = work / "train.csv"
    with file.open("w", newline="", encoding="utf-8") as stream:
        rows = [(prompt.text, prompt.kind, prompt.set) for prompt in make_prompts()]
        csv.writer(stream).writerows([("prompt", "kind", "set"), *rows])
    model = random_checkpoint(work, SHAPES["tiny"])
    return run_alone("bench_fit", "--model", model, "--train", file, "--no-starter", "--sft-steps", 1)


@pytest.fixture(scope="module")
def measure_record(work):
    model = random_checkpoint(work, SHAPES["tiny"])
    return run_here("bench_measure", "--model", model, "--count", 9, "--alone", 3, "--tokens", 3, "--rounds", 1)


@pytest.fixture(scope="module")
def memory_record(work):
    return run_here("bench_memory", "--work", work, "--shape", "tiny")


@pytest.fixture(scope="module")
def scale_record(work):
    return run_here("bench_scale", "--work", work, "--shape", "tiny", "--prompts", 30, 60, "--depths")


@pytest.fixture(scope="module")
def gpu_record():
    return run_alone("bench_gpu", "--device", "cpu", "--shape", "tiny", "--prompts", 30, "--sft-steps", 1)


def test_bench_fit_times_a_fit_against_what_it_replaces(fit_record):
    seconds = fit_record["fit"]["seconds"]
    assert set(fit_record["fit"]["stages"]) == {
        "own answers",
        "choose block",
        "run blocks below",
        "train",
        "choose strength",
        "look again",
    }
    assert sum(fit_record["fit"]["stages"].values()) <= seconds + 0.1
    assert fit_record["prompts"] | {"tokens": 0} == {"given": 36, "train": 30, "validation": 6, "tokens": 0}
    assert fit_record["forward_passes"] == pytest.approx(seconds / fit_record["forward_pass"]["seconds"])
    loop = fit_record["plain_loop"]["per_query"]
    assert (loop["batch_size"], loop["epochs_timed"]) == (1, 1)
    assert loop["seconds"] == pytest.approx(loop["epochs"] * loop["seconds_per_epoch"])
    assert fit_record["speedup_vs_plain_loop"] == pytest.approx(loop["seconds"] / seconds)
    assert fit_record["plain_loop"]["batched"]["batch_size"] > 1
    assert fit_record["speedup_vs_plain_loop_batched"] > 0
    sft = fit_record["sft"]
    assert sft["steps"] == 3 * 2  # three epochs of 30 prompts, 16 at a time
    assert sft["lora"]["trainable"] < sft["full"]["trainable"] == fit_record["model"]["parameters"]
    assert fit_record["speedup_vs_sft"] == pytest.approx(min(sft[way]["seconds"] for way in ("full", "lora")) / seconds)


def test_the_plain_loop_trains_the_block_and_nothing_else(chat_model):
    model, layer = chat_model.model, 1
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    inputs = [{"input_ids": torch.tensor([[1, 2, 3]]), "attention_mask": torch.ones(1, 3, dtype=torch.int64)}] * 20
    with torch.no_grad():
        start = model(**inputs[0], output_hidden_states=True).hidden_states[layer + 1][:, -1]
    target = start + 1
    losses = bench_fit.plain_loop(model, layer, chat_model.blocks[layer], inputs, [target] * 20, 1.0, 1e-3)
    assert losses[0] == pytest.approx(start.shape[-1])  # ||1||^2
    assert losses[-1] < losses[0] / 2
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all(".layers.1." in name for name in changed)


def test_bench_measure_asks_all_contenders_the_same(measure_record):
    assert (measure_record["prompts"], measure_record["prompts_of_batch_1"]) == (9, 3)
    assert set(measure_record["seconds"]) == {"actor measure", "generate 1", "generate 8", "generate 16"}
    assert measure_record["generate_fixed"][str(measure_record["best_fixed_size"])] == pytest.approx(
        max(measure_record["generate_fixed"].values())
    )
    assert measure_record["equal_texts"] == 1, "greedy answers in float32 are the same in every batch"


def test_bench_memory_measures_each_phase_of_both_parts(memory_record):
    assert set(memory_record["below"]["phases"]) == {"load", "own answers", "choose block", "run blocks below", "train"}
    assert set(memory_record["stream"]["phases"]) == {
        *memory_record["below"]["phases"],
        "choose strength",
        "look again",
        "patch",
        "answers",
    }
    for part in ("stream", "below"):
        peaks = [phase["peak_rss_bytes"] for phase in memory_record[part]["phases"].values()]
        assert max(peaks) <= memory_record[part]["peak_rss_bytes"] < 4 * 2**30
    layer, blocks = memory_record["layer"], memory_record["shape"]["blocks"]
    share = memory_record["weights_bytes"] * (layer + 1) // blocks
    assert memory_record["goal_bytes"] == {"stream": 5 * 2**30, "below": share + 2 * 2**30}


def test_bench_scale_measures_every_point_in_a_process_of_its_own(scale_record):
    points = scale_record["prompts"]["points"]
    assert [point["prompts"] for point in points] == [30, 60]
    assert all(point["peak_rss_bytes"] >= point["loaded_peak_rss_bytes"] > 0 for point in points)
    assert set(scale_record["prompts"]["seconds"]) == {"linear", "log_log"}
    assert scale_record["depth"] is None


def test_bench_gpu_runs_on_a_processor_too(gpu_record):
    model = gpu_record["models"]["tiny"]
    assert model["prefix_utilisation"] == pytest.approx(model["prefix_flops"] / model["matmul_flops"])
    for rule in ("paper", "boundary"):
        assert model[f"{rule}_seconds"] > model[f"{rule}_train_seconds"] > 0
        assert len(model[f"{rule}_losses"]) == 3
    assert model["boundary_losses"][-1] < model["boundary_losses"][0]
    assert model["sft"]["steps"] == 3 * 2
    assert model["sft"]["full"]["seconds"] > 0


def test_bench_gpu_says_in_one_line_that_there_is_no_gpu(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["bench_gpu.py"])
    with pytest.raises(SystemExit) as stop:
        bench_gpu.main()
    assert stop.value.code == 2
    assert capsys.readouterr() == ("", "bench_gpu: no GPU that torch can use; nothing was measured\n")


def test_a_straight_line_is_found_and_the_exponent_of_a_power_law():
    line = bench_scale.straight_line([1, 2, 4], [5, 8, 14])
    assert line == pytest.approx({"slope": 3, "intercept": 2, "r2": 1})
    points = [{"n": n, "seconds": 3.0 * n**1.5, "peak_rss_bytes": 7 * n} for n in (10, 100, 1000)]
    series = bench_scale.series(points, "n")
    assert series["seconds"]["log_log"]["slope"] == pytest.approx(1.5)
    assert series["peak_rss_bytes"]["linear"]["slope"] == pytest.approx(7)
    scattered = bench_scale.straight_line([1, 2, 3], [1, 0, 1])
    assert scattered["r2"] == pytest.approx(0)


def test_a_phase_has_the_peak_of_what_happened_in_it():
    phases = Phases()
    with phases.phase("large"):
        torch.ones(2**26)  # 256 MiB
    with phases.phase("small"):
        torch.ones(2**10)
    large, small = (phases.records[name]["peak_rss_bytes"] for name in ("large", "small"))
    assert phases.peak == large
    assert not phases.separate or large - small > 200 * 2**20


def test_a_random_checkpoint_is_built_once_and_whole(work):
    shape = replace(SHAPES["tiny"], blocks=2)
    folder = random_checkpoint(work, shape)
    assert not list(work.glob("*.partial"))
    modified = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert random_checkpoint(work, shape) == folder
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == modified
    chat_model = at.load(str(folder), at.Placement(dtype="bfloat16"))
    weights = chat_model.model.state_dict()
    assert len(chat_model.blocks) == 2
    assert weights["lm_head.weight"].float().std() == pytest.approx(PEAKY / shape.d_model**0.5, rel=0.05)
    assert weights["model.layers.1.input_layernorm.weight"].eq(1).all()


def test_random_prompts_are_different_and_as_long_as_they_should_be():
    prompts = random_prompts(900)
    assert len({prompt.text for prompt in prompts}) == 900
    tokenizer = byte_tokenizer()
    lengths = [len(ids) for ids in encode(tokenizer, prompts)]
    assert (min(lengths), max(lengths)) == (10, 120)


MEASURED = {
    "model": "testbed",
    "dtype": "float32",
    "prompts": 128,
    "max_new_tokens": 32,
    "answers_per_second": 4.5,
    "generate_batch_1": 0.75,
    "generate_best_fixed": 3.0,
    "best_fixed_size": 32,
    "generate_fixed": {"8": 2.0, "32": 3.0},
    "speedup_vs_best_fixed": 1.5,
    "speedup_vs_batch_1": 6.0,
    "equal_texts": 0.9688,
    "equal_verdicts": 1.0,
    "machine": {"cpu": "Some Processor", "cores": 3, "threads": 2, "gpu": None},
    "versions": {"torch": "9.9"},
}


@pytest.fixture
def records(fit_record, memory_record, scale_record, gpu_record):
    return {"fit": fit_record, "memory": memory_record, "scale": scale_record, "gpu": gpu_record, "measure": MEASURED}


def test_the_page_has_the_figures_of_every_benchmark(tmp_path, records, monkeypatch):
    for name, record in records.items():
        lines = [{"benchmark": "an older run"}, record]
        (tmp_path / f"{name}.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    output = tmp_path / "performance.md"
    monkeypatch.setattr(sys, "argv", ["page", "--bench", str(tmp_path), "--output", str(output)])
    make_performance_page.main()
    text = output.read_text()
    assert f"| `fit` | {records['fit']['fit']['seconds']:.1f} |" in text
    assert gib(records["memory"]["stream"]["peak_rss_bytes"]) in text
    assert "1.50 times as fast as the best fixed batch size (32)" in text
    assert "96.9 % of the answers" in text
    assert "Some Processor, 3 cores, 2 threads, no GPU. torch 9.9." in text
    assert "| time grows linearly with depth | not measured | - |" in text


def test_the_page_says_which_goals_were_missed():
    nothing = dict.fromkeys(make_performance_page.NAMES)
    assert make_performance_page.page(nothing).count("not measured") == len(make_performance_page.goals(nothing))
    assert "No goal that was measured was missed." in make_performance_page.page(nothing)
    fit = {"forward_passes": 1.51, "speedup_vs_plain_loop": 15.0, "speedup_vs_sft": 14.9}
    memory = {
        "shape": {"name": "llama-2-7b"},
        "goal_bytes": {"stream": 5 * 2**30, "below": 8 * 2**30},
        "stream": {"peak_rss_bytes": 5 * 2**30},
        "below": {"phases": {"load": {"peak_rss_bytes": 9 * 2**30}, "train": {"peak_rss_bytes": 12 * 2**30}}},
    }
    parabola = {"linear": {"r2": 0.999}, "log_log": {"slope": 2.0}}
    line = {"linear": {"r2": 0.999}, "log_log": {"slope": 0.9}}
    scale = {"prompts": {"seconds": line, "points": [1, 2, 3]}, "depth": {"seconds": parabola, "points": [1, 2, 3]}}
    measure = {"speedup_vs_best_fixed": 1.3}
    found = make_performance_page.goals(nothing | {"fit": fit, "memory": memory, "scale": scale, "measure": measure})
    assert [goal.met for goal in found] == [False, True, False, True, False, True, True, False]
    assert found[4].measured == "9.00 GiB of 8.00 GiB"


# A study


def test_of_many_processes_that_begin_a_study_at_once_one_gives_it_the_defaults(tmp_path):
    with postgresql() as url:
        found = run_here("bench_study", "--storage", url, "--work", tmp_path, "--trials", 3, 6, "--processes", 6)
    assert found["together"]["enqueued"] == 1
    assert 18 <= found["together"]["ended"] < 18 + 6
    assert [point["trials"] for point in found["postgresql"]["points"]] == [3, 6]
    assert all(point["statements"] > 20 for point in found["postgresql"]["points"])
    assert 5 < found["postgresql"]["statements_of_a_look"] < 100
    assert 1 <= found["postgresql"]["connections"] <= 3
    assert found["journal"]["bytes"] > 6 * 1000
