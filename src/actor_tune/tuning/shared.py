"""What blocks receive, and what is known of them unedited, in files that all processes of a machine share.

Each is made once, by the first process that needs it, and mapped into memory from then on: eight processes on one
machine hold it once. Trained blocks are not kept: a trial leaves numbers alone.
"""

import getpass
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import safe_open

from ..models.above import Above, Reading, Slope, blocks_above
from ..models.chat import TokenIds
from ..models.checkpoint import save_tensors
from ..models.inputs import BlockInputs, advance, block_inputs
from ..models.model import ChatModel
from ..models.state import State
from ..records.file import json_of
from ..records.request import TuneRequest
from ..repair.learn import Unedited, begin_as_refusals
from ..repair.odds import Odds, RefusalStart, odds_reader
from ..repair.train import block_outputs
from ..storage.folders import is_held

USED = ".used"
"""What names end with that processes hold as locks while they use the folder."""


@dataclass(frozen=True)
class SharedBlock:
    """What one block receives for training and for search prompts, and what the unedited model makes of the former."""

    train: BlockInputs
    search: BlockInputs
    known: Unedited


@contextmanager
def shared_folder(request: TuneRequest, worker: str) -> Iterator[Path]:
    """The folder that processes of this machine, of one user and at work on the same, share; the last takes it away."""
    same = hashlib.sha256(json.dumps(json_of(request), sort_keys=True).encode()).hexdigest()
    folder = Path(tempfile.gettempdir()) / f"actor-tune-{getpass.getuser()}-{same[:16]}"
    coming_or_going = FileLock(folder.with_name(f".{folder.name}.lock"), fallback_to_soft=False)
    own = folder / f"{worker}{USED}"
    with coming_or_going:
        folder.mkdir(mode=0o700, exist_ok=True)
        held = FileLock(own, fallback_to_soft=False)
        held.acquire()
    try:
        yield folder
    finally:
        with coming_or_going:
            held.release()
            own.unlink(missing_ok=True)
            if not any(is_held(lock) for lock in folder.glob(f"*{USED}")):
                shutil.rmtree(folder)


def make_inputs(chat_model: ChatModel, layers: Sequence[int], token_ids: Sequence[TokenIds], folder: Path) -> None:
    """Keep what each of `layers` receives in `folder`, in one pass through the blocks; what is there stays."""
    with FileLock(folder / "inputs.lock"):
        if all(_inputs_file(folder, layer).is_file() for layer in layers):
            return
        inputs = block_inputs(chat_model, min(layers), token_ids)
        for layer in sorted(layers):
            inputs = advance(chat_model, inputs, layer)
            about = {"opening": str(inputs.opening), "padded": "yes" if inputs.padded else ""}
            tensors = {"hidden": inputs.hidden, "opening_hidden": inputs.opening_hidden}
            save_tensors(_inputs_file(folder, layer), tensors, about)


def shared_blocks(
    chat_model: ChatModel, token_ids: list[TokenIds], count: int, start: RefusalStart, odds: bool, folder: Path
) -> Callable[[int], SharedBlock]:
    """What gives the `SharedBlock` of a layer whose inputs were made in `folder`.

    **Arguments:**

    - `token_ids`: of all prompts; the first `count` of them are trained on.
    - `start`: what refusals begin with.
    - `odds`: whether odds of refusal are to be known of the training prompts.
    """

    @cache
    def block(layer: int) -> SharedBlock:
        inputs = inputs_of(chat_model, layer, token_ids, folder)
        train = inputs.select(range(count))
        above = cache(lambda: blocks_above(chat_model, train))

        def known() -> State:
            activations = block_outputs(chat_model, train)
            if not odds:
                return {"activations": activations}
            slope = odds_reader(above(), start.tokens)(activations).slope
            return {"activations": activations, "odds": slope.values, "gradients": slope.gradients}

        def refused() -> torch.Tensor:  # the same by whatever block: the model as it is
            file = folder / "refused.safetensors"
            return _made(file, lambda: {"refused": begin_as_refusals(chat_model, train, start)})["refused"]

        kept = _made(folder / f"known-{layer}.safetensors", known)
        around = Odds(kept["activations"], Slope(kept["odds"], kept["gradients"])) if odds else None
        unedited = Unedited(kept["activations"], around, above, refused)
        return SharedBlock(train, inputs.select(range(count, len(token_ids))), unedited)

    return block


def _made(file: Path, make: Callable[[], State]) -> State:
    """The tensors in `file`, which the first process that needs them makes."""
    with FileLock(file.with_suffix(".lock")):
        if not file.is_file():
            save_tensors(file, make(), {})
    return _mapped(file)[0]


def some_of(known: Unedited, rows: Sequence[int]) -> Unedited:
    """`known` of the prompts `rows` alone. Odds are read anew of all, with those of the others as they were."""
    if [*rows] == [*range(len(known.activations))]:
        return known
    of = torch.tensor(rows)
    odds, above, refused = known.odds, known.above, known.refused
    some = Unedited(known.activations[of], refused=(lambda: refused()[of]) if refused else None)
    if odds is None or above is None:
        return some

    @cache
    def above_them() -> Above:
        whole = above()

        def slope(activations: torch.Tensor, read: Reading) -> Slope:
            every = odds.at.clone()
            every[of] = activations
            return whole.slope(every, read).of(of)

        return Above(slope, whole.alone)

    return replace(some, odds=Odds(odds.at[of], odds.slope.of(of)), above=above_them)


def _inputs_file(folder: Path, layer: int) -> Path:
    return folder / f"inputs-{layer}.safetensors"


def inputs_of(chat_model: ChatModel, layer: int, token_ids: list[TokenIds], folder: Path) -> BlockInputs:
    """What block `layer` receives, as `make_inputs` kept it in `folder`."""
    tensors, about = _mapped(_inputs_file(folder, layer))
    opening = int(about["opening"])
    starts = [0, *accumulate(len(ids) - opening for ids in token_ids)][:-1]
    opening_hidden = tensors["opening_hidden"].to(chat_model.device)
    return BlockInputs(layer, token_ids, opening, opening_hidden, tensors["hidden"], starts, bool(about["padded"]))


def _mapped(file: Path) -> tuple[State, dict[str, str]]:
    with safe_open(file, framework="pt") as reader:
        return {name: reader.get_tensor(name) for name in reader.keys()}, reader.metadata() or {}  # noqa: SIM118
