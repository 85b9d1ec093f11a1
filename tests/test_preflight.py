import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from transformers.models.llama import LlamaConfig
from transformers.models.mamba import MambaConfig

from actor_tune.errors import UserError
from actor_tune.preflight import (
    LIBRARIES,
    Memory,
    ModelSize,
    Phase,
    Plan,
    Setup,
    Speed,
    Texts,
    Work,
    check,
    free_memory,
    heaviest,
    measured_rate,
    model_size,
    phases,
    sentence,
    texts_of,
)
from actor_tune.train import Schedule
from conftest import CONFIGS, make_model

GIB = 2**30

PLANTED = LlamaConfig(
    vocab_size=100,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=6,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=4,
    tie_word_embeddings=False,
    dtype="bfloat16",
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
BLOCK = 16 * 16 + 16 * 8 + 16 * 8 + 16 * 16 + 3 * 16 * 24 + 2 * 16  # queries, keys, values, output, MLP, norms
SIZE = ModelSize((BLOCK,) * 6, (BLOCK - 32,) * 6, 2 * 1600 + 16, 1600, 16, 100, 96, 2)
WORK = Work(
    given=Texts(100, 1000, 20),
    validation_prompts=20,
    gate=Texts(50, 400, 12),
    layer=2,
    schedule=Schedule(epochs=2, batch_size=10, learning_rate=1e-3, decay=True, noise=0.0, recompute_every=0),
    strengths=3,
    answer_tokens=4,
    answer_batch=16,
)
PLAN = Plan(SIZE, WORK, Setup("cuda", 2), Speed(model=1e6, float32=5e5, disk=1e4))

LLAMA_2_7B = LlamaConfig(
    vocab_size=32000,
    hidden_size=4096,
    intermediate_size=11008,
    num_hidden_layers=32,
    num_attention_heads=32,
    tie_word_embeddings=False,
    dtype="bfloat16",
)
USUAL = Work(Texts(600, 24000, 80), 120, Texts(304, 10000, 60), layer=14)


def size_of(config, folder: Path) -> ModelSize:
    config.save_pretrained(folder)
    return model_size(folder)


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Plan:
    """Llama-2-7b held in float32 on a processor."""
    folder = tmp_path_factory.mktemp("large")
    return Plan(size_of(LLAMA_2_7B, folder), USUAL, Setup("cpu", 4), Speed(2e11, 2e11))


def test_parameters_are_counted_from_the_config(tmp_path):
    assert BLOCK == 1952
    assert size_of(PLANTED, tmp_path) == SIZE


def test_a_tied_head_is_counted_once(tmp_path):
    tied = LlamaConfig(**{**PLANTED.to_dict(), "tie_word_embeddings": True})
    assert size_of(tied, tmp_path).other_parameters == 1600 + 16


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_every_family_is_counted_as_its_real_model(tmp_path, family):
    size = size_of(CONFIGS[family], tmp_path)
    model = make_model(family).model
    cache = model(torch.tensor([[1, 2, 3]]), use_cache=True).past_key_values
    assert sum(size.blocks) + size.other_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert size.kv_values_per_token == sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers) / 3
    assert size.stored_bytes == 4


def test_experts_are_not_in_linear_layers_that_are_packed(tmp_path):
    size = size_of(CONFIGS["qwen3_moe"], tmp_path)
    experts = 4 * (2 * 24 * 32 + 24 * 32)
    assert all(linear <= block - experts for block, linear in zip(size.blocks, size.linear, strict=True))


def test_the_cache_is_taken_at_its_largest_where_the_empty_model_shows_none(tmp_path):
    config = MambaConfig(vocab_size=100, hidden_size=16, num_hidden_layers=3, state_size=4)
    assert size_of(config, tmp_path).kv_values_per_token == 3 * 2 * 16


def test_no_file_but_the_config_is_opened_and_no_weight_is_allocated(tmp_path):
    LLAMA_2_7B.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_text("no weights")
    before = psutil.Process().memory_info().rss
    size = model_size(tmp_path)
    assert sum(size.blocks) + size.other_parameters == 6_738_415_616
    assert psutil.Process().memory_info().rss - before < GIB


@pytest.mark.parametrize("content", [None, "{", '{"model_type": "no such family"}', '{"model_type": "t5"}'])
def test_a_folder_without_a_language_models_config_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match="a config that gives no model"):
        model_size(tmp_path)


def test_texts_are_counted():
    assert texts_of([[1, 2, 3], [4], [5, 6]]) == Texts(3, 6, 3)


def assert_phases(plan: Plan, expected: list[tuple[str, int, int, float]]) -> None:
    """By name: bytes on the device, bytes of results in RAM, seconds."""
    found = phases(plan)
    assert [phase.name for phase in found] == [name for name, *_ in expected]
    for phase, (_, device, results, seconds) in zip(found, expected, strict=True):
        assert phase.memory == Memory(device, LIBRARIES + results)
        assert phase.seconds == pytest.approx(seconds)


