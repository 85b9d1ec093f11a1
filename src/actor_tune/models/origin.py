"""What a user may name as a model: a folder or Hub id, an adapter for one, or a GGUF file; and what lies there."""

import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError, require_package
from ..storage.model_files import CONFIG, check_pointer, check_tensors, json_object
from ..storage.model_folder import model_folder, weight_files

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class Origin:
    """Where a model comes from.

    - `folder`: with config, tokenizer and weights; of an adapter, those of its base.
    - `gguf`: the name of the file in it that has all of these, if it is one.
    - `adapter`: the folder of an adapter that is merged into the model, if it is one, and `base` the model's name.
    """

    folder: Path
    gguf: str | None = None
    adapter: Path | None = None
    base: str | None = None

    @property
    def in_memory_alone(self) -> bool:
        """Whether the model's weights are not those in the weight files of `folder`."""
        return self.gguf is not None or self.adapter is not None


def origin_of(name: str, weights: bool = True, code: bool = False) -> Origin:
    """What `name` is; `weights` and `code` as in `storage.model_folder`.

    **Raises:** `UserError` when there is no such thing, or the package that reads it is not installed.
    """
    path = Path(name)
    require_reader(name, path)
    if _is_gguf(path):
        return Origin(path.parent, gguf=path.name)
    folder = model_folder(name, weights, code)
    whole = (folder / CONFIG).is_file() and any(file.name != ADAPTER_WEIGHTS for file in weight_files(folder))
    if not (folder / ADAPTER_CONFIG).is_file():
        return Origin(folder)
    if whole:
        # transformers would put the adapter into the model, which it may be in already.
        found, fix = "a whole model and an adapter", "move one of the two to a folder of its own"
        raise UserError(name, found, "one of the two", fix)
    require_package(name, "peft", "testbed")
    base = json_object(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
    if not isinstance(base, str):
        fix = "write the base's folder or Hub id there"
        raise UserError(folder / ADAPTER_CONFIG, "no base_model_name_or_path", "the model it is for", fix)
    if (folder / ADAPTER_WEIGHTS).is_file():
        check_pointer(folder / ADAPTER_WEIGHTS)
        check_tensors(folder / ADAPTER_WEIGHTS)
    elif weights:
        fix = "download it again; pickled ones (.bin) are never loaded"
        raise UserError(name, f"an adapter without {ADAPTER_WEIGHTS}", "its weights", fix)
    return Origin(_base_folder(folder, base, weights, code), adapter=folder, base=base)


def _base_folder(adapter: Path, base: str, weights: bool, code: bool) -> Path:
    """Where the model is that `adapter` is for."""
    try:
        folder = model_folder(base, weights, code)
    except UserError as error:
        found = f"an adapter for {base!r:.200}, which cannot be found ({error.found})"
        fix = "get that model, and write where it is there"
        raise UserError(adapter / ADAPTER_CONFIG, found, error.expected, fix) from error
    if not (folder / CONFIG).is_file() and (folder / ADAPTER_CONFIG).is_file():
        fix = "write the model that it was trained in there"
        raise UserError(adapter / ADAPTER_CONFIG, f"an adapter for {base}, an adapter itself", "a whole model", fix)
    return folder


def require_reader(name: str, path: Path) -> None:
    """Stop where a GGUF file or an adapter lies at `path`, and the package that reads it is not installed.

    **Raises:** `UserError` naming `name`.
    """
    if _is_gguf(path):
        require_package(name, "gguf", "testbed")
    if _is_adapter(path):
        require_package(name, "peft", "testbed")


def _is_gguf(path: Path) -> bool:
    return path.suffix == ".gguf" and os.path.isfile(path)


def _is_adapter(folder: Path) -> bool:
    return os.path.isfile(folder / ADAPTER_CONFIG) and not os.path.isfile(folder / CONFIG)
