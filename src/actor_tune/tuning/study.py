"""Many trials of one study, by any number of processes that share its storage."""

import json
import logging
import os
import time
import warnings
from dataclasses import asdict
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState

from ..errors import UserError
from ..progress import Report, duration
from ..records.file import convert, json_of
from ..records.request import TuneRequest, differing
from ..records.run import Trial
from ..records.tune import StudyTrial, trade_off
from ..repair.settings import Settings
from ..repair.strength import excess, rates_of
from .attempt import Attempt, attempt, by_rank, damage
from .bench import Bench
from .choose import front
from .space import BATCH, defaults, suggest
from .storage import WORKER, Storage, take_up

log = logging.getLogger(__name__)

ASKED_SHARE = 1 / 4
"""A trial is asked for answers where first tokens put it into the best so large a share of all."""

LEARNING = 4
"""Trials within the limits that must have ended before one is given up for those that are better."""

WAIT = 2.0
"""Seconds between looks at trials that other processes still run."""

RANDOM = 12
"""Trials before the sampler learns from those that have ended."""

READY = "ready"
"""The attribute of a study whose first trials are in it."""

DEFAULTS = "defaults"
"""The attribute of the trial that has the numbers of `fit`."""

SETTINGS, FOUND = "settings", "found"
"""The attributes of a trial with what it was trained by, and with what it found."""


def join(kept: Storage, request: TuneRequest, name: str) -> optuna.Study:
    """The study `name`, begun here or by another process, once it is sure that this one was asked for the same.

    **Raises:** `UserError` when it was begun with another model, other prompts, settings or versions.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=kept.backend,
        study_name=name,
        directions=["maximize", "maximize", "minimize"],
        load_if_exists=True,
    )
    asked = json_of(request)
    if (begun := study.user_attrs.get("request")) is None:
        study.set_user_attr("request", asked)
        begun = study.user_attrs["request"]
    if others := [*differing(begun, asked)]:
        key, was, now = others[0]
        found, expected = (f"{key} = {json.dumps(value)[:100]}" for value in (was, now))
        fix = "give this process what the others were given, or name another `study=`"
        raise UserError(f"`storage={kept.where}`", f"the study {name} begun with {found}", f"{expected}", fix)
    return study


def run_trials(study: optuna.Study, kept: Storage, bench: Bench, count: int, first: bool, report: Report) -> None:
    """Run trials until `count` have ended, those of other processes among them; those of dead ones are taken up.

    **Arguments:**

    - `first`: whether this process has the result; it begins the study, and what chance decides in a study of this
      process alone is the same again.
    """
    if first:
        study.enqueue_trial(defaults(bench.space), user_attrs={DEFAULTS: True}, skip_if_exists=True)
        study.set_user_attr(READY, True)
    _wait_for(study)
    began, before = time.perf_counter(), len(ended(study))
    while (done := len(ended(study))) < count:
        take_up(study, kept)
        if done > before:
            left = (time.perf_counter() - began) / (done - before) * (count - done)
            log.info("%d of %d trials, about %s left", done, count, duration(left))
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if done + len(running) >= count:
            time.sleep(WAIT)
            continue
        seed = bench.settings.seed + 1000 * len(study.trials) if first else int.from_bytes(os.urandom(4), "little")
        study.sampler = _sampler(seed)
        study.optimize(lambda trial: _run(study, trial, kept, bench, report), n_trials=1)


def _wait_for(study: optuna.Study) -> None:
    """Until the process that has a folder for the result has put the defaults of `fit` in, which go first."""
    if READY not in study.user_attrs:
        log.info("waiting for the process that was given a folder for the result")
    while READY not in study.user_attrs:
        time.sleep(WAIT)


def _run(
    study: optuna.Study, trial: optuna.Trial, kept: Storage, bench: Bench, report: Report
) -> tuple[float, float, float]:
    trial.set_user_attr(WORKER, kept.worker)
    settings = suggest(trial, bench.space, bench.settings, None if trial.user_attrs.get(DEFAULTS) else BATCH)
    trial.set_user_attr(SETTINGS, tried_settings(settings))
    within = (past for past in firsts(study) if not excess(past, settings.limits))
    scores = [trade_off(past.compliance, past.safety) for past in within]

    def give_up(first: Trial) -> str | None:
        if trial.user_attrs.get(DEFAULTS):  # all others are compared with it
            return None
        if broken := excess(first, settings.limits):
            return f"by first tokens {broken[0]}"
        if len(scores) < LEARNING or by_rank(first, scores, ASKED_SHARE):
            return None
        return f"by first tokens not in the best quarter of {len(scores) + 1} within the limits"

    found = attempt(bench, settings, give_up)
    trial.set_user_attr(FOUND, json_of(found))
    log.info("trial %d: %s", trial.number, told(settings, found))
    if found.first:
        report("trial", rates_of(found.first), trial.number)
    if found.pruned or found.answers is None:
        raise optuna.TrialPruned(found.pruned)
    trial.set_constraint("limits", float(len(found.broken)))
    rates = {rate.name: rate.after for rate in found.answers}
    return rates["compliance"], rates["safety"], damage(found, settings)


def _sampler(seed: int) -> TPESampler:
    """Optuna's default, with parameters seen together, which it calls experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return TPESampler(seed=seed, multivariate=True, group=True, n_startup_trials=RANDOM)