# By hand: a block is 3904 bytes, everything else 6432, its largest tensor 3200, what is kept 1000 x 16 x 2 = 32000;
# 122 values a token: a batch of 32 x 20 tokens makes 32 x (20 x 122 x 2 + 100 x 10) = 188160 bytes.


def test_phases_of_a_named_block_are_as_computed_by_hand():
    assert_phases(
        PLAN,
        [
            ("run blocks below", 3 * 3904 + 6432 + 32000 + 188160, 0, 4 * 1952 * 1000 / 1e6 + 18144 / 1e4),
            # 64 prompts x 20 tokens x 6 x 16 values x 4 bytes are more than gradients, moments and a batch of 10.
            (
                "train",
                18144 + 32000 + 7808 + 491520,
                0,
                (2 * 6 * 80 * (10 * 256 + 1952) + 16 * 300 * 1952) / 5e5,
            ),
            (
                "choose strength",
                6 * 3904 + 6432 + 3904 + 7808 + 32000 + 188160,
                3 * 20 * 100 * 4,
                2 * (4 * 1952 * 600 + 1600 * 60) / 1e6 + 3 * 3904 / 1e4,
            ),
            (
                "answer",
                29856 + 2 * 3904 + 16 * 16 * 96 * 2 + 16 * (12 * 122 * 2 + 1000),
                0,
                2 * 2 * (6 * 1952 * 600 + 1600 * 200) / 1e6,
            ),
        ],
    )


def test_phases_of_a_streamed_model_are_as_computed_by_hand():
    found = phases(replace(PLAN, setup=Setup("cuda", 2, "stream")))
    one = 3200 + 3904
    assert [phase.memory.device for phase in found] == [
        one + 3904 + 32000 + 188160,
        one + 32000 + 7808 + 491520,
        one + 2 * 3904 + 7808 + 2 * 32000 + 188160,
        one + 2 * 3904 + 49152 + 62848,
    ]
    # Read: two blocks; one; four blocks for each strength; all for each token of four batches, before and after.
    read = [2 * 3904 + 6432, 3904 + 6432, 3 * (4 * 3904 + 6432), 2 * 4 * 4 * 29856]
    plain = phases(replace(PLAN, speed=replace(PLAN.speed, disk=1e30)))
    assert [phase.seconds for phase in found] == pytest.approx(
        [phase.seconds + count / 1e4 for phase, count in zip(plain, read, strict=True)]
    )


def test_a_block_chosen_by_a_scan_is_the_last_candidate_and_the_whole_model_is_loaded():
    found = phases(replace(PLAN, work=replace(WORK, layer=None)))
    assert [phase.name for phase in found][:2] == ["choose block", "run blocks below"]
    # 96 prompts of 20 tokens, received and returned; keys of 32 in one of 6 blocks, twice; 2 candidates moved 4 ways.
    scan, below = found[0], found[1]
    assert scan.memory.device == 29856 + 2 * 96 * 20 * 16 * 2 + 2 * 32 * 20 * 16 * 2 + 188160
    assert scan.memory.ram == LIBRARIES + (96 + 256) * 100 * 4
    assert scan.seconds == pytest.approx(2 * (6 * 1952 * (960 + 256) + 1600 * 352) / 1e6 + 29856 / 1e4)
    assert below.memory.device == 29856 + 32000 + 188160
    assert below.seconds == pytest.approx(2 * 3 * 1952 * 1000 / 1e6)


def test_a_negative_block_counts_from_the_end():
    assert phases(replace(PLAN, work=replace(WORK, layer=-4))) == phases(PLAN)


def test_gradients_and_moments_count_where_they_are_more_than_a_batch_of_outputs():
    big = replace(SIZE, blocks=(10**6,) * 6)
    train = phases(replace(PLAN, size=big))[1]
    assert train.memory.device == 3 * 2 * 10**6 + 6432 + 32000 + 16 * 10**6 + 10 * 20 * 6 * 16 * 4


def test_recomputing_the_direction_costs_time():
    often = replace(WORK, schedule=replace(WORK.schedule, recompute_every=4))
    more = phases(replace(PLAN, work=often))[1].seconds - phases(PLAN)[1].seconds
    assert more == pytest.approx(4 * 2 * 80 * 4512 / 5e5)


def test_on_a_processor_both_memories_are_one():
    cuda, cpu = phases(PLAN), phases(replace(PLAN, setup=Setup("cpu", 2)))
    for here, there in zip(cpu, cuda, strict=True):
        assert here.memory == Memory(*[there.memory.device + there.memory.ram] * 2)


def test_four_bits_pack_linear_layers_of_all_blocks_but_the_trained_one():
    packed = phases(replace(PLAN, setup=Setup("cuda", 2, quantization="bnb_4bit")))[0]
    assert phases(PLAN)[0].memory.device - packed.memory.device == 2 * (2 * 1920 - 1056)


def test_streaming_needs_less_than_holding_everything(large):
    streamed = replace(large, setup=replace(large.setup, offload="stream"))
    for less, more in zip(phases(streamed), phases(large), strict=True):
        assert less.memory.device < more.memory.device
        assert less.name == more.name


