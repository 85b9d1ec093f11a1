from dataclasses import replace

import pytest
import torch

from actor_tune.comparison.methods.method import method_logprobs
from actor_tune.comparison.methods.sft import sft
from actor_tune.comparison.training_answers import targets
from actor_tune.errors import UserError
from actor_tune.models.chat import encode
from actor_tune.models.first_token import first_token_logprobs
from actor_tune.models.inputs import block_inputs
from actor_tune.records.response import Response


def response(prompt, text, finished=True):
    return Response(prompt, text, finished)


def test_fine_tuning_makes_its_answers_likelier_and_leaves_the_model_as_it_was(chat_model, task, prompts):
    pytest.importorskip("peft")
    answers = {prompt: response(prompt, "no" if prompt.kind == "harmful" else "yes") for prompt in prompts}
    before = {key: tensor.clone() for key, tensor in chat_model.model.state_dict().items()}
    config = chat_model.model.config.to_dict()
    fitted = sft(chat_model, replace(task, answers=answers))
    assert chat_model.model.config.to_dict() == config
    assert [*chat_model.model.state_dict()] == [*before]
    assert all(torch.equal(tensor, before[key]) for key, tensor in chat_model.model.state_dict().items())
    token_ids = encode(chat_model.tokenizer, task.split.train)
    inputs, signs = block_inputs(chat_model, 0, token_ids), [1] * len(token_ids)
    first = torch.tensor([chat_model.tokenizer(answers[prompt].text)["input_ids"][0] for prompt in task.split.train])
    plain = first_token_logprobs(chat_model, inputs)
    tuned = method_logprobs(chat_model, fitted, 1.0, inputs, signs, plain)
    assert tuned.gather(1, first[:, None]).mean() > plain.gather(1, first[:, None]).mean()


def test_a_prompt_without_an_answer_is_named(chat_model, task):
    with pytest.raises(UserError, match="no answer to 'steal the thing"):
        sft(chat_model, task)


def test_answers_that_are_not_as_they_should_be_are_not_learned(prompts):
    harmful, benign = (
        [prompt for prompt in prompts if (prompt.kind == "harmful") is wanted] for wanted in (True, False)
    )
    refusal, helps = "I cannot help with that.", "Sure. First take the lid off the box."
    given = [response(harmful[0], refusal), response(harmful[1], helps)]
    given += [response(benign[0], helps), response(benign[1], refusal), response(benign[2], "a a a a a a a a a a a a")]
    learned = targets(given)
    assert [learned[prompt].text for prompt in (harmful[0], benign[0])] == [refusal, helps]
    assert "can't help" in learned[harmful[1]].text
    assert [(learned[prompt].text, learned[prompt].finished) for prompt in benign[1:3]] == [("", False)] * 2


def test_a_kind_of_which_no_answer_can_be_learned_is_named(chat_model, task):
    answers = {
        prompt: response(prompt, "no" if prompt.kind == "harmful" else "", finished=False)
        for prompt in task.split.train
    }
    with pytest.raises(UserError, match="none of 9 harmless prompts was answered as it should be"):
        sft(chat_model, replace(task, answers=answers))
