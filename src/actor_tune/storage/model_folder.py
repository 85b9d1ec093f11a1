"""The folder of a model: where it is, and its weight files."""

import hashlib
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from ..errors import UserError
from .files import sha256_of

WEIGHT_FILES = "*.safetensors"
OTHER_FILES = ("*.json", "*.jinja", "*.model", "*.txt", "*.md", "LICENSE*")


def model_folder(name: str, weights: bool = True, code: bool = False) -> Path:
    """The folder of `name`: itself when it is a local folder, else the downloaded snapshot of a Hub repository.

    **Arguments:**

    - `weights`: False leaves the weights on the Hub.
    - `code`: fetch Python files too.

    **Raises:** `UserError` when it is neither.
    """
    if Path(name).is_dir():
        return Path(name)
    if Path(name).exists():
        raise UserError(name, "a file", "a model folder or a Hub id", "name the folder it is in")
    try:
        wanted = [*OTHER_FILES, *([WEIGHT_FILES] if weights else []), *(["*.py"] if code else [])]
        return Path(snapshot_download(name, allow_patterns=wanted))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        reason = str(error).splitlines()[0]
        fix = "check the spelling and the network"
        raise UserError(
            name, f"no such folder, and the Hub says: {reason}", "a model folder or a Hub id", fix
        ) from None


def weight_files(folder: Path) -> list[Path]:
    """The checkpoint's weight files, sorted by name."""
    return sorted(folder.glob(WEIGHT_FILES))


def weights_hash(folder: Path) -> str:
    """SHA-256 (hex) over the names and SHA-256 of the weight files: what a patch is bound to."""
    digest = hashlib.sha256()
    for file in weight_files(folder):
        digest.update(f"{file.name} {sha256_of(file)}\n".encode())
    return digest.hexdigest()
