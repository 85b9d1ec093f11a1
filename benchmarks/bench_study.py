"""What the processes at work on one study ask of its storage, with trials that take no time.

    python -m benchmarks.bench_study --storage postgresql://USER@HOST/EMPTY_DATABASE --work runs/bench/study

Statements are those that SQLAlchemy sends, without the BEGIN and COMMIT around them. Seconds are of the processor, in
the process that runs the trials.
"""

import argparse
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

from optuna.trial import TrialState
from sqlalchemy import Engine, NullPool, create_engine, event, text

from actor_tune.progress import no_report
from actor_tune.records.request import TuneRequest
from actor_tune.records.run import AnsweredRate, SetRefusal, Trial
from actor_tune.repair.settings import Settings
from actor_tune.tuning import study as module
from actor_tune.tuning.attempt import Attempt, GiveUp
from actor_tune.tuning.bench import ASKED, Bench
from actor_tune.tuning.space import BLOCKS, Space
from actor_tune.tuning.storage import Storage, storage

from .common import Record, environment, report, say

AT = (25, 100, 400)
"""Trials of a study after which its growth is looked at."""

TOGETHER = 16
"""Processes that begin at once; here threads, each with a storage of its own."""

NAME = "watched"
"""What the process whose connections are counted calls itself."""

SETS = 12
REQUEST = TuneRequest(
    base_sha256="0" * 64,
    computed_in="bfloat16",
    chat_template_kwargs={},
    settings={},
    judge="none",
    prompts_sha256="0" * 64,
    versions={},
)
BENCH = cast(Bench, SimpleNamespace(space=Space([*range(BLOCKS)], "odds"), settings=Settings()))


class WaitsError(Exception):
    """A process has nothing to do but wait for others."""


def main() -> None:
    """Report one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", required=True, help="an empty database")
    parser.add_argument("--work", type=Path, required=True, help="a folder for the journal")
    parser.add_argument("--trials", type=int, nargs="+", default=AT)
    parser.add_argument("--processes", type=int, default=TOGETHER, help="that begin at once")
    arguments = parser.parse_args()
    report(run, arguments.storage, arguments.work, arguments.trials, arguments.processes)


def run(url: str, work: Path, trials: Sequence[int], processes: int) -> Record:
    """All figures."""
    work.mkdir(parents=True, exist_ok=True)
    with patch.object(module, "attempt", attempt):
        return {
            "benchmark": "study",
            "postgresql": with_postgresql(url, trials),
            "journal": with_journal(work / "journal", trials),
            "together": together(url, processes, 3 * processes),
        } | environment()


def attempt(_: Bench, settings: Settings, give_up: GiveUp) -> Attempt:
    """What a real attempt leaves behind, with numbers of chance."""
    chance = random.Random(str(settings.changes))
    sets = [SetRefusal(f"a set of prompts {row}", "harmful", chance.random(), 0.0, 0.01, 20) for row in range(SETS)]
    first = Trial(1.0, chance.random(), chance.random(), 0.0, chance.random(), 0.01, sets)
    if why := give_up(first):
        return Attempt(first, [], 0.0, pruned=why)
    names = ("compliance", "safety", "harmless refused", "garbled")
    rates = [AnsweredRate(name, ASKED, chance.random(), chance.random(), 0.0, 0.01) for name in names]
    refused = [chance.random() < 0.5 for _ in range(3 * ASKED)]
    return Attempt(Trial(**(vars(first) | {"answers": rates})), [], 0.0, 0.1, refused)


def with_postgresql(url: str, trials: Sequence[int]) -> Record:
    """Statements and seconds of a trial, of a look of a process that waits, and the connections of a process."""
    watch, seen = f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{NAME}'", [0]
    with storage(f"{url}?application_name={NAME}", Path()) as kept, counted(kept) as statements, observed() as ask:

        def watched(bench: Bench, settings: Settings, give_up: GiveUp) -> Attempt:
            seen.append(ask(url, watch))
            return attempt(bench, settings, give_up)

        with patch.object(module, "attempt", watched):
            points = grown(kept, trials, statements)
        study = module.join(kept, REQUEST, "bench")
        kept.backend.create_new_trial(study._study_id)
        began = len(statements)
        with patch.object(module.time, "sleep", side_effect=WaitsError), suppress(WaitsError):
            module.run_trials(study, kept, BENCH, trials[-1] + 1, False, no_report)
        return {"points": points, "statements_of_a_look": len(statements) - began, "connections": max(seen)}


def with_journal(file: Path, trials: Sequence[int]) -> Record:
    """Bytes and seconds of a trial, and what the whole journal takes to be read."""
    with storage(str(file), file) as kept:
        points = grown(kept, trials, [])
    began = time.process_time()
    with storage(str(file), file) as again:
        module.ended(module.join(again, REQUEST, "bench"))
        return {"points": points, "bytes": file.stat().st_size, "read_seconds": time.process_time() - began}


def grown(kept: Storage, trials: Sequence[int], statements: list[str]) -> list[Record]:
    """A study of more and more trials: what each took since the point before."""
    study, points = module.join(kept, REQUEST, "bench"), []
    for before, count in pairwise([0, *trials]):
        sent, began = len(statements), time.process_time()
        module.run_trials(study, kept, BENCH, count, True, no_report)
        each = count - before
        point = {"trials": count, "statements": (len(statements) - sent) / each}
        points.append(point | {"seconds": (time.process_time() - began) / each})
        say(f"{kept.where}: {points[-1]}")
    return points


def together(url: str, workers: int, count: int) -> Record:
    """What many that begin at once do twice, and how many trials more than `count` they end."""
    gate = Barrier(workers)

    def work(number: int) -> None:
        with storage(url, Path()) as kept:
            study = module.join(kept, REQUEST, "together")
            gate.wait(timeout=120)
            module.run_trials(study, kept, BENCH, count, number == 0, no_report)

    with ThreadPoolExecutor(workers) as pool:
        [*pool.map(work, range(workers))]
    with storage(url, Path()) as kept:
        trials = module.join(kept, REQUEST, "together").trials
        enqueued = sum("fixed_params" in trial.system_attrs for trial in trials)
        done = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
        return {"workers": workers, "asked": count, "ended": len(done), "enqueued": enqueued}


@contextmanager
def counted(kept: Storage) -> Iterator[list[str]]:
    """The statements that are sent within it."""
    sent: list[str] = []
    engine: Engine = cast(Any, kept.backend).engine

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        sent.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    yield sent
    event.remove(engine, "before_cursor_execute", note)


@contextmanager
def observed() -> Iterator[Callable[[str, str], int]]:
    """What asks the server for a number, over connections of its own."""
    with ExitStack() as undo:

        def ask(url: str, question: str) -> int:
            engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"), poolclass=NullPool)
            undo.callback(engine.dispose)
            with engine.connect() as connection:
                return int(connection.execute(text(question)).scalar_one())

        yield ask


if __name__ == "__main__":
    main()
