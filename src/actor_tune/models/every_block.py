"""Last tokens at every block, and the first answer token that each block alone would give."""

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch

from .activations import forward, hidden_of, last_logits
from .batches import run_batches
from .chat import TokenIds, pad
from .inputs import PREFIX_BATCH, PREFIX_TOKENS
from .model import ChatModel
from .placement import held
from .trials import groups_of


@torch.no_grad()
def last_of_every_block(chat_model: ChatModel, token_ids: Sequence[TokenIds]) -> torch.Tensor:
    """What each block returns at the last token of each prompt: (block, prompt, d_model) float32, on the CPU.

    By whole forward passes with hooks, and not block by block (`inputs.last_activations`): of a few prompts, but right
    for every family, those too whose blocks use what earlier ones left behind.
    """
    found: dict[tuple[int, int], torch.Tensor] = {}

    def keep(layer: int, rows: list[int], _module: torch.nn.Module, _arguments: Any, output: Any) -> None:
        last = hidden_of(output)[:, -1].float().cpu()
        found.update({(layer, row): one for row, one in zip(rows, last, strict=True)})

    def run(rows: list[int]) -> None:
        with ExitStack() as hooks:
            for layer, block in enumerate(chat_model.blocks):
                hooks.enter_context(block.register_forward_hook(partial(keep, layer, rows)))
            forward(chat_model, pad(token_ids, rows, chat_model.pad_id, chat_model.device))

    run_batches(groups_of(chat_model, token_ids, PREFIX_BATCH, PREFIX_TOKENS), run, "Reading every block")
    return torch.stack(
        [torch.stack([found[layer, row] for row in range(len(token_ids))]) for layer in range(len(chat_model.blocks))]
    )


@torch.no_grad()
def first_token_of_every_block(
    chat_model: ChatModel, token_ids: Sequence[TokenIds], last: torch.Tensor
) -> torch.Tensor:
    """Log-probabilities of the first answer token if a block were the last one: (block, prompt, vocabulary) float32.

    `last` is what `last_of_every_block` found. Each block's output goes through the model's last norm and head alone,
    which is known as the logit lens (nostalgebraist 2020): at the last block that is what the model says, before it a
    reading of what is there already, which means the less the further below.
    """
    batch = pad(token_ids, [*range(len(token_ids))], chat_model.pad_id, chat_model.device)
    with held(chat_model.model.get_input_embeddings()), held(chat_model.model.get_output_embeddings()):
        said = [
            last_logits(chat_model, batch, one.to(chat_model.device, chat_model.model.dtype)[:, None]) for one in last
        ]
    return torch.stack(said).log_softmax(dim=-1).cpu()
