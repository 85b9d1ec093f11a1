"""What a folder of results was asked for, `request.json`: the same request goes on in it, another one is refused."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..storage.files import new_folder, write_json
from .file import json_of, read_value
from .results import Results

FILE = "request.json"


@dataclass(frozen=True, kw_only=True)
class MeasureRequest:
    """All that the answers of a measurement depend on.

    - `model`, `baseline`: their names; `engine`, `base_url`, `dtype`, `quantization`, `chat_template_kwargs` and
      `max_reasoning_tokens`: how they are asked.
    - `system_prompt`, `limit`, `max_safety_drop`: as in `measurement.questions`, and `prompts_sha256` what came of it.
    """

    model: str
    baseline: str | None
    engine: str
    base_url: str | None
    dtype: str
    quantization: str
    system_prompt: str | None
    limit: int | None
    max_safety_drop: float | None
    max_new_tokens: int
    prompts_sha256: str
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    max_reasoning_tokens: int = 1024


@dataclass(frozen=True, kw_only=True)
class CompareRequest:
    """All that the answers of a comparison depend on, but methods and seeds, which may be added.

    - `answers_from`: the model whose answers fine-tuning learns; `train`: hash of the file learned from, or its name.
    """

    model: str
    train_sha256: str
    evaluation_sha256: str
    starter: bool
    max_new_tokens: int
    dtype: str
    answers_from: str | None
    train: str


def open_request(folder: Path, request: MeasureRequest | CompareRequest, again: bool = False) -> None:
    """Begin `request` in the new or empty `folder`, or go on with it where it was begun and has no results yet.

    Another request, too, begins where one was begun and has no answer yet: what was wrong with it, such as a model that
    cannot be loaded, is corrected in the same folder. `again`: go on also where there are results.

    **Raises:** `UserError` when the folder has results or anything else, or answers of another request than this one.
    """
    file, asked = folder / FILE, _without_later(json_of(request))
    if not file.is_file() or (not again and (folder / Results.FILE).exists()):
        new_folder(folder)
        write_json(file, asked)
        return
    fix = "repeat that request, or choose another folder"
    begun = _without_later(read_value(dict[str, Any], file, fix))
    other = [key for key in [*begun, *asked] if begun.get(key) != asked.get(key)]
    if other and [*folder.iterdir()] == [file] and "model" in begun:
        write_json(file, asked)
    elif other:
        found = f"begun with {other[0]} = {json.dumps(begun.get(other[0]))[:100]}"
        expected = f"{json.dumps(asked.get(other[0]))[:100]}, as asked now"
        raise UserError(f"`output_dir={folder}`", found, expected, fix)


def _without_later(request: dict[str, Any]) -> dict[str, Any]:
    """`request` without what came later and is at its default, so that what an older version began goes on."""
    later = {"chat_template_kwargs": {}, "max_reasoning_tokens": MeasureRequest.max_reasoning_tokens}
    return {name: value for name, value in request.items() if value != later.get(name, ...)}
