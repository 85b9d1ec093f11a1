import re
from dataclasses import replace

import pytest

from actor_tune.errors import UserError
from actor_tune.models.machine import Memory
from actor_tune.models.placement import Placement
from actor_tune.models.speed import Rates
from actor_tune.repair.cost import LIBRARIES, Cost, Phase, Speed, Texts, Work, texts_of
from actor_tune.repair.gate import gate_prompts
from actor_tune.repair.method import prepare
from actor_tune.repair.preflight import FEWEST_ANSWERS, Preflight, preflight, sentence
from actor_tune.repair.rules import BOUNDARY, PAPER, RULES, Schedule
from actor_tune.repair.settings import Settings
from conftest import make_model, make_prompts, save_model
from test_size import LLAMA_2_7B, SIZE, size_of

GIB = 2**30

SCHEDULE = Schedule(epochs=2, batch_size=10, learning_rate=1e-3, decay=True, noise=0.0, recompute_every=0)
COST = Cost(
    size=SIZE,
    rule=replace(BOUNDARY, schedule=SCHEDULE, strengths=(0.0, 0.5, 1.0)),
    given=Texts(100, 1000, 20),
    validation_prompts=20,
    own_answers=12,
    own_tokens=4,
    gate=Texts(50, 400, 12),
    answer_tokens=4,
    answer_batch=16,
    layer=2,
    scanned=False,
    placement=Placement("cuda"),
    value=2,
)
SPEED = Speed(Rates(1e6, 1e5), Rates(5e5, 5e4), disk=1e4)


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Cost:
    """Of Llama-2-7b held in float32 on a processor."""
    return Cost(
        size=size_of(LLAMA_2_7B, tmp_path_factory.mktemp("large")),
        rule=BOUNDARY,
        given=Texts(600, 24000, 80),
        validation_prompts=120,
        own_answers=72,
        own_tokens=24,
        gate=Texts(304, 10000, 60),
        answer_tokens=24,
        answer_batch=64,
        layer=14,
        scanned=False,
        placement=Placement("cpu"),
        value=4,
    )


def need(cost: Cost, device: float = 0, ram: float | None = None) -> Preflight:
    """With so many bytes free."""
    return Preflight("m", cost, Memory(int(device), int(device if ram is None else ram)))


def phases(cost: Cost) -> list[Phase]:
    return need(cost).phases


def held(cost: Cost, **placement: str) -> Cost:
    """The same held otherwise."""
    return replace(cost, placement=replace(cost.placement, **placement))


def test_texts_are_counted_and_what_all_begin_with_once():
    assert texts_of([[1, 2, 3], [4], [5, 6]]) == Texts(3, 6, 3)
    assert texts_of([[1, 2, 3], [1, 2], [1, 2, 6]], opening=2) == Texts(3, 2 + 1 + 0 + 1, 3)


def assert_phases(cost: Cost, expected: list[tuple[str, int, int, float]]) -> None:
    """By name: bytes on the device, bytes of results in RAM, seconds."""
    found = phases(cost)
    assert [phase.name for phase in found] == [name for name, *_ in expected]
    for phase, (_, device, results, seconds) in zip(found, expected, strict=True):
        assert phase.memory == Memory(device, LIBRARIES + results)
        assert SPEED.seconds(phase.work) == pytest.approx(seconds)


# By hand: a block is 3904 bytes, everything else 6432, its largest tensor 3200, what is kept 1000 x 16 x 2 = 32000;
# 122 values a token: a batch of 32 x 20 tokens makes 32 x (20 x 122 x 2 + 100 x 10) = 188160 bytes.


