import pytest
import torch

from actor_tune.comparison.lora import (
    Adapter,
    adapted,
    answer_examples,
    answer_loss,
    collator,
    shared_opening,
    train_adapters,
)
from actor_tune.models.chat import encode
from actor_tune.prompts.prompt import with_system_prompt
from actor_tune.records.response import Response
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
    ended, cut = answer_examples(chat_model.tokenizer, [response(prompts[0], "no"), response(prompts[0], "no", False)])
    assert ended["answer_ids"] == [*cut["answer_ids"], chat_model.tokenizer.eos_token_id]
    assert ended["input_ids"] == encode(chat_model.tokenizer, prompts[:1])[0] + ended["answer_ids"]


def test_adapters_are_trained_on_every_linear_layer_but_the_head(chat_model, task, prompts):
    pytest.importorskip("peft")
    examples = answer_examples(chat_model.tokenizer, [response(prompt, "yes") for prompt in prompts[:4]])
    adapters = train_adapters(chat_model, examples, seed=0, max_steps=1)
    names = {name for name, module in chat_model.model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert set(adapters) == names - {"lm_head"}


def test_the_loss_is_that_of_the_answers_tokens_with_the_head_run_on_all(chat_model, prompts):
    answers = [response(prompts[0], "no"), response(prompts[13], "yes it is, as far as one can tell")]
    batch = collator(chat_model.pad_id)(answer_examples(chat_model.tokenizer, answers))
    logits = chat_model.model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    learned = batch["labels"][:, 1:] != -100
    wanted = logits.log_softmax(-1).gather(2, batch["input_ids"][:, 1:, None])[..., 0][learned]
    assert learned.sum() == sum(len(chat_model.tokenizer(answer.text)["input_ids"]) + 1 for answer in answers)
    assert answer_loss(chat_model.model, batch).item() == pytest.approx(-wanted.mean().item(), rel=1e-5)


def test_an_opening_run_once_changes_neither_the_loss_nor_its_gradients(any_family):
    prompts = with_system_prompt(make_prompts(), "You are the friendly assistant.")
    answers = [response(prompts[row], text) for row, text in ((0, "no"), (13, "yes it is"), (25, "perhaps"))]
    examples = answer_examples(any_family.tokenizer, answers)
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
