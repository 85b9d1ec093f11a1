"""Prove that a block is wired as the method assumes, whatever the family, before anything is trained."""

from collections.abc import Sequence

import torch

from ..errors import UserError
from .activations import forward, shifted, stop_after, stop_before
from .chat import TokenIds, pad
from .model import ChatModel


@torch.no_grad()
def check_reading(chat_model: ChatModel, layer: int, token_ids: Sequence[TokenIds]) -> None:
    """Prove on one prompt that what a hook reads at block `layer` is one hidden state a token, and is all that the next
    block receives of it; blocks above are not run.

    **Raises:** `UserError` when it is not: the architecture is not supported.
    """
    batch = pad(token_ids, [0], chat_model.pad_id, chat_model.device)
    with stop_after(chat_model.blocks[layer]) as seen:
        forward(chat_model, batch)
    with stop_before(chat_model.blocks[layer + 1]) as received:
        forward(chat_model, batch)
    shape = list(seen[0].shape)
    single = seen[0].dim() == 3 and shape[:2] == list(batch.input_ids.shape)
    _refuse_unless(single, chat_model, layer, f"it returns {shape}, not one hidden state (prompt, token, d_model)")
    # The last position alone: no other is read, and some models go on with no other.
    same = torch.equal(seen[0][:, -1].cpu(), received[0].hidden[:, -1].cpu())
    _refuse_unless(same, chat_model, layer, "what it returns is not what the next block receives")


@torch.no_grad()
def check_effect(chat_model: ChatModel, layer: int, token_ids: Sequence[TokenIds]) -> None:
    """Prove on one prompt that changing what block `layer` returns changes the logits.

    **Raises:** `UserError` when it does not: training the block would do nothing.
    """
    batch = pad(token_ids, [0], chat_model.pad_id, chat_model.device)
    block = chat_model.blocks[layer]
    with stop_after(block) as seen:
        forward(chat_model, batch)
    plain = forward(chat_model, batch)
    # As long as the activations themselves, and not the same in all features: a norm would remove that.
    shift = torch.randn(seen[0].shape[-1], generator=torch.Generator().manual_seed(0)).to(seen[0])
    with shifted(block, shift / shift.norm() * seen[0].norm(dim=-1).mean()):
        moved = forward(chat_model, batch)
    same = torch.allclose(plain, moved, rtol=1e-3, atol=1e-3)
    _refuse_unless(not same, chat_model, layer, "changing its output does not change the logits")


def _refuse_unless(holds: bool, chat_model: ChatModel, layer: int, failure: str) -> None:
    if not holds:
        where = f"block {layer} of {type(chat_model.model).__name__}"
        raise UserError(where, failure, "a plain decoder block", "report this architecture")
