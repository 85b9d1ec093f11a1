"""What a run folder says of the model in it: read once, and told in the card and in `reproduce/`."""

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from huggingface_hub import metadata_load
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from safetensors import safe_open

from ..errors import UserError
from ..judges.verdict import Verdict
from ..measurement.change import change
from ..prompts.prompt import KINDS, Prompt, fingerprint, of_kind
from ..prompts.starter import starter
from ..records.file import FIX, read, read_rows, read_value
from ..records.lineage import Lineage, lineage_from
from ..records.recipe import LearnedSet, Recipe
from ..records.response import PromptRow
from ..records.results import MARGIN, Results, SetChange
from ..records.run import (
    GATE_ANSWERS_FILE,
    GIVEN_FILE,
    MODEL_FOLDER,
    PATCH_FILE,
    POSITIONS_FILE,
    Base,
    GateAnswer,
    Position,
    Run,
    Trial,
)
from ..storage.loading import loading
from ..storage.model_folder import is_local


@dataclass(frozen=True)
class Fitted:
    """A run folder as `fit` left it, and what was measured of its model afterwards, if anything."""

    folder: Path
    run: Run
    positions: list[Position]
    answers: list[GateAnswer]
    measured: Results | None

    @cached_property
    def base_model(self) -> str | None:
        """The base's Hub id; None of a local folder, for the Hub would link to another model of that name.

        The fit knew which it was: the folder may be gone, or be named from elsewhere. It left the path out of its card
        and its patch, and a Hub id in.
        """
        name, patch = self.run.model.name, self.folder / PATCH_FILE
        if is_local(name) or not _is_hub_id(name):
            return None
        card = self.folder / MODEL_FOLDER / "README.md"
        if card.is_file() and _said_base(card) == name:
            return name
        return name if "/" in name and patch.is_file() and _patched_base(patch) == name else None

    @cached_property
    def chosen(self) -> Trial:
        """The strength that was kept, and what it did."""
        return next(trial for trial in self.run.trials if trial.strength == self.run.strength)

    @property
    def base(self) -> str:
        """The base's name, as others may read it."""
        return self.base_model or Path(self.run.model.name).name or "a folder"

    @property
    def reasons(self) -> list[str]:
        """Why the model should not be used, in sentences; empty where it may be."""
        gates = [self.run.gate, self.measured.gate if self.measured else None]
        reasons = [self.run.failure, *(gate.sentence for gate in gates if gate and not gate.passed)]
        if self.run.gate is None and not self.run.failure:
            reasons.append("The safety gate was not measured.")
        if self.lineage and not self.lineage.passed:
            reasons += self.lineage.reasons or ["Its own record says that it did not pass."]
        return [*dict.fromkeys(reason for reason in reasons if reason)]

    @property
    def sentence(self) -> str:
        """What the gate said."""
        return self.run.gate.sentence if self.run.gate else "The safety gate was not measured."

    @cached_property
    def lineage(self) -> Lineage | None:
        """What the model carries in its own folder."""
        folder = self.folder / MODEL_FOLDER
        return read(Lineage, folder) if (folder / Lineage.FILE).is_file() else None

    @property
    def carried(self) -> Lineage:
        """The same, made of the run where it has no model, so that a patch alone is known for what it is too; with what
        was found since.
        """
        known = self.lineage or lineage_from(self.run, self.positions)
        return replace(known, passed=not self.reasons, reasons=self.reasons)

    @cached_property
    def gate_sets(self) -> list[SetChange]:
        """What became of each set that the gate asked; the harmful ones first, that lost the most on top, as the gate
        counted them where it kept that.
        """
        prompts = [Prompt(answer.prompt, answer.kind, answer.set) for answer in self.answers]
        before, after = (
            [Verdict(getattr(answer, side), 0.0, "") for answer in self.answers]
            for side in ("verdict_before", "verdict_after")
        )
        counted, sets = self.run.gate.sets if self.run.gate else [], change(prompts, before, after).sets
        harmful = counted or [each for each in sets if each.kind == "harmful"]
        others = [each for each in sets if each.kind != "harmful"]
        return [*sorted(harmful, key=lambda each: each.difference), *sorted(others, key=lambda each: each.difference)]

    @cached_property
    def own_prompts(self) -> list[Prompt] | None:
        """The prompts given, in order; none where they are the built-in ones alone, None where they were not kept."""
        given = {kind: self.run.prompts.get(kind) for kind in KINDS}
        if all(was and was.sha256 == fingerprint(of_kind(starter("train"), kind)) for kind, was in given.items()):
            return []
        file = self.folder / GIVEN_FILE
        return [row.asked for row in read_rows(PromptRow, file)] if file.is_file() else None

    def recipe(self, export: Literal["merged", "patch"], with_prompts: bool) -> Recipe:
        """All that the fit depends on, without places; the system prompt is a prompt like others."""
        run, settings = self.run, {name: value for name, value in self.run.settings.items() if name != "export"}
        system = settings.get("system_prompt")
        if system and not with_prompts:
            settings["system_prompt"] = None
        placement = {name: value for name, value in run.placement.items() if name != "trust_remote_code"}
        return Recipe(
            model=Base(self.base, run.model.sha256, run.model.blocks),
            base_model=self.base_model,
            placement=placement | ({"dtype": run.computed_in} if run.computed_in else {}),
            settings=settings,
            system_prompt_sha256=text_sha256(system) if system else None,
            margin=run.gate.margin if run.gate else MARGIN,
            chat_template_kwargs=run.chat_template_kwargs,
            prompts=run.prompts,
            prompts_sha256=run.prompts_sha256,
            starter_sha256=run.starter_sha256,
            sets=self.sets,
            export=export,
            rule=str(run.training.get("rule", "")),
            layer=run.layer,
            strength=run.strength or 0.0,
            max_reasoning_tokens=run.max_reasoning_tokens,
            versions=run.versions,
        )

    @cached_property
    def sets(self) -> list[LearnedSet]:
        """What was learned from, by kind and set."""
        built_in = {(prompt.set, prompt.kind) for prompt in starter("train")}
        counts = Counter((row.set_and_kind, row.part) for row in self.positions)
        groups = sorted({row.set_and_kind for row in self.positions}, key=lambda group: (KINDS.index(group[1]), group))
        return [
            LearnedSet(*group, counts[group, "train"], counts[group, "validation"], group in built_in)
            for group in groups
        ]


