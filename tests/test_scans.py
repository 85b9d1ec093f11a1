from actor_tune.chat import encode
from actor_tune.methods.scans import scans
from actor_tune.prompts import rows_of_kind


def test_scans_steers_prompts_that_move_as_harmful_ones_do_towards_refusal(chat_model, task, prompts):
    """Kinds differ in their words, which even an untrained model sees."""
    fitted = scans(chat_model, task)
    assert fitted.gate.harmful_sign == 1
    signs = fitted.signs(encode(chat_model.tokenizer, prompts))
    caught = [signs[row] == 1 for row in rows_of_kind(prompts, "harmful")]
    passed = [signs[row] == -1 for row in rows_of_kind(prompts, "harmless")]
    assert sum(caught) / len(caught) + sum(passed) / len(passed) > 1.5
