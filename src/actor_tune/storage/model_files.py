"""What is wrong with the files of a model, told before anything is loaded: each with its file, cause and advice."""

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open

from ..errors import UserError
from .loading import loading, reason_of
from .model_folder import INDEX_FILE, OTHER_FILES, SINGLE_FILE, WEIGHT_FILES, loaded_files, weight_files

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
OBJECTS = (CONFIG, GENERATION_CONFIG, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
POINTER = b"version https://git-lfs"
PICKLED = (".bin", ".pt", ".pth", ".ckpt")
AGAIN = "download it again, or correct it"


def check_folder(name: str, folder: Path, weights: bool = True) -> None:
    """Stop where the model `name` in `folder` lacks files, or has some that no library could read.

    A broken config stops here before a tokenizer is looked for: without it transformers would speak of the tokenizer.

    **Arguments:**

    - `weights`: False where the weight files need not be there.

    **Raises:** `UserError` that names the file.
    """
    for pattern in (WEIGHT_FILES, *OTHER_FILES):
        for file in sorted(folder.glob(pattern)):
            check_pointer(file)
    if not (folder / CONFIG).is_file():
        raise UserError(name, _instead(folder) or f"no {CONFIG}", "a transformers checkpoint", _advice(folder))
    for file in sorted(folder.glob("*.jinja")):
        with loading(file, "text in UTF-8", AGAIN):
            file.read_text(encoding="utf-8")
    for file in (folder / each for each in OBJECTS):
        if file.exists():
            said = json_object(file)
            if file.name == GENERATION_CONFIG:
                _check_token_ids(file, said)
    if weights:
        _check_weights(name, folder)


def json_object(file: Path) -> dict[str, Any]:
    """What the JSON file has.

    **Raises:** `UserError` when that is no JSON object.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        empty = file.is_file() and not file.stat().st_size
        reason = (error.strerror if isinstance(error, OSError) else None) or reason_of(error)
        found = "an empty file" if empty else f"no JSON that can be read ({reason})"
        raise UserError(file, found, "a JSON object", AGAIN) from None
    if not isinstance(value, dict):
        raise UserError(file, f"JSON, but of type {type(value).__name__}", "a JSON object", AGAIN)
    return value


def check_pointer(file: Path) -> None:
    """Stop with a `UserError` where `file` was not fetched: Git LFS leaves a pointer in its place."""
    if file.is_file():
        with file.open("rb") as stream:
            if stream.read(len(POINTER)) == POINTER:
                fix = "run `git lfs pull` in its folder, or download it again"
                raise UserError(file, "a pointer of Git LFS in the place of the file", "the file itself", fix)


def check_tensors(file: Path) -> None:
    """Stop with a `UserError` where the safetensors `file` has no header that can be read, or another length."""
    if not file.stat().st_size:
        raise UserError(file, "an empty file", "weights", "download it again")
    with loading(file, "a whole safetensors file", "download it again"), safe_open(file, framework="np"):
        pass


def _check_weights(name: str, folder: Path) -> None:
    if not [file for file in weight_files(folder) if file.is_file()]:
        found = _instead(folder) or "no weights"
        raise UserError(name, found, f"{WEIGHT_FILES} beside {CONFIG}", _advice(folder))
    index = folder / INDEX_FILE
    if not (folder / SINGLE_FILE).is_file():
        if not index.is_file():
            found = f"{weight_files(folder)[0].name}, and neither {SINGLE_FILE} nor {INDEX_FILE}"
            raise UserError(name, found, "one of the two", "download it again, or save the model with save_pretrained")
        _check_index(index)
    for file in loaded_files(folder):
        check_tensors(file)


def _check_index(index: Path) -> None:
    said = json_object(index)
    for key in ("weight_map", "metadata"):
        if not isinstance(said.get(key), dict):
            raise UserError(index, f"{_shown(said, key)}", f"an object `{key}`", AGAIN)
    named = said["weight_map"].values()
    if not named or not all(isinstance(each, str) for each in named):
        raise UserError(index, "a weight_map without names of files", "the file of each tensor", AGAIN)
    present = {file.name for file in weight_files(index.parent)}
    if missing := sorted({*named} - present):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(index, f"{missing[0]}{more} named, and not there", "every file it names", "download it again")


def _shown(said: dict[str, Any], key: str) -> str:
    return f"{key} is {said[key]!r}"[:200] if key in said else f"no {key}"


def _check_token_ids(file: Path, said: dict[str, Any]) -> None:
    for key in ("eos_token_id", "bos_token_id", "pad_token_id"):
        value = said.get(key)
        values = value if isinstance(value, list) else [] if value is None else [value]
        if not all(type(each) is int for each in values):
            raise UserError(file, _shown(said, key), "the number of a token, or several", AGAIN)


def _instead(folder: Path) -> str | None:
    """What lies in `folder` where there are no weights that can be loaded."""
    files = sorted(file.name for file in folder.iterdir() if file.is_file())
    for suffixes, what in (((".gguf",), "only a GGUF file"), ((".npz",), "only weights of MLX"), (PICKLED, _PICKLE)):
        if found := [file for file in files if file.endswith(suffixes)]:
            return f"{what} ({found[0]})"
    return None


_PICKLE = "only pickled weights, which can run code and are never loaded"


def _advice(folder: Path) -> str:
    if gguf := sorted(folder.glob("*.gguf")):
        return f"name the file itself: {gguf[0]}"
    if any(folder.glob("*.npz")):
        return "name the model that they were made from"
    return "check the path, or save the model with save_pretrained"