def read_fitted(run: Path, measured: Path | None = None) -> Fitted:
    """The run in this folder, and the measurement of its model in the folder `measured`.

    **Raises:** `UserError` when `run` is no run, a file is damaged, or another model was measured.
    """
    if not (run / Run.FILE).is_file():
        fix = "give the folder that `fit` wrote"
        raise UserError(run, f"no {Run.FILE}", "the folder of a fit", fix)
    record = read(Run, run)
    if record.strength not in [trial.strength for trial in record.trials]:
        raise UserError(run / Run.FILE, "no trial of the strength that was kept", "a whole record", FIX)
    answers = run / GATE_ANSWERS_FILE
    return Fitted(
        folder=run,
        run=record,
        positions=read_value(list[Position], run / POSITIONS_FILE),
        answers=read_rows(GateAnswer, answers) if answers.is_file() else [],
        measured=_measured(measured, run) if measured else None,
    )


def _is_hub_id(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _said_base(card: Path) -> object:
    """The base that a card names."""
    with loading(card, "a model card", "fit again"):
        return (metadata_load(card) or {}).get("base_model")


def _patched_base(patch: Path) -> str | None:
    """The base that a patch names."""
    with loading(patch, "a patch", "fit again"), safe_open(patch, framework="np") as reader:
        return (reader.metadata() or {}).get("base_model")


def text_sha256(text: str) -> str:
    """SHA-256 (hex) of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def _measured(folder: Path, run: Path) -> Results:
    found = read(Results, folder)
    model, named = (run / MODEL_FOLDER).resolve(), Path(found.model)
    there = named.exists() and named.resolve() == model
    moved = not named.exists() and named.parts[-2:] == model.parts[-2:]
    if not (there or moved or found.engine == "openai"):  # a server may call it what it likes
        expected, fix = f"one of {run / MODEL_FOLDER}", f"measure {run / MODEL_FOLDER}, or leave `measured=` out"
        raise UserError(f"`measured={folder}`", f"a measurement of {found.model}", expected, fix)
    return found
