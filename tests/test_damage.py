import math

import pytest
import torch

from actor_tune.errors import UserError
from actor_tune.measurement.damage import KL_TOKENS, answer_logprobs, divergence, perplexity
from actor_tune.models.chat import encode
from actor_tune.models.divergence import kl
from conftest import make_model, make_prompts

ANSWERS = ["a long answer", "b", ""]


def plain_logprobs(chat_model, prompt, answer, count):
    """Log-probabilities of the first `count` tokens of `answer`, one sequence at a time and without padding."""
    (question,) = encode(chat_model.tokenizer, [prompt])
    reply = chat_model.tokenizer(answer, add_special_tokens=False)["input_ids"]
    ids = torch.tensor([question + reply[: count - 1]])
    with torch.inference_mode():
        logits = chat_model.model(ids).logits[0, len(question) - 1 :]
    return logits.float().log_softmax(dim=-1)


def test_every_answer_gives_its_first_tokens_and_the_one_after_a_short_one(any_family):
    prompts = make_prompts(3)[:3]
    found = answer_logprobs(any_family, prompts, ANSWERS, batch_size=2)
    expected = [
        plain_logprobs(any_family, prompt, answer, KL_TOKENS) for prompt, answer in zip(prompts, ANSWERS, strict=True)
    ]
    assert [len(item) for item in expected] == [8, 2, 1]
    torch.testing.assert_close(found.values, torch.cat(expected), atol=2e-4, rtol=0)
    assert found.first.nonzero().flatten().tolist() == [0, 8, 10]


def test_divergence_is_averaged_over_tokens_and_its_first_token_alone_is_given_too(chat_model):
    prompts = make_prompts(3)[:3]
    before = answer_logprobs(chat_model, prompts, ANSWERS)
    with torch.no_grad():
        chat_model.model.get_output_embeddings().weight[5] += 0.2
    after = answer_logprobs(chat_model, prompts, ANSWERS)
    moved = divergence(before, after)
    each = kl(before.values, after.values)
    assert moved.tokens == pytest.approx(float(each.mean()))
    assert moved.first_token == pytest.approx(float(each[[0, 8, 10]].mean()))
    assert moved.tokens > 0
    same = divergence(before, before)
    assert (same.first_token, same.tokens) == (0, 0)


def test_the_log_probabilities_of_some_answers_can_be_had_alone(chat_model):
    prompts = make_prompts(3)[:3]
    found = answer_logprobs(chat_model, prompts, ANSWERS)
    for rows in ([0], [1, 2], [0, 2]):
        alone = answer_logprobs(chat_model, [prompts[row] for row in rows], [ANSWERS[row] for row in rows])
        torch.testing.assert_close(found.of(rows).values, alone.values, atol=2e-4, rtol=0)
        assert torch.equal(found.of(rows).first, alone.first)
    assert found.of([0, 1, 2]) is found


def test_a_baseline_of_another_vocabulary_is_refused(chat_model):
    prompts = make_prompts(2)[:2]
    found = answer_logprobs(chat_model, prompts, ["a", "b"])
    other = type(found)(found.values[:, :99], found.first)
    with pytest.raises(UserError, match="`baseline=`: a vocabulary of 99 tokens; expected 261"):
        divergence(other, found)


def test_without_harmless_prompts_there_is_nothing_to_compare(chat_model):
    with pytest.raises(UserError, match="no harmless prompts"):
        answer_logprobs(chat_model, [], [])


def test_a_model_that_knows_nothing_has_the_perplexity_of_its_vocabulary():
    chat_model = make_model()
    with torch.no_grad():
        chat_model.model.get_output_embeddings().weight.zero_()
    assert perplexity(chat_model, "any text at all") == pytest.approx(261, rel=1e-5)


def test_perplexity_is_that_of_each_token_given_those_before_it_in_its_window(chat_model):
    text = "the quick brown fox " * 30  # 600 bytes are 600 tokens: windows of 256, the model's limit
    tokens = torch.tensor(chat_model.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    losses = []
    with torch.inference_mode():
        for window in tokens.split(256):
            logprobs = chat_model.model(window[None]).logits[0].float().log_softmax(dim=-1)
            losses += [-float(logprobs[place, window[place + 1]]) for place in range(len(window) - 1)]
    assert perplexity(chat_model, text) == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-4)


def test_a_text_too_short_to_predict_is_refused(chat_model):
    with pytest.raises(UserError, match=r"`perplexity=`: 1 tokens; expected at least two"):
        perplexity(chat_model, "a")
