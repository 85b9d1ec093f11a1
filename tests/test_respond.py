import pytest
import torch

from actor_tune import respond as module
from actor_tune.chat import encode
from actor_tune.respond import first_token_logprobs, respond


def greedy(chat_model, token_ids, steps):
    """Greedy decoding one prompt and one whole forward pass at a time."""
    tokens = list(token_ids)
    for _ in range(steps):
        best = int(chat_model.model(torch.tensor([tokens])).logits[0, -1].argmax())
        if best == chat_model.tokenizer.eos_token_id:
            break
        tokens.append(best)
    return chat_model.tokenizer.decode(tokens[len(token_ids) :], skip_special_tokens=True)


def test_answers_are_greedy_and_in_the_order_of_the_prompts(any_family, prompts):
    token_ids = encode(any_family.tokenizer, prompts)
    answers = respond(any_family, prompts, max_new_tokens=5, batch_size=7)
    assert [answer.prompt for answer in answers] == prompts
    for row in (0, 13, 35):
        assert answers[row].text == greedy(any_family, token_ids[row], 5)


def test_sampling_settings_of_the_checkpoint_are_not_used(chat_model, prompts):
    plain = respond(chat_model, prompts[:4], max_new_tokens=5)
    chat_model.model.generation_config.do_sample = True
    chat_model.model.generation_config.temperature = 5.0
    chat_model.model.generation_config.repetition_penalty = 9.0
    chat_model.model.generation_config.no_repeat_ngram_size = 1
    assert respond(chat_model, prompts[:4], max_new_tokens=5) == plain


def test_out_of_memory_halves_the_batch_and_goes_on(chat_model, prompts, monkeypatch, caplog):
    expected = respond(chat_model, prompts, max_new_tokens=3)
    sizes = []
    generate = module._generate

    def scarce(model, batch, max_new_tokens):
        sizes.append(len(batch.rows))
        if len(batch.rows) > 10:
            raise torch.OutOfMemoryError
        return generate(model, batch, max_new_tokens)

    monkeypatch.setattr(module, "_generate", scarce)
    assert respond(chat_model, prompts, max_new_tokens=3, batch_size=32) == expected
    assert sizes[:3] == [32, 16, 8]
    assert "going on with 8 prompts at a time" in caplog.text


def test_out_of_memory_with_a_single_prompt_is_raised(chat_model, prompts, monkeypatch):
    def never(*_arguments):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(module, "_generate", never)
    with pytest.raises(torch.OutOfMemoryError):
        respond(chat_model, prompts, max_new_tokens=3)


def test_first_token_logprobs_are_normalised_and_in_order(chat_model, prompts):
    token_ids = encode(chat_model.tokenizer, prompts)
    found = first_token_logprobs(chat_model, token_ids, batch_size=5)
    assert torch.allclose(found.exp().sum(dim=-1), torch.ones(len(prompts)), atol=1e-4)
    alone = chat_model.model(torch.tensor([token_ids[7]])).logits[0, -1].log_softmax(dim=-1)
    assert torch.allclose(found[7], alone, atol=1e-4)