@pytest.mark.parametrize("value", [2, 4])
def test_training_a_streamed_llama_2_7b_needs_little_more_than_its_block(large, value):
    streamed = replace(large, setup=Setup("cuda", value, "stream"))
    train = next(phase for phase in phases(streamed) if phase.name == "train")
    assert 3.2 * GIB < train.memory.device < 5 * GIB


def test_a_plan_that_fits_passes(large):
    most = heaviest(phases(large)).memory.ram
    check(large, Memory(most, most), "m")
    with pytest.raises(UserError):
        check(large, Memory(most - 1, most - 1), "m")


def advised(plan: Plan, free: Memory) -> Plan | None:
    """The plan after doing what the error says; None where a smaller model is all that helps."""
    with pytest.raises(UserError, match=r"needs about .* GiB and .* GiB are free; expected enough memory") as caught:
        check(plan, free, "m")
    fix = caught.value.fix
    if fix == "choose a smaller model":
        return None
    setup, work = plan.setup, plan.work
    if "--offload stream" in fix:
        setup = replace(setup, offload="stream")
    if "--dtype bfloat16" in fix:
        setup = replace(setup, bytes_per_parameter=2)
    if "--quantization bnb_4bit" in fix:
        setup = replace(setup, quantization="bnb_4bit")
    if "without --quantization" in fix:
        setup = replace(setup, quantization="none")
    if match := re.search("fewer prompts, (\\d+) in all", fix):
        share = int(match[1]) / work.given.prompts
        given = Texts(int(match[1]), int(work.given.tokens * share), work.given.longest)
        work = replace(work, given=given, validation_prompts=int(work.validation_prompts * share))
    after = replace(plan, setup=setup, work=work)
    assert after != plan
    assert f"(needs about {heaviest(phases(after)).memory.device / GIB:.1f} GiB)" in fix
    return after


SETUPS = [
    Setup("cpu", 4),
    Setup("cuda", 4),
    Setup("cuda", 2),
    Setup("cuda", 2, "stream"),
    Setup("cuda", 4, quantization="bnb_4bit"),
]


@pytest.mark.parametrize("setup", SETUPS)
def test_what_is_advised_fits(large, setup):
    plan = replace(large, setup=setup)
    needed = int(heaviest(phases(plan)).memory.device / GIB)
    helped = []
    for free in range(1, needed + 1):
        after = advised(plan, Memory(free * GIB, 64 * GIB if setup.device == "cuda" else free * GIB))
        helped.append(after is not None)
        if after is not None:
            check(after, Memory(free * GIB, 64 * GIB), "m")
    assert helped[0] is False
    assert helped == sorted(helped)


def test_advice_is_the_first_that_helps(large):
    def fix(free: float, **change: object) -> str:
        plan = replace(large, setup=replace(Setup("cuda", 4), **change))
        with pytest.raises(UserError) as caught:
            check(plan, Memory(int(free * GIB), 64 * GIB), "m")
        return caught.value.fix.split(" (")[0]

    assert fix(25) == "use --offload stream"
    assert fix(5) == "use --offload stream --dtype bfloat16"
    assert fix(15, offload="none", bytes_per_parameter=2) == "use --offload stream"
    assert fix(3, bytes_per_parameter=2) == "choose a smaller model"
    assert fix(5, bytes_per_parameter=4, offload="stream") == "use --dtype bfloat16"
    assert fix(5, bytes_per_parameter=2, quantization="bnb_4bit") == "use --offload stream without --quantization"


def test_fewer_prompts_are_advised_where_what_is_kept_is_what_does_not_fit(large):
    many = replace(USUAL, given=Texts(64_000, 3_000_000, 80), validation_prompts=6400)
    plan = Plan(large.size, many, Setup("cuda", 2, "stream"), large.speed)
    # 8000 prompts are 3.1 GB, and twice that while strengths are chosen.
    after = advised(plan, Memory(8 * GIB, 64 * GIB))
    assert after is not None
    assert after.work.given.prompts == 4_000
    check(after, Memory(8 * GIB, 64 * GIB), "m")


def test_ram_can_be_what_is_lacking_beside_a_gpu():
    with pytest.raises(UserError, match=re.escape("choose strength needs about 0.5 GiB of RAM and 0.3 GiB are free")):
        check(PLAN, Memory(GIB, GIB // 3), "m")


def test_the_sentence_names_the_heaviest_and_the_longest_phase():
    found = [
        Phase("train", Memory(int(4.4 * GIB), 0), 70.0),
        Phase("run blocks below", Memory(GIB, 0), 130.0),
        Phase("answer", Memory(GIB, 0), 40.0),
    ]
    assert sentence(found, Memory(int(18.2 * GIB), 0)) == (
        "Heaviest phase: train, about 4.4 GiB; longest: run blocks below, about 2 min of 4 min; 18.2 GiB free"
    )
    assert "about 1 s of 1 s" in sentence([Phase("train", Memory(1, 1), 0.2)], Memory(1, 1))
    assert "about 2.5 h of 2.5 h" in sentence([Phase("train", Memory(1, 1), 9000)], Memory(1, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_rate_is_measured(dtype):
    assert 1e6 < measured_rate("cpu", dtype) < 1e15


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
