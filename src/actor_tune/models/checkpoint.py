"""The checkpoint of a model: its weight files, and a whole one with a changed block put in (`model/`).

Weight files are read and written by their headers alone: no tensor but those of the changed block is ever in memory.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import safe_open
from safetensors.torch import save

from ..records.lineage import Lineage
from ..storage.files import clone_or_copy, link_or_copy, replacing, storing
from ..storage.folders import building
from ..storage.loading import loading
from ..storage.model_folder import INDEX_FILE, SINGLE_FILE, loaded_files
from .model import check_tensor
from .state import State

# Files with weights, in any format; those that transformers does not load would not have the change: left out.
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".gguf", ".h5", ".msgpack", ".onnx")

ORIGINAL_FILE = "actor_tune.original"
"""The tensors of the base that a patch took the place of. No loader takes a file of this name for weights."""

OF_A_FIT = (Lineage.FILE, ORIGINAL_FILE)
"""What says of a model how it was trained: not true of one that is made from it."""

# By their names in safetensors. Others (float8, integers) are quantised and cannot be trained as they are.
FLOAT_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "F64": torch.float64}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as its weight file has it: dtype by its name in safetensors, shape, and the place of its first byte."""

    dtype: str
    shape: tuple[int, ...]
    start: int


def read_header(file: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file by name. The library has no call that gives their positions."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    return {
        name: StoredTensor(entry["dtype"], tuple(entry["shape"]), 8 + length + entry["data_offsets"][0])
        for name, entry in header.items()
    }


def check_files(name: str, folder: Path) -> None:
    """Read all weights of the model `name` in `folder` once, one after the other.

    **Raises:** `UserError` when one is not finite.
    """
    for file in loaded_files(folder):
        with loading(file, "weights", "download it again"), safe_open(file, framework="pt") as reader:
            for tensor_name, stored in read_header(file).items():
                if stored.dtype in FLOAT_DTYPES:
                    check_tensor(name, tensor_name, reader.get_tensor(tensor_name))


def save_tensors(path: Path, tensors: State, metadata: dict[str, str]) -> None:
    """Write a safetensors file whose bytes follow from what is in it: the library alone shuffles the metadata."""
    content = save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata=metadata)
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length]) | {"__metadata__": metadata}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length)
    if len(text) > length:
        raise ValueError("the header does not fit in its place")
    with replacing(path) as temporary, temporary.open("wb") as stream:
        for part in (content[:8], text, memoryview(content)[8 + length :]):
            stream.write(part)


def save_merged(base_folder: Path, tensors: State, folder: Path, code: bool = False) -> None:
    """Write the base checkpoint into `folder` with `tensors` in the place of those of the same names.

    Weight files without a changed tensor are linked or copied, all other files (config, tokenizer, chat template)
    copied, byte for byte. A file with changed tensors is copied, and only their bytes are replaced: no file of the
    result has an old tensor, so it does not matter in which order a loader reads them, or whether it reads the index.
    Python files are copied only where `code` says that the model runs them, and hidden ones never.

    **Raises:** `KeyError` when the base has no tensor of a name, `ValueError` when it has another dtype or shape there.
    """
    with building(folder) as new:
        write_merged(base_folder, tensors, new, code, folder)


def write_merged(
    base_folder: Path,
    tensors: State,
    new: Path,
    code: bool = False,
    where: Path | None = None,
    whole: bool = False,
) -> None:
    """As `save_merged`, into the folder `new`, which is empty.

    **Arguments:**

    - `where`: what it becomes, for messages.
    - `whole`: also copy what says of the base how it was trained.
    """
    headers = {file: read_header(file) for file in loaded_files(base_folder)}
    if missing := tensors.keys() - set().union(*headers.values()):
        raise KeyError(f"the checkpoint {base_folder} has no tensors named {', '.join(sorted(missing))}")
    # Left out: indexes of other formats, or of shards beside a single file.
    read = INDEX_FILE if base_folder / SINGLE_FILE not in headers else ""
    for file, stored in headers.items():
        changed = [name for name in tensors if name in stored]
        if not changed:
            link_or_copy(file, new / file.name)
            continue
        clone_or_copy(file, new / file.name)
        with storing(where or new), (new / file.name).open("r+b") as stream:
            for name in changed:
                _overwrite(stream, name, stored[name], tensors[name])
    for file in sorted(base_folder.iterdir()):
        left_out = file.suffix in WEIGHT_SUFFIXES or (file.match("*.index.json") and file.name != read)
        left_out |= (file.suffix == ".py" and not code) or file.name.startswith(".")
        left_out |= file.name in OF_A_FIT and not whole
        if file.is_file() and not left_out:
            clone_or_copy(file, new / file.name)


def read_tensors(folder: Path, wanted: Callable[[str], bool]) -> State:
    """The floating-point tensors of the checkpoint in `folder` whose names are `wanted`."""
    found = {}
    for file in loaded_files(folder):
        stored = read_header(file)
        with safe_open(file, framework="pt") as reader:
            for name in stored:
                if wanted(name) and stored[name].dtype in FLOAT_DTYPES:
                    found[name] = reader.get_tensor(name)
    return found


def _overwrite(stream: BinaryIO, name: str, stored: StoredTensor, tensor: torch.Tensor) -> None:
    here = (tensor.dtype, tuple(tensor.shape))
    if here != (FLOAT_DTYPES.get(stored.dtype), stored.shape):
        raise ValueError(f"{name} is {here}, but {(stored.dtype, stored.shape)} in the weight files")
    stream.seek(stored.start)
    stream.write(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
