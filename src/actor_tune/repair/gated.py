"""A fit with the safety gate at its end, and what may be done with what came of it."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from ..engines.engine import REASONING_TOKENS
from ..engines.reasoning import TAIL, marks_of
from ..errors import UserError
from ..judges.reasoning import opened
from ..judges.trained.judge import judge_trained
from ..judges.verdict import Judge
from ..measurement.gate import excludable, figures_of
from ..models.checkpoint import save_tensors
from ..models.model import ChatModel
from ..models.patch import Patch, base_hash
from ..progress import Report, Stages, no_report
from ..prompts.prompt import KINDS, Prompt, fingerprint, of_kind
from ..prompts.starter import starter
from ..prompts.trace import Trace
from ..records import file
from ..records.lineage import Lineage, lineage_from
from ..records.request import FitRequest, at_work
from ..records.response import conversation, prompt_row
from ..records.results import MARGIN, Gate
from ..records.run import (
    GATE_ANSWERS_FILE,
    GIVEN_FILE,
    MODEL_FOLDER,
    PATCH_FILE,
    PATHS_FILE,
    POSITIONS_FILE,
    SETTINGS_FILE,
    YOURS_FILE,
    Base,
    Experts,
    Given,
    Position,
    Run,
    Yours,
)
from ..storage.files import write_json
from ..storage.folders import building
from ..storage.model_folder import public_name
from ..storage.versions import today, versions
from .card import write_card
from .direction import RefusalDirection
from .gate import PHASE, Gated, ask_gate, asked_of_users_own, gate_prompts, yours_of
from .kept import Kept
from .method import FittedBlock, completed, fit_block
from .settings import DEFAULTS, Settings
from .strength import fallen

log = logging.getLogger(__name__)

Export = Literal["merged", "patch", "none"]


@dataclass(frozen=True)
class Fit:
    """A trained block, what the safety gate says of it, and what may be done with it. The model is as it was.

    ```python
    fit = at.fit(model, prompts)
    if fit.passed:
        fit.save("run")
    ```

    - `model`: what was trained; `base_sha256` is its hash (`models.patch.base_hash`).
    - `given`: the prompts as the user gave them; `block.prompts` may have the starter prompts among them.
    - `margin`: the gate's, 0..1.
    - `gated`: None where nothing had changed.
    - `max_reasoning_tokens`: what the model might think before it answered the gate.
    """

    model: ChatModel
    base_sha256: str
    given: list[Prompt]
    settings: Settings
    margin: float
    block: FittedBlock
    gated: Gated | None
    max_reasoning_tokens: int = REASONING_TOKENS

    @property
    def layer(self) -> int:
        """The trained block."""
        return self.block.layer

    @property
    def direction(self) -> RefusalDirection:
        """The refusal direction at that block."""
        return self.block.direction

    @property
    def strength(self) -> float:
        """How much of the trained change is kept: 0 nothing, 1 all of it."""
        return self.block.chosen.strength

    @property
    def gate(self) -> Gate | None:
        """The safety gate's decision; None where nothing had changed."""
        return self.gated.gate if self.gated else None

    @property
    def reasons(self) -> list[str]:
        """Why the block should not be used, in sentences; empty where it may be."""
        failed = self.gate.sentence if self.gate and not self.gate.passed else None
        return [reason for reason in (self.block.failure, failed) if reason]

    @property
    def passed(self) -> bool:
        """Whether the block is within the limits and passed the gate."""
        return not self.reasons

    @property
    def withheld(self) -> bool:
        """Whether patch and model are kept back, because it did not pass and `allow_unsafe` was not set."""
        return not self.passed and not self.settings.allow_unsafe

    @property
    def gate_in_four_bits(self) -> bool:
        """Whether the gate's answers are those of a model packed in 4 bits, and not of the one that is written."""
        return self.model.placement.quantization != "none"

    @property
    def fallen(self) -> list[str]:
        """Harmful sets that fell by more than the margin, which a mean over all of them does not show, in sentences."""
        by_answers = self.gate.warning if self.gate else None
        return [said for said in (by_answers, fallen(self.block.chosen, self.margin)) if said]

    @property
    def warnings(self) -> list[str]:
        """What is to be known besides, in sentences."""
        packed = "The gate answered with all blocks but one in 4 bits: before you ship it, measure what was written."
        return [*self.block.warnings, *self.fallen, *([packed] if self.gate_in_four_bits else [])]

    @property
    def yours(self) -> Yours | None:
        """What became of the user's own prompts that were asked; None where none were given, or nothing had changed."""
        if not self.gated or not self.gated.yours:
            return None
        return yours_of(self.given, self.gated.yours, self.settings.aims)

    @property
    def thinks(self) -> bool | None:
        """Whether the block was trained where the model begins to reason; None of a model that does not reason."""
        if not (marks := marks_of(self.model.tokenizer)):
            return None
        prompt = self.model.encode(self.block.prompts[:1])[0]
        return opened(str(self.model.tokenizer.decode(prompt[-TAIL:])) + self.block.opening, marks) is not None

    @cached_property
    def patch(self) -> Patch:
        """The trained block, to be put into the model or saved.

        **Raises:** `UserError` when it is withheld.
        """
        if self.withheld:
            fix = (
                "add prompts like those that were lost, or try another rule; `allow_unsafe=True` gives it all the same"
            )
            raise UserError(self.model.name, " ".join(self.reasons).rstrip("."), "a fit that passed", fix)
        tensors = self.block.stored.on_disk(self.block.state)
        safety = " ".join(filter(None, [self.block.failure, self.gate.sentence if self.gate else None]))
        return Patch(self.layer, tensors, public_name(self.model.name), self.base_sha256, safety)

    def save(
        self,
        folder: str | Path,
        export: Export = "merged",
        command: str = "",
        settings: str = "",
        beside: Sequence[file.Record] = (),
    ) -> None:
        """Write the run into the new or empty `folder`, which is there whole or not at all.

        Patch and model are not written where they are withheld.

        ```python
        fit.save("run", export="patch")
        ```

        **Arguments:**

        - `export`: "merged" writes patch and model, "patch" the patch alone, "none" neither.
        - `command`: as it was typed, for the record; `settings`: all of it as TOML, to be a file beside that.
        - `beside`: further records, to be in the run too.

        **Raises:** `UserError` when `folder` has something in it or cannot be written.
        """
        with building(Path(folder)) as new:
            if export != "none" and not self.withheld:
                self.patch.save(new / PATCH_FILE)
                if export == "merged":
                    self.patch.save_merged(self.model, new / MODEL_FOLDER)
                    write_card(new / MODEL_FOLDER, self)
                    self.lineage().save(new / MODEL_FOLDER)
            direction = {"vector": self.direction.vector, "origin": self.direction.origin}
            about = {"layer": str(self.layer), "base_sha256": self.base_sha256}
            save_tensors(new / "direction.safetensors", direction, about)
            file.write_rows(map(prompt_row, self.given), new / GIVEN_FILE)
            write_json(new / POSITIONS_FILE, [file.row_json(position) for position in self.positions()])
            write_json(new / PATHS_FILE, [file.row_json(path) for path in self.block.paths])
            if self.gated:
                file.write_rows(self.gated.answers, new / GATE_ANSWERS_FILE)
                if self.gated.yours:
                    file.write_rows(self.gated.yours, new / YOURS_FILE)
            if settings:
                (new / SETTINGS_FILE).write_text(settings, encoding="utf-8", newline="\n")
            for record in (*beside, self.record(export, command)):
                record.save(new)

    def lineage(self) -> Lineage:
        """What the model carries in its own folder; of a base that was trained before, its prompts too."""
        return lineage_from(self.record(), self.positions())

    @property
    def _trained_before(self) -> list[Trace]:
        base = self.model.folder
        return file.read(Lineage, base).trained_on if base and (base / Lineage.FILE).is_file() else []

    def positions(self) -> list[Position]:
        """Each prompt's position along the direction, before and after."""
        block = self.block
        rows = zip(block.prompts, block.validation, block.before, block.after, strict=True)
        return [
            Position(
                prompt=prompt.text,
                kind=prompt.kind,
                set=prompt.set,
                messages=conversation(prompt),
                category=prompt.category or None,
                part="validation" if aside else "train",
                before=before,
                after=after,
            )
            for prompt, aside, before, after in rows
        ]

    def record(self, export: Export = "merged", command: str = "") -> Run:
        """Everything needed to say what was run and to run it again."""
        block, settings, given = self.block, self.settings, {kind: of_kind(self.given, kind) for kind in KINDS}
        mixed = {"starter": settings.mixes_starter, "categories": [*settings.categories]}
        return Run(
            model=Base(self.model.name, self.base_sha256, len(self.model.blocks)),
            placement=asdict(self.model.placement),
            computed_in=self.model.computed_in,
            settings=asdict(settings) | mixed | {"export": export},
            training={"rule": block.rule.name} | asdict(block.schedule) | block.rule.parameters,
            rule_reason=block.suited.reason if block.suited else None,
            layer=block.layer,
            scan=block.scan.blocks if block.scan else None,
            refusal_tokens=block.refusals.refusal_tokens,
            boundary=block.refusals.start.boundary,
            start_error=block.refusals.error,
            prompts={kind: Given(len(prompts), fingerprint(prompts)) for kind, prompts in given.items()},
            prompts_sha256=fingerprint(self.given),
            starter_sha256=fingerprint(starter("train")) if settings.mixes_starter else None,
            trained_on=len(block.validation) - sum(block.validation),
            validated_on=sum(block.validation),
            direction_length=block.direction.length,
            epochs=block.epochs,
            trials=block.trials,
            strength=block.chosen.strength,
            failure=block.failure,
            warnings=block.warnings,
            seconds=block.seconds,
            versions=versions(),
            gate=self.gate,
            command=command,
            written=not self.withheld,
            chat_template_kwargs=dict(self.model.chat_template_kwargs),
            opening=block.opening,
            thinks=self.thinks,
            max_reasoning_tokens=self.max_reasoning_tokens,
            trained_before=self._trained_before,
            experts=Experts(len(block.experts), sum(block.experts)) if block.experts else None,
            limits=block.limits,
            fallen=self.fallen,
            date=today(),
            yours=self.yours,
        )


