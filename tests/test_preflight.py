import re
from dataclasses import replace

import pytest

from actor_tune.errors import UserError
from actor_tune.machine import Memory
from actor_tune.preflight import (
    FEWEST_ANSWERS,
    LIBRARIES,
    Phase,
    Plan,
    Setup,
    Speed,
    Texts,
    Work,
    check,
    heaviest,
    phases,
    sentence,
    smaller_answers,
    texts_of,
)
from actor_tune.train import Schedule
from test_size import LLAMA_2_7B, SIZE, size_of

GIB = 2**30

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

USUAL = Work(Texts(600, 24000, 80), 120, Texts(304, 10000, 60), layer=14)


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Plan:
    """Llama-2-7b held in float32 on a processor."""
    folder = tmp_path_factory.mktemp("large")
    return Plan(size_of(LLAMA_2_7B, folder), USUAL, Setup("cpu", 4), Speed(2e11, 2e11))


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


def test_fewer_prompts_are_answered_at_a_time_where_their_cache_is_what_does_not_fit(large):
    streamed = replace(large, setup=replace(large.setup, offload="stream"))
    assert smaller_answers(streamed, Memory(100 * GIB, 100 * GIB)) == streamed
    free = Memory(6 * GIB, 6 * GIB)
    smaller = smaller_answers(streamed, free)
    assert FEWEST_ANSWERS <= smaller.work.answer_batch < 64
    check(smaller, free, "m")
    with pytest.raises(UserError):
        check(streamed, free, "m")
