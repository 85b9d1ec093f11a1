"""The change of the trained block as a LoRA, which PEFT loads, and vLLM beside the model that it serves.

A LoRA adds B A to a weight matrix. The best one of a rank is cut out of the singular value decomposition of the change;
the rank is the smallest one whose error is within a bound. What is no linear weight (norms, biases, fused experts) has
no such form.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from ..engines.engine import PORTION
from ..engines.local import local_engine
from ..errors import UserError
from ..models.checkpoint import read_tensors, save_tensors
from ..models.load import load, put_adapter
from ..models.model import ChatModel, block_name
from ..models.origin import ADAPTER_WEIGHTS
from ..models.patched import patch_base
from ..models.placement import Placement
from ..models.state import State
from ..models.stored import stored_block
from ..progress import track
from ..records.export import ADAPTER_ERROR, LeftOut, LowRank, Matrix
from ..records.run import PATCH_FILE
from ..storage.model_folder import public_name
from .check import Answering, Made
from .source import Source

VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM reserves room for, in ranks: one in between takes as much as the next of these."""


@dataclass(frozen=True)
class Change:
    """What training changed in a block, in float32.

    - `matrices`: by module, (out, in); `others`: by parameter; `transposed`: whether the model has them as (in, out).
    - `whole`: by module, all of its parameters as they are now: those of `others` that can be kept so.
    - `dtype`: what the block is stored in.
    """

    matrices: State
    others: State
    transposed: bool
    whole: dict[str, State]
    dtype: torch.dtype

    @property
    def size(self) -> float:
        """Its Frobenius norm."""
        return _norm({**self.matrices, **self.others})


@dataclass(frozen=True)
class Cut:
    """A matrix as `up` (out, rank) times `down` (rank, in), as they are stored."""

    up: torch.Tensor
    down: torch.Tensor


def write(source: Source, new: Path, error: float, whole_modules: bool, placement: Placement) -> Made:
    """Write the adapter into the folder `new`.

    **Arguments:**

    - `error`: the bound, 0..1, of the whole change and of each matrix.
    - `whole_modules`: also keep modules that are not linear, as they are; vLLM takes no such adapter.

    **Raises:** `UserError` when the base is not there or another model, what is no linear weight has more of the change
    than the bound, or PEFT does not load what was written.
    """
    if not 0 < error < 1:
        raise UserError("`error=`", f"{error:g}", "more than 0 and less than 1", f"leave it out for {ADAPTER_ERROR:g}")
    patch_base(source.patch, source.base)
    told = source.run.chat_template_kwargs
    chat_model = load(source.base, placement, chat_template_kwargs=told)
    change = change_of(chat_model, source.patch.layer, source.patch.tensors)
    kept = change.whole if whole_modules else {}
    left = {name: tensor for name, tensor in change.others.items() if name.rpartition(".")[0] not in kept}
    needed, cuts = cut(change, left, error)
    rank = next(iter(cuts.values())).down.shape[0]
    _save(source, new, change, cuts, kept)
    put_adapter("the adapter", new, chat_model.model).eval()  # else it is none
    found = _measured(change, cuts, left, kept, error, needed)
    notes = _notes(found)
    if (size := (new / ADAPTER_WEIGHTS).stat().st_size) > (source.folder / PATCH_FILE).stat().st_size:
        notes.append(f"The adapter has {size / 1e6:.1f} MB, more than the patch: the change is of high rank.")
    return Made(
        ["adapter_config.json", ADAPTER_WEIGHTS],
        partial(_answering, chat_model, source.max_reasoning_tokens),
        low_rank=found,
        notes=[*notes, *([] if rank <= VLLM_RANKS[-1] else [f"vLLM takes no rank above {VLLM_RANKS[-1]}."])],
        tools={"peft": version("peft")},
    )


def change_of(chat_model: ChatModel, layer: int, tensors: State) -> Change:
    """What the checkpoint's `tensors` of block `layer` change in `chat_model`, module by module.

    **Raises:** `UserError` when they change nothing.
    """
    if chat_model.folder is None:
        raise ValueError("a model in memory alone has no files")
    stored, block, prefix = stored_block(chat_model, layer), chat_model.blocks[layer], block_name(chat_model, layer)
    old = stored.in_memory(read_tensors(chat_model.folder, stored.places.__contains__))
    new = stored.in_memory(tensors)
    matrices, others, kinds = {}, {}, set()
    for name in old:
        delta = new[name].float() - old[name].float()
        module = block.get_submodule(name.rpartition(".")[0])
        if not delta.any():
            continue
        if name.endswith(".weight") and isinstance(module, nn.Linear | Conv1D):
            kinds.add(isinstance(module, Conv1D))
            matrices[f"{prefix}.{name.rpartition('.')[0]}"] = delta.T if isinstance(module, Conv1D) else delta
        else:
            others[f"{prefix}.{name}"] = delta
    if not matrices:
        raise UserError(chat_model.name, f"no linear weight of block {layer} changed", "a change", "export another run")
    whole = {}
    for parent in {name.rpartition(".")[0] for name in others} - {prefix}:
        inside = {name for name in matrices if name == parent or name.startswith(f"{parent}.")}
        if not inside:  # else PEFT would have to wrap a module in one that it keeps
            within = parent.removeprefix(f"{prefix}.") + "."
            whole[parent] = {name.removeprefix(within): new[name] for name in new if name.startswith(within)}
    return Change(matrices, others, kinds == {True}, whole, next(iter(tensors.values())).dtype)