def test_phases_of_a_named_block_are_as_computed_by_hand():
    assert_phases(
        COST,
        [
            # 12 of 10 tokens each are read, and answered with 4; all 6 blocks are 23424 bytes.
            (
                "own answers",
                29856 + 188160,
                12 * 100 * 4,
                2 * (6 * 1952 * 240 + 1600 * 60) / 1e6 + 2 * 6 * 1952 * 48 / 1e5,
            ),
            ("run blocks below", 3 * 3904 + 6432 + 32000 + 188160, 0, 4 * 1952 * 1000 / 1e6),
            # 64 prompts x 20 tokens x 6 x 16 values x 4 bytes are more than gradients, moments and a batch of 10.
            (
                "train",
                18144 + 32000 + 7808 + 491520,
                0,
                (2 * 6 * 80 * 10 * 256 + 16 * 300 * 1952) / 5e5 + 2 * 6 * 80 * 1952 / 5e4,
            ),
            (
                "choose strength",
                6 * 3904 + 6432 + 3904 + 7808 + 32000 + 188160,
                3 * 20 * 100 * 4,
                2 * (4 * 1952 * 600 + 1600 * 60 + 6 * 1952 * 120 + 1600 * 48) / 1e6
                + 2 * 6 * 1952 * 48 / 1e5
                + 3 * 3904 / 1e4,
            ),
            # 2 x 24 prompts for the directions and 2 x 3 that are shown, these in 6 blocks.
            (
                "look again",
                29856 + 3904 + 7808 + 32000 + 188160,
                6 * 54 * 16 * 4,
                2 * (1952 * 1000 + 6 * 1952 * 540 + 1600 * (54 + 36)) / 1e6,
            ),
            (
                "gate",
                29856 + 2 * 3904 + 16 * 16 * 96 * 2 + 16 * (12 * 122 * 2 + 1000),
                0,
                2 * 2 * ((6 * 1952 * 400 + 1600 * 200) / 1e6 + 6 * 1952 * 200 / 1e5),
            ),
        ],
    )


def test_phases_of_a_streamed_model_are_as_computed_by_hand():
    found = phases(held(COST, offload="stream"))
    one = 3200 + 3904
    assert [phase.memory.device for phase in found] == [
        one + 188160,
        one + 3904 + 32000 + 188160,
        one + 32000 + 7808 + 491520,
        one + 2 * 3904 + 7808 + 2 * 32000 + 188160,
        one + 2 * 3904 + 7808 + 32000 + 188160,
        one + 2 * 3904 + 49152 + 62848,
    ]
    # Read: all for first tokens and each of 4; two blocks; one; four blocks for each strength; all twice; all for each
    # token of four batches, before and after.
    read = [5 * 29856, 2 * 3904 + 6432, 3904 + 6432, 3 * (4 * 3904 + 6432), 2 * 29856, 2 * 4 * 4 * 29856]
    assert [phase.work.read for phase in found] == read
    assert [replace(phase.work, read=0) for phase in found] == [replace(each.work, read=0) for each in phases(COST)]


def test_a_block_chosen_by_a_scan_is_the_last_candidate_and_the_whole_model_is_loaded():
    found = phases(replace(COST, layer=3, scanned=True))
    assert [phase.name for phase in found][:3] == ["own answers", "choose block", "run blocks below"]
    # 96 prompts of 20 tokens, received and returned; keys of 32 in one of 6 blocks, twice; 2 candidates moved 4 ways.
    _, scan, below, *_ = found
    assert scan.memory.device == 29856 + 2 * 96 * 20 * 16 * 2 + 2 * 32 * 20 * 16 * 2 + 188160
    assert scan.memory.ram == LIBRARIES + (96 + 256) * 100 * 4
    seconds = 2 * (6 * 1952 * 960 + 1600 * 352) / 1e6 + 2 * 6 * 1952 * 256 / 1e5
    assert SPEED.seconds(scan.work) == pytest.approx(seconds)
    assert below.memory.device == 29856 + 32000 + 188160
    assert SPEED.seconds(below.work) == pytest.approx(2 * 3 * 1952 * 1000 / 1e6)


def test_gradients_and_moments_count_where_they_are_more_than_a_batch_of_outputs():
    big = replace(SIZE, blocks=(10**6,) * 6)
    train = phases(replace(COST, size=big))[2]
    assert train.memory.device == 3 * 2 * 10**6 + 6432 + 32000 + 16 * 10**6 + 10 * 20 * 6 * 16 * 4


def test_recomputing_the_direction_costs_time():
    often = replace(COST.rule, schedule=replace(SCHEDULE, recompute_every=4))
    more = SPEED.seconds(phases(replace(COST, rule=often))[2].work) - SPEED.seconds(phases(COST)[2].work)
    assert more == pytest.approx(4 * 2 * 80 * (2560 / 5e5 + 1952 / 5e4))


