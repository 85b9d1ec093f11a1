"""What a fit keeps as it goes, so that the same fit goes on after a kill: small files, each written whole when done.

What the trained block receives is not among them: it is large, and the blocks below make it again in seconds.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open

from ..errors import UserError
from ..models.checkpoint import save_tensors
from ..records.file import convert, json_of, read_value
from ..records.run import Epoch
from ..storage.files import write_json
from .train import TrainedBlock

Value = TypeVar("Value")

DAMAGED = "remove it, and it is made again"


@dataclass(frozen=True)
class Kept:
    """Where the parts of one fit are kept; None: nowhere."""

    folder: Path | None = None

    def file(self, name: str) -> Path | None:
        """Where the part `name` is kept."""
        return self.folder / name if self.folder else None

    def value(self, name: str, kind: type[Value], make: Callable[[], Value]) -> Value:
        """The part `name` as it was kept, or as `make` makes it now.

        **Raises:** `UserError` when its file is damaged.
        """
        file = self.file(name)
        if file and file.exists():
            return read_value(kind, file, DAMAGED)
        made = make()
        if file:
            write_json(file, json_of(made))
        return made

    def training(self, device: torch.device, make: Callable[[], TrainedBlock]) -> TrainedBlock:
        """The trained block, on `device`, as it was kept, or as `make` makes it now.

        **Raises:** `UserError` when its file is damaged.
        """
        file = self.file("trained.safetensors")
        if file and file.exists():
            try:
                with safe_open(file, framework="pt", device=str(device)) as reader:
                    epochs = json.loads(reader.metadata()["epochs"])
                    state = {name: reader.get_tensor(name) for name in reader.keys()}  # noqa: SIM118 - no mapping
            except (SafetensorError, KeyError, TypeError, ValueError) as error:
                raise UserError(file, f"damaged ({error})", "a trained block", DAMAGED) from None
            return TrainedBlock(state, convert(epochs, list[Epoch], str(file), DAMAGED))
        made = make()
        if file:
            save_tensors(file, made.state, {"epochs": json.dumps(json_of(made.epochs))})
        return made


NOTHING_KEPT = Kept()