def cut(change: Change, left: Mapping[str, torch.Tensor], error: float) -> tuple[int, dict[str, Cut]]:
    """The smallest rank that keeps the bound `error`, and each matrix in that rank, or what vLLM rounds it up to.

    **Raises:** `UserError` when what is `left` out is more than the bound already.
    """
    parts = {}
    for name in track([*change.matrices], "Decomposing"):
        up, values, down = torch.linalg.svd(change.matrices[name], full_matrices=False)
        parts[name] = (up, values, down)
    full = max(len(values) for _, values, _ in parts.values())
    lost = torch.stack([_tails(values, full) for _, values, _ in parts.values()])  # (matrix, rank) squared
    outside = _norm(left) ** 2
    alone = (lost <= error**2 * lost[:, :1]).all(dim=0)
    together = lost.sum(dim=0) + outside <= (error * change.size) ** 2
    fitting = (alone & together).nonzero().flatten()
    if not len(fitting):
        share, names = outside**0.5 / change.size, ", ".join(left)
        found = f"{100 * share:.1f} % of the change in what has no such form: {names}"
        fix = "allow a larger `error=`, keep them with `whole_modules=True`, or export the whole model"
        raise UserError("`to=peft`", found, f"at most {100 * error:g} %", fix)
    needed = max(1, int(fitting[0]))
    rank = min(next((rank for rank in VLLM_RANKS if rank >= needed), needed), full)
    dtype = change.dtype if change.dtype.itemsize == 2 else torch.float32
    return needed, {name: _cut(*part, rank, dtype) for name, part in parts.items()}


def _tails(values: torch.Tensor, full: int) -> torch.Tensor:
    """What is lost in each rank from 0 to `full`, squared: (rank)."""
    squares = nn.functional.pad(values.double() ** 2, (0, full + 1 - len(values)))
    return squares.flip(0).cumsum(0).flip(0)


def _cut(up: torch.Tensor, values: torch.Tensor, down: torch.Tensor, rank: int, dtype: torch.dtype) -> Cut:
    """A decomposed matrix in `rank`; one that has fewer gets zeros, as all of an adapter's are of one rank."""
    root = values[:rank].sqrt()
    missing = max(0, rank - len(root))
    left = nn.functional.pad(up[:, :rank] * root, (0, missing))
    right = nn.functional.pad(root[:, None] * down[:rank], (0, 0, 0, missing))
    return Cut(left.to(dtype).contiguous(), right.to(dtype).contiguous())


def _norm(tensors: Mapping[str, torch.Tensor]) -> float:
    return sum(float(tensor.double().square().sum()) for tensor in tensors.values()) ** 0.5


def _save(source: Source, new: Path, change: Change, cuts: Mapping[str, Cut], kept: Mapping[str, State]) -> None:
    from peft import LoraConfig

    tensors = {f"base_model.model.{name}.lora_A.weight": each.down for name, each in cuts.items()}
    tensors |= {f"base_model.model.{name}.lora_B.weight": each.up for name, each in cuts.items()}
    tensors |= {
        f"base_model.model.{name}.{part}": value for name, parts in kept.items() for part, value in parts.items()
    }
    save_tensors(new / ADAPTER_WEIGHTS, dict(sorted(tensors.items())), {"format": "pt"})
    rank = next(iter(cuts.values())).down.shape[0]
    LoraConfig(
        r=rank,
        lora_alpha=rank,  # the scale is 1
        target_modules=sorted(cuts),
        modules_to_save=sorted(kept) or None,
        fan_in_fan_out=change.transposed,
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
        inference_mode=True,
        base_model_name_or_path=public_name(source.base),
    ).save_pretrained(str(new))


def _measured(
    change: Change,
    cuts: Mapping[str, Cut],
    left: Mapping[str, torch.Tensor],
    kept: Mapping[str, State],
    bound: float,
    needed: int,
) -> LowRank:
    """How far what was written is from the change."""
    lost = {name: delta - cuts[name].up.float() @ cuts[name].down.float() for name, delta in change.matrices.items()}
    shares = {name: _norm({name: tensor}) / change.size for name, tensor in left.items()}
    return LowRank(
        bound=bound,
        needed=needed,
        rank=next(iter(cuts.values())).down.shape[0],
        error=_norm({**lost, **left}) / change.size,
        matrices=[
            Matrix(name, _norm({name: tensor}) / _norm({name: change.matrices[name]})) for name, tensor in lost.items()
        ],
        left=[LeftOut(name, share) for name, share in shares.items()],
        whole=sorted(kept),
    )


def _notes(found: LowRank) -> list[str]:
    """What is to be known of it, in sentences."""
    worst = max(found.matrices, key=lambda matrix: matrix.error)
    notes = [
        f"Rank {found.rank} ({found.needed} would do) for an error of at most {100 * found.bound:g} %: "
        f"{100 * found.error:.1f} % of the change is lost, and of a matrix {100 * worst.error:.1f} % ({worst.module})."
    ]
    if found.left:
        listed = ", ".join(f"{each.tensor} ({100 * each.share:.2f} %)" for each in found.left)
        notes.append(f"Left out of the adapter, with their share of the change: {listed}.")
    if found.whole:
        notes.append(f"Kept whole, which vLLM does not take: {', '.join(found.whole)}.")
    return notes


@contextmanager
def _answering(chat_model: ChatModel, max_reasoning_tokens: int) -> Iterator[Answering]:
    engine = local_engine(chat_model, max_reasoning_tokens=max_reasoning_tokens)
    yield Answering(engine, f"transformers with PEFT {version('peft')}", PORTION)
