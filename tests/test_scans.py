import torch

from actor_tune.comparison.methods.scans import scans
from actor_tune.models.chat import encode
from actor_tune.models.inputs import last_activations
from actor_tune.prompts.prompt import rows_of_kind


def test_scans_steers_prompts_that_move_as_harmful_ones_do_towards_refusal(chat_model, task, prompts):
    """Kinds differ in their words, which even an untrained model sees."""
    fitted = scans(chat_model, task)
    assert fitted.detector.harmful_sign == 1
    signs = fitted.signs(encode(chat_model.tokenizer, prompts))
    caught = [signs[row] == 1 for row in rows_of_kind(prompts, "harmful")]
    passed = [signs[row] == -1 for row in rows_of_kind(prompts, "harmless")]
    assert sum(caught) / len(caught) + sum(passed) / len(passed) > 1.5


def test_scans_moves_middle_blocks_towards_harmful_prompts_or_away_from_them_by_the_sign(chat_model, task, prompts):
    fitted = scans(chat_model, task)
    train = task.split.train
    token_ids = encode(chat_model.tokenizer, train)
    seen = last_activations(chat_model, token_ids, [fitted.layer])[fitted.layer]
    harmful, harmless = (seen[rows_of_kind(train, kind)].mean(dim=0) for kind in ("harmful", "harmless"))
    for sign in (1, -1):
        with fitted.changed(0.5, sign):
            moved = last_activations(chat_model, token_ids, [fitted.layer])[fitted.layer]
        shift = sign * 0.5 * (harmful - harmless)
        assert torch.allclose(moved - seen, shift.expand_as(seen), atol=1e-4)
