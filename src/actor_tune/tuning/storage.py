"""Where a study is kept: in a journal, a file that processes of a machine or a shared folder add to, or PostgreSQL.

A process that dies leaves a trial running that nobody works on. PostgreSQL shows it by its heartbeat, a journal by the
lock of the process that had it, which its system gives back. Either way the trial is put back, and another takes it.
"""

import logging
import os
import socket
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from ..errors import UserError, require_package
from ..storage.folders import is_held

if TYPE_CHECKING:
    from sqlalchemy import URL

log = logging.getLogger(__name__)

HEARTBEAT = 10
"""Seconds between signs of life in PostgreSQL; after `GRACE` without one a process counts as dead."""

GRACE = 40

BEGINNING = 2507_04250
"""The number of the lock in PostgreSQL under which tables are made."""

NAMELESS = 60.0
"""Seconds after which a trial in a journal that no process has put its name to counts as left behind."""

WORKER = "worker"
"""The attribute of a trial that says which process has it."""


@dataclass(frozen=True)
class Storage:
    """Where a study is kept, and this process among those at work on it.

    - `backend`: Optuna's.
    - `where`: for people.
    - `worker`: this process.
    - `locks`: where each process holds a lock as long as it lives; None where heartbeats say so.
    """

    backend: BaseStorage
    where: str
    worker: str
    locks: Path | None


@contextmanager
def storage(url: str | None, default: Path) -> Iterator[Storage]:
    """The storage at `url`: `postgresql://...`, or the path of a journal; None: the journal `default`.

    **Raises:** `UserError` when it cannot be reached, or is of another kind.
    """
    worker = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    with ExitStack() as undo:
        if url is not None and "://" in url:
            database, where = _database(url)
            undo.callback(database.engine.dispose)
            undo.callback(database.remove_session)
            yield Storage(database, where, worker, None)
            return
        path = Path(url) if url else default
        if path.is_dir() or not path.parent.is_dir():
            found = "a folder" if path.is_dir() else f"no folder {path.parent}"
            raise UserError(f"`storage={path}`", found, "a file, or one to be made", "give the path of a journal")
        locks = path.with_name(f"{path.name}.workers")
        locks.mkdir(exist_ok=True)
        own = FileLock(locks / worker, fallback_to_soft=False)
        undo.enter_context(own)
        undo.callback((locks / worker).unlink, missing_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            backend = JournalStorage(JournalFileBackend(str(path)))
        yield Storage(backend, str(path), worker, locks)


def _database(url: str) -> tuple[RDBStorage, str]:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    try:
        address = make_url(url)
    except ArgumentError:
        expected = "postgresql://USER@HOST:PORT/DATABASE, or the path of a journal"
        raise UserError("`storage=`", "no address", expected, "correct it") from None
    shown = address.set(password=None).render_as_string()
    if address.password is not None:  # it would be in the record of the run, and in the list of processes
        fix = "leave it out: PGPASSWORD or a .pgpass file has it"
        raise UserError(f"`storage={shown}`", "a password in the address", "one without", fix)
    if address.get_backend_name() != "postgresql":
        expected = "postgresql://USER@HOST:PORT/DATABASE, or the path of a journal"
        raise UserError(f"`storage={shown}`", "another kind of storage", expected, "choose one of these")
    require_package(f"`storage={shown}`", "psycopg", "postgresql")
    address = address.set(drivername="postgresql+psycopg")
    try:
        with warnings.catch_warnings(), _alone_at(address):  # of many that make tables at once, all but one would fail
            warnings.simplefilter("ignore", ExperimentalWarning)
            backend = RDBStorage(
                address.render_as_string(),
                engine_kwargs={"pool_pre_ping": True},
                heartbeat_interval=HEARTBEAT,
                grace_period=GRACE,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
            )
    except SQLAlchemyError as error:
        said = str(error.__cause__ or error).strip().splitlines()[0]
        fix = "start it, or correct the address; PGPASSWORD or a .pgpass file has the password"
        raise UserError(f"`storage={shown}`", said, "a PostgreSQL server that lets you in", fix) from None
    return backend, shown


@contextmanager
def _alone_at(address: "URL") -> Iterator[None]:
    """Within it, no other process is within the same at `address`."""
    from sqlalchemy import NullPool, create_engine, text

    engine = create_engine(address, poolclass=NullPool)
    with engine.connect() as connection:  # the lock ends with it
        connection.execute(text(f"SELECT pg_advisory_lock({BEGINNING})"))
        yield


def take_up(study: optuna.Study, kept: Storage) -> None:
    """Put trials back whose process is dead, so that the next that asks is given them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if kept.locks is None:
            optuna.storages.fail_stale_trials(study)
            return
        retry = RetryHeartbeatStaleTrialCallback()
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if not _left_behind(trial, kept.locks):
            continue
        try:
            kept.backend.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)
        except UpdateFinishedTrialError:  # another process saw it too, and was faster
            continue
        log.warning("trial %d was left behind by a process that died; it is taken up again", trial.number)
        retry(study, study.trials[trial.number])


def _left_behind(trial: optuna.trial.FrozenTrial, locks: Path) -> bool:
    name = trial.user_attrs.get(WORKER)
    if name is None:
        began = trial.datetime_start
        return began is not None and time.time() - began.timestamp() > NAMELESS
    held = locks / name
    return not held.exists() or not is_held(held)
