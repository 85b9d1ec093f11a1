"""Internal consistency (CROW, arXiv 2411.12768) as a regulariser of the trained block: hidden states shall not jump
between blocks, as a backdoor makes them, even where inputs are moved in the worst direction.
"""

import torch
from torch import nn

from ..models.last_token import LastTokens

EPSILON = 0.1  # how far inputs are moved: in units of each token's standard deviation, the paper's of embeddings


def consistency_loss(block: nn.Module, batch: LastTokens) -> torch.Tensor:
    """1 - cos(H_l, H_{l-1}) at the last tokens, mean over prompts, with inputs moved by EPSILON sign(its gradient).

    Differs from the paper: one block instead of a mean over all, because only this one is trained; and its inputs are
    moved instead of the embeddings, which it does not see.
    """
    seen: list[torch.Tensor] = []

    def watched(hidden: torch.Tensor) -> torch.Tensor:
        seen.append(hidden.detach().requires_grad_(True))
        return seen[-1]

    gradients = torch.autograd.grad(_inconsistency(batch.output(block, watched), seen), seen)
    worst = [
        (hidden + EPSILON * hidden.std(dim=-1, keepdim=True) * gradient.sign()).detach()
        for hidden, gradient in zip(seen, gradients, strict=True)
    ]
    waiting = iter(worst)
    return _inconsistency(batch.output(block, lambda _: next(waiting)), worst)


def _inconsistency(output: torch.Tensor, received: list[torch.Tensor]) -> torch.Tensor:
    """From what the block returned at last tokens (prompt, d_model), and what it received, (token, d_model) each.

    It receives either one prompt after the other, or all at once with their last tokens at the end.
    """
    count = len(output)
    ends = received[0][-count:] if len(received) == 1 else torch.stack([each[-1] for each in received])
    return 1 - torch.cosine_similarity(output, ends, dim=-1).mean()
