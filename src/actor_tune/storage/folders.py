"""Folders of results: one process at a time works in one, and what is built as a whole is there whole or not at all.

Beside a folder NAME that is not there yet, `.NAME.unfinished` keeps what has been done for it, and `.NAME.new` is what
it is built as. What a process that died has left is gone on with, or cleared, at the next start.
"""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from ..errors import UserError
from .files import storing, sync

LOCK_FILE = ".lock"
"""Stays in folders that people look into: one that is taken away could be held twice."""


SHOWN = ("results.json", "run.json")
"""What a report can be made of."""


def check_new(folder: Path, but: str = "") -> None:
    """Results of an earlier run are never overwritten.

    **Raises:** `UserError` when `folder` is a file, or has anything in it but what the pattern `but` fits as a whole.
    """
    found, fix = None, "choose another name"
    if folder.is_dir() and any(not re.fullmatch(but, entry.name) for entry in folder.iterdir()):
        found = "a folder that is not empty"
        if any((folder / name).is_file() for name in SHOWN):
            found, fix = "a folder with results", f"see `actor report {folder}`, or choose another name"
    elif folder.exists() and not folder.is_dir():
        found = "a file"
    if found:
        raise UserError(f"`output_dir={folder}`", found, "a new or empty folder", fix)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Within it, no other process is in `folder`, which is made where it is missing.

    However this process ends, the folder is free again.

    **Raises:** `UserError` when another process is in it, it is a file, it may not be written, or it has no locks.
    """
    where = f"`output_dir={folder}`"
    if not folder.is_dir():
        check_new(folder)
    lock = FileLock(folder / LOCK_FILE, blocking=False, fallback_to_soft=False)  # a soft one outlives a kill
    with storing(where):
        if not folder.is_dir():
            folder.mkdir(parents=True)
            sync(folder.parent)
        try:
            lock.acquire()
        except Timeout:
            fix = "wait until it has ended, or choose another folder"
            raise UserError(where, "another process is at work in it", "a folder of its own", fix) from None
        except OSError as error:
            if error.errno != errno.ENOSYS:  # of locks it says that there are none; of other calls it says other things
                raise
            raise OSError(errno.ENOLCK, "no locks") from None
    try:
        yield
    finally:
        lock.release()


def is_held(lock: Path) -> bool:
    """Whether a process holds the file `lock`, which is there; one that died holds none."""
    try:
        with FileLock(lock, blocking=False, fallback_to_soft=False):
            return False
    except Timeout:
        return True


def clear_left_overs(folder: Path) -> None:
    """Take away what processes that died were writing (`files.replacing`) in `folder`, which is ours."""
    for entry in folder.iterdir():
        writer = re.fullmatch(r"\..+\.(\d+)", entry.name)
        if writer and entry.is_file() and not psutil.pid_exists(int(writer[1])):
            entry.unlink()


@contextmanager
def unfinished(folder: Path) -> Iterator[Path]:
    """Yield a hidden folder beside `folder` for what is kept until that is built (`building`), which takes it away.

    No other process is in it meanwhile. After a kill the same is yielded again, with what had been kept.

    **Raises:** `UserError` when `folder` is not new or empty, or another process is at work for it.
    """
    place = _place(folder)
    work = _beside(place, "unfinished")
    with alone_in(work):
        try:
            check_new(place)
            yield work
        finally:
            if work.is_dir() and {entry.name for entry in work.iterdir()} <= {LOCK_FILE}:
                _remove(work)


@contextmanager
def building(folder: Path) -> Iterator[Path]:
    """Yield a new folder; when the block ends well, it is named `folder`, whole and on the disk; else it is removed.

    What was kept for it (`unfinished`) goes then.

    **Raises:** `UserError` when `folder` is not new or empty, another process builds it, or it cannot be written.
    """
    place = _place(folder)
    work = _beside(place, "new")
    with alone_in(work):
        try:
            check_new(place)
            whole = work / "whole"
            if whole.exists():
                shutil.rmtree(whole)
            with storing(f"`output_dir={folder}`"):
                whole.mkdir()
            yield whole
            with storing(f"`output_dir={folder}`"):
                for part in (*whole.rglob("*"), whole):
                    sync(part)
                if place.exists():
                    place.rmdir()
                whole.rename(place)
                sync(place.parent)
            _remove(_beside(place, "unfinished"))
        finally:
            _remove(work)


def _place(folder: Path) -> Path:
    """Where `folder` is to be, with links followed; it must be one that can be renamed to."""
    place = Path(os.path.realpath(folder))
    found = None
    if place.is_mount():
        found = "a folder of which another file system begins"
    elif place == Path(os.path.realpath(os.curdir)):
        found = "the folder that you are in"
    if found:
        fix = f"name a folder in it, as {folder / 'run'}"
        raise UserError(f"`output_dir={folder}`", found, "a new folder", fix)
    return place


def _beside(place: Path, what: str) -> Path:
    return place.with_name(f".{place.name}.{what}")


def _remove(folder: Path) -> None:
    # Another process that was refused meanwhile may have put its lock there: then the next start takes it away.
    shutil.rmtree(folder, ignore_errors=True)
