"""How a block lies in the checkpoint: under which names, and in which shapes and dtypes.

transformers renames and rearranges weights when it loads them: experts are fused into one tensor, say. Its own
conversion, reverted, says what a block's parameters are on disk; what is found there proves it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn
from transformers.core_model_loading import revert_weight_conversion

from ..errors import UserError
from ..storage.model_folder import loaded_files
from .checkpoint import FLOAT_DTYPES, StoredTensor, read_header
from .model import ChatModel, block_name
from .state import State


@dataclass(frozen=True)
class Places:
    """Where the elements of a tensor of the checkpoint are among those of all parameters of a block, put in a row.

    - `start`: of the first; `index`: of each, an int tensor of `shape`; None: they follow each other.
    """

    start: int
    shape: torch.Size
    index: torch.Tensor | None

    def take(self, row: torch.Tensor) -> torch.Tensor:
        """The tensor, from the elements of all parameters."""
        if self.index is None:
            return row[self.start : self.start + self.shape.numel()].view(self.shape)
        return row[self.index.long()]

    def put(self, tensor: torch.Tensor, row: torch.Tensor) -> None:
        """Put the elements of `tensor` into `row`."""
        if self.index is None:
            row[self.start : self.start + self.shape.numel()] = tensor.flatten()
        else:
            row[self.index.flatten().long()] = tensor.flatten().to(row)


def _places(index: torch.Tensor) -> Places:
    start = int(index.flatten()[0])
    following = torch.arange(start, start + index.numel(), dtype=index.dtype).view(index.shape)
    return Places(start, index.shape, None if torch.equal(index, following) else index)


@dataclass(frozen=True)
class StoredBlock:
    """The parameters of a block, as they are in memory and in the checkpoint.

    - `shapes`, `dtypes`: of the parameters, by their names within the block: as in memory, and as they are stored.
    - `places`: of the checkpoint's tensors by name, in the order of `shapes`; `stored`: their dtypes.
    """

    shapes: dict[str, torch.Size]
    dtypes: dict[str, torch.dtype]
    places: dict[str, Places]
    stored: dict[str, torch.dtype]

    def on_disk(self, state: State) -> State:
        """The parameters in `state` as tensors of the checkpoint.

        **Raises:** `ValueError` when one is not in the dtype that it is stored in. Rounding it here would be too late:
        the strength was chosen for other numbers.
        """
        for name, dtype in self.dtypes.items():
            if state[name].dtype != dtype:
                raise ValueError(f"{name} is {state[name].dtype}, but {dtype} in the checkpoint")
        row = _in_a_row(state, self.shapes)
        return {name: places.take(row).to(self.stored[name]) for name, places in self.places.items()}

    def in_memory(self, tensors: Mapping[str, torch.Tensor]) -> State:
        """The parameters, by their names within the block, from `tensors` of the checkpoint."""
        row = torch.empty(sum(shape.numel() for shape in self.shapes.values()), dtype=_wide(self.stored.values()))
        for name, places in self.places.items():
            places.put(tensors[name], row)
        parts = row.split([shape.numel() for shape in self.shapes.values()])
        pairs = zip(self.shapes.items(), parts, strict=True)
        return {name: part.view(shape).to(self.dtypes[name]) for (name, shape), part in pairs}


def stored_block(chat_model: ChatModel, layer: int) -> StoredBlock:
    """How block `layer`, whose weights are in memory, lies in the checkpoint; of a model in memory alone, as it would.

    **Raises:** `UserError` where it could not be written back: a parameter is not found in the weight files as it is in
    memory, is quantised there, or is also another block's.
    """
    if whose := shared_with(chat_model, layer):
        found, fix = f"block {layer} shares its weights with {whose}", "choose another block"
        raise UserError(chat_model.name, found, "weights of its own", fix)
    parameters: State = dict(chat_model.blocks[layer].named_parameters())
    block = _Block(chat_model, layer, parameters)
    if chat_model.folder is None:
        return block.stored({name: (name, block.dtype(name)) for name in block.places})
    row, files = _in_a_row(parameters, parameters), _Files(chat_model.folder, layer)
    found_as = {}
    for name, places in block.places.items():
        full = files.find(chat_model.name, name, places.shape, places.take(row), block.dtype(name))
        found_as[name] = (full, files.dtype(full))
    return block.stored(found_as)


def block_from_files(chat_model: ChatModel, layer: int, block: nn.Module) -> State:
    """The parameters of block `layer` as the weight files have them; `block` is it without weights.

    **Raises:** `UserError` when one is not in the files.
    """
    if chat_model.folder is None:
        raise ValueError("a model in memory alone has no files")
    files, own = _Files(chat_model.folder, layer), _Block(chat_model, layer, dict(block.named_parameters()))
    full = {
        name: files.find(chat_model.name, name, places.shape, None, own.dtype(name))
        for name, places in own.places.items()
    }
    stored = own.stored({name: (other, files.dtype(other)) for name, other in full.items()})
    return stored.in_memory({name: files.read(name) for name in full.values()})


def shared_with(chat_model: ChatModel, layer: int) -> str | None:
    """The name of a parameter elsewhere in the model that is also one of block `layer`; None where there is none."""
    own, prefix = set(map(id, chat_model.blocks[layer].parameters())), block_name(chat_model, layer) + "."
    everything = chat_model.model.named_parameters(remove_duplicate=False)
    return next((name for name, tensor in everything if id(tensor) in own and not name.startswith(prefix)), None)


class _Files:
    """The tensors of a checkpoint that may be those of one block, by their names."""

    def __init__(self, folder: Path, layer: int) -> None:
        self.layer = str(layer)
        self.files: dict[str, Path] = {}
        self.tensors: dict[str, StoredTensor] = {}
        for file in loaded_files(folder):
            for name, tensor in read_header(file).items():
                if self.layer in name.split("."):
                    self.files[name], self.tensors[name] = file, tensor

    def dtype(self, name: str) -> torch.dtype:
        """The dtype of the tensor `name`."""
        return FLOAT_DTYPES[self.tensors[name].dtype]

    def read(self, name: str) -> torch.Tensor:
        """The tensor `name`."""
        with safe_open(self.files[name], framework="pt") as reader:
            tensor: torch.Tensor = reader.get_tensor(name)
            return tensor

    def find(self, model: str, name: str, shape: torch.Size, values: torch.Tensor | None, dtype: torch.dtype) -> str:
        """What the tensor `name` of `shape` is called here, which is `values` in `dtype`; None: whatever it is.

        It ends as `name` does, from the number of the block on at least: what comes before may differ, as where a
        checkpoint is of a model without its head, or of the text part of a larger one.
        """
        parts = name.split(".")
        number = parts.index(self.layer)
        entry = "missing"
        for start in range(number):
            end = ".".join(parts[start:])
            for other, tensor in self.tensors.items():
                if other == end or other.endswith(f".{end}"):
                    entry = f"{tensor.dtype} {list(tensor.shape)}"
                    if tensor.shape != tuple(shape) or tensor.dtype not in FLOAT_DTYPES:
                        continue
                    if values is None or torch.equal(self.read(other).to(dtype).to(values), values):
                        return other
                    entry += " with other values"
        found = f"{name} is {list(shape)} in memory and {entry} in the weight files"
        wanted = f"the same in both, stored as {', '.join(FLOAT_DTYPES)}"
        raise UserError(model, found, wanted, "choose another block, or another model")


class _Block:
    """The `parameters` of block `layer`, and where transformers would put them."""

    def __init__(self, chat_model: ChatModel, layer: int, parameters: State) -> None:
        self.model, self.parameters = chat_model.name, parameters
        starts = [0, *accumulate(parameter.numel() for parameter in parameters.values())]
        kind = torch.int32 if starts[-1] < 2**31 else torch.int64
        prefix = block_name(chat_model, layer)
        numbered = {
            f"{prefix}.{name}": torch.arange(start, start + parameter.numel(), dtype=kind).view(parameter.shape)
            for (name, parameter), start in zip(parameters.items(), starts, strict=False)
        }
        reverted: dict[str, torch.Tensor] = revert_weight_conversion(chat_model.model, numbered)
        self.owners = {name: self._owners(torch.tensor(starts[1:]), index) for name, index in reverted.items()}
        self.places = {name: _places(index) for name, index in reverted.items()}
        if sum(places.shape.numel() for places in self.places.values()) != starts[-1]:
            found = f"block {layer} is not the same numbers in the checkpoint and in memory"
            raise UserError(self.model, found, "weights that are only rearranged", "choose another model")

    def _owners(self, ends: torch.Tensor, index: torch.Tensor) -> list[str]:
        """The parameters that have a part in a tensor of the checkpoint."""
        numbers = torch.searchsorted(ends, torch.stack([*index.aminmax()]).long(), right=True)
        if numbers[0] != numbers[1]:  # those between need not be in it
            numbers = torch.searchsorted(ends, index.flatten().long(), right=True).unique()
        names = [*self.parameters]
        return [names[number] for number in dict.fromkeys(numbers.tolist())]

    def dtype(self, name: str) -> torch.dtype:
        """In memory, of what the checkpoint's tensor `name` is made of."""
        return self.parameters[self.owners[name][0]].dtype

    def stored(self, found: Mapping[str, tuple[str, torch.dtype]]) -> StoredBlock:
        """From what tensors of the checkpoint are called there in fact, and the dtypes that they have there."""
        dtypes: dict[str, torch.dtype] = {}
        for name, (full, dtype) in found.items():
            for owner in self.owners[name]:
                if dtype not in FLOAT_DTYPES.values():
                    fix = "wrap the model as it is before it is quantised"
                    raise UserError(self.model, f"{full} is {dtype}", "floating-point weights", fix)
                if (other := dtypes.setdefault(owner, dtype)) != dtype:
                    kinds = f"{full} is stored as {dtype}, other parts of {owner} as {other}"
                    raise UserError(self.model, kinds, "one dtype for what is loaded as one", "choose another block")
        shapes = {name: parameter.shape for name, parameter in self.parameters.items()}
        places = {full: self.places[name] for name, (full, _) in found.items()}
        return StoredBlock(shapes, dtypes, places, dict(found.values()))


def _in_a_row(state: Mapping[str, torch.Tensor], names: Iterable[str]) -> torch.Tensor:
    """The elements of `names` in `state`, one after the other, in a dtype that holds all of them without rounding."""
    wide = _wide(state[name].dtype for name in names)
    return torch.cat([state[name].detach().flatten().cpu().to(wide) for name in names])


def _wide(dtypes: Iterable[torch.dtype]) -> torch.dtype:
    return torch.float64 if torch.float64 in set(dtypes) else torch.float32