def test_on_a_processor_both_memories_are_one():
    cuda, cpu = phases(COST), phases(held(COST, device="cpu"))
    for here, there in zip(cpu, cuda, strict=True):
        assert here.memory == Memory(*[there.memory.device + there.memory.ram] * 2)


def test_four_bits_pack_linear_layers_of_all_blocks_but_the_trained_one():
    packed = phases(held(COST, quantization="bnb_4bit"))[1]
    assert phases(COST)[1].memory.device - packed.memory.device == 2 * (2 * 1920 - 1056)


def test_streaming_needs_less_than_holding_everything(large):
    for less, more in zip(phases(held(large, offload="stream")), phases(large), strict=True):
        assert less.memory.device < more.memory.device
        assert less.name == more.name


@pytest.mark.parametrize("value", [2, 4])
def test_training_a_streamed_llama_2_7b_needs_little_more_than_its_block(large, value):
    streamed = replace(large, placement=Placement("cuda", offload="stream"), value=value)
    train = next(phase for phase in phases(streamed) if phase.name == "train")
    assert 3.2 * GIB < train.memory.device < 5 * GIB


def test_what_fits_passes(large):
    most = need(large).most
    need(large, most).check()
    with pytest.raises(UserError):
        need(large, most - 1).check()


def test_what_is_spread_over_devices_is_not_held_against_one(large):
    replace(need(large), spread=True).check()


def advised(short: Preflight) -> Cost | None:
    """The cost after doing what the error says; None where a smaller model is all that helps."""
    with pytest.raises(UserError, match=r"needs about .* GiB and .* GiB are free; expected enough memory") as caught:
        short.check()
    fix, cost = caught.value.fix, short.cost
    if fix == "choose a smaller model":
        return None
    after = cost
    if "`offload=stream`" in fix:
        after = held(after, offload="stream")
    if "`dtype=bfloat16`" in fix:
        after = replace(after, value=2)
    if "`quantization=bnb_4bit`" in fix:
        after = held(after, quantization="bnb_4bit")
    if "without `quantization=`" in fix:
        after = held(after, quantization="none")
    if match := re.search("fewer prompts, (\\d+) in all", fix):
        share = int(match[1]) / cost.given.prompts
        given = Texts(int(match[1]), int(cost.given.tokens * share), cost.given.longest)
        after = replace(after, given=given, validation_prompts=int(cost.validation_prompts * share))
    assert after != cost
    assert f"(needs about {need(after).most / GIB:.1f} GiB)" in fix
    return after


SETUPS = [
    (Placement("cpu"), 4),
    (Placement("cuda"), 4),
    (Placement("cuda"), 2),
    (Placement("cuda", offload="stream"), 2),
    (Placement("cuda", quantization="bnb_4bit"), 4),
]


@pytest.mark.parametrize(("placement", "value"), SETUPS)
def test_what_is_advised_fits(large, placement, value):
    cost = replace(large, placement=placement, value=value)
    helped = []
    for free in range(1, int(need(cost).most / GIB) + 1):
        after = advised(need(cost, free * GIB, 64 * GIB if placement.device == "cuda" else None))
        helped.append(after is not None)
        if after is not None:
            need(after, free * GIB, 64 * GIB).check()
    assert helped[0] is False
    assert helped == sorted(helped)


def test_advice_is_the_first_that_helps(large):
    def fix(free: float, value: int = 4, **placement: str) -> str:
        cost = replace(large, placement=Placement("cuda", **placement), value=value)
        with pytest.raises(UserError) as caught:
            need(cost, free * GIB, 64 * GIB).check()
        return caught.value.fix.split(" (")[0]

    assert fix(25) == "use `offload=stream`"
    assert fix(5) == "use `offload=stream` `dtype=bfloat16`"
    assert fix(15, value=2) == "use `offload=stream`"
    assert fix(3, value=2) == "choose a smaller model"
    assert fix(5, offload="stream") == "use `dtype=bfloat16`"
    assert fix(5, value=2, quantization="bnb_4bit") == "use `offload=stream` without `quantization=`"


