import pytest
import torch
from torch import nn

from actor_tune.models.chat import encode
from actor_tune.models.inputs import block_inputs
from actor_tune.models.last_token import LastTokens, keys_first, whole_block
from actor_tune.repair.consistency import EPSILON, consistency_loss


class Linear(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, hidden):
        return hidden @ self.weight.T


def batch_of(hidden):
    """Prompts of a single token, (prompt, d_model)."""
    return LastTokens([*range(len(hidden))], lambda block, disturb: block(disturb(hidden)))


def test_it_is_the_cosine_at_inputs_moved_against_it_by_hand():
    hidden, weight = torch.tensor([[1.0, 2.0, -1.0]]), torch.tensor([[1.0, 0.5, 0], [0, 1.0, 0], [0.2, 0, 1.0]])
    leaf = hidden.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(1 - torch.cosine_similarity(leaf @ weight.T, leaf, dim=-1).mean(), leaf)
    moved = hidden + EPSILON * hidden.std(dim=-1, keepdim=True) * gradient.sign()
    expected = 1 - torch.cosine_similarity(moved @ weight.T, moved, dim=-1).mean()
    assert consistency_loss(Linear(weight), batch_of(hidden)).item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_block_that_only_scales_is_wholly_consistent_and_training_makes_another_more_so():
    hidden = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    assert consistency_loss(Linear(3 * torch.eye(4)), batch_of(hidden)).item() == pytest.approx(0, abs=1e-6)
    block = Linear(torch.eye(4) + 0.5 * torch.randn(4, 4, generator=torch.Generator().manual_seed(1)))
    optimizer = torch.optim.SGD(block.parameters(), lr=0.5)
    losses = []
    for _ in range(20):
        loss = consistency_loss(block, batch_of(hidden))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_the_last_tokens_alone_give_what_whole_blocks_give(chat_model, prompts):
    """Both ways of running a block hand over its inputs differently."""
    inputs = block_inputs(chat_model, 1, encode(chat_model.tokenizer, prompts))
    block = chat_model.blocks[1].requires_grad_(True)
    short, whole = (
        consistency_loss(block, way(chat_model, inputs, [0, 13, 25])).item() for way in (keys_first, whole_block)
    )
    assert short == pytest.approx(whole, rel=1e-4)
