"""Several processes at work on one study: real processes, a real PostgreSQL, and one of them killed."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

import actor_tune as at
from actor_tune.records import file
from actor_tune.records.tune import Tuning
from conftest import make_model, make_prompts, save_model
from postgresql import postgresql

TRIALS = 8


@pytest.fixture(params=["journal", "postgresql"])
def storage(request, tmp_path):
    """An address to share, and what opens it for a look."""
    if request.param == "journal":
        path = tmp_path / "study"
        yield str(path), cache(lambda: JournalStorage(JournalFileBackend(str(path))))
        return
    with postgresql() as url, ExitStack() as undo:

        def look() -> RDBStorage:
            opened = RDBStorage(url.replace("postgresql://", "postgresql+psycopg://"))
            undo.callback(opened.engine.dispose)
            undo.callback(opened.remove_session)
            return opened

        yield url, cache(look)


@pytest.fixture
def asked(tmp_path) -> tuple[Path, Path]:
    """A model and prompts."""
    prompts = tmp_path / "prompts.csv"
    with prompts.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["prompt", "kind", "set"])
        writer.writerows([each.text, each.kind, each.set] for each in make_prompts(40))
    return save_model(make_model(), tmp_path / "model"), prompts


def process(model: Path, prompts: Path, url: str, log: Path, folder: Path | None = None) -> subprocess.Popen:
    command = [sys.executable, "-m", "actor_tune", "tune", str(model), "--prompts", str(prompts)]
    command += ["--trials", str(TRIALS), "--storage", url, "--no-starter", "--gate-prompts", "300", "--allow-unsafe"]
    command += ["--output-dir", str(folder)] if folder else []
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with log.open("wb") as stream:
        return subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environment)


def running_of(look, pid: int) -> list[int]:
    """Trials that the process `pid` has."""
    try:
        study = optuna.load_study(study_name=at.STUDY, storage=look())
    except (KeyError, OSError):
        return []
    trials = study.get_trials(states=(TrialState.RUNNING,))
    return [trial.number for trial in trials if f"-{pid}-" in trial.user_attrs.get("worker", "")]


@pytest.mark.long
def test_a_killed_process_loses_its_own_trial_at_most_and_another_takes_that_up(storage, asked, tmp_path):
    url, look = storage
    model, prompts = asked
    log = tmp_path / "tune.log"
    helper, leader = (
        process(model, prompts, url, tmp_path / "helper.log"),
        process(model, prompts, url, log, tmp_path / "run"),
    )
    try:
        while not (lost := running_of(look, helper.pid)):
            assert helper.poll() is None, (tmp_path / "helper.log").read_text()
            time.sleep(0.05)
        helper.send_signal(signal.SIGKILL)
        assert leader.wait(timeout=300) == 0, log.read_text()
    finally:
        for each in (helper, leader):
            each.kill()
            each.wait()

    study = optuna.load_study(study_name=at.STUDY, storage=look())
    states = Counter(trial.state for trial in study.trials)
    assert states[TrialState.FAIL] == 1
    assert states[TrialState.COMPLETE] + states[TrialState.PRUNED] >= TRIALS
    assert not states[TrialState.RUNNING]
    failed = next(trial for trial in study.trials if trial.state == TrialState.FAIL)
    again = [trial for trial in study.trials if failed.number in trial.system_attrs.get("retry_history", [])]
    assert [failed.number] == lost
    assert len(again) == 1
    assert failed.params.items() <= again[0].params.items()
    assert again[0].state in (TrialState.COMPLETE, TrialState.PRUNED)
    record = file.read(Tuning, tmp_path / "run")
    assert failed.number not in [trial.number for trial in record.trials]
    assert record.workers >= 1


@pytest.mark.long
def test_processes_at_work_at_once_share_the_trials(storage, asked, tmp_path):
    url, _ = storage
    model, prompts = asked
    logs = [tmp_path / "helper.log", tmp_path / "tune.log"]
    both = [process(model, prompts, url, logs[0]), process(model, prompts, url, logs[1], tmp_path / "run")]
    try:
        for each, log in zip(both, logs, strict=True):
            assert each.wait(timeout=300) == 0, log.read_text()
    finally:
        for each in both:
            each.kill()
            each.wait()
    record = file.read(Tuning, tmp_path / "run")
    assert TRIALS <= len(record.trials) <= TRIALS + 1
    assert record.workers == 2
    assert len({str(trial.settings) for trial in record.trials}) == len(record.trials)
