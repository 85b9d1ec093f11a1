import torch

from actor_tune.chat import encode
from actor_tune.methods.inferaligner import inferaligner


def planted(chat_model):
    """Last-token activations by kind, told by the words: harmful at 1, pseudo-harmful at 0.4, harmless at 0."""

    def read(_chat_model, token_ids, layers):
        texts = [chat_model.tokenizer.decode(ids) for ids in token_ids]
        places = [1.0 if "now" in text else 0.4 if "scene" in text else 0.0 for text in texts]
        noise = 0.05 * torch.randn(len(texts), 32, generator=torch.Generator().manual_seed(0))
        rows = noise + torch.tensor(places)[:, None] * torch.eye(32)[0]
        return dict.fromkeys(layers, rows)

    return read


def test_inferaligners_gate_lets_benign_prompts_through_and_no_harmful_one(chat_model, task, prompts, monkeypatch):
    monkeypatch.setattr("actor_tune.methods.inferaligner.last_activations", planted(chat_model))
    fitted = inferaligner(chat_model, task)
    assert 0.4 < fitted.gate.threshold < 1
    signs = fitted.signs(encode(chat_model.tokenizer, prompts))
    assert fitted.gate.harmful_sign == 0
    assert [sign == 0 for sign in signs] == [prompt.kind == "harmful" for prompt in prompts]
