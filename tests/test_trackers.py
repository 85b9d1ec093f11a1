"""Figures of a fit, to whoever wants them: what `fit` reports, and what each tracker is told of it."""

import sys
from dataclasses import replace
from types import ModuleType

import pytest

from actor_tune.errors import UserError
from actor_tune.measurement.gate import figures_of
from actor_tune.records.results import Gate, Rise
from actor_tune.repair.gated import fit
from actor_tune.repair.settings import Settings
from actor_tune.show import trackers
from actor_tune.show.trackers import TRACKERS, report_to
from conftest import make_prompts

SETTINGS = Settings("boundary", layer=1, starter=False, allow_unsafe=True)


@pytest.fixture
def reported(chat_model):
    """A fit, and what it reported: (of, figures, step)."""
    calls = []
    found = fit(chat_model, make_prompts(), SETTINGS, report=lambda *call: calls.append(call))
    return found, calls


def test_a_fit_reports_each_step_each_strength_and_the_gate_in_this_order(reported):
    found, calls = reported
    steps = [(figures, step) for of, figures, step in calls if of == "train"]
    losses = [figures["loss"] for figures, _ in steps]
    assert [step for _, step in steps] == [*range(len(steps))]
    count = len(steps) // len(found.block.epochs)
    for epoch in found.block.epochs:
        own = losses[epoch.number * count : (epoch.number + 1) * count]
        assert sum(own) / count == pytest.approx(epoch.loss)
    strengths = [(figures, step) for of, figures, step in calls if of == "strength"]
    assert [step for _, step in strengths] == [*range(len(found.block.trials))]
    for trial, (figures, _) in zip(found.block.trials, strengths, strict=True):
        assert figures["strength"] == trial.strength
        assert figures["compliance"] == trial.compliance
        assert figures["refusal/harmful/set_harmful"] == next(s.refusal for s in trial.sets if s.kind == "harmful")
        assert ("answers/compliance" in figures) is (trial.answers is not None)
    assert calls[-1] == ("gate", figures_of(found.gate), 0)
    assert [of for of, *_ in calls] == sorted((of for of, *_ in calls), key=["train", "strength", "gate"].index)


def test_the_figures_of_a_gate_are_what_it_decided_and_on_what():
    rise = Rise("garbled", 424, before=0.1, after=0.2, value=0.1, low=0.05, high=0.15, limit=0.005)
    gate = Gate(passed=True, margin=0.05, drop=0.01, low=-0.02, high=0.04, n=304, needed=200, sentence="")
    figures = {"passed": 1, "margin": 0.05, "drop": 0.01, "low": -0.02, "high": 0.04, "n": 304}
    assert figures_of(gate) == figures
    assert figures_of(replace(gate, rises=[rise])) == figures | {"garbled/before": 0.1, "garbled/after": 0.2}


class Recorder(ModuleType):
    """A package that keeps its calls: (name, what it was given, by name too)."""

    def __init__(self, name, *functions):
        super().__init__(name)
        self.calls = []
        for function in functions:
            setattr(self, function, lambda *given, f=function, **named: self.calls.append((f, given, named)))


def plant_tracker(monkeypatch, name, *functions):
    package = Recorder(name, *functions)
    monkeypatch.setitem(sys.modules, name, package)
    monkeypatch.setattr(trackers, "require_package", lambda *_: None)
    return package


def send(name, folder):
    with report_to(name, folder) as report:
        report("train", {"loss": 0.5}, 3)
        report("gate", {"harmless refused/after": 0.1}, 0)


def test_trackio_is_told_and_finished(tmp_path, monkeypatch):
    package = plant_tracker(monkeypatch, "trackio", "init", "log", "finish")
    send("trackio", tmp_path / "my run")
    assert package.calls == [
        ("init", (), {"project": "actor-tune", "name": "my run"}),
        ("log", ({"train/loss": 0.5, "train/step": 3},), {}),
        ("log", ({"gate/harmless_refused/after": 0.1, "gate/step": 0},), {}),
        ("finish", (), {}),
    ]


def test_wandb_draws_each_kind_of_figure_over_its_own_steps(tmp_path, monkeypatch):
    package = plant_tracker(monkeypatch, "wandb", "init", "define_metric", "log", "finish")
    send("wandb", tmp_path / "run")
    assert ("define_metric", ("strength/*",), {"step_metric": "strength/step"}) in package.calls
    assert ("log", ({"train/loss": 0.5, "train/step": 3},), {}) in package.calls
    assert [name for name, *_ in package.calls][-1] == "finish"


