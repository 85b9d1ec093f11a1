"""SCANS: safety-conscious activation steering (arXiv 2408.11491)."""

from collections.abc import Sequence

import torch

from ...models.chat import TokenIds
from ...models.inputs import last_activations
from ...models.model import ChatModel
from ...prompts.prompt import rows_of_kind
from ...repair.scan import candidate_layers
from .cae import directions_at
from .method import Detector, Fitted, Task, best_threshold, every_second, steered

STRENGTHS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3)
"""In units of each block's distance between the means; added at every middle block, so that they sum up."""

AFFIRMATIVE = "Sure"
"""The positive answer that is appended to see where a prompt goes from there."""


def scans(chat_model: ChatModel, task: Task) -> Fitted:
    """Steer the middle blocks by +/- alpha v_l: towards refusal where the prompt moves as harmful ones do, else away.

    A prompt's move is what appending an affirmative answer changes at the last token; its score is the cosine with the
    mean move of harmful training prompts, at the block of the task. v_l: mean a_l(harmful) - mean a_l(harmless) at the
    last token of a prompt, (d_model) float32. Differs from the paper: that mean is of one half of the training prompts,
    and the threshold fitted on the other (the paper's 0.75 is of other models); one block is read instead of several;
    and the middle blocks are those that `scan` looks at.
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

    train = task.split.train
    seen = moves(chat_model.encode(train))
    harmful, held_harmful = every_second(rows_of_kind(train, "harmful"))
    _, held_benign = every_second(rows_of_kind(train, "harmless") + rows_of_kind(train, "pseudo_harmful"))
    anchor = seen[harmful].mean(dim=0)

    def scores(moved: torch.Tensor) -> torch.Tensor:
        return torch.cosine_similarity(moved, anchor[None], dim=-1)

    threshold = best_threshold(scores(seen[held_harmful]), scores(seen[held_benign]))

    def signs(token_ids: Sequence[TokenIds]) -> list[int]:
        return [1 if score > threshold else -1 for score in scores(moves(token_ids)).tolist()]

    return steered(chat_model, shifts, STRENGTHS, Detector(signs, harmful_sign=1, threshold=threshold))
