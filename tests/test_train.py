import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from actor_tune.models.chat import encode
from actor_tune.models.inputs import BlockInputs, block_inputs
from actor_tune.models.model import ChatModel
from actor_tune.models.state import compact, interpolate, state_of
from actor_tune.prompts.prompt import KINDS
from actor_tune.repair.direction import refusal_direction
from actor_tune.repair.rules import (
    HARMFUL,
    HARMLESS,
    PAPER_ALPHA,
    Schedule,
    Shifts,
    boundary_targets,
    cosine_loss,
    distance_loss,
    kind_codes,
    paper_targets,
)
from actor_tune.repair.train import batches_of_like_length, block_outputs, train_block
from reference.algorithm1 import algorithm_1


class AffineBlock(nn.Module):
    """a = x + W x + b: small enough to differentiate by hand."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.map = nn.Linear(size, size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return hidden_states + self.map(hidden_states)


class AffineModel(nn.Module):
    """Three affine blocks behind an embedding, with the call that the package makes of a transformers model."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(8, size)
        self.head = nn.Identity()
        self.blocks = nn.ModuleList(AffineBlock(size) for _ in range(3))

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embedding

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(
        self,
        input_ids,
        attention_mask,
        position_ids,
        past_key_values,
        use_cache,
        logits_to_keep,
    ):
        hidden = self.embedding(input_ids)
        for block in self.blocks:
            hidden = block(hidden)
        return SimpleNamespace(logits=self.head(hidden))


def affine_chat_model(size: int) -> ChatModel:
    torch.manual_seed(5)
    model = AffineModel(size).requires_grad_(False)
    tokenizer = SimpleNamespace(pad_token_id=0, eos_token_id=0)
    return ChatModel("affine", None, model, tokenizer, model.blocks, (0,) * len(model.blocks))


def test_algorithm_1_equals_an_independent_transcription():
    chat_model = affine_chat_model(size=6)
    block = chat_model.blocks[1]
    generator = torch.Generator().manual_seed(7)
    names = ["harmful", "harmless", "pseudo_harmful"] * 4
    kinds = kind_codes(names)
    hidden = torch.randn(len(names), 6, generator=generator)
    inputs = BlockInputs(1, [[1]] * len(names), 0, hidden[:0], hidden, list(range(len(names))), padded=True)
    weight, bias = block.map.weight.numpy().copy(), block.map.bias.numpy().copy()
    alpha, rate, every = 0.3, 1e-2, 5

    activations = block_outputs(chat_model, inputs)
    direction = refusal_direction(activations[kinds == HARMFUL], activations[kinds == HARMLESS])
    trained = train_block(
        chat_model,
        inputs,
        kinds,
        direction,
        lambda now, rows, current: cosine_loss(now, paper_targets(now.detach(), kinds[rows], current.vector, alpha)),
        Schedule(epochs=3, batch_size=1, learning_rate=rate, decay=False, noise=0.0, recompute_every=every),
        seed=11,
    )

    symbols = {"harmful": "Q-", "harmless": "Q+", "pseudo_harmful": "QPH"}
    reference_weight, reference_bias, losses = algorithm_1(
        hidden.numpy().astype(np.float64),
        [symbols[name] for name in names],
        weight,
        bias,
        alpha=alpha,
        rate=rate,
        epochs=3,
        recompute_every=every,
        seed=11,
    )
    assert np.abs(reference_weight - weight).max() > 0.05  # it did train
    np.testing.assert_allclose(trained.state["map.weight"], reference_weight, atol=2e-4)
    np.testing.assert_allclose(trained.state["map.bias"], reference_bias, atol=2e-4)
    assert trained.epochs[0].loss == pytest.approx(np.mean(losses[: len(names)]), rel=1e-3)


def boundary_training(chat_model, prompts, layer, epochs=30, seed=0, batch_size=12, rate=3e-3, decay=True):
    token_ids = encode(chat_model.tokenizer, prompts)
    inputs = block_inputs(chat_model, layer, token_ids)
    activations = block_outputs(chat_model, inputs)
    kinds = kind_codes([prompt.kind for prompt in prompts])
    direction = refusal_direction(activations[kinds == HARMFUL], activations[kinds == HARMLESS])
    targets = boundary_targets(activations, kinds, direction, Shifts(pseudo_harmful=1.5, harmful=1.0))
    schedule = Schedule(epochs, batch_size, learning_rate=rate, decay=decay, noise=0.0, recompute_every=0)
    trained = train_block(
        chat_model,
        inputs,
        kinds,
        direction,
        lambda now, rows, _: distance_loss(now, targets[rows], direction.length),
        schedule,
        seed,
    )
    return SimpleNamespace(
        inputs=inputs, kinds=kinds, direction=direction, targets=targets, trained=trained, activations=activations
    )


def test_the_boundary_rule_brings_every_kind_to_its_known_position(any_family, prompts):
    run = boundary_training(any_family, prompts, layer=1, epochs=60)
    any_family.blocks[1].load_state_dict(run.trained.state)
    after = run.direction.position(block_outputs(any_family, run.inputs))
    wanted = run.direction.position(run.targets)
    before = run.direction.position(run.activations)
    for code in range(len(KINDS)):
        chosen = run.kinds == code
        assert after[chosen].mean().item() == pytest.approx(wanted[chosen].mean().item(), abs=0.2)
    assert wanted[run.kinds == 0].mean() > before[run.kinds == 0].mean() + 0.5
    assert run.trained.epochs[-1].loss < 0.3 * run.trained.epochs[0].loss


