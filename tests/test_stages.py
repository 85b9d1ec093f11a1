"""How far a fit is, and how long it will take: planted clocks, and right answers by hand."""

import logging
from dataclasses import replace

import pytest

from actor_tune import progress
from actor_tune.models.load import load
from actor_tune.models.machine import Memory
from actor_tune.models.placement import Placement
from actor_tune.models.speed import Rates
from actor_tune.progress import Stages, duration
from actor_tune.repair import forecast
from actor_tune.repair.cost import Speed, Work
from actor_tune.repair.forecast import ROWS, STEPS, measured_speed
from actor_tune.repair.gated import fit
from actor_tune.repair.preflight import Preflight, preflight
from actor_tune.repair.settings import Settings
from conftest import make_model, make_prompts, save_model
from test_preflight import COST

TRAINING = Rates(5e5, 5e4)


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until a test moves it: `clock[0] += 1.5`."""
    now = [100.0]
    for module in (progress, forecast):
        monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    return now


def test_each_phase_says_its_number_what_it_takes_what_is_left_and_what_has_passed(clock, caplog):
    stages = Stages(["load", "train", "gate"])
    with caplog.at_level(logging.INFO, "actor_tune"):
        with stages("load"):
            clock[0] += 12
        stages.expected = {"train": 40.0, "gate": 300.0}
        with stages("a thing of no interest"):
            clock[0] += 3
        with stages("train"):
            clock[0] += 50
        with stages("gate"):
            clock[0] += 280.004
    assert caplog.messages == [
        "1 of 3: load",
        "2 of 3: train, about 40 s; about 6 min left; 15 s passed",
        "3 of 3: gate, about 6 min; about 6 min left; 65 s passed",  # training took 50 s and not 40
        "3 phases in 6 min",
    ]
    assert stages.seconds == {"load": 12, "a thing of no interest": 3, "train": 50, "gate": 280.0}


def test_where_phases_were_faster_than_expected_so_the_others_are_said_to_be(clock, caplog):
    stages = Stages(["load", "train", "gate"])
    stages.expected = {"train": 400.0, "gate": 1200.0}
    with caplog.at_level(logging.INFO, "actor_tune"):
        with stages("train"):
            clock[0] += 20
        with stages("gate"):
            pass
    assert (
        caplog.messages[1] == "3 of 3: gate, about 88 s; about 88 s left; 20 s passed"
    )  # (20 + 10) / (400 + 10) of 1200


def test_where_no_bar_is_seen_the_log_says_every_half_minute_how_far_it_is_and_what_is_left(clock, caplog):
    with caplog.at_level(logging.INFO, "actor_tune"), progress.progress_bar(100, "Answering", done=20) as advance:
        for _ in range(80):
            clock[0] += 10
            advance()
    assert caplog.messages[0] == "Answering: 23 of 100, about 13 min left"  # 77 at 10 s
    assert caplog.messages[-1] == "Answering: 98 of 100, about 20 s left"
    assert len(caplog.messages) == 26
    caplog.clear()
    with caplog.at_level(logging.INFO, "actor_tune"), progress.progress_bar(100, "Answering") as advance:
        advance(99)
        clock[0] += 29
        advance()
    assert caplog.messages == []


def test_a_phase_that_fails_is_not_said_to_be_done(clock, caplog):
    stages = Stages(["load"])
    with caplog.at_level(logging.INFO, "actor_tune"), pytest.raises(KeyError), stages("load"):
        raise KeyError
    assert caplog.messages == ["1 of 1: load"]
    assert stages.seconds == {}


@pytest.mark.parametrize(("seconds", "said"), [(0.2, "1 s"), (89, "89 s"), (346, "6 min"), (9000, "2.5 h")])
def test_durations_are_said_as_people_say_them(seconds, said):
    assert duration(seconds) == said


class Planted:
    """An engine that takes so many seconds for a token of a prompt, and for one more of each prompt's answer."""

    def __init__(self, clock, a_token, a_step, start=0.0):
        self.clock, self.a_token, self.a_step, self.start, self.asked = clock, a_token, a_step, start, []

    def __call__(self, chat_model, max_reasoning_tokens):
        assert max_reasoning_tokens == 1, "a model that reasons would think for minutes"

        def answer(prompts, tokens):
            self.asked.append((prompts, tokens))
            read = sum(map(len, chat_model.encode(prompts)))
            self.clock[0] += self.start + self.a_token * read + self.a_step * (tokens - 1)
            self.start = 0.0
            yield from ()

        return answer


@pytest.fixture
def training(monkeypatch):
    """What one block with made-up weights does in training."""
    monkeypatch.setattr(forecast, "block_rates", lambda *_: TRAINING)