def test_mlflow_is_told_in_a_run_that_ends(tmp_path, monkeypatch):
    package = plant_tracker(monkeypatch, "mlflow", "set_experiment", "start_run", "log_metrics", "end_run")
    send("mlflow", tmp_path / "run")
    assert package.calls == [
        ("set_experiment", ("actor-tune",), {}),
        ("start_run", (), {"run_name": "run"}),
        ("log_metrics", ({"train/loss": 0.5},), {"step": 3}),
        ("log_metrics", ({"gate/harmless_refused/after": 0.1},), {"step": 0}),
        ("end_run", ("FINISHED",), {}),
    ]


def test_tensorboard_writes_beside_the_run_and_not_into_it(tmp_path, monkeypatch):
    written = plant_tracker(monkeypatch, "torch.utils.tensorboard", "add_scalar", "close")

    def summary_writer(folder):
        written.calls.append(("folder", folder))
        return written

    written.SummaryWriter = summary_writer
    send("tensorboard", tmp_path / "run")
    assert written.calls == [
        ("folder", str(tmp_path / "run.tensorboard")),
        ("add_scalar", ("train/loss", 0.5, 3), {}),
        ("add_scalar", ("gate/harmless_refused/after", 0.1, 0), {}),
        ("close", (), {}),
    ]


def test_a_tracker_is_ended_where_the_fit_fails(tmp_path, monkeypatch):
    package = plant_tracker(monkeypatch, "mlflow", "set_experiment", "start_run", "end_run")
    with pytest.raises(KeyError), report_to("mlflow", tmp_path / "run"):
        raise KeyError
    assert package.calls[-1][0] == "end_run"


def test_no_tracker_takes_all_and_an_unknown_one_is_told(tmp_path):
    send(None, tmp_path / "run")
    with (
        pytest.raises(UserError, match="`log_to=neptune`: no such tracker; expected one of trackio, wandb"),
        report_to("neptune", tmp_path / "run"),
    ):
        pass


@pytest.mark.parametrize("name", sorted(TRACKERS))
def test_none_is_imported_before_it_is_asked_for(name):
    assert name not in sys.modules


def kept_by_tensorboard(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "run.tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars("train/loss")]


def kept_by_mlflow(_folder):
    from mlflow import MlflowClient

    client = MlflowClient()
    (experiment,) = (each for each in client.search_experiments() if each.name == "actor-tune")
    (only,) = client.search_runs([experiment.experiment_id])
    assert (only.info.run_name, only.info.status) == ("run", "FINISHED")
    return [(metric.step, metric.value) for metric in client.get_metric_history(only.info.run_id, "train/loss")]


def kept_by_trackio(_folder):
    from trackio.sqlite_storage import SQLiteStorage

    rows = SQLiteStorage.get_logs("actor-tune", "run")
    return [(row["train/step"], row["train/loss"]) for row in rows if "train/loss" in row]


@pytest.mark.filterwarnings("default")  # of what is not ours
@pytest.mark.parametrize("kept", [kept_by_tensorboard, kept_by_mlflow, kept_by_trackio])
def test_a_real_one_keeps_what_a_fit_reports(kept, tmp_path, monkeypatch):
    name = kept.__name__.removeprefix("kept_by_")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip(name, exc_type=ImportError)
    send(name, tmp_path / "run")
    assert kept(tmp_path) == [(3, 0.5)]


def test_names_of_sets_are_ones_that_every_tracker_takes():
    figures = trackers._flat("strength", {"refusal/harmful/tickets (1), July's": 0.5})
    assert figures == {"strength/refusal/harmful/tickets__1___July_s": 0.5}


def test_a_tracker_that_fails_is_told_of_once_and_the_fit_goes_on(tmp_path, monkeypatch, caplog):
    package = plant_tracker(monkeypatch, "trackio", "init", "log", "finish")

    def lost(*_given):
        raise ConnectionError("no route")

    package.log = lost
    send("trackio", tmp_path / "run")
    assert [name for name, *_ in package.calls] == ["init", "finish"]
    assert caplog.messages == ["trackio takes no more figures, the fit goes on: no route"]


def test_a_fit_that_fails_is_a_failed_run(tmp_path, monkeypatch):
    package = plant_tracker(monkeypatch, "mlflow", "set_experiment", "start_run", "log_metrics", "end_run")
    with pytest.raises(KeyError), report_to("mlflow", tmp_path / "run"):
        raise KeyError
    assert package.calls[-1] == ("end_run", ("FAILED",), {})
