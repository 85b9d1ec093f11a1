"""Folders of results: one process at a time works in one, and what is built as a whole is there whole or not at all.

Beside a folder NAME that is not there yet, `.NAME.unfinished` keeps what has been done for it, and `.NAME.new` is what
it is built as. Left-overs of a process that died are cleared, or gone on with, at the next start.
"""

import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import UserError
from .files import storing, sync

log = logging.getLogger(__name__)

LOCK_FILE = ".lock"
"""Stays when its process has ended: one that is taken away could be held twice."""

_LEFT_OVER = re.compile(r"\..+\.\d+")
"""Temporary files of `files.replacing`."""


def check_new(folder: Path) -> None:
    """Results of an earlier run are never overwritten.

    **Raises:** `UserError` when `folder` is a file or not empty.
    """
    found = None
    if folder.is_dir() and any(entry.name != LOCK_FILE for entry in folder.iterdir()):
        found = "a folder that is not empty"
    elif folder.exists() and not folder.is_dir():
        found = "a file"
    if found:
        raise UserError(f"`output_dir={folder}`", found, "a new or empty folder", "choose another name")


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Within it, no other process is in `folder`, which is made where it is missing.

    Temporary files that a process which died has left there are cleared. However this process ends, the folder is free
    again.

    **Raises:** `UserError` when another process is in it, it is a file, or it may not be written.
    """
    where = f"`output_dir={folder}`"
    if folder.exists() and not folder.is_dir():
        raise UserError(where, "a file", "a new or empty folder", "choose another name")
    lock = FileLock(folder / LOCK_FILE, blocking=False)
    with storing(where):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            fix = "wait until it has ended, or choose another folder"
            raise UserError(where, "another process is at work in it", "a folder of its own", fix) from None
        except NotImplementedError:
            log.warning("%s: its file system has no locks: see to it that no other process works there", folder)
        try:
            for entry in folder.iterdir():
                if _LEFT_OVER.fullmatch(entry.name) and entry.is_file():
                    entry.unlink()
        except BaseException:
            lock.release()
            raise
    try:
        yield
    finally:
        lock.release()


@contextmanager
def unfinished(folder: Path) -> Iterator[Path]:
    """Yield a hidden folder beside `folder` for what is kept until that is whole; at the end it goes, if that is there.

    No other process is in it meanwhile. After a kill the same is yielded again, with what had been kept.

    **Raises:** `UserError` when `folder` is not new or empty, or another process is at work for it.
    """
    folder = _place(folder)
    work = folder.with_name(f".{folder.name}.unfinished")
    with alone_in(work):
        try:
            check_new(folder)
            yield work
        finally:
            if folder.exists() and any(folder.iterdir()):
                shutil.rmtree(work)


@contextmanager
def building(folder: Path) -> Iterator[Path]:
    """Yield a new folder; when the block ends well, it is named `folder`, whole and on the disk; else it is removed.

    **Raises:** `UserError` when `folder` is not new or empty, another process builds it, or it cannot be written.
    """
    folder = _place(folder)
    work = folder.with_name(f".{folder.name}.new")
    with alone_in(work), storing(f"`output_dir={folder}`"):
        try:
            check_new(folder)
            whole = work / "whole"
            if whole.exists():
                shutil.rmtree(whole)
            whole.mkdir()
            yield whole
            for place in (*whole.rglob("*"), whole):
                sync(place)
            if folder.exists():
                folder.rmdir()
            whole.rename(folder)
            sync(folder.parent)
        finally:
            shutil.rmtree(work)


def _place(folder: Path) -> Path:
    """Where `folder` is to be; a name can be given to a whole folder only where one can be renamed to it."""
    place = folder.resolve()
    if place.is_mount():
        found, fix = "a folder of which another file system begins", f"name a folder in it, as {folder / 'run'}"
        raise UserError(f"`output_dir={folder}`", found, "a new folder", fix)
    return place
