import torch

from actor_tune.comparison.methods.inferaligner import inferaligner
from actor_tune.comparison.methods.method import method_engine
from actor_tune.engines.local import local_engine
from actor_tune.models.chat import encode
from actor_tune.models.inputs import last_activations
from actor_tune.prompts.prompt import rows_of_kind
from actor_tune.records.response import Response


def planted(chat_model):
    """Last-token activations by kind, told by the words: harmful at 1, pseudo-harmful at 0.4, harmless at 0."""

    def read(_chat_model, token_ids, layers):
        texts = [chat_model.tokenizer.decode(ids) for ids in token_ids]
        places = [1.0 if "now" in text else 0.4 if "scene" in text else 0.0 for text in texts]
        noise = 0.05 * torch.randn(len(texts), 32, generator=torch.Generator().manual_seed(0))
        rows = noise + torch.tensor(places)[:, None] * torch.eye(32)[0]
        return dict.fromkeys(layers, rows)

    return read


def test_inferaligners_detector_lets_benign_prompts_through_and_no_harmful_one(chat_model, task, prompts, monkeypatch):
    monkeypatch.setattr("actor_tune.comparison.methods.inferaligner.last_activations", planted(chat_model))
    fitted = inferaligner(chat_model, task)
    assert 0.4 < fitted.detector.threshold < 1
    signs = fitted.signs(encode(chat_model.tokenizer, prompts))
    assert fitted.detector.harmful_sign == 0
    assert [sign == 0 for sign in signs] == [prompt.kind == "harmful" for prompt in prompts]


def test_where_the_detector_says_harmful_answers_are_the_unchanged_ones(chat_model, task, prompts, monkeypatch):
    """Each prompt alone, so that no batch's company shows."""
    monkeypatch.setattr("actor_tune.comparison.methods.inferaligner.last_activations", planted(chat_model))
    fitted = inferaligner(chat_model, task)
    unchanged = {prompt: Response(prompt, text_of(local_engine(chat_model, None), prompt), True) for prompt in prompts}
    engine = method_engine(chat_model, fitted, 8.0, unchanged)
    same = [text_of(engine, prompt) == unchanged[prompt].text for prompt in prompts]
    assert all(same[row] for row in rows_of_kind(prompts, "harmful"))
    assert not all(same[row] for row in rows_of_kind(prompts, "pseudo_harmful"))
    with fitted.changed(8.0, 0):
        shut = [text_of(local_engine(chat_model, None), prompt) for prompt in prompts]
    assert shut == [unchanged[prompt].text for prompt in prompts], "with the hooks in place, too"


def text_of(engine, prompt):
    """What `engine` answers."""
    return next(iter(engine([prompt], 3))).text


def moved_by(chat_model, fitted, token_ids):
    """What the first steered block returns more at the last token."""
    before = last_activations(chat_model, [token_ids], [fitted.layer])[fitted.layer]
    with fitted.changed(1.0, 1):
        return last_activations(chat_model, [token_ids], [fitted.layer])[fitted.layer] - before


def test_prompts_are_moved_from_the_harmful_ones_to_the_harmless_ones(chat_model, task, prompts):
    token_ids = encode(chat_model.tokenizer, prompts)
    fitted = inferaligner(chat_model, task)
    train = task.split.train
    seen = last_activations(chat_model, encode(chat_model.tokenizer, train), [fitted.layer])[fitted.layer]
    harmful, harmless = (seen[rows_of_kind(train, kind)].mean(dim=0) for kind in ("harmful", "harmless"))
    assert torch.allclose(moved_by(chat_model, fitted, token_ids[0])[0], harmless - harmful, atol=1e-4)
