import pytest
import torch

from actor_tune.chat import encode
from actor_tune.errors import UserError
from actor_tune.inputs import block_inputs
from actor_tune.methods.method import method_logprobs
from actor_tune.methods.sft import (
    Adapter,
    adapted,
    answer_loss,
    collator,
    sft,
    sft_examples,
    shared_opening,
    targets,
    train_adapters,
)
from actor_tune.prompts import with_system_prompt
from actor_tune.respond import Response
from actor_tune.strength import first_token_logprobs
from conftest import make_prompts


def response(prompt, text, finished=True):
    return Response(prompt, text, finished)


def test_an_adapter_adds_what_the_merged_weights_would(chat_model, prompts):
    name = next(name for name, _ in chat_model.model.named_modules() if name.endswith("q_proj"))
    linear = chat_model.model.get_submodule(name)
    adapter = Adapter(torch.randn(4, linear.in_features), torch.randn(linear.out_features, 4), scale=2.0)
    ids = torch.tensor([encode(chat_model.tokenizer, prompts)[0]])
    with torch.no_grad():
        with adapted(chat_model, {name: adapter}, 0.5):
            found = chat_model.model(ids).logits
        plain = chat_model.model(ids).logits
        linear.weight += 0.5 * 2.0 * adapter.up @ adapter.down
        merged = chat_model.model(ids).logits
    assert torch.allclose(found, merged, atol=1e-4)
    assert not torch.allclose(plain, merged, atol=1e-2)


def test_only_the_answer_is_learned_and_its_end_only_where_it_ended(chat_model, prompts):
    ended, cut = sft_examples(chat_model.tokenizer, [response(prompts[0], "no"), response(prompts[0], "no", False)])
    assert ended["answer_ids"] == [*cut["answer_ids"], chat_model.tokenizer.eos_token_id]
    assert ended["input_ids"] == encode(chat_model.tokenizer, prompts[:1])[0] + ended["answer_ids"]


def test_fine_tuning_makes_its_answers_likelier_and_leaves_the_model_as_it_was(chat_model, task, prompts):
    pytest.importorskip("peft")
    answers = {prompt: response(prompt, "no" if prompt.kind == "harmful" else "yes") for prompt in prompts}
    before = {key: tensor.clone() for key, tensor in chat_model.model.state_dict().items()}
    config = chat_model.model.config.to_dict()
    fitted = sft(answers)(chat_model, task)
    assert chat_model.model.config.to_dict() == config
    assert [*chat_model.model.state_dict()] == [*before]
    assert all(torch.equal(tensor, before[key]) for key, tensor in chat_model.model.state_dict().items())
    token_ids = encode(chat_model.tokenizer, task.split.train)
    inputs, signs = block_inputs(chat_model, 0, token_ids), [1] * len(token_ids)
    first = torch.tensor([chat_model.tokenizer(answers[prompt].text)["input_ids"][0] for prompt in task.split.train])
    plain = first_token_logprobs(chat_model, inputs)
    tuned = method_logprobs(chat_model, fitted, 1.0, inputs, signs, plain)
    assert tuned.gather(1, first[:, None]).mean() > plain.gather(1, first[:, None]).mean()


def test_adapters_are_trained_on_every_linear_layer_but_the_head(chat_model, task, prompts):
    pytest.importorskip("peft")
    examples = sft_examples(chat_model.tokenizer, [response(prompt, "yes") for prompt in prompts[:4]])
    adapters = train_adapters(chat_model, examples, seed=0, max_steps=1)
    names = {name for name, module in chat_model.model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert set(adapters) == names - {"lm_head"}


def test_a_prompt_without_an_answer_is_named(chat_model, task):
    with pytest.raises(UserError, match="no answer to 'steal the thing"):
        sft({})(chat_model, task)


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


def test_the_loss_is_that_of_the_answers_tokens_with_the_head_run_on_all(chat_model, prompts):
    answers = [response(prompts[0], "no"), response(prompts[13], "yes it is, as far as one can tell")]
    batch = collator(chat_model.pad_id)(sft_examples(chat_model.tokenizer, answers))
    logits = chat_model.model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    learned = batch["labels"][:, 1:] != -100
    wanted = logits.log_softmax(-1).gather(2, batch["input_ids"][:, 1:, None])[..., 0][learned]
    assert learned.sum() == sum(len(chat_model.tokenizer(answer.text)["input_ids"]) + 1 for answer in answers)
    assert answer_loss(chat_model.model, batch).item() == pytest.approx(-wanted.mean().item(), rel=1e-5)


def test_an_opening_run_once_changes_neither_the_loss_nor_its_gradients(any_family):
    prompts = with_system_prompt(make_prompts(), "You are the friendly assistant.")
    answers = [response(prompts[row], text) for row, text in ((0, "no"), (13, "yes it is"), (25, "perhaps"))]
    examples = sft_examples(any_family.tokenizer, answers)
    opening = shared_opening(any_family, examples)
    if any_family.model.config.model_type == "gemma2":  # its window is too short for it to be exact
        assert opening == 0
        return
    assert opening > 30
    batch, weight = collator(any_family.pad_id)(examples), next(any_family.blocks[0].parameters())
    weight.requires_grad_(True)
    found = []
    for shared in (0, opening):
        loss = answer_loss(any_family.model, batch, shared)
        found.append((loss.item(), *torch.autograd.grad(loss, weight)))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-5)
    assert found[0][1].abs().max() > 1e-4


def test_a_kind_of_which_no_answer_can_be_learned_is_named(chat_model, task):
    answers = {
        prompt: response(prompt, "no" if prompt.kind == "harmful" else "", finished=False)
        for prompt in task.split.train
    }
    with pytest.raises(UserError, match="none of 9 harmless prompts was answered as it should be"):
        sft(answers)(chat_model, task)
