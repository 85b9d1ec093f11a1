import pytest
import torch

from actor_tune.errors import UserError
from actor_tune.judges.trained.judge import judge_trained
from actor_tune.models.activations import shifted
from actor_tune.models.chat import encode
from actor_tune.models.divergence import mean_kl
from actor_tune.models.first_token import refusal_token_ids
from actor_tune.prompts.prompt import of_kind
from actor_tune.records.scan import BlockEffect
from actor_tune.repair.direction import refusal_direction
from actor_tune.repair.refusals import how_it_refuses
from actor_tune.repair.scan import SHIFT, candidate_layers, scan_layers, scan_of
from conftest import plain_logprobs


def test_refusal_tokens_are_those_likelier_after_harmful_prompts():
    harmful = torch.tensor([[0.6, 0.3, 0.1], [0.8, 0.1, 0.1]]).log()
    harmless = torch.tensor([[0.1, 0.8, 0.1], [0.1, 0.8, 0.1]]).log()
    assert refusal_token_ids(harmful, harmless, "m").tolist() == [0]


def last_token_activations(chat_model, token_ids, layer):
    """What the block returns at the last token in plain forward passes: (prompt, d_model)."""
    states = [chat_model.model(torch.tensor([ids]), output_hidden_states=True).hidden_states for ids in token_ids]
    return torch.stack([state[layer + 1][0, -1] for state in states])


def test_the_scan_by_single_tokens_equals_whole_forward_passes(any_family, opened_prompts):
    """The scan keeps what came before the last token; the same edit in a plain forward pass must say the same."""
    prompts = opened_prompts
    found = scan_layers(any_family, prompts, [0, 1], silhouettes=False, seed=0, tokens=torch.tensor([0]))
    tokens = {kind: encode(any_family.tokenizer, of_kind(prompts, kind)) for kind in ("harmful", "harmless")}
    activations = {kind: last_token_activations(any_family, tokens[kind], 1) for kind in tokens}
    direction = refusal_direction(activations["harmful"], activations["harmless"])
    plain = plain_logprobs(any_family, tokens["harmless"])
    divergences = []
    for sign in (-1, 1):
        rows = []
        for row in range(len(tokens["harmless"])):
            width = len(tokens["harmless"][row])
            shift = torch.zeros(1, width, 32)
            shift[:, -1] = sign * SHIFT * direction.vector
            with shifted(any_family.blocks[1], shift):
                rows.append(plain_logprobs(any_family, [tokens["harmless"][row]]))
        divergences.append(mean_kl(plain, torch.cat(rows)))
    assert found.blocks[1].kl_harmless == pytest.approx(sum(divergences) / 2, rel=1e-2, abs=1e-5)


def test_a_model_that_begins_every_answer_alike_has_no_refusal_to_move(chat_model, prompts):
    handle = chat_model.blocks[2].register_forward_hook(lambda _module, _arguments, output: torch.zeros_like(output))
    with pytest.raises(UserError, match="begin their answers with the same tokens"):
        how_it_refuses(chat_model, prompts, judge_trained, seed=0)
    handle.remove()


def effect(layer, size, silhouette=0.0):
    return BlockEffect(
        layer=layer,
        silhouette=silhouette,
        refusal=0.5,
        toward_harmless=0.0,
        toward_harmful=size,
        kl_harmless=0.1,
        effect=size,
    )


def test_the_candidate_with_the_largest_effect_is_chosen():
    blocks = [effect(0, 0.99, silhouette=0.9), effect(1, 0.5), effect(2, 1.0), effect(3, 0.9), effect(4, 5.0)]
    found = scan_of("m", ["I"], blocks, candidates=range(1, 4))
    assert found.layer == found.best().layer == 2
    assert found.best_silhouette().layer == 0
    assert found.reason == (
        "fit would take block 2: of blocks 1 to 3 it has the largest effect. Moving its output moves refusal of "
        "pseudo-harmful prompts by 1.00, at a cost of 0.10 nats on harmless ones. The paper's criterion, the "
        "silhouette, would take block 0 (effect 0.99)."
    )


def test_where_both_criteria_take_the_same_block_or_one_was_not_asked_for_the_paper_is_not_mentioned():
    same = scan_of("m", ["I"], [effect(1, 1.0, silhouette=0.9), effect(2, 0.5)], candidates=range(1, 3))
    unasked = scan_of("m", ["I"], [effect(1, 1.0, None), effect(2, 0.5, None)], candidates=range(1, 3))
    assert "The paper" not in same.reason + unasked.reason


def test_candidates_leave_out_the_first_third_and_the_last_quarter():
    assert candidate_layers(30) == range(10, 22)
    assert candidate_layers(4) == range(1, 3)
    assert candidate_layers(2) == range(0, 1)


def test_the_scan_reports_silhouettes_where_asked(chat_model, prompts):
    found = scan_layers(chat_model, prompts, [0, 1, 2], silhouettes=True, seed=0, tokens=torch.tensor([0]))
    assert [block.layer for block in found.blocks] == [0, 1, 2]
    assert all(block.silhouette is not None and -1 <= block.silhouette <= 1 for block in found.blocks)
