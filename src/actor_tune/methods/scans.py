"""SCANS: safety-conscious activation steering (arXiv 2408.11491)."""

from collections.abc import Sequence

import torch

from ..chat import TokenIds, encode
from ..inputs import last_activations
from ..model import ChatModel
from ..scan import candidate_layers
from ..steering import steer
from .cae import directions_at
from .method import Fitted, Task, best_threshold, rows_of_kind

STRENGTHS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3)
"""In units of each block's distance between the means; added at every middle block, so that they sum up."""

AFFIRMATIVE = "Sure"
"""The positive answer that is appended to see where a prompt goes from there."""


def scans(chat_model: ChatModel, task: Task) -> Fitted:
    """Steer the middle blocks by -/+ alpha v_l: towards refusal where the prompt moves as harmful ones do, else away.

    A prompt's move is what appending an affirmative answer changes at the last token; its score is the cosine with the
    mean move of harmful training prompts, at the block of the task. Differs from the paper: the threshold is fitted on
    the validation prompts (the paper's 0.75 is of other models), and one block is read instead of several.
    """
    layers = [*candidate_layers(len(chat_model.blocks))]
    shifts = {layer: found.vector for layer, found in directions_at(chat_model, task, layers).items()}
    tokenizer = chat_model.tokenizer
    affirmative = list(tokenizer(AFFIRMATIVE, add_special_tokens=False)["input_ids"])

    def moves(token_ids: Sequence[TokenIds]) -> torch.Tensor:
        before, after = (
            last_activations(chat_model, ids, [task.layer])[task.layer]
            for ids in (token_ids, [[*each, *affirmative] for each in token_ids])
        )
        return after - before

    train, validation = task.split.train, task.split.validation
    harmful = [train[row] for row in rows_of_kind(train, "harmful")]
    anchor = moves(encode(tokenizer, harmful)).mean(dim=0)

    def scores(token_ids: Sequence[TokenIds]) -> torch.Tensor:
        return torch.cosine_similarity(moves(token_ids), anchor[None], dim=-1)

    seen = scores(encode(tokenizer, validation))
    benign = rows_of_kind(validation, "harmless") + rows_of_kind(validation, "pseudo_harmful")
    threshold = best_threshold(seen[rows_of_kind(validation, "harmful")], seen[benign])

    def signs(token_ids: Sequence[TokenIds]) -> list[int]:
        return [1 if score > threshold else -1 for score in scores(token_ids).tolist()]

    return Fitted(
        layers[0],
        STRENGTHS,
        lambda strength, sign: steer(chat_model, shifts, strength, sign),
        signs,
        harmful_sign=1,
        figures={"threshold": threshold},
    )
