"""The folder of a model: where it is, and its weight files."""

import hashlib
import json
import os
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from ..errors import UserError
from .files import sha256_of

WEIGHT_FILES = "*.safetensors"
SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
OTHER_FILES = ("*.json", "*.jinja", "*.model", "*.txt", "*.md", "LICENSE*")


def model_folder(name: str, weights: bool = True, code: bool = False, more: Sequence[str] = ()) -> Path:
    """The folder of `name`: itself when it is a local folder, else the downloaded snapshot of a Hub repository.

    **Arguments:**

    - `weights`: False leaves the weights on the Hub.
    - `code`: fetch Python files too.
    - `more`: patterns of further files to fetch.

    **Raises:** `UserError` when it is neither.
    """
    expected = "a model folder or a Hub id"
    try:
        if Path(name).is_dir():
            return Path(name)
        if Path(name).exists():
            raise UserError(name, "a file", expected, "name the folder it is in")
        if is_local(name):
            raise UserError(name, "no such folder", expected, _correct(name))
        wanted = [*OTHER_FILES, *([WEIGHT_FILES] if weights else []), *(["*.py"] if code else []), *more]
        return Path(snapshot_download(name, allow_patterns=wanted))
    except LocalEntryNotFoundError:
        found = "no such folder, and the Hub cannot be reached"
        raise UserError(name, found, expected, f"{_correct(name)}, or check the network") from None
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UserError(name, f"no such folder, and the Hub says: {reason}", expected, _correct(name)) from None


def _correct(name: str) -> str:
    """What to do about a `name` that is nothing: take that of a folder beside it which reads like it."""
    parent = Path(name).parent
    beside = [entry.name for entry in parent.iterdir() if entry.is_dir()] if parent.is_dir() else []
    like = get_close_matches(Path(name).name, beside, n=1)
    return f"did you mean {parent / like[0]}?" if like else "correct the name"


def is_local(name: str) -> bool:
    """Whether `name`, of a model, is a path of this machine, also one that is no longer there, and no Hub id."""
    path = Path(name)
    return path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or os.path.exists(path)


def public_name(name: str) -> str:
    """`name` as others may read it: of a path the last part alone, as the rest tells of the user's machine."""
    return Path(name).resolve().name if is_local(name) else name


def weight_files(folder: Path) -> list[Path]:
    """The checkpoint's weight files, sorted by name."""
    return sorted(folder.glob(WEIGHT_FILES))


def loaded_files(folder: Path) -> list[Path]:
    """The weight files that transformers loads, sorted: `model.safetensors`, else those that the index names."""
    files = weight_files(folder)
    single = [file for file in files if file.name == SINGLE_FILE]
    index = folder / INDEX_FILE
    if single or not index.is_file():
        return single or files
    named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return [file for file in files if file.name in named]


def weights_hash(folder: Path) -> str:
    """SHA-256 (hex) over the names and SHA-256 of the weight files: what a patch is bound to."""
    digest = hashlib.sha256()
    for file in weight_files(folder):
        digest.update(f"{file.name} {sha256_of(file)}\n".encode())
    return digest.hexdigest()
