"""A prompt of each kind, block by block: where it lies and how likely its refusal is, as the model was and as it is."""

from collections.abc import Mapping, Sequence

import torch

from ..models.every_block import first_token_of_every_block, last_of_every_block
from ..models.first_token import first_token_refusal
from ..models.model import ChatModel
from ..models.state import State, loaded
from ..prompts.prompt import KINDS, Kind, Prompt, of_kind
from ..records.response import conversation
from ..records.run import PromptPath
from .cost import Cost, Phase
from .direction import refusal_direction
from .refusals import Refusals

POLES: tuple[Kind, ...] = ("harmful", "harmless")
DIRECTION_PROMPTS = 24  # of a kind, from which each block's direction is made: a picture needs no more
NO_DIRECTION = 1e-4  # ||R|| as a share of the activations' mean length, below which rounding is all there is of R


def paths(
    chat_model: ChatModel, layer: int, state: State, refusals: Refusals, moved: Mapping[Prompt, float]
) -> list[PromptPath]:
    """The path of one prompt of each kind through all blocks, with block `layer` as it is and with `state` in it.

    Positions are along each block's own refusal direction (paper, Eq. 1), from `DIRECTION_PROMPTS` of `refusals.asked`;
    0 where harmful and harmless prompts lie alike, so that there is no direction. The chance of refusal is that of
    `first_token_of_every_block`.

    **Arguments:**

    - `moved`: how far the block's change moved prompts, `refusals.asked` among them, along its direction. The prompt
      shown is the one moved by the median of its kind, among those that the method is for: the refused of the
      pseudo-harmful and the harmful, the answered of the harmless ones.
    """
    asked, start = refusals.asked, refusals.start
    harmful, harmless = (
        last_of_every_block(chat_model, chat_model.encode(of_kind(asked, kind)[:DIRECTION_PROMPTS])) for kind in POLES
    )
    rows = [_typical(refusals, refusals.rows(kind), kind != "harmless", moved) for kind in KINDS]
    chosen = chat_model.encode([asked[row] for row in rows])

    def seen() -> tuple[torch.Tensor, torch.Tensor]:
        """Positions and chances, (block, prompt) each."""
        last = last_of_every_block(chat_model, chosen)
        where = torch.stack([_position(*each) for each in zip(last, harmful, harmless, strict=True)])
        said = first_token_of_every_block(chat_model, chosen, last)
        return where, first_token_refusal(said, start.tokens).clamp(max=1.0)  # sums can come to a little more

    before = seen()
    with loaded(chat_model.blocks[layer], state):
        after = seen()
    return [
        PromptPath(
            prompt=asked[row].text,
            kind=asked[row].kind,
            set=asked[row].set,
            messages=conversation(asked[row]),
            category=asked[row].category or None,
            position_before=before[0][:, column].tolist(),
            position_after=after[0][:, column].tolist(),
            refusal_before=before[1][:, column].tolist(),
            refusal_after=after[1][:, column].tolist(),
        )
        for column, row in enumerate(rows)
    ]


def _position(last: torch.Tensor, harmful: torch.Tensor, harmless: torch.Tensor) -> torch.Tensor:
    """Where `last` lies along the direction from `harmless` to `harmful`, all (prompt, d_model)."""
    direction = refusal_direction(harmful, harmless)
    if direction.length <= NO_DIRECTION * float(harmless.norm(dim=-1).mean()):
        return torch.zeros(len(last))
    return direction.position(last)


def _typical(refusals: Refusals, of: Sequence[int], refused: bool, moved: Mapping[Prompt, float]) -> int:
    """Of the rows `of`, that of the median movement among those `refused` or not; among all where there are none."""
    meant = [row for row in of if refusals.verdicts[row].refused == refused] or [*of]
    return sorted(meant, key=lambda row: moved[refusals.asked[row]])[len(meant) // 2]


def cost(need: Cost) -> Phase:
    """What looking at the trained block again needs: all prompts through it, and some through all blocks."""
    shown = len(POLES) * DIRECTION_PROMPTS + 2 * len(KINDS)
    here = range(need.layer, need.layer + 1)
    computing = need.computing(here, need.given.tokens, 0)
    computing += need.computing(need.every, shown * need.mean_tokens, shown + 2 * len(KINDS) * len(need.every))
    kept = len(need.every) * shown * need.size.d_model * 4
    blocks = (need.value + 4) * need.size.blocks[need.layer]  # as it will be, and as trained
    tensors = need.weights(need.every, need.every, head=True, beside=True) + blocks
    tensors += need.kept() + need.working_on_given()
    return need.phase("look again", tensors, kept, computing, 2 * need.stored(need.every) if need.streamed else 0)
