"""What a search leaves beside its run, `tune.json`: each trial, and what it thought of the one that was taken."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from .estimate import Estimate
from .file import Record
from .run import AnsweredRate


def trade_off(compliance: float, safety: float) -> float:
    """The trade-off score, 0..1: the mean of compliance and safety."""
    return (compliance + safety) / 2


@dataclass(frozen=True, kw_only=True)
class StudyTrial:
    """One trial of a study, on the prompts that it searched by.

    - `defaults`: whether it has the numbers of `fit`.
    - `settings`: what was tried, by name, as in `repair.settings.Settings` and `repair.changes.Changes`.
    - `compliance`, `safety`, `kl_harmless`: by first tokens, 0..1 and nats; None where it was not trained.
    - `answers`: by judged answers; None where it was given up before.
    - `kl_tokens`: KL over the first tokens of answers to harmless prompts, nats.
    - `pruned`: why it was given up, in words.
    - `broken`: the limits that it breaks, in words.
    - `best`: no other trial within the limits is better in compliance, safety and damage at once.
    """

    number: int
    defaults: bool = False
    settings: dict[str, Any]
    compliance: float | None = None
    safety: float | None = None
    kl_harmless: float | None = None
    answers: list[AnsweredRate] | None = None
    kl_tokens: float | None = None
    pruned: str | None = None
    broken: list[str]
    best: bool
    seconds: float
    worker: str

    @property
    def trade_off(self) -> float | None:
        """Mean of compliance and safety by judged answers, 0..1."""
        if self.answers is None:
            return None
        rates = {rate.name: rate.after for rate in self.answers}
        return trade_off(rates["compliance"], rates["safety"])


@dataclass(frozen=True)
class Optimism:
    """By how much the best of many trials looks better on the prompts that it was chosen by than on others.

    Found by choosing again and again by some of those prompts, and asking the others (`tuning.choose.optimism`).

    - `trade_off`: the mean of the difference, 0..1; `choices`: how often it was chosen.
    - `trials`: that were chosen from; `prompts`: that they had answered.
    """

    trade_off: float
    choices: int
    trials: int
    prompts: int


@dataclass(frozen=True)
class Compared:
    """A rate of the recipe that was taken: what the search saw of it, and what prompts say that it did not see."""

    name: Literal["compliance", "safety", "trade-off", "harmless refused"]
    before: float
    searched: float
    searched_n: int
    fresh: Estimate
    fresh_before: float
    fresh_n: int


@dataclass(frozen=True, kw_only=True)
class Tuning(Record):
    """A study, and the trial that was taken.

    - `trials`: all that ended; `taken`: the number of the one whose settings the run was trained by.
    - `trained_on`, `searched_on`, `fresh`: prompts, in three parts that have none in common.
    - `optimism`: None where there was nothing to choose between.
    - `compared`: what the search saw beside what is true of prompts that it did not see.
    - `storage`: where the study was kept; `workers`: processes that ran its trials.
    """

    FILE: ClassVar[str] = "tune.json"
    SCHEMA: ClassVar[int] = 1

    trials: list[StudyTrial]
    taken: int
    trained_on: int
    searched_on: int
    fresh: int
    optimism: Optimism | None
    compared: list[Compared]
    storage: str
    workers: int
    seconds: float

    @property
    def sentence(self) -> str:
        """What was taken, and how much better the search thought of it than fresh prompts do, in words."""
        asked = sum(trial.answers is not None for trial in self.trials)
        own = next((trial.defaults for trial in self.trials if trial.number == self.taken), False)
        said = f"Of {len(self.trials)} trials ({asked} asked for answers) "
        said += (
            "none led the defaults of `fit` by more than chance, and these were taken"
            if own
            else f"trial {self.taken} did best and was taken"
        )
        if not self.compared:
            return f"{said}; nothing of it was kept on fresh prompts"
        found = {rate.name: rate for rate in self.compared}["trade-off"]
        return (
            f"{said}. Trade-off score: "
            f"{100 * found.searched:.1f} by the search's own {found.searched_n} prompts, {100 * found.fresh.value:.1f} "
            f"[{100 * found.fresh.low:.1f}, {100 * found.fresh.high:.1f}] by {found.fresh_n} that it had not seen"
        )
