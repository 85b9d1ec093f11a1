"""What a folder of results was asked for, `request.json`: the same request goes on in it, another one is refused."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..storage.files import write_json
from ..storage.folders import LOCK_FILE, alone_in, check_new, clear_left_overs
from .file import json_of, read_value
from .probe import Probe
from .results import Results

FILE = "request.json"

BEGINNING = re.escape(LOCK_FILE) + rf"|{re.escape(FILE)}|\.{re.escape(FILE)}\.\d+"
"""What is in a folder where nothing has come of a request yet, also where it was being written when a process died."""

WHOLE = (Results.FILE, Probe.FILE)
"""Where one of these is, what was asked for is done. A comparison can be added to."""


@dataclass(frozen=True, kw_only=True)
class MeasureRequest:
    """All that the answers of a measurement depend on.

    - `model`, `baseline`: their names; `engine`, `base_url`, `dtype`, `quantization`, `chat_template_kwargs` and
      `max_reasoning_tokens`: how they are asked. Of several servers `base_url` has the sorted addresses; of what vLLM
      is told, `engine_kwargs` has what may decide answers.
    - `system_prompt`, `limit`, `max_safety_drop`, `gate_prompts`: as in `measurement.questions`, and `prompts_sha256`
      what came of it.
    """

    model: str
    baseline: str | None
    engine: str
    base_url: str | list[str] | None
    dtype: str
    quantization: str
    system_prompt: str | None
    limit: int | None
    max_safety_drop: float | None
    max_new_tokens: int
    prompts_sha256: str
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    max_reasoning_tokens: int = 1024
    gate_prompts: int | None = None
    engine_kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CompareRequest:
    """All that the answers of a comparison depend on, but methods and seeds, which may be added.

    - `answers_from`: the model whose answers fine-tuning learns; `train`: hash of the file learned from, or its name.
    - `chat_template_kwargs`: what the chat template is told.
    """

    model: str
    train_sha256: str
    evaluation_sha256: str
    starter: bool
    max_new_tokens: int
    dtype: str
    answers_from: str | None
    train: str
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class FitRequest:
    """All that a fit depends on; what it keeps as it goes is of use to the same fit alone.

    - `model`, `base_sha256`: the base, by name and by its weights; `placement`, `chat_template_kwargs`: how it is run.
    - `settings`, `margin`, `max_reasoning_tokens`: as given to `fit`, and the name of the `judge`.
    - `prompts_sha256`: what it learns from.
    - `versions`: of what decides numbers.
    """

    model: str
    base_sha256: str
    placement: dict[str, Any]
    chat_template_kwargs: dict[str, Any]
    settings: dict[str, Any]
    margin: float
    max_reasoning_tokens: int
    judge: str
    prompts_sha256: str
    versions: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class ProbeRequest:
    """All that the answers of a probe depend on: both models, how they are run, and the prompts asked."""

    model: str
    base: str
    dtype: str
    chat_template_kwargs: dict[str, Any]
    prompts_sha256: str


TRIALS, STUDY = 60, "actor-tune"
"""How many trials a study has, and what it is called in its storage, where nothing else is said."""


@dataclass(frozen=True)
class Study:
    """The study that a process works on.

    - `trials`: how many it is to have in all, whoever runs them.
    - `storage`: `postgresql://USER@HOST:PORT/DATABASE`, or the path of a journal; None: a journal among the work.
    - `name`: what it is called there.
    """

    trials: int = TRIALS
    storage: str | None = None
    name: str = STUDY


@dataclass(frozen=True, kw_only=True)
class TuneRequest:
    """All that processes at work on one study must have in common; other fields as of `FitRequest`.

    - `computed_in`: the dtype; where it is computed may differ.
    """

    base_sha256: str
    computed_in: str
    chat_template_kwargs: dict[str, Any]
    settings: dict[str, Any]
    judge: str
    prompts_sha256: str
    versions: dict[str, str]


def same_servers(one: object, other: object) -> bool:
    """Whether answers of servers at `one` base URL, or several, may stand beside those of servers at the `other`.

    Several are known to list the same models, and how many share the work, or which of them died, changes no answer:
    so another set goes on. Of a single server an address is all that is known, and another may have another model.
    """
    return one == other or (None not in (one, other) and not (isinstance(one, str) and isinstance(other, str)))


Request = MeasureRequest | CompareRequest | FitRequest | ProbeRequest


@contextmanager
def at_work(folder: Path | None, request: Request, again: bool = False) -> Iterator[None]:
    """Within it, this process alone works on `request` in `folder`; None: nowhere.

    It begins in a new or empty folder, or goes on where it was begun and has no results yet.

    Another request, too, begins where one was begun and has no answer yet: what was wrong with it, such as a model that
    cannot be loaded, is corrected in the same folder. `again`: go on also where there are results.

    **Raises:** `UserError` when the folder has results or anything else, or answers of another request than this one,
    another process is at work there, or it cannot be written.
    """
    if folder is None:
        yield
        return
    with alone_in(folder):
        _open(folder, request, again)
        clear_left_overs(folder)
        yield


def _open(folder: Path, request: Request, again: bool) -> None:
    file, asked = folder / FILE, _without_later(json_of(request))
    if not file.is_file() or (not again and any((folder / name).exists() for name in WHOLE)):
        check_new(folder, but=BEGINNING)
        write_json(file, asked)
        return
    fix = "repeat that request, or choose another folder"
    begun = _without_later(read_value(dict[str, Any], file, fix))
    others = [*differing(begun, asked)]
    if others and "model" in begun and all(re.fullmatch(BEGINNING, entry.name) for entry in folder.iterdir()):
        write_json(file, asked)
    elif others:
        key, was, now = others[0]
        expected = f"{json.dumps(now)[:100]}, as asked now"
        raise UserError(f"`output_dir={folder}`", f"begun with {key} = {json.dumps(was)[:100]}", expected, fix)


def differing(begun: dict[str, Any], asked: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """What is not the same, also within objects: its key, as it was begun, as it is asked now."""
    for key in dict.fromkeys([*begun, *asked]):
        was, now = begun.get(key), asked.get(key)
        if isinstance(was, dict) and isinstance(now, dict):
            yield from differing(was, now)
        elif was != now and not (key == "base_url" and same_servers(was, now)):
            yield key, was, now


def _without_later(request: dict[str, Any]) -> dict[str, Any]:
    """`request` without what came later and is at its default, so that what an older version began goes on."""
    tokens = MeasureRequest.max_reasoning_tokens
    later: dict[str, Any] = {"chat_template_kwargs": {}, "max_reasoning_tokens": tokens, "gate_prompts": None}
    later["engine_kwargs"] = {}
    return {name: value for name, value in request.items() if value != later.get(name, ...)}
