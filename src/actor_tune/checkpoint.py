"""The changed block as a file of its own (`patch.safetensors`), and a whole checkpoint with it put in (`model/`)."""

import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from .files import link_or_copy, replacing
from .model import ChatModel, weight_files
from .train import State

PATCH_FORMAT = "actor-tune patch 1"


def checkpoint_names(chat_model: ChatModel, layer: int, state: State) -> State:
    """`state` of block `layer` under the names that its tensors have in the checkpoint (parameters only)."""
    block = chat_model.blocks[layer]
    prefix = next(name for name, module in chat_model.model.named_modules() if module is block)
    parameters = dict(block.named_parameters())
    return {f"{prefix}.{name}": tensor for name, tensor in state.items() if name in parameters}


def save_patch(path: Path, tensors: State, layer: int, base: str, base_hash: str) -> None:
    """Write the changed tensors, in the dtype of the base, bound to it by name and weight hash in the metadata."""
    metadata = {"format": PATCH_FORMAT, "layer": str(layer), "base_model": base, "base_sha256": base_hash}
    with replacing(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, metadata=metadata)


def save_merged(base_folder: Path, tensors: State, folder: Path) -> None:
    """Write the base checkpoint into `folder` with `tensors` in the place of those of the same names.

    Weight files without a changed tensor are linked or copied, all other files (config, tokenizer, chat template)
    copied, byte for byte; in a file with changed tensors all others keep their bits.

    **Raises:** `KeyError` when the base has no tensor of a name or another shape or dtype there.
    """
    folder.mkdir()
    missing = set(tensors)
    for file in sorted(base_folder.iterdir()):
        if file.is_file() and file.suffix in (".json", ".jinja", ".model", ".txt"):
            shutil.copyfile(file, folder / file.name)
    for file in weight_files(base_folder):
        with safe_open(file, framework="pt") as reader:
            names = set(reader.keys())
            if not names & set(tensors):
                link_or_copy(file, folder / file.name)
                continue
            contents = {name: reader.get_tensor(name) for name in names}
            metadata = reader.metadata()
        for name in names & set(tensors):
            _check_same_form(name, contents[name], tensors[name])
            contents[name] = tensors[name].contiguous()
        missing -= names
        with replacing(folder / file.name) as temporary:
            save_file(contents, temporary, metadata=metadata)
    if missing:
        raise KeyError(f"the checkpoint {base_folder} has no tensors named {', '.join(sorted(missing))}")


def _check_same_form(name: str, before: torch.Tensor, after: torch.Tensor) -> None:
    if before.shape != after.shape or before.dtype != after.dtype:
        found = f"{tuple(after.shape)} {after.dtype}"
        raise KeyError(f"{name} is {found}, but in the checkpoint {tuple(before.shape)} {before.dtype}")
