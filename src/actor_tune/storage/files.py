"""Write files so that a reader sees the old one, the new one or none, never half of one."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import UserError


def new_folder(path: Path) -> Path:
    """Create `path`, or take it when it is an empty folder. Results of an earlier run are never overwritten.

    **Raises:** `UserError` when it is a file or not empty.
    """
    if path.is_file():
        raise UserError(f"`output_dir={path}`", "a file", "a new or empty folder", "choose another name")
    if path.is_dir() and any(path.iterdir()):
        found = "a folder that is not empty"
        raise UserError(f"`output_dir={path}`", found, "a new or empty folder", "choose another name")
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block ends well, it takes the place of `path`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.touch()
    mode = temporary.stat().st_mode  # as the user's umask has it; some writers make files that nobody else may read
    try:
        yield temporary
        temporary.chmod(mode)
        os.replace(temporary, path)
    finally:
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


@contextmanager
def building(folder: Path) -> Iterator[Path]:
    """Yield a new folder beside `folder`; when the block ends well, it gets that name, else it is removed.

    **Raises:** `FileExistsError` when `folder` exists.
    """
    if folder.exists():
        raise FileExistsError(folder)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    temporary.mkdir()
    try:
        yield temporary
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary)
        raise


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
        shutil.copyfile(source, target)


def sha256_of(file: Path) -> str:
    """SHA-256 (hex) of a file's bytes, read a mebibyte at a time."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
