"""Prove that a block is wired as the method assumes, whatever the family, before anything is trained."""

from collections.abc import Sequence

import torch

from ..errors import UserError
from .activations import forward, pass_through, run_model, shifted, start_at, stop_after
from .chat import TokenIds, pad
from .inputs import block_inputs, opening_keys
from .model import ChatModel

# How far another order of summation may move logits in half precision: times the dtype's epsilon, in spreads of them.
# In bfloat16 that is 0.31; on the testbed a prompt alone differs from the same in a batch by up to 0.11, and the states
# of a neighbouring token make 1.2 and more.
ROUNDINGS = 40


@torch.no_grad()
def check_reading(chat_model: ChatModel, layer: int, token_ids: Sequence[TokenIds]) -> None:
    """Prove on one batch that what a hook reads at block `layer` is `hidden_states[layer + 1]`; blocks above rest.

    **Raises:** `UserError` when it is not: the architecture is not supported.
    """
    batch = pad(token_ids, list(range(min(2, len(token_ids)))), chat_model.pad_id, chat_model.device)
    with stop_after(chat_model.blocks[layer]) as seen:
        forward(chat_model, batch)
    with pass_through(chat_model, range(layer + 1, len(chat_model.blocks))):
        states = run_model(chat_model, batch, hidden_states=True).hidden_states
    real = batch.attention_mask.bool().cpu()
    same = torch.equal(seen[0].cpu()[real], states[layer + 1].cpu()[real])
    _refuse_unless(same, chat_model, layer, "its output is not `hidden_states[layer + 1]`")


@torch.no_grad()
def check_effect(chat_model: ChatModel, layer: int, token_ids: Sequence[TokenIds]) -> None:
    """Prove on one batch that starting at block `layer` from kept inputs is exact, and that its output matters.

    **Raises:** `UserError` naming what fails: the architecture is not supported.
    """
    rows = list(range(min(2, len(token_ids))))
    inputs = block_inputs(chat_model, layer, [token_ids[row] for row in rows])
    batch, hidden = inputs.batch(rows, chat_model)
    plain = forward(chat_model, pad(token_ids, rows, chat_model.pad_id, chat_model.device))
    keys = opening_keys(chat_model, inputs)
    with start_at(chat_model, layer, hidden):
        restarted = forward(chat_model, batch, keys)
        with stop_after(chat_model.blocks[layer]) as seen:
            forward(chat_model, batch, keys)
        # As long as the activations themselves, and not the same in all features: a norm would remove that.
        shift = torch.randn(seen[0].shape[-1], generator=torch.Generator().manual_seed(0)).to(seen[0])
        with shifted(chat_model.blocks[layer], shift / shift.norm() * seen[0].norm(dim=-1).mean()):
            moved = forward(chat_model, batch, keys)
    if hidden.dtype in (torch.float32, torch.float64):
        exact = torch.allclose(plain, restarted, rtol=1e-3, atol=1e-3)
    else:  # the opening is run apart, and a GPU need not take the same kernel twice
        apart, spread = (restarted - plain).std(dim=-1), plain.std(dim=-1)
        exact = bool((apart <= ROUNDINGS * torch.finfo(hidden.dtype).eps * spread).all())
    _refuse_unless(exact, chat_model, layer, "running it from kept inputs gives other logits")
    same = torch.allclose(restarted, moved, rtol=1e-3, atol=1e-3)
    _refuse_unless(not same, chat_model, layer, "changing its output does not change the logits")


def _refuse_unless(holds: bool, chat_model: ChatModel, layer: int, failure: str) -> None:
    if not holds:
        where = f"block {layer} of {type(chat_model.model).__name__}"
        raise UserError(where, failure, "a plain decoder block", "report this architecture")