def test_fewer_prompts_are_advised_where_what_is_kept_is_what_does_not_fit(large):
    streamed = replace(large, placement=Placement("cuda", offload="stream"), value=2)
    many = replace(streamed, given=Texts(64_000, 3_000_000, 80), validation_prompts=6400)
    # 8000 prompts are 3.1 GB, and twice that while strengths are chosen.
    after = advised(need(many, 8 * GIB, 64 * GIB))
    assert after is not None
    assert after.given.prompts == 4_000
    need(after, 8 * GIB, 64 * GIB).check()


def test_ram_can_be_what_is_lacking_beside_a_gpu():
    with pytest.raises(UserError, match=re.escape("choose strength needs about 0.5 GiB of RAM and 0.3 GiB are free")):
        need(COST, GIB, GIB // 3).check()


def test_the_sentence_names_the_heaviest_phase_and_no_time_that_nobody_measured():
    found = [Phase("train", Memory(int(4.4 * GIB), 0), Work()), Phase("gate", Memory(GIB, 0), Work(prompts=1e30))]
    expected = "Heaviest phase: train, about 4.4 GiB; 18.2 GiB free"
    assert sentence(found, Memory(int(18.2 * GIB), 0)) == expected


def test_fewer_prompts_are_answered_at_a_time_where_their_cache_is_what_does_not_fit(large):
    streamed = held(large, offload="stream")
    assert need(streamed, 100 * GIB).with_fewer_answers() == need(streamed, 100 * GIB)
    smaller = need(streamed, 6 * GIB).with_fewer_answers()
    assert FEWEST_ANSWERS <= smaller.answer_batch < 64
    smaller.check()
    with pytest.raises(UserError):
        need(streamed, 6 * GIB).check()


@pytest.fixture
def folder(tmp_path) -> str:
    return str(save_model(make_model(), tmp_path / "m"))


def test_an_estimate_is_of_the_prompts_that_will_be_trained_on_and_those_that_the_gate_will_ask(folder):
    def cost(**settings) -> Cost:
        return preflight(folder, make_prompts(), Settings(**settings), Placement("cpu", "float32")).cost

    plain, system = cost(layer=1), cost(layer=1, system_prompt="You are the friendly assistant.")
    split = prepare(make_prompts(), Settings())
    assert plain.given.prompts == len(split.train + split.validation)
    assert plain.validation_prompts == len(split.validation)
    assert plain.gate.prompts == system.gate.prompts == len(gate_prompts(make_prompts(), 0.05)) + 12
    # One token a character, and the two of the turn's marks.
    longer = len("You are the friendly assistant.") + 2
    # All begin with that and the mark of the user's turn, which is run once.
    once = longer + 1
    assert system.gate.tokens - plain.gate.tokens == longer * plain.gate.prompts - once * (plain.gate.prompts - 1)
    assert system.given.longest - plain.given.longest == longer
    assert (cost(rule="paper").given.prompts, cost(rule="paper").rule) == (len(make_prompts()), PAPER)


def test_a_negative_block_counts_from_the_end_and_one_to_be_scanned_for_is_the_last_candidate(folder):
    def chosen(layer) -> tuple[int, bool]:
        cost = preflight(folder, make_prompts(), Settings(layer=layer), Placement("cpu", "float32")).cost
        return cost.layer, cost.scanned

    assert chosen(1) == (1, False)
    assert chosen(-3) == (1, False)
    assert chosen("auto") == chosen("silhouette") == (2, True)


def test_every_rule_has_its_cost(folder):
    for rule in RULES:
        steps = preflight(folder, make_prompts(), Settings(rule=rule, layer=1), Placement("cpu", "float32")).phases
        assert [phase.name for phase in steps] == [
            "own answers",
            "run blocks below",
            "train",
            "choose strength",
            "look again",
            "gate",
        ]


def test_too_few_prompts_are_told_before_anything_is_estimated():
    with pytest.raises(UserError, match="2 of kind harmful; expected at least 8"):
        preflight("nowhere", make_prompts(2), Settings("paper"))
