"""What is exported: the run of a fit, with its patch, its record and the answers that the gate had."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..engines.engine import REASONING_TOKENS
from ..errors import UserError
from ..models.checkpoint import read_tensors, write_merged
from ..models.patch import Patch
from ..models.patched import lineage_of_patch, patch_base, put_patched
from ..prompts.prompt import Prompt, with_system_prompt
from ..records.file import read, read_rows
from ..records.lineage import Lineage, check_safe
from ..records.run import GATE_ANSWERS_FILE, MODEL_FOLDER, PATCH_FILE, GateAnswer, Run
from ..storage.files import sha256_of
from ..storage.model_files import check_folder


@dataclass(frozen=True)
class Source:
    """A run that may be exported.

    - `folder`: of the run, and `run` its record; `patch_sha256`: of the patch's file.
    - `base`: the model that was trained, as it was named, and `known` what is told of the trained one.
    - `answers`: to the gate's prompts; empty where it asked none.
    """

    folder: Path
    run: Run
    patch: Patch
    patch_sha256: str
    base: str
    known: Lineage
    answers: list[GateAnswer]

    @property
    def max_reasoning_tokens(self) -> int:
        """What the model may think before it answers, as in the fit."""
        return self.run.max_reasoning_tokens or REASONING_TOKENS

    def prompts(self, rows: Sequence[GateAnswer]) -> list[Prompt]:
        """What the gate asked, of those `rows`."""
        asked = [Prompt(row.prompt, row.kind, row.set) for row in rows]
        system = self.run.settings.get("system_prompt")
        return with_system_prompt(asked, system) if system else asked

    @property
    def whole(self) -> Path | None:
        """The trained model in the run's folder; None where the fit wrote none.

        **Raises:** `UserError` when that is not the one that the patch makes.
        """
        model = self.folder / MODEL_FOLDER
        if not model.is_dir():
            return None
        check_folder(str(model), model)
        there = read_tensors(model, self.patch.tensors.__contains__)
        same = there.keys() == self.patch.tensors.keys()
        if not (same and all(torch.equal(tensor, there[name]) for name, tensor in self.patch.tensors.items())):
            found, fix = "another block than the patch's", "take one of the two away"
            raise UserError(model, found, f"block {self.patch.layer} of {self.folder / PATCH_FILE}", fix)
        return model

    def write_whole(self, new: Path, where: Path) -> None:
        """Write the trained model into the empty folder `new`, which becomes `where`.

        **Raises:** `UserError` when it has to be made of the base, and that is not there or another model.
        """
        if (model := self.whole) is not None:
            write_merged(model, {}, new, code=True, where=where, whole=True)
        else:
            put_patched(self.patch, self.base, patch_base(self.patch, self.base), new, self.known, where)


def open_source(run: Path, base: str | None, allow_unsafe: bool) -> Source:
    """The run in the folder `run`.

    **Arguments:**

    - `base`: where the model that was trained is now; None: where the record says.
    - `allow_unsafe`: take it even where it did not pass.

    **Raises:** `UnsafeError` when it did not; `UserError` when it is no run, or one that wrote no patch.
    """
    if not (run / Run.FILE).is_file():
        fix = f"did you mean {run.parent}?" if (run.parent / Run.FILE).is_file() else "name the folder itself"
        raise UserError(run, f"no {Run.FILE} in it", "the folder of a fit", fix)
    record = read(Run, run)
    file = run / PATCH_FILE
    if not file.is_file():
        fix = "fit again with `export=patch`" if record.written else "a fit that was withheld writes none"
        raise UserError(run, f"no {PATCH_FILE}", "a fit that wrote its patch", fix)
    patch = Patch.load(file)
    known = lineage_of_patch(patch, run)
    check_safe(run, known.reasons, allow_unsafe)
    answers = read_rows(GateAnswer, run / GATE_ANSWERS_FILE) if (run / GATE_ANSWERS_FILE).is_file() else []
    return Source(run, record, patch, sha256_of(file), base or record.model.name, known, answers)


WARNING = "> **Of this export:** "


def with_warning(card: Path, reasons: Sequence[str]) -> None:
    """Put `reasons` against a model at the head of its card, in the place of those that were there."""
    lines = [line for line in card.read_text(encoding="utf-8").split("\n") if not line.startswith(WARNING)]
    head = lines.index("---", 1) + 1 if lines[0] == "---" and "---" in lines[1:] else 0
    told = [WARNING + " ".join(" ".join(reasons).split())] if reasons else []
    card.write_text("\n".join([*lines[:head], *told, *lines[head:]]), encoding="utf-8", newline="\n")