def test_the_speed_is_that_of_a_batch_that_the_loaded_model_ran_once_it_was_warm(clock, training, monkeypatch):
    model, prompts = make_model(), make_prompts(20)
    engine = Planted(clock, a_token=0.01, a_step=2.0, start=500.0)
    monkeypatch.setattr(forecast, "local_engine", engine)
    found = measured_speed(model, prompts, COST)
    few, tokens = engine.asked[0][0], sum(map(len, model.encode(engine.asked[0][0])))
    lengths = sorted(len(prompt.text) for prompt in prompts)
    assert len(few) == ROWS
    assert min(len(prompt.text) for prompt in few) > lengths[0] or lengths[0] == lengths[len(lengths) // 2]
    # COST: 6 blocks of 1952 parameters, and a head of 16 x 100; 2 FLOPs a parameter.
    rate = 2 * (6 * 1952 * tokens + 1600 * ROWS) / (0.01 * tokens)
    assert found.model.prompts == pytest.approx(rate)
    heads = 2 * 1600 * STEPS * ROWS / rate
    assert found.model.steps == pytest.approx(2 * 6 * 1952 * STEPS * ROWS / (2.0 * STEPS - heads))
    assert found.float32 == TRAINING
    assert found.seconds(COST.computing(COST.every, tokens, ROWS)) == pytest.approx(0.01 * tokens)


def test_where_noise_hides_what_a_token_more_takes_it_is_no_faster_than_one_of_a_prompt(clock, training, monkeypatch):
    monkeypatch.setattr(forecast, "local_engine", Planted(clock, a_token=0.01, a_step=-0.001))
    found = measured_speed(make_model(), make_prompts(20), COST)
    assert found.model.steps == pytest.approx(found.model.prompts)


def test_weights_on_disk_are_read_as_fast_as_they_were_for_each_token(tmp_path, clock, training, monkeypatch):
    folder = save_model(make_model(), tmp_path / "m")
    streamed = load(str(folder), Placement("cpu", "float32", offload="stream"))
    engine = Planted(clock, a_token=0.0, a_step=3.0, start=3.0)
    monkeypatch.setattr(forecast, "local_engine", engine)
    cost = replace(COST, placement=Placement("cpu", offload="stream"))
    found = measured_speed(streamed, make_prompts(20), cost)
    assert found == Speed(TRAINING, TRAINING, disk=pytest.approx(29856 / 3.0))
    assert [tokens for _, tokens in engine.asked] == [1], "each token reads all weights again"


def test_a_forecast_is_of_every_phase_at_the_speed_that_was_measured(monkeypatch):
    speed = Speed(Rates(1e6, 1e5), TRAINING, disk=1e4)
    monkeypatch.setattr("actor_tune.repair.preflight.measured_speed", lambda *_: speed)
    need = Preflight("m", COST, Memory(0, 0))
    seconds = need.seconds(make_model(), make_prompts())
    assert need.stages().names == ["load", *seconds]
    assert [*seconds] == ["own answers", "run blocks below", "train", "choose strength", "look again", "gate"]
    # Before and after: 50 prompts of 400 tokens in all, 4 tokens each.
    gate = 2 * 2 * ((6 * 1952 * 400 + 1600 * 200) / 1e6 + 6 * 1952 * 200 / 1e5)
    assert seconds["gate"] == pytest.approx(gate)
    assert speed.seconds(Work(read=5e4) + Work(training=1e6) * 2) == pytest.approx(5 + 4)


def test_a_fit_goes_through_the_phases_that_were_foreseen_and_no_others(tmp_path, caplog):
    folder = save_model(make_model(), tmp_path / "m")
    settings, placement = Settings(allow_unsafe=True, starter=False), Placement("cpu", "float32")
    need = preflight(str(folder), make_prompts(), settings, placement)
    stages = need.stages()
    with caplog.at_level(logging.INFO, "actor_tune"):
        with stages("load"):
            model = load(str(folder), placement)
        stages.expected = need.seconds(model, make_prompts())
        found = fit(model, make_prompts(), settings, stages=stages)
    assert [*stages.seconds] == stages.names
    assert found.record().seconds == stages.seconds
    assert all(seconds > 0 for seconds in stages.expected.values())
    said = [message for message in caplog.messages if " of 8: " in message]
    assert [message.split(":")[1].split(",")[0].split(";")[0].strip() for message in said] == stages.names


def test_preflight_times_nothing(tmp_path, monkeypatch):
    folder = save_model(make_model(), tmp_path / "m")
    monkeypatch.setattr("actor_tune.models.speed._seconds", None)
    need = preflight(str(folder), make_prompts(), placement=Placement("cpu", "float32"))
    assert "left" not in need.sentence
