"""How a published model was made, without the prompts and without the machine: `reproduce/fit.json`."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from ..prompts.prompt import Kind
from .file import Record
from .run import Base, Given

FOLDER = "reproduce"
SUMS_FILE = "SHA256SUMS"
REQUIREMENTS_FILE = "requirements.txt"


@dataclass(frozen=True)
class LearnedSet:
    """How many prompts of a set were trained on, and validated on; `built_in`: they ship with actor-tune."""

    name: str
    kind: Kind
    trained_on: int
    validated_on: int
    built_in: bool


@dataclass(frozen=True, kw_only=True)
class Recipe(Record):
    """All that a fit depends on, as others may read it.

    - `model`: the base, of a local folder the last part of its path alone; `base_model`: its Hub id, where it has one.
    - `placement`: how it was computed; whether its code may be run, each decides anew.
    - `settings`: as `repair.settings.Settings`; the system prompt, where it is not published, by its hash alone.
    - `prompts`: how many of each kind were given, and their fingerprints; `prompts_sha256` is that of all in order,
      empty where it was not recorded. `starter_sha256`: of the built-in ones mixed in.
    - `sets`: what was learned from.
    - `export`: whether a whole model or the patch alone is published.
    - `rule`, `layer`, `strength`: what came of it.
    - `max_reasoning_tokens`: as of `Run`.
    """

    FILE: ClassVar[str] = "fit.json"
    SCHEMA: ClassVar[int] = 1

    model: Base
    base_model: str | None
    placement: dict[str, Any]
    settings: dict[str, Any]
    system_prompt_sha256: str | None
    margin: float
    chat_template_kwargs: dict[str, Any]
    prompts: dict[str, Given]
    prompts_sha256: str
    starter_sha256: str | None
    sets: list[LearnedSet]
    export: Literal["merged", "patch"]
    rule: str
    layer: int
    strength: float
    max_reasoning_tokens: int | None = None
    versions: dict[str, str] = field(default_factory=dict)
