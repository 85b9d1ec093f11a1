"""Which files of a trained model are published, and that none of them tells of the machine it was made on. Pure but for
reading them.
"""

import fnmatch
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import get_token

from ..errors import UserError
from ..records.run import MODEL_FOLDER, PATCH_FILE
from ..storage.files import sha256_of
from ..storage.loading import loading
from ..storage.model_files import CONFIG, GENERATION_CONFIG, check_pointer, check_tensors, json_object
from ..storage.model_folder import INDEX_FILE, WEIGHT_FILES, is_local

Content = Path | bytes
"""A file as it lies there, or what is to be its content."""

CONFIGS = (CONFIG, GENERATION_CONFIG, "*processor_config.json", "tokenizer_config.json", "special_tokens_map.json")
"""Files in which libraries leave where a model was loaded from."""

WORDS = ("tokenizer.json", "vocab.*", "merges.txt", "added_tokens.json", "*.model", "*.tiktoken")
"""Vocabularies: whatever stands in one is a token."""

LICENCES = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*")

PUBLISHED = (*CONFIGS, *WORDS, INDEX_FILE, WEIGHT_FILES, "*.jinja", "chat_template.json", "*.py", *LICENCES)
"""What a model is loaded with, and its licence. What else lies in a base's folder, such as the state of a trainer, may
be anybody's; the base's own card is left where the base is."""

PLACE = re.compile(r"name_or_path$|(_|^)(path|file|dir|folder)$")
"""Keys of configs whose value may be a place."""


def contents(run: Path, patch_only: bool, public_base: bool) -> dict[str, Content]:
    """The files of the model in `run`, or its patch alone, as they are published: by their names there.

    **Arguments:**

    - `public_base`: the base is on the Hub, so that the names in its config are public.

    **Raises:** `UserError` when there is none of the two, or a file is damaged.
    """
    folder, patch = run / MODEL_FOLDER, run / PATCH_FILE
    if patch_only or not folder.is_dir():
        if not patch.is_file():
            lacking = "no model and no patch (it was withheld, or not exported)"
            raise UserError(run, lacking, "a model to publish", "fit again with `export=merged` or `export=patch`")
        check_tensors(patch)
        return {PATCH_FILE: patch}
    found: dict[str, Content] = {}
    for file in sorted(folder.iterdir()):
        if file.is_file() and matches(file.name, PUBLISHED):
            check_pointer(file)
            found[file.name] = _without_places(file, public_base) if matches(file.name, CONFIGS) else file
            if file.match(WEIGHT_FILES):
                check_tensors(file)
    if CONFIG not in found or not any(fnmatch.fnmatch(name, WEIGHT_FILES) for name in found):
        raise UserError(folder, f"no {CONFIG}, or no weights", "a whole model", "fit again, or publish the patch alone")
    return found


def left_out(run: Path, published: Mapping[str, Content]) -> list[str]:
    """Files in the model's folder that are not published."""
    folder = run / MODEL_FOLDER
    names = sorted(file.name for file in folder.iterdir() if file.is_file()) if folder.is_dir() else []
    return [name for name in names if name not in published] if CONFIG in published else []


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether `name` is one of `patterns`."""
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def sha256(content: Content) -> str:
    """SHA-256 (hex) of what is published."""
    return hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else sha256_of(content)


def size(content: Content) -> int:
    """Bytes of what is published."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def sums(files: Mapping[str, Content]) -> str:
    """The hashes of `files`, a line each, as `sha256sum -c` reads them."""
    return "".join(f"{sha256(content)}  {name}\n" for name, content in sorted(files.items()))


def check_private(files: Mapping[str, Content], run: Path, base: str | None) -> None:
    """Stop where a file that is to be published tells of this machine, or has the user's token in it.

    Weights are numbers and vocabularies have every word, so of those only the metadata is looked at.

    **Arguments:**

    - `base`: where the base lies, as the user gave it; None where it is on the Hub.

    **Raises:** `UserError` that names the file.
    """
    places = {str(Path.home()), str(run.absolute()), str(run.resolve())}
    if len(Path.cwd().parts) > 2:  # the first folders of a disk, as /tmp, are on every machine
        places.add(str(Path.cwd()))
    if base is not None:
        places |= {str(Path(base).expanduser().absolute()), base if "/" in base else ""}
    told = [re.compile(re.escape(place) + r"(?![\w-])") for place in places if place.strip("./")]
    token = get_token()
    for name, content in files.items():
        if matches(name, WORDS):
            continue
        text = _text(content)
        if token and token in text:
            fix = "take it out of that file, and make a new token: this one may have been seen"
            raise UserError(name, "your access token", "nothing secret", fix)
        for pattern in told:
            if seen := pattern.search(text):
                found = f"{seen[0]}, a place of this machine"
                raise UserError(name, found, "nothing that tells of it", "take it out of that file, and push again")


def _text(content: Content) -> str:
    """What can be read in a file; of weights, their metadata."""
    if isinstance(content, bytes):
        return content.decode("utf-8", "replace")
    if not content.match(WEIGHT_FILES):
        return content.read_text(encoding="utf-8", errors="replace")
    with loading(content, "weights", "fit again"), content.open("rb") as stream:
        return stream.read(int.from_bytes(stream.read(8), "little")).decode("utf-8", "replace")


def _without_places(config: Path, public_base: bool) -> Content:
    """A config without the places of the machine; as it lies there, where there are none."""
    said = json_object(config)
    cleaned = _cleaned(said, public_base)
    if cleaned == said:
        return config
    return (json.dumps(cleaned, indent=2, ensure_ascii=False) + "\n").encode()


def _cleaned(value: Any, public_base: bool) -> Any:
    if isinstance(value, list):
        return [_cleaned(part, public_base) for part in value]
    if not isinstance(value, dict):
        return value
    kept = {key: part for key, part in value.items() if not _is_place(key, part, public_base)}
    return {key: _cleaned(part, public_base) for key, part in kept.items()}


def _is_place(key: str, value: Any, public_base: bool) -> bool:
    """Whether `key` says where something lies: a path, or the name of a base that is not on the Hub."""
    if not isinstance(value, str) or not value or not PLACE.search(key):
        return False
    return is_local(value) or "\\" in value or (key.endswith("name_or_path") and not public_base)
