"""A patch in a model's folder: written without loading the model, and taken out again, bit for bit both ways.

Beside the weights lies `actor_tune.original`, the tensors that the patch took the place of, under a name that no loader
takes for weights: with it the base can be had back where nothing but the patched model is left.
"""

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open

from ..errors import UserError
from ..records.file import read
from ..records.lineage import Lineage, check_safe, lineage_of
from ..records.run import Run
from ..storage.folders import building
from ..storage.loading import loading
from ..storage.model_files import CONFIG, check_folder, json_object
from ..storage.model_folder import is_local, loaded_files, model_folder, public_name, weight_files, weights_hash
from .checkpoint import FLOAT_DTYPES, ORIGINAL_FILE, read_header, read_tensors, save_tensors, write_merged
from .model import check_tensor
from .state import State

if TYPE_CHECKING:
    from .patch import Patch

log = logging.getLogger(__name__)

FORMAT = "actor-tune original 1"
CARD_FILE = "README.md"
OF_BASE = "BASE_"
"""What the name of a file of the base begins with, where the patched model has one of its own in its place."""

CARD = """# {base}, with block {layer} trained

Block {layer} of {base} was put in its place as actor-tune had trained it. All other tensors are those of the base.

{warning}{safety}
"""
UNSAFE = "> **Not safe to ship.** This model was written with `allow_unsafe` after it had failed.\n\n"


def write_patched(patch: "Patch", base: str, folder: Path, run: Path | None, allow_unsafe: bool) -> None:
    """As `Patch.write`."""
    known = lineage_of_patch(patch, run)
    check_safe(f"the patch of block {patch.layer} of {patch.base}", known.reasons, allow_unsafe)
    place = patch_base(patch, base)
    if beside := sorted({file.name for file in weight_files(place)} - {file.name for file in loaded_files(place)}):
        said = "%s: %s, weights beside those that are loaded, are left out; the base cannot be had back without them"
        log.warning(said, base, ", ".join(beside))
    with building(folder) as new:
        put_patched(patch, base, place, new, known, folder)


def patch_base(patch: "Patch", base: str) -> Path:
    """The folder of `base`, which is the model that `patch` is for.

    **Raises:** `UserError` when it is not, its weights are packed, or the patch does not fit into it.
    """
    if base.endswith(".gguf") or (is_local(base) and not weight_files(Path(base)) and any(Path(base).glob("*.gguf"))):
        raise UserError(base, "a GGUF file", "safetensors", "name the model that the file was made from")
    place = model_folder(base, code=True)
    check_folder(base, place)
    if json_object(place / CONFIG).get("quantization_config") is not None:
        fix = "name the model that it was made from"
        raise UserError(base, "weights that are packed", "the plain ones that the patch was trained in", fix)
    if weights_hash(place) != patch.base_sha256:
        found = f"other weights than those of {patch.base} that the patch was trained in"
        raise UserError(base, found, f"SHA-256 {patch.base_sha256[:12]}...", "name the model of the patch")
    check_places(base, place, patch.tensors)
    return place


def put_patched(patch: "Patch", base: str, place: Path, new: Path, known: Lineage, where: Path) -> None:
    """Write `base`, which is in the folder `place`, with `patch` in it into the empty folder `new`.

    **Arguments:**

    - `known`: what it carries; `where`: what the folder becomes, for messages.
    """
    earlier = read(Lineage, place).trained_on if (place / Lineage.FILE).is_file() else []
    originals = read_tensors(place, patch.tensors.__contains__)
    about = {"format": FORMAT, "base_model": patch.base, "base_sha256": patch.base_sha256}
    code = "auto_map" in json_object(place / CONFIG)
    write_merged(place, patch.tensors, new, code, where, whole=True)
    for file in _replaced(new):
        file.rename(new / f"{OF_BASE}{file.name}")
    save_tensors(new / ORIGINAL_FILE, originals, about)
    warning = "" if known.passed else UNSAFE
    text = CARD.format(base=public_name(base), layer=patch.layer, warning=warning, safety=patch.safety)
    (new / CARD_FILE).write_text(text, encoding="utf-8")
    known.with_earlier(earlier).save(new)


def lineage_of_patch(patch: "Patch", run: Path | None = None) -> Lineage:
    """What a model with `patch` in it carries: what the `run` folder of its fit says, or else the patch alone.

    **Raises:** `UserError` when that run is damaged, or of another patch.
    """
    if run is None:
        reasons = [] if patch.passed else [patch.safety or "Nothing is known of its safety"]
        return Lineage(
            base_sha256=patch.base_sha256,
            layer=patch.layer,
            rule=None,
            strength=None,
            passed=patch.passed,
            reasons=reasons,
            gate=None,
            trained_on=[],
        )
    known = lineage_of(run)
    if (known.base_sha256, known.layer, known.passed) != (patch.base_sha256, patch.layer, patch.passed):
        fix = "keep the patch in the folder of its own fit, or in one without a record"
        raise UserError(run / Run.FILE, "the record of another patch", f"that of block {patch.layer}", fix)
    return known


