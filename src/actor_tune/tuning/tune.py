"""Tune: a study, then the recipe that it found by `fit`, on prompts that no trial has seen.

Prompts -> three `parts` -> what all trials share (`bench`, `shared`) -> trials (`study`, `attempt`) of points of the
`space` -> the one that is taken (`choose`) -> `fit`.
"""

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import optuna

from ..engines.engine import REASONING_TOKENS
from ..errors import UserError
from ..judges.trained.judge import judge_trained
from ..judges.verdict import Judge
from ..measurement.metrics import mean_estimate
from ..models.model import ChatModel
from ..models.patch import base_hash
from ..progress import Report, Stages, no_report
from ..prompts.prompt import Prompt, fingerprint
from ..records.estimate import wilson
from ..records.file import convert
from ..records.request import Study, TuneRequest
from ..records.results import MARGIN
from ..records.run import AnsweredRate
from ..records.tune import Compared, Optimism, StudyTrial, Tuning, trade_off
from ..repair.changes import Changes
from ..repair.gated import Export, Fit, fit
from ..repair.method import completed
from ..repair.settings import DEFAULTS, Settings
from ..storage.versions import versions
from .bench import PHASES, Bench, make_bench
from .choose import optimism, taken
from .parts import Parts, parts_of
from .shared import shared_folder
from .storage import Storage, storage
from .study import ended, join, refused_by, run_trials, study_trials

TRIALS = "trials"
"""What follows the phases of the `bench`, and comes before those of `fit`, as `progress.Stages` names it."""

JOURNAL = "study.journal"
"""Where a study is kept among other work, where no other place is given."""


@dataclass(frozen=True)
class Tuned:
    """The fit by the recipe that a study found, and the study.

    - `fit`: as any other; what it validated on no trial had seen.
    - `tuning`: the trials, and what the search thought of the one that was taken.
    """

    fit: Fit
    tuning: Tuning

    def save(self, folder: str | Path, export: Export = "merged", command: str = "", settings: str = "") -> None:
        """Write the run, as `Fit.save` does, and `tune.json` in it."""
        self.fit.save(folder, export, command, settings, beside=[self.tuning])


def tune(
    chat_model: ChatModel,
    prompts: Sequence[Prompt],
    study: Study | None = None,
    settings: Settings = DEFAULTS,
    margin: float = MARGIN,
    judge: Judge = judge_trained,
    answer_batch: int | None = None,
    max_reasoning_tokens: int = REASONING_TOKENS,
    work: str | Path | None = None,
    stages: Stages | None = None,
    report: Report = no_report,
) -> Tuned:
    """Search for the recipe that suits `chat_model` and `prompts`, and `fit` by it. The model is left as it was.

    ```python
    tuned = at.tune(model, prompts, at.Study(trials=60))
    tuned.fit.passed, tuned.tuning.sentence
    tuned.save("tuned")
    ```

    **Arguments:**

    - `settings`: what they fix, such as a block or a rule, is not searched.
    - `work`: a folder in which what is done is kept, so that the same call goes on after a kill; None: nowhere.
    - others as of `fit`; `report` also takes the figures of each "trial".

    **Raises:** `UserError` as `fit`; when the storage cannot be reached, or has a study of something else.
    """
    began, study, stages = time.perf_counter(), study or Study(), stages or Stages()
    done = len(stages.seconds)
    stages.names[done:done] = (*PHASES, TRIALS)
    with _folder(work) as place:
        with (
            _joined(chat_model, prompts, study, settings, judge, place / JOURNAL) as joined,
            shared_folder(joined.request, joined.kept.worker) as shared,
        ):
            bench = make_bench(chat_model, joined.parts, settings, judge, shared, stages)
            with stages(TRIALS):
                run_trials(joined.study, joined.kept, bench, study.trials, True, report)
            trials, refused = study_trials(joined.study), refused_by(joined.study)
        asked = bench.refusals.asked
        flattery = optimism([*refused.values()], asked, settings.seed) if len(refused) > 1 else None
        chosen = taken(trials, refused, asked, flattery.trade_off if flattery else 0.0)
        fitted = fit(
            chat_model,
            prompts,
            _settings(settings, chosen),
            margin,
            judge,
            answer_batch,
            max_reasoning_tokens,
            place / "parts" if work else None,
            stages,
            report,
        )
    where, seconds = joined.kept.where, time.perf_counter() - began
    return Tuned(fitted, _record(trials, flattery, chosen, fitted, bench, where, seconds))


