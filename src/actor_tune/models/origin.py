"""What a user may name as a model: a folder or Hub id, an adapter for one, or a GGUF file; and what lies there."""

import json
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError, require_package
from ..storage.model_folder import model_folder

ADAPTER_CONFIG = "adapter_config.json"


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
    if not _is_adapter(folder):
        return Origin(folder)
    require_reader(name, folder)
    try:
        base = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError):
        base = None
    if not isinstance(base, str):
        fix = "write the base's folder or Hub id there"
        raise UserError(folder / ADAPTER_CONFIG, "no base_model_name_or_path", "the model it is for", fix)
    return Origin(model_folder(base, weights, code), adapter=folder, base=base)


def require_reader(name: str, path: Path) -> None:
    """Stop where a GGUF file or an adapter lies at `path`, and the package that reads it is not installed.

    **Raises:** `UserError` naming `name`.
    """
    if _is_gguf(path):
        require_package(name, "gguf", "testbed")
    if _is_adapter(path):
        require_package(name, "peft", "testbed")


def is_local(name: str) -> bool:
    """Whether `name`, of a model, is a path of this machine, also one that is no longer there, and no Hub id."""
    path = Path(name)
    return path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or path.exists()


def public_name(name: str) -> str:
    """`name` as others may read it: of a path the last part alone, as the rest tells of the user's machine."""
    return Path(name).resolve().name if is_local(name) else name


def _is_gguf(path: Path) -> bool:
    return path.suffix == ".gguf" and path.is_file()


def _is_adapter(folder: Path) -> bool:
    return (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file()
