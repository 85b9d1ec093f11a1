"""A published model made again: the same fit, by what its `reproduce/` says, and whether the bytes are the same."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..engines.engine import REASONING_TOKENS
from ..errors import UserError
from ..models.load import load
from ..models.model import ChatModel
from ..models.patch import base_hash
from ..models.placement import Placement
from ..progress import Stages
from ..prompts.prompt import KINDS, Prompt, fingerprint, of_kind, without_categories
from ..prompts.starter import starter, with_missing_kinds
from ..records import recipe
from ..records.file import convert, read, read_rows
from ..records.recipe import Recipe
from ..records.response import PromptRow
from ..records.results import MARGIN
from ..records.run import GIVEN_FILE
from ..repair.gated import Fit, fit
from ..repair.settings import Settings
from ..storage.model_folder import is_local, model_folder
from ..storage.tables import read_text
from ..storage.versions import versions
from .contents import contents, sha256
from .fitted import text_sha256


@dataclass(frozen=True)
class FileCheck:
    """A file of the model: its hash as published, and as it was made here; None where it was not made."""

    name: str
    published: str
    here: str | None

    @property
    def same(self) -> bool:
        """Whether every byte is the same."""
        return self.published == self.here


@dataclass(frozen=True)
class Published:
    """How a published model was made, with what is not in it: a user's own prompts, and their permissions.

    - `prompts`: those that were given; `settings` and `placement` as those of the fit.
    - `base`: the name of the model that is trained.
    - `sums`: the hash of each published file of the model, by name.
    - `versions`: what it ran with.
    """

    recipe: Recipe
    base: str
    prompts: list[Prompt]
    settings: Settings
    placement: Placement
    sums: dict[str, str]

    @property
    def differences(self) -> list[str]:
        """Versions that are others here, in sentences; they can change bytes."""
        here, there = versions(), self.recipe.versions
        return [
            f"{name} is {here.get(name, 'not there')} here, and was {there.get(name, 'not there')}"
            for name in dict.fromkeys([*there, *here])
            if here.get(name) != there.get(name)
        ]

    def fit(self, answer_batch: int | None = None, work: str | Path | None = None, stages: Stages | None = None) -> Fit:
        """Train again.

        **Arguments:** as in `fit`.

        **Raises:** `UserError` as `fit`, and when the base has other weights.
        """
        settings, made, stages = self.settings, self.recipe, stages or Stages()
        with stages("load"):
            model = load(self.base, self.placement, settings.last_block, made.chat_template_kwargs)
            self._check_base(model)
        asked = partial(fit, max_reasoning_tokens=made.max_reasoning_tokens or REASONING_TOKENS)
        return asked(model, self.prompts, settings, made.margin, answer_batch=answer_batch, work=work, stages=stages)

    def compare(self, run: str | Path) -> list[FileCheck]:
        """Each published file of the model, and the one that `run`, which was made here, would publish in its place."""
        made = contents(Path(run), self.recipe.export == "patch", self.recipe.base_model is not None)
        here = {name: sha256(content) for name, content in made.items()}
        return [FileCheck(name, self.sums.get(name, ""), here.get(name)) for name in sorted({*self.sums, *here})]

    def _check_base(self, model: ChatModel) -> None:
        """Now, and not after minutes of training."""
        if (found := base_hash(model)) != self.recipe.model.sha256:
            fix = "give the base as it was then with `model=`"
            expected = f"those of {self.recipe.model.name}, SHA-256 {self.recipe.model.sha256[:12]}..."
            raise UserError(self.base, f"other weights, SHA-256 {found[:12]}...", expected, fix)


def published(
    name: str | Path,
    prompts: Sequence[Prompt] = (),
    model: str | None = None,
    system_prompt: str | None = None,
    allow_unsafe: bool = False,
    device: str | None = None,
    trust_remote_code: bool = False,
) -> Published:
    """How the published model `name` was made, ready to be made again.

    ```python
    at.publication("run", "me/my-model").save("published", allow_unsafe=True)
    again = at.published("published", prompts, model="MODEL", allow_unsafe=True)
    again.differences, again.recipe.layer
    ```

    **Arguments:**

    - `name`: a folder or Hub id.
    - `prompts`: those that were given, where they are neither published nor built in.
    - `model`: the base, where it is not on the Hub or lies elsewhere.
    - `system_prompt`: likewise.
    - `allow_unsafe`: make it though it was made with `allow_unsafe`, or with a wide margin: then it may be unsafe.
    - `device`: where it runs; None: as it did.
    - `trust_remote_code`: run Python code that comes with the base. What is published does not decide about that.

    **Raises:** `UserError` when there is no such model, what was given differs from what it was made from, or something
    is missing.
    """
    folder = model_folder(str(name), weights=False, more=[f"{recipe.FOLDER}/*"]) / recipe.FOLDER
    made = read(Recipe, folder, "download it again")
    where = str(folder / Recipe.FILE)
    settings = _settings(made, where, system_prompt)
    if settings.allow_unsafe and not allow_unsafe:
        found = "a fit with `allow_unsafe=True`"
        raise UserError(name, found, "one that keeps back what failed", "allow it too with `allow_unsafe=True`")
    if made.margin > MARGIN and not allow_unsafe:
        found = f"a safety gate that lets refusal of harmful prompts fall by {made.margin:g}"
        raise UserError(name, found, f"at most {MARGIN:g}", "allow it with `allow_unsafe=True`")
    placement = replace(
        convert(_known(made.placement, Placement), Placement, where), trust_remote_code=trust_remote_code
    )
    return Published(
        recipe=made,
        base=_base(made, str(name), model),
        prompts=_prompts(made, folder, list(prompts)),
        settings=settings,
        placement=placement.checked(),
        sums=_sums(folder / recipe.SUMS_FILE),
    )


def _settings(made: Recipe, where: str, system_prompt: str | None) -> Settings:
    """The settings of the fit, with the system prompt put back in."""
    settings = convert(_known(made.settings, Settings), Settings, where)
    if made.system_prompt_sha256 is None:
        return settings
    said = settings.system_prompt if system_prompt is None else system_prompt
    if said is None or text_sha256(said) != made.system_prompt_sha256:
        found = "no `system_prompt=`" if said is None else f"`system_prompt={said}`, which is another one"
        expected = f"the system prompt of SHA-256 {made.system_prompt_sha256[:12]}..., which is not published"
        raise UserError(where, found, expected, "give the one that it was trained under")
    return replace(settings, system_prompt=said)


def _base(made: Recipe, name: str, model: str | None) -> str:
    if model is not None:
        return model
    if made.base_model is None or is_local(made.base_model):
        expected = f"the base, which was the folder {made.model.name}"
        raise UserError(name, "no `model=`", expected, "give its folder or Hub id with `model=`")
    return made.base_model


def _prompts(made: Recipe, folder: Path, given: list[Prompt]) -> list[Prompt]:
    """The prompts that were given, checked by their hashes."""
    built_in = starter("train")
    if made.starter_sha256 not in (None, fingerprint(built_in)):
        fix = "install the version in reproduce/requirements.txt"
        raise UserError("the built-in prompts", "others than those of then", "the same ones", fix)
    if not given:
        file = folder / GIVEN_FILE
        given = [row.asked for row in read_rows(PromptRow, file)] if file.is_file() else built_in
    given = with_missing_kinds(given)  # as the fit did
    plain = without_categories(given)
    if made.prompts_sha256 == fingerprint(plain):  # as a version before there were categories saw them
        given = plain
    for kind in KINDS:
        was, here = made.prompts.get(kind), of_kind(given, kind)
        if (was.n if was else 0) != len(here) or (was and was.sha256 != fingerprint(here)):
            found, expected = f"{len(here)} of kind {kind}", f"the {was.n if was else 0} given then, by their hash"
            raise UserError("prompts", found, expected, "give those, in the same order and with the same names of sets")
    if made.prompts_sha256 not in ("", fingerprint(given)):
        raise UserError("prompts", "the same in another order", "the order of then", "give the files in that order")
    return given


def _sums(file: Path) -> dict[str, str]:
    lines = [line for line in read_text(file).split("\n") if line.strip()]
    parts = [re.fullmatch(r"([0-9a-f]{64})  (\S.*)", line) for line in lines]
    if not parts or not all(parts):
        raise UserError(file, "no hashes", "a line `HASH  NAME` for each file", "download it again")
    return {part[2]: part[1] for part in parts if part}


def _known(values: dict[str, Any], kind: type[Any]) -> dict[str, Any]:
    """`values` without what this version does not know, which a newer one may have added."""
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in values.items() if name in names}
