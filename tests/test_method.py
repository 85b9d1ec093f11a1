from contextlib import contextmanager

import torch

from actor_tune.comparison.methods.method import (
    Detector,
    Fitted,
    best_threshold,
    method_engine,
    method_logprobs,
    remembered,
    steered,
)
from actor_tune.engines.local import local_engine
from actor_tune.models.chat import encode
from actor_tune.models.inputs import block_inputs
from actor_tune.models.steering import steer
from actor_tune.records.response import Response
from conftest import plain_logprobs


def detecting(chat_model, seen=None):
    """Steers prompts of an odd number of tokens up, and leaves those of an even one alone."""
    shift = {1: torch.randn(32, generator=torch.Generator().manual_seed(0))}

    @contextmanager
    def changed(strength, sign):
        if seen is not None:
            seen.append((strength, sign))
        with steer(chat_model, shift, strength, sign):
            yield

    detector = Detector(lambda token_ids: [len(ids) % 2 for ids in token_ids], 0, threshold=0.0)
    return Fitted(1, (0.5, 1.0), changed, detector)


def answers(engine, prompts):
    return {answer.row: answer.text for answer in engine(prompts, 3)}


def test_answers_are_the_unchanged_ones_where_the_detector_says_so_and_others_elsewhere(chat_model, prompts):
    """Not only alike: they are not asked for again."""
    seen = []
    fitted = detecting(chat_model, seen)
    signs = fitted.signs(encode(chat_model.tokenizer, prompts))
    plain = answers(local_engine(chat_model, None), prompts)
    plain[1] = "an answer that no model gives" if signs[1] == 0 else plain[1]
    unchanged = {prompt: Response(prompt, plain[row], True) for row, prompt in enumerate(prompts)}
    found = answers(method_engine(chat_model, fitted, 8.0, unchanged), prompts)
    assert set(signs) == {0, 1}
    assert all(found[row] == plain[row] for row, sign in enumerate(signs) if sign == 0)
    assert any(found[row] != plain[row] for row, sign in enumerate(signs) if sign == 1)
    assert seen == [(8.0, 1)]


def test_first_tokens_from_kept_inputs_are_those_of_the_changed_model(chat_model, prompts):
    fitted = detecting(chat_model)
    token_ids = encode(chat_model.tokenizer, prompts)
    signs = fitted.signs(token_ids)
    plain = plain_logprobs(chat_model, token_ids)
    found = method_logprobs(chat_model, fitted, 2.0, block_inputs(chat_model, 1, token_ids), signs, plain)
    alone = [row for row, sign in enumerate(signs) if not sign]
    assert torch.equal(found[alone], plain[alone])
    for row, (ids, sign) in enumerate(zip(token_ids, signs, strict=True)):
        with fitted.changed(2.0, sign):
            assert torch.allclose(found[row], plain_logprobs(chat_model, [ids])[0], atol=1e-4)


def test_a_threshold_parts_the_kinds_where_that_can_be_and_errs_least_elsewhere():
    assert 2 < best_threshold(torch.tensor([3.0, 4.0]), torch.tensor([1.0, 2.0])) < 3
    harmful, benign = torch.tensor([0.0, 5.0, 6.0, 7.0]), torch.tensor([1.0, 2.0, 3.0])
    assert 3 < best_threshold(harmful, benign) < 5


def test_a_detector_looks_at_every_prompt_once(chat_model):
    asked = []

    def signs(token_ids):
        asked.extend(token_ids)
        return [len(ids) for ids in token_ids]

    fitted = remembered(steered(chat_model, {1: torch.zeros(32)}, (1.0,), Detector(signs, 0, threshold=0.0)))
    assert fitted.signs([[1], [1, 2], [1]]) == [1, 2, 1]
    assert fitted.signs([[1, 2], [3, 4, 5]]) == [2, 3]
    assert asked == [[1], [1, 2], [3, 4, 5]]


def test_without_a_detector_all_prompts_are_treated_alike(chat_model):
    assert remembered(steered(chat_model, {1: torch.zeros(32)}, (1.0,))).signs([[1], [2]]) == [1, 1]
