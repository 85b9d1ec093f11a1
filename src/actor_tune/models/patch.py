"""A trained block by itself: as a file (`patch.safetensors`), put into its model, and taken out again."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from safetensors import safe_open
from torch import nn

from ..errors import UserError
from ..records.results import PASSED
from ..records.run import PATCH_FILE
from ..storage.files import storing
from ..storage.folders import building
from ..storage.loading import loading, reason_of
from ..storage.model_files import check_pointer
from ..storage.model_folder import weight_files, weights_hash
from .checkpoint import FLOAT_DTYPES, save_merged, save_tensors
from .model import ChatModel, runs_own_code
from .placement import is_elsewhere
from .state import State, weights_in_memory
from .stored import stored_block

FORMAT = "actor-tune patch 1"


@dataclass(frozen=True, eq=False)
class Patch:
    """One trained block, for the model that it was trained in and no other.

    ```python
    fit.patch.save("patch.safetensors")
    patch = at.Patch.load("patch.safetensors")
    with patch.applied(model):
        at.answer(model, prompts)
    patch.apply(model)
    patch.revert(model)
    patch.write("MODEL", "patched", allow_unsafe=not patch.passed)
    ```

    - `layer`: the block; `tensors`: its parameters under their names in the checkpoint, in the dtype that is stored.
    - `base`: that model's name, of a local folder the last part alone, and `base_sha256` its hash (`base_hash`).
    - `safety`: what was found about it, in a sentence, as a patch has no model card.
    """

    layer: int
    tensors: State
    base: str
    base_sha256: str
    safety: str

    def save(self, path: str | Path) -> None:
        """Write it to `path`, bound to its base by name and hash in the metadata."""
        metadata = {"format": FORMAT, "layer": str(self.layer), "base_model": self.base}
        metadata |= {"base_sha256": self.base_sha256, "safety": self.safety}
        metadata |= {"tensors_sha256": _tensors_hash(self.tensors)}
        save_tensors(Path(path), self.tensors, metadata)

    @classmethod
    def load(cls, path: str | Path) -> "Patch":
        """Read what `save` wrote; `path` may also be the folder of a fit, which has it.

        **Raises:** `UserError` when there is no such file, it is no patch, or a damaged one.
        """
        fix = "name the patch.safetensors of a fit, or its folder"
        folder = Path(path)
        if folder.is_dir() and not (path := folder / PATCH_FILE).is_file():
            raise UserError(folder, f"a folder without {PATCH_FILE}", "a patch", fix)

        def blame(error: BaseException) -> tuple[object, str]:
            return path, f"no patch that can be read ({reason_of(error)})"

        check_pointer(Path(path))
        with loading(path, FORMAT, fix, blame), safe_open(path, framework="pt") as reader:
            about = reader.metadata() or {}
            tensors = {name: reader.get_tensor(name) for name in reader.keys()}  # noqa: SIM118 - no mapping
            if about.get("format") != FORMAT:
                raise ValueError("another safetensors file")
            layer, base, sha256, safety = (about[key] for key in ("layer", "base_model", "base_sha256", "safety"))
            if not layer.isdecimal():
                raise ValueError(f"layer is {layer!r}")
            if other := [name for name, tensor in tensors.items() if tensor.dtype not in FLOAT_DTYPES.values()]:
                raise ValueError(f"{other[0]} is {tensors[other[0]].dtype}")
            if about.get("tensors_sha256") not in (None, _tensors_hash(tensors)):  # older ones have none
                raise ValueError("its tensors are not those that were saved")
            return cls(int(layer), tensors, base, sha256, safety)

    def apply(self, chat_model: ChatModel) -> None:
        """Put the block into `chat_model`, in the dtype that it is computed in.

        **Raises:** `UserError` when it is not the patch's model, its weights are on disk, or a patch is applied to it.
        """
        block = self._block(chat_model)
        self._check_base(chat_model)
        stored = stored_block(chat_model, self.layer)
        shapes = [{name: list(value.shape) for name, value in each.items()} for each in (stored.places, self.tensors)]
        for name in sorted({*stored.places, *self.tensors}):
            here, there = (each.get(name, "missing") for each in shapes)
            if here != there:
                found = f"{name} is {here} in the model and {there} in the patch"
                raise UserError(chat_model.name, found, "the same block", "load the model of the patch")
        before = {name: value.detach().clone() for name, value in block.named_parameters()}
        _APPLIED[chat_model.model] = _Applied(self, before)
        _put(block, stored.in_memory(self.tensors))

    def revert(self, chat_model: ChatModel) -> None:
        """Put the block as it was back into `chat_model`, bit for bit.

        **Raises:** `UserError` when this patch is not applied to it.
        """
        applied = _APPLIED.get(chat_model.model)
        if applied is None or not applied.patch._equals(self):
            found = "another patch is applied" if applied else "no patch is applied"
            raise UserError(chat_model.name, found, f"this one, of block {self.layer}", "apply it first")
        _put(self._block(chat_model), applied.before)
        del _APPLIED[chat_model.model]

    @contextmanager
    def applied(self, chat_model: ChatModel) -> Iterator[None]:
        """Within it, the block is in `chat_model`; afterwards the model is as it was.

        **Raises:** `UserError` as `apply`.
        """
        self.apply(chat_model)
        try:
            yield
        finally:
            self.revert(chat_model)

    def save_merged(self, chat_model: ChatModel, folder: Path) -> None:
        """Write the whole of `chat_model` with the block in it into the new `folder`.

        **Raises:** `UserError` as `apply`, and when `folder` has something in it or cannot be written.
        """
        if chat_model.folder is not None:
            self._check_base(chat_model)
            return save_merged(chat_model.folder, self.tensors, folder, code=runs_own_code(chat_model))
        with self.applied(chat_model), building(folder) as new, storing(folder):
            chat_model.model.save_pretrained(new)
            chat_model.tokenizer.save_pretrained(new)

    def write(
        self, base: str | Path, folder: str | Path, run: str | Path | None = None, allow_unsafe: bool = False
    ) -> None:
        """Write the model `base` with the block in it into the new `folder`, file by file: the model is not loaded.

        What it was made of lies beside, so that `revert` gives the base's bytes back.

        **Arguments:**

        - `base`: a folder or Hub id.
        - `run`: the folder of the fit, whose record the model is to carry; None: it carries what the patch says.
        - `allow_unsafe`: write it even where the gate had failed, or nothing is known of it.

        **Raises:** `UnsafeError` when it did not pass; `UserError` when `base` is another model or has packed weights,
        the patch is damaged, `run` is of another one, or `folder` is not new or empty.
        """
        from .patched import write_patched

        write_patched(self, str(base), Path(folder), Path(run) if run else None, allow_unsafe)

    @property
    def passed(self) -> bool:
        """Whether what was found about it is that it may be used, and nothing else."""
        return self.safety.startswith(PASSED)

    def _block(self, chat_model: ChatModel) -> nn.Module:
        """The block in `chat_model`."""
        if not self.layer < len(chat_model.blocks):
            found = f"{len(chat_model.blocks)} blocks, and the patch is one of block {self.layer}"
            raise UserError(chat_model.name, found, f"the model {self.base}", "load the model of the patch")
        block = chat_model.blocks[self.layer]
        if is_elsewhere(block):
            fix = "load the model without `offload=stream`, on one device"
            raise UserError(chat_model.name, f"the weights of block {self.layer} are on disk", "in memory", fix)
        if chat_model.placement.quantization != "none":
            found, fix = f"`quantization={chat_model.placement.quantization}`", "load the model without it"
            raise UserError(chat_model.name, found, "a model that is not packed", fix)
        return block

    def _check_base(self, chat_model: ChatModel) -> None:
        if base_hash(chat_model) != self.base_sha256:
            found = f"other weights than those of {self.base} that the patch was trained in"
            expected = f"SHA-256 {self.base_sha256[:12]}..."
            raise UserError(chat_model.name, found, expected, "load the model of the patch")

    def _equals(self, other: "Patch") -> bool:
        same = self.layer == other.layer and self.tensors.keys() == other.tensors.keys()
        return same and all(torch.equal(tensor, other.tensors[name]) for name, tensor in self.tensors.items())


@dataclass(frozen=True)
class _Applied:
    patch: Patch
    before: State


_APPLIED: WeakKeyDictionary[nn.Module, _Applied] = WeakKeyDictionary()  # models with a patch in them, one each


@torch.no_grad()
def _put(block: nn.Module, values: State) -> None:
    for name, parameter in block.named_parameters():
        parameter.copy_(values[name])


def _tensors_hash(tensors: State) -> str:
    """SHA-256 (hex) over names, dtypes, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def base_hash(chat_model: ChatModel) -> str:
    """What a patch is bound to, SHA-256 (hex): the weight files, or of a model in memory alone its weights there.

    **Raises:** `UserError` when a patch is applied to it, so that it is not the model that it was.
    """
    if chat_model.model in _APPLIED:
        found = f"a patch of block {_APPLIED[chat_model.model].patch.layer} is applied"
        raise UserError(chat_model.name, found, "the model as it was", "revert that patch first")
    if chat_model.folder is None:
        return weights_in_memory(chat_model)
    stats = [(file.name, file.stat()) for file in weight_files(chat_model.folder)]
    return _files_hash(chat_model.folder, tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats))


@lru_cache  # as long as no file changes
def _files_hash(folder: Path, _files: tuple[tuple[str, int, int], ...]) -> str:
    return weights_hash(folder)
