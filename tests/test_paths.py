import json
from dataclasses import replace

import pytest
import torch

from actor_tune.judges.trained.judge import judge_trained
from actor_tune.judges.verdict import Verdict
from actor_tune.models.every_block import first_token_of_every_block, last_of_every_block
from actor_tune.models.state import state_of
from actor_tune.prompts.prompt import of_kind
from actor_tune.repair.direction import refusal_direction
from actor_tune.repair.paths import paths
from actor_tune.repair.refusals import how_it_refuses
from conftest import make_model, make_prompts, plain_logprobs

LAYER = 1


def planted(row):
    """In no order."""
    return float(row * 7 % 11)


def hidden_states(chat_model, token_ids):
    """What transformers says that every block but the last returns at last tokens: (block, prompt, d_model)."""
    found = [chat_model.model(torch.tensor([ids]), output_hidden_states=True).hidden_states for ids in token_ids]
    return torch.stack([torch.stack([state[0, -1] for state in states[1:-1]]) for states in found], dim=1)


@torch.no_grad()
def test_what_every_block_returns_is_what_transformers_says(any_family):
    token_ids = any_family.encode(make_prompts(4))
    found = last_of_every_block(any_family, token_ids)
    torch.testing.assert_close(found[:-1], hidden_states(any_family, token_ids), rtol=1e-3, atol=1e-5)


def test_the_last_block_alone_says_what_the_model_says(any_family):
    token_ids = any_family.encode(make_prompts(4))
    said = first_token_of_every_block(any_family, token_ids, last_of_every_block(any_family, token_ids))
    torch.testing.assert_close(said[-1], plain_logprobs(any_family, token_ids), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(said[0], said[-1], atol=1e-2)


def a_path_of_each_kind(change=1.5):
    chat_model, prompts = make_model(), make_prompts()
    refusals = how_it_refuses(chat_model, prompts, judge_trained, seed=0)
    state = {name: tensor * change for name, tensor in state_of(chat_model.blocks[LAYER]).items()}
    refused = [Verdict("refusal" if row % 3 else "compliance", 0.5, "") for row in range(len(refusals.asked))]
    refusals = replace(refusals, verdicts=refused)
    moved = {prompt: planted(row) for row, prompt in enumerate(refusals.asked)}
    return chat_model, refusals, paths(chat_model, LAYER, state, refusals, moved)


def test_a_path_leaves_the_old_one_at_the_changed_block_and_not_before():
    _, _, found = a_path_of_each_kind()
    for path in found:
        for before, after in (
            (path.position_before, path.position_after),
            (path.refusal_before, path.refusal_after),
        ):
            assert before[:LAYER] == pytest.approx(after[:LAYER], rel=1e-4)
            assert before[LAYER] != pytest.approx(after[LAYER], rel=1e-3)


def test_positions_are_along_each_blocks_own_direction():
    chat_model, refusals, found = a_path_of_each_kind()
    harmful, harmless, shown = (
        hidden_states(chat_model, chat_model.encode(prompts))[LAYER]
        for prompts in (
            of_kind(refusals.asked, "harmful"),
            of_kind(refusals.asked, "harmless"),
            [prompt for path in found for prompt in refusals.asked if prompt.text == path.prompt],
        )
    )
    positions = refusal_direction(harmful, harmless).position(shown)
    torch.testing.assert_close(torch.tensor([path.position_before[LAYER] for path in found]), positions)


def test_the_prompt_shown_is_the_one_that_moved_by_the_median_of_its_kind():
    _, refusals, found = a_path_of_each_kind()
    for path in found:
        meant = [
            number
            for number, (prompt, verdict) in enumerate(zip(refusals.asked, refusals.verdicts, strict=True))
            if prompt.kind == path.kind and verdict.refused == (path.kind != "harmless")
        ]
        assert 1 < len(meant) < len(of_kind(refusals.asked, path.kind))
        assert path.prompt == refusals.asked[sorted(meant, key=planted)[len(meant) // 2]].text


def test_the_chance_of_refusal_is_that_of_the_models_own_refusal_tokens():
    chat_model, refusals, found = a_path_of_each_kind()
    for path in found:
        ids = chat_model.encode([prompt for prompt in refusals.asked if prompt.text == path.prompt])
        expected = plain_logprobs(chat_model, ids)[0, refusals.start.tokens].exp().sum()
        torch.testing.assert_close(torch.tensor(path.refusal_before[-1]), expected.clamp(max=1.0), rtol=1e-4, atol=1e-6)


def test_the_model_is_left_as_it_was():
    chat_model, _, _ = a_path_of_each_kind()
    before = make_model()
    for name, tensor in before.model.state_dict().items():
        assert torch.equal(tensor, chat_model.model.state_dict()[name]), name


def test_where_harmful_and_harmless_prompts_lie_alike_positions_are_nought_and_can_be_written():
    """A block that sees the last tokens of the template alone returns the same for all prompts."""
    chat_model, prompts = make_model(), make_prompts()
    refusals = how_it_refuses(chat_model, prompts, judge_trained, seed=0)
    moved = dict.fromkeys(refusals.asked, 0.0)
    blind = chat_model.blocks[0].register_forward_hook(lambda _module, _arguments, output: torch.ones_like(output))
    found = paths(chat_model, LAYER, state_of(chat_model.blocks[LAYER]), refusals, moved)
    blind.remove()
    assert {path.position_before[0] for path in found} == {0.0}
    json.dumps([path.position_before + path.position_after for path in found], allow_nan=False)
