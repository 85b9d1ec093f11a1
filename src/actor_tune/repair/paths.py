"""A prompt of each kind, block by block: where it lies and how likely its refusal is, as the model was and as it is."""

from collections.abc import Mapping, Sequence

import torch

from ..models.every_block import first_token_of_every_block, last_of_every_block
from ..models.model import ChatModel
from ..models.state import State, loaded
from ..prompts.prompt import KINDS, Prompt, rows_of_kind
from ..records.response import conversation
from ..records.run import PromptPath
from .direction import refusal_direction
from .odds import RefusalStart
from .refusals import Refusals


def paths(
    chat_model: ChatModel, layer: int, state: State, refusals: Refusals, moved: Mapping[Prompt, float]
) -> list[PromptPath]:
    """The path of one prompt of each kind through all blocks, with block `layer` as it is and with `state` in it.

    Positions are along each block's own refusal direction (paper, Eq. 1), from `refusals.asked`; the chance of refusal
    is that of `first_token_of_every_block`.

    **Arguments:**

    - `moved`: how far the block's change moved prompts, `refusals.asked` among them, along its direction. The prompt
      shown is the one moved by the median of its kind, among those that the method is for: the refused of the
      pseudo-harmful and the harmful, the answered of the harmless ones.
    """
    token_ids = chat_model.encode(refusals.asked)
    plain = last_of_every_block(chat_model, token_ids)
    kinds = {kind: rows_of_kind(refusals.asked, kind) for kind in KINDS}
    directions = [refusal_direction(last[kinds["harmful"]], last[kinds["harmless"]]) for last in plain]
    rows = [_typical(refusals, of, kind != "harmless", moved) for kind, of in kinds.items()]
    chosen = [token_ids[row] for row in rows]

    def seen(last: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions and chances, (block, prompt) each."""
        where = torch.stack([direction.position(one) for direction, one in zip(directions, last, strict=True)])
        return where, _chances(first_token_of_every_block(chat_model, chosen, last), refusals.start)

    before = seen(plain[:, rows])
    with loaded(chat_model.blocks[layer], state):
        after = seen(last_of_every_block(chat_model, chosen))
    return [
        PromptPath(
            prompt=refusals.asked[row].text,
            kind=refusals.asked[row].kind,
            set=refusals.asked[row].set,
            messages=conversation(refusals.asked[row]),
            position_before=before[0][:, column].tolist(),
            position_after=after[0][:, column].tolist(),
            refusal_before=before[1][:, column].tolist(),
            refusal_after=after[1][:, column].tolist(),
        )
        for column, row in enumerate(rows)
    ]


def _chances(logprobs: torch.Tensor, start: RefusalStart) -> torch.Tensor:
    return logprobs[..., start.tokens].exp().sum(dim=-1).clamp(max=1.0)


def _typical(refusals: Refusals, of: Sequence[int], refused: bool, moved: Mapping[Prompt, float]) -> int:
    """Of the rows `of`, that of the median movement among those `refused` or not; among all where there are none."""
    meant = [row for row in of if refusals.verdicts[row].refused == refused] or [*of]
    return sorted(meant, key=lambda row: moved[refusals.asked[row]])[len(meant) // 2]