def assist(
    chat_model: ChatModel,
    prompts: Sequence[Prompt],
    study: Study,
    settings: Settings = DEFAULTS,
    judge: Judge = judge_trained,
    stages: Stages | None = None,
    report: Report = no_report,
) -> int:
    """Run trials of a study that another process tunes by, until it has enough; how many it then has.

    ```python
    at.assist(model, prompts, at.Study(storage="postgresql://me@host/tuning"))
    ```

    **Arguments:** those of the `tune` that is assisted.

    **Raises:** `UserError` when the storage cannot be reached, or the study is of something else.
    """
    stages = stages or Stages()
    if study.storage is None:
        fix = "name the one that the process which tunes was given"
        raise UserError("`storage=`", "none", "a storage that processes share", fix)
    nowhere = Path(os.devnull)  # the storage is named
    with _joined(chat_model, prompts, study, settings, judge, nowhere) as joined:
        if len(ended(joined.study)) < study.trials:  # else there is nothing to prepare for
            with shared_folder(joined.request, joined.kept.worker) as shared:
                bench = make_bench(chat_model, joined.parts, settings, judge, shared, stages)
                with stages(TRIALS):
                    run_trials(joined.study, joined.kept, bench, study.trials, False, report)
        return len(ended(joined.study))


@dataclass(frozen=True)
class _Joined:
    """A study that this process has joined."""

    kept: Storage
    study: optuna.Study
    request: TuneRequest
    parts: Parts


@contextmanager
def _folder(work: str | Path | None) -> Iterator[Path]:
    if work is None:
        with tempfile.TemporaryDirectory(prefix="actor-tune-") as made:
            yield Path(made)
        return
    Path(work).mkdir(parents=True, exist_ok=True)
    yield Path(work)


@contextmanager
def _joined(
    chat_model: ChatModel, prompts: Sequence[Prompt], study: Study, settings: Settings, judge: Judge, journal: Path
) -> Iterator[_Joined]:
    """Within it, this process is among those at work on `study`."""
    request = TuneRequest(
        base_sha256=base_hash(chat_model),
        computed_in=chat_model.computed_in,
        chat_template_kwargs=dict(chat_model.chat_template_kwargs),
        settings=asdict(settings),
        judge=getattr(judge, "__qualname__", type(judge).__qualname__),
        prompts_sha256=fingerprint(prompts),
        versions=versions(),
    )
    parts = parts_of(completed(prompts, settings), settings)
    with storage(study.storage, journal) as kept:
        yield _Joined(kept, join(kept, request, study.name), request, parts)


def _settings(settings: Settings, chosen: StudyTrial) -> Settings:
    """`settings` with what `chosen` was trained by; of the defaults of `fit`, as they are."""
    if chosen.defaults:
        return settings
    tried = dict(chosen.settings)
    changes = convert(tried.pop("changes"), Changes, "the study", "begin another study")
    return replace(settings, **tried, changes=changes)


def _record(
    trials: list[StudyTrial],
    flattery: Optimism | None,
    chosen: StudyTrial,
    fitted: Fit,
    bench: Bench,
    where: str,
    seconds: float,
) -> Tuning:
    return Tuning(
        trials=trials,
        taken=chosen.number,
        trained_on=len(bench.parts.train),
        searched_on=len(bench.parts.search),
        fresh=len(bench.parts.fresh),
        optimism=flattery,
        compared=_compared(chosen, fitted),
        storage=where,
        workers=len({trial.worker for trial in trials}),
        seconds=round(seconds, 1),
    )


def _compared(chosen: StudyTrial, fitted: Fit) -> list[Compared]:
    """What the search saw of `chosen`, and what `fitted` shows on prompts that no trial had seen."""
    if chosen.answers is None or fitted.block.chosen.answers is None:
        return []
    searched, fresh = ({rate.name: rate for rate in rates} for rates in (chosen.answers, fitted.block.chosen.answers))
    estimates = {name: wilson(round(rate.after * rate.n), rate.n) for name, rate in fresh.items()}
    both = [estimates["compliance"], estimates["safety"]]

    def middle(rates: dict[str, AnsweredRate], when: str) -> float:
        return trade_off(getattr(rates["compliance"], when), getattr(rates["safety"], when))

    def asked(rates: dict[str, AnsweredRate]) -> int:
        return rates["compliance"].n + rates["safety"].n

    overall = Compared(
        "trade-off",
        middle(searched, "before"),
        middle(searched, "after"),
        asked(searched),
        mean_estimate(both),
        middle(fresh, "before"),
        asked(fresh),
    )
    single = [
        Compared(name, own.before, own.after, own.n, estimates[name], fresh[name].before, fresh[name].n)
        for name in ("compliance", "safety", "harmless refused")
        for own in (searched[name],)
    ]
    return [overall, *single]