def test_training_leaves_the_model_as_it_was_and_no_gradients_behind(any_family, prompts):
    before = state_of(any_family.model)
    boundary_training(any_family, prompts, layer=1, epochs=1)
    after = any_family.model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in any_family.model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in any_family.model.modules())


def test_training_is_repeatable_and_the_seed_matters(chat_model, prompts):
    first, again, other = (
        boundary_training(chat_model, prompts, layer=1, epochs=2, seed=seed).trained for seed in (0, 0, 1)
    )
    assert all(torch.equal(tensor, again.state[name]) for name, tensor in first.state.items())
    assert not all(torch.equal(tensor, other.state[name]) for name, tensor in first.state.items())


def test_epochs_report_the_mean_position_of_each_kind(chat_model, prompts):
    run = boundary_training(chat_model, prompts, layer=1)
    first, last = run.trained.epochs[0].position, run.trained.epochs[-1].position
    assert set(first) == set(KINDS)
    assert last["pseudo_harmful"] < first["pseudo_harmful"]
    assert last["harmful"] > first["harmful"]


def test_batches_hold_every_row_once_and_prompts_of_like_length():
    lengths = [10 + (7 * row) % 40 for row in range(205)]
    batches = batches_of_like_length(lengths, 20, random.Random(0))
    assert sorted(row for batch in batches for row in batch) == list(range(205))
    assert sorted(map(len, batches)) == [5, *[20] * 10]
    padding = sum(max(lengths[row] for row in batch) - lengths[row] for batch in batches for row in batch)
    assert padding < 0.15 * sum(lengths)
    assert batches != batches_of_like_length(lengths, 20, random.Random(1))


def trained_through_the_whole_model(chat_model, layer, token_ids, targets, length, rate, epochs, seed):
    """The same training as user code would do it: one prompt a step, forward and backward through the whole model."""
    block = chat_model.blocks[layer]
    before = state_of(block)
    optimizer = torch.optim.AdamW(block.requires_grad_(True).parameters(), lr=rate, weight_decay=0.0)
    shuffler = random.Random(seed)
    for _ in range(epochs):
        shuffler.shuffle(order := list(range(len(token_ids))))
        for row in order:
            states = chat_model.model(torch.tensor([token_ids[row]]), output_hidden_states=True).hidden_states
            loss = ((states[layer + 1][0, -1] - targets[row]) ** 2).sum() / length**2
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    trained = state_of(block)
    block.requires_grad_(False).load_state_dict(before)
    return before, trained


def test_training_from_kept_inputs_equals_training_through_the_whole_model(any_family, opened_prompts):
    token_ids = encode(any_family.tokenizer, opened_prompts)
    run = boundary_training(any_family, opened_prompts, layer=1, epochs=2, batch_size=1, rate=1e-3, decay=False)
    before, expected = trained_through_the_whole_model(
        any_family, 1, token_ids, run.targets, run.direction.length, rate=1e-3, epochs=2, seed=0
    )
    for name, start in before.items():
        moved = float((expected[name] - start).norm())
        error = float((run.trained.state[name] - expected[name]).norm())
        # AdamW divides by the size of the gradient, which makes much of rounding where there is next to none.
        assert error <= 1e-2 * moved, (name, error, moved)


def test_interpolation_goes_from_the_unedited_to_the_trained_block():
    before, after = {"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 2.0])}
    assert interpolate(before, after, 0.0, {})["w"].tolist() == [1.0, 2.0]
    assert interpolate(before, after, 0.5, {})["w"].tolist() == [2.0, 2.0]
    assert interpolate(before, after, 1.0, {})["w"].tolist() == [3.0, 2.0]


def test_interpolation_rounds_to_the_stored_dtype_whatever_is_computed_in():
    before, after = (
        {"w": torch.tensor([1.0]), "b": torch.tensor([1.0])},
        {"w": torch.tensor([1.001]), "b": torch.tensor([1.001])},
    )
    mixed = interpolate(before, after, 1.0, {"w": torch.bfloat16})
    assert mixed["w"].dtype == torch.bfloat16
    assert mixed["w"].item() == 1.0
    assert mixed["b"].item() == pytest.approx(1.001)


def test_a_state_is_kept_in_half_precision_only_where_nothing_is_lost():
    kept = compact({"w": torch.tensor([1.0, 0.5]), "b": torch.tensor([1.0, 0.1])})
    assert kept["w"].dtype == torch.bfloat16
    assert kept["b"].dtype == torch.float32
    assert kept["w"].tolist() == [1.0, 0.5]


def test_at_the_papers_alpha_most_of_a_bfloat16_target_is_lost():
    """Why targets are float32: the share of coordinates that differ from the activation is small in bfloat16."""
    generator = torch.Generator().manual_seed(0)
    activations, vector = torch.randn(50, 512, generator=generator), torch.randn(512, generator=generator)
    kinds = kind_codes(["harmful"] * 50)
    # About a fifth of a real activation lies along R.
    activations = activations + 0.2 * activations.norm(dim=-1, keepdim=True) * vector / vector.norm()
    targets = paper_targets(activations, kinds, vector, PAPER_ALPHA)
    assert (targets != activations).float().mean() > 0.9
    assert (targets.bfloat16() != activations.bfloat16()).float().mean() < 0.3