def check_places(name: str, folder: Path, tensors: State) -> None:
    """Stop where `tensors` cannot take the place of those of the same names in the checkpoint in `folder`.

    **Raises:** `UserError` naming the model `name`: one is not there, is of another shape or dtype, or is not finite.
    """
    stored = {each: tensor for file in loaded_files(folder) for each, tensor in read_header(file).items()}
    for each, tensor in sorted(tensors.items()):
        there = f"{tensor.dtype} {list(tensor.shape)}".removeprefix("torch.")
        here = "missing"
        if each in stored:
            dtype = FLOAT_DTYPES.get(stored[each].dtype, stored[each].dtype)
            here = f"{dtype} {list(stored[each].shape)}".removeprefix("torch.")
        if here != there:
            found = f"{each} is {here} in the model and {there} in the patch"
            raise UserError(name, found, "the same block", "name the model of the patch, or the patch as it was saved")
        check_tensor("the patch", each, tensor)


def revert(model: str | Path, folder: str | Path, base: str | Path | None = None) -> None:
    """Write `model`, which has a patch in it, into the new `folder` as its base was: every byte of its weights.

    ```python
    at.Patch.load("run/patch.safetensors").write("MODEL", "patched", run="run")
    at.revert("patched", "as-it-was")
    ```

    **Arguments:**

    - `model`: a folder that `Patch.write` wrote, or the model in the folder of a fit.
    - `base`: the model that it was made from, where the block as it was does not lie beside; None: what the run says.

    **Raises:** `UserError` when that is not a patched model, the block as it was cannot be had, or what comes out does
    not have the base's hash; nothing is written then.
    """
    place = model_folder(str(model), code=True)
    check_folder(str(model), place)
    if not (place / Lineage.FILE).is_file():
        raise UserError(
            model, f"no {Lineage.FILE}", "a model with a patch in it", "name the folder that it was written to"
        )
    known = read(Lineage, place)
    originals = _originals(model, place, known, base)
    check_places(str(model), place, originals)
    with building(Path(folder)) as new:
        write_merged(place, originals, new, code=True, where=Path(folder), whole=True)
        for file in reversed(_replaced(new)):  # a name is free before it is given
            if file.name.startswith(OF_BASE):
                file.rename(new / file.name.removeprefix(OF_BASE))
            else:
                file.unlink()
        if weights_hash(new) != known.base_sha256:
            found = "weights that are not the base's once the block is as it was"
            fix = "name it as it was written; a base that has weights beside those that are loaded is not had back"
            raise UserError(model, found, f"SHA-256 {known.base_sha256[:12]}...", fix)


def _replaced(folder: Path) -> list[Path]:
    """The files of which a patched model has one of its own, and those of its bases that stand aside; these first."""
    own = re.compile(f"({OF_BASE})*({'|'.join(map(re.escape, (CARD_FILE, Lineage.FILE, ORIGINAL_FILE)))})")
    return sorted((file for file in folder.iterdir() if own.fullmatch(file.name)), key=lambda file: -len(file.name))


def _originals(model: str | Path, place: Path, known: Lineage, base: str | Path | None) -> dict[str, torch.Tensor]:
    """The block of `known` as it was: from beside the weights in `place`, or from `base`."""
    file = place / ORIGINAL_FILE
    if base is None and file.is_file():
        with loading(file, "the block as it was", "give `base=MODEL`"), safe_open(file, framework="pt") as reader:
            about = reader.metadata() or {}
            if (about.get("format"), about.get("base_sha256")) != (FORMAT, known.base_sha256):
                raise ValueError("of another model")
            return {name: reader.get_tensor(name) for name in reader.keys()}  # noqa: SIM118 - no mapping
    if base is None and (place.parent / Run.FILE).is_file():
        trained = read(Run, place.parent).model
        base = trained.name if trained.sha256 == known.base_sha256 else None
    if base is None:
        raise UserError(model, f"no {ORIGINAL_FILE}", "the block as it was", "give `base=MODEL`, what it was made from")
    there = model_folder(str(base))
    check_folder(str(base), there)
    if weights_hash(there) != known.base_sha256:
        expected = f"SHA-256 {known.base_sha256[:12]}..."
        raise UserError(base, f"other weights than {model} was made from", expected, "name the model it was made from")
    return read_tensors(there, lambda name: str(known.layer) in name.split("."))