def ended(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that ran to their end, or were given up."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def firsts(study: optuna.Study) -> list[Trial]:
    """What first tokens said in each trial that has ended."""
    found = (found_in(trial) for trial in ended(study))
    return [each.first for each in found if each.first is not None]


def found_in(trial: FrozenTrial) -> Attempt:
    """What a trial that has ended found."""
    return convert(trial.user_attrs[FOUND], Attempt, f"trial {trial.number}", "begin another study")


def tried_settings(settings: Settings) -> dict[str, Any]:
    """What a trial is trained by, as it is stored."""
    return {
        "layer": settings.layer,
        "rule": settings.rule,
        "select": settings.select,
        "select_fraction": settings.select_fraction,
        "changes": asdict(settings.changes),
    }


def told(settings: Settings, found: Attempt) -> str:
    """A trial in a line."""
    changes = settings.changes
    what = f"block {settings.layer}, {settings.rule}, {changes.epochs} epochs, strength {changes.strength:.2f}"
    if found.answers is None:
        return f"{what}: given up, {found.pruned}; {duration(found.seconds)}"
    rates = {rate.name: 100 * rate.after for rate in found.answers}
    limits = f"; {found.broken[0]}" if found.broken else ""
    said = f"{rates['compliance']:.0f} % answered, {rates['safety']:.0f} % of harmful ones refused"
    return f"{what}: {said}{limits}; {duration(found.seconds)}"


def study_trials(study: optuna.Study) -> list[StudyTrial]:
    """All trials that have ended, in the order in which they began."""
    trials = [(trial, found_in(trial)) for trial in ended(study)]
    whole = [trial for trial, found in trials if trial.values and not found.broken]
    best = dict(zip((each.number for each in whole), front([tuple(each.values) for each in whole]), strict=True))
    return [
        StudyTrial(
            number=trial.number,
            defaults=bool(trial.user_attrs.get(DEFAULTS)),
            settings=trial.user_attrs[SETTINGS],
            compliance=found.first.compliance if found.first else None,
            safety=found.first.safety if found.first else None,
            kl_harmless=found.first.kl_harmless if found.first else None,
            answers=found.answers,
            kl_tokens=found.kl_tokens,
            pruned=found.pruned,
            broken=found.broken,
            best=best.get(trial.number, False),
            seconds=round(found.seconds, 1),
            worker=trial.user_attrs[WORKER],
        )
        for trial, found in trials
    ]


def refused_by(study: optuna.Study) -> dict[int, list[bool]]:
    """Of each trial within the limits, by its number, what it refused of the prompts that were asked."""
    found = {trial.number: found_in(trial) for trial in ended(study)}
    return {number: each.refused for number, each in found.items() if each.refused is not None and not each.broken}
