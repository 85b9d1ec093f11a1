"""Write files so that a reader sees the old one, the new one or none, never half of one, a power failure or not."""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ..errors import UserError

_ROOM = "no space left on the device", "room for it", "make room, and do the same again"
_ALLOWED = "permission is denied", "a place that may be read and written", "change its permissions, or choose another"
_REASONS = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EACCES: _ALLOWED,
    errno.EPERM: _ALLOWED,
    errno.EROFS: ("a read-only file system", "a place that may be written", "choose another place"),
    errno.ENAMETOOLONG: ("a name that is too long", "a shorter one", "choose another name"),
    errno.ENOTDIR: ("a file where a folder should be", "a folder", "choose another name"),
    errno.EISDIR: ("a folder where a file should be", "a file", "choose another name"),
    errno.EEXIST: ("something else of that name", "a new one", "choose another name"),
    errno.ELOOP: ("a link that leads to itself", "a file or folder", "choose another name"),
    errno.ENOLCK: ("a file system without locks", "one that has them", "choose another place"),
    errno.EIO: ("the disk failed to read or write", "a sound disk", "look at the disk"),
}
"""By the system's number: what is found, what was expected, the next step."""


def storage_error(error: OSError | SafetensorError, where: object = None) -> UserError | None:
    """What the user can do about an error of the file system at `where`; None where it is none of those.

    Where no place is given and the error names none, a library wrote somewhere: into a temporary folder, a cache.
    """
    if isinstance(error, SafetensorError):  # it has the number in its text
        number = re.search(r"\(os error (\d+)\)", str(error))
        error = OSError(int(number[1]) if number else 0, str(error))
    reason = _REASONS.get(error.errno or 0)
    return UserError(where or error.filename or "a file of a library", *reason) if reason else None


@contextmanager
def storing(where: object) -> Iterator[None]:
    """Within it, `where` is written: a full disk, a place that may not be written and the like are a `UserError`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        told = storage_error(error, where)
        if isinstance(error, FileNotFoundError) and isinstance(where, Path) and not where.parent.exists():
            told = UserError(where, "its folder is gone", "a folder that stays", "do the same again")
        if told is None:
            raise
        raise told from None


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block ends well, it takes the place of `path`.

    **Raises:** `UserError` when the file system does not let it, as `storing`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with storing(path):
        try:
            temporary.touch()
            mode = temporary.stat().st_mode  # as the user's umask has it; some writers let nobody else read
            yield temporary
            temporary.chmod(mode)
            sync(temporary)
            os.replace(temporary, path)
            sync(path.parent)
        finally:
            with suppress(OSError):  # what is left of it goes at the next start
                temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON; NaN and infinity are refused, because JSON has none."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write one JSON object a line."""
    with replacing(path) as temporary:
        lines = (json.dumps(row, allow_nan=False, ensure_ascii=False) + "\n" for row in rows)
        temporary.write_text("".join(lines), encoding="utf-8")


def link_or_copy(source: Path, target: Path) -> None:
    """Give `target` the bytes of `source`, to be read only: a hard link where the file system allows, else a copy."""
    real = source.resolve()
    try:
        os.link(real, target)
    except OSError:  # Another file system, or one without links.
        clone_or_copy(real, target)


def clone_or_copy(source: Path, target: Path) -> None:
    """Give `target` the bytes of `source`, to be written to.

    File systems that can (XFS, Btrfs) let both share what is not written, so that a copy costs neither time nor space.
    """
    try:
        with source.open("rb") as reader, target.open("wb") as writer:
            while os.copy_file_range(reader.fileno(), writer.fileno(), 1 << 30):
                pass
        copied = target.stat().st_size == source.stat().st_size
    except (AttributeError, OSError):  # Linux alone has the call, and not on every file system.
        copied = False
    if not copied:
        with storing(target):
            shutil.copyfile(source, target)


def sha256_of(file: Path) -> str:
    """SHA-256 (hex) of a file's bytes, read a mebibyte at a time."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