def fit(
    chat_model: ChatModel,
    prompts: Sequence[Prompt],
    settings: Settings = DEFAULTS,
    margin: float = MARGIN,
    judge: Judge = judge_trained,
    answer_batch: int | None = None,
    max_reasoning_tokens: int = REASONING_TOKENS,
    work: str | Path | None = None,
    stages: Stages | None = None,
    report: Report = no_report,
) -> Fit:
    """Train one block of `chat_model`, which is left as it was, and put it before the safety gate.

    ```python
    fit = at.fit(model, prompts)
    fit.passed, fit.layer, fit.strength, fit.reasons
    with fit.patch.applied(model):
        at.answer(model, prompts[:4])
    fit.save("run")
    ```

    **Arguments:**

    - `prompts`: kinds that are not among them come from the starter prompts, unless `settings` want none.
    - `margin`: how far refusal of held-out harmful prompts may fall, 0..1.
    - `answer_batch`: prompts that the gate answers at a time; None: as many as an engine takes.
    - `max_reasoning_tokens`: what a model that reasons may think before it answers the gate.
    - `work`: a folder in which what is done is kept, so that the same call goes on after a kill; None: nowhere.
    - `stages`: says how far it is (`preflight(...).stages()`); `report`: takes figures as they come, by name and step:
      "train" the loss of each step, "strength" what each strength does, "gate" what the gate found.

    **Raises:** `UserError` when there are too few prompts, the block cannot be trained, a patch is applied, or `work`
    holds something else or another process is at work in it.
    """
    prompts = completed(prompts, settings)
    # Now, and not after minutes of training.
    aims = settings.aims
    asked = gate_prompts(prompts, margin, settings.system_prompt, settings.gate_prompts, aims)
    own = asked_of_users_own(prompts, settings.system_prompt, aims)
    if settings.gate_prompts is not None:
        harmful = len(of_kind(asked, "harmful"))
        said = "the safety gate asks %d held-out harmful prompts: they exclude a drop of %.1f points at best"
        log.warning(said, harmful, 100 * excludable(harmful))
    base, kept, stages = base_hash(chat_model), Kept(Path(work) if work else None), stages or Stages()
    request = _request(chat_model, base, prompts, settings, margin, max_reasoning_tokens, judge)
    with at_work(kept.folder, request):
        block = fit_block(chat_model, prompts, settings, judge, kept, stages, report)
        gated = None  # where nothing has changed, `failure` says so
        if block.chosen.strength:
            with stages(PHASE):
                limit = max_reasoning_tokens
                gated = ask_gate(chat_model, block, asked, margin, judge, answer_batch, limit, kept, own, aims)
            report("gate", figures_of(gated.gate), 0)
    block = replace(block, seconds=dict(stages.seconds))
    return Fit(chat_model, base, list(prompts), settings, margin, block, gated, max_reasoning_tokens)


def _request(
    chat_model: ChatModel,
    base: str,
    prompts: Sequence[Prompt],
    settings: Settings,
    margin: float,
    max_reasoning_tokens: int,
    judge: Judge,
) -> FitRequest:
    """All that a fit's result depends on."""
    return FitRequest(
        model=chat_model.name,
        base_sha256=base,
        placement=asdict(chat_model.placement),
        chat_template_kwargs=dict(chat_model.chat_template_kwargs),
        settings=asdict(settings),
        margin=margin,
        max_reasoning_tokens=max_reasoning_tokens,
        judge=getattr(judge, "__qualname__", type(judge).__qualname__),
        prompts_sha256=fingerprint(prompts),
        versions=versions(),
    )
