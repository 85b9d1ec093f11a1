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
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from ..errors import UserError, require_package

if TYPE_CHECKING:
    from sqlalchemy import URL

log = logging.getLogger(__name__)

HEARTBEAT = 10
"""Seconds between signs of life in PostgreSQL; after `GRACE` without one a process counts as dead."""

GRACE = 40

NAMELESS = 60.0
"""Seconds after which a trial in a journal that no process has put its name to counts as left behind."""

BEGINNING = 2507_04250
"""The number of the lock in PostgreSQL, and in a journal's folder its name, of which `Storage.alone` is made."""

WORKER = "worker"
"""The attribute of a trial that says which process has it."""


@dataclass(frozen=True)
class Storage:
    """Where a study is kept, and this process among those at work on it.

    - `backend`: Optuna's.
    - `where`: for people, without a password.
    - `worker`: this process.
    - `locks`: where each process holds a lock as long as it lives; None where heartbeats say so.
    - `alone`: within it, no other process begins: what is there once for all is looked for, and made, by one.
    """

    backend: BaseStorage
    where: str
    worker: str
    locks: Path | None
    alone: Callable[[], AbstractContextManager[object]]


@contextmanager
def storage(url: str | None, default: Path) -> Iterator[Storage]:
    """The storage at `url`: `postgresql://...`, or the path of a journal; None: the journal `default`.

    **Raises:** `UserError` when it cannot be reached, or is of another kind.
    """
    worker = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    with ExitStack() as undo:
        if url is not None and "://" in url:
            database, where, alone = _database(url)
            undo.callback(database.engine.dispose)
            undo.callback(database.remove_session)
            yield Storage(database, where, worker, None, alone)
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
        beginning = partial(FileLock, locks / f".{BEGINNING}", fallback_to_soft=False)
        yield Storage(backend, str(path), worker, locks, beginning)


def _database(url: str) -> tuple[RDBStorage, str, Callable[[], AbstractContextManager[None]]]:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    try:
        address = make_url(url)
    except ArgumentError:
        expected = "postgresql://USER@HOST:PORT/DATABASE, or the path of a journal"
        raise UserError("`storage=`", "no address", expected, "correct it") from None
    shown = address.render_as_string(hide_password=True)
    if address.get_backend_name() != "postgresql":
        expected = "postgresql://USER@HOST:PORT/DATABASE, or the path of a journal"
        raise UserError(f"`storage={shown}`", "another kind of storage", expected, "choose one of these")
    require_package(f"`storage={shown}`", "psycopg", "postgresql")
    address = address.set(drivername="postgresql+psycopg")
    alone = partial(_alone_at, address)
    try:
        with warnings.catch_warnings(), alone():  # of many that make tables at once, all but one would fail
            warnings.simplefilter("ignore", ExperimentalWarning)
            backend = RDBStorage(
                address.render_as_string(hide_password=False),
                engine_kwargs={"pool_pre_ping": True},
                heartbeat_interval=HEARTBEAT,
                grace_period=GRACE,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
            )
    except SQLAlchemyError as error:
        said = str(error.__cause__ or error).strip().splitlines()[0]
        fix = "start it, or correct the address; PGPASSWORD or a .pgpass file may hold the password"
        raise UserError(f"`storage={shown}`", said, "a PostgreSQL server that lets you in", fix) from None
    return backend, shown, alone


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
    if not held.exists():
        return True
    try:
        with FileLock(held, blocking=False, fallback_to_soft=False):
            return True
    except Timeout:
        return False
