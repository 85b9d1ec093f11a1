import dataclasses

import pytest
import torch

from actor_tune.comparison.lora import adapted, answer_examples, answer_loss, collator, train_adapters
from actor_tune.comparison.methods.crow import ALPHA, crow, crow_loss, inconsistency
from actor_tune.errors import UserError
from actor_tune.records.response import Response
from actor_tune.repair.consistency import EPSILON


@pytest.fixture
def batch(chat_model, prompts):
    answers = [
        Response(prompts[0], "yes", finished=True),
        Response(prompts[13], "as far as one can tell", finished=True),
    ]
    return collator(chat_model.pad_id)(answer_examples(chat_model.tokenizer, answers))


def test_inconsistency_is_one_minus_the_cosine_of_neighbours_without_padding():
    first = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [5.0, 5.0]]])
    second = torch.tensor([[[0.0, 2.0], [3.0, 0.0], [-1.0, 0.0]]])
    third = torch.tensor([[[0.0, -1.0], [3.0, 0.0], [0.0, 1.0]]])
    mask = torch.tensor([[1, 1, 0]])
    # First pair: 1 and 0; second pair: 2 and 0.
    assert inconsistency([first, second, third], mask).item() == pytest.approx((0.5 + 1.0) / 2)


def outputs_of_blocks(chat_model, embeddings, mask):
    """What all blocks but the last return, seen by hooks."""
    seen = []
    hooks = [block.register_forward_hook(lambda *call: seen.append(call[2])) for block in chat_model.blocks[:-1]]
    chat_model.model(inputs_embeds=embeddings, attention_mask=mask)
    for hook in hooks:
        hook.remove()
    return [found[0] if isinstance(found, tuple) else found for found in seen]


def test_the_loss_is_that_of_answers_and_of_states_at_embeddings_moved_against_it(chat_model, batch):
    mask = batch["attention_mask"]
    embeddings = chat_model.model.get_input_embeddings()(batch["input_ids"]).detach().requires_grad_(True)
    inconsistency(outputs_of_blocks(chat_model, embeddings, mask), mask).backward()
    moved = embeddings.detach() + EPSILON * embeddings.detach().std(-1, keepdim=True) * embeddings.grad.sign()
    expected = inconsistency(outputs_of_blocks(chat_model, moved, mask), mask)
    calm = inconsistency(outputs_of_blocks(chat_model, embeddings, mask), mask)
    assert expected > calm
    found = crow_loss(chat_model.model, batch)
    assert found.item() == pytest.approx((answer_loss(chat_model.model, batch) + ALPHA * expected).item(), rel=1e-4)


def test_states_become_more_consistent_than_by_learning_the_same_answers_alone(chat_model, task, batch):
    pytest.importorskip("peft")
    harmless = [prompt for prompt in task.split.train if prompt.kind == "harmless"]
    answers = {prompt: Response(prompt, "yes", finished=True) for prompt in harmless}  # to no other prompt
    examples = answer_examples(chat_model.tokenizer, [*answers.values()])
    plain = train_adapters(chat_model, examples, task.seed)
    mask = batch["attention_mask"]
    embeddings = chat_model.model.get_input_embeddings()(batch["input_ids"]).detach()
    found = []
    fitted = crow(chat_model, dataclasses.replace(task, answers=answers))
    for change in (adapted(chat_model, plain, 1.0), fitted.changed(1.0, 1)):
        with change:
            found.append(inconsistency(outputs_of_blocks(chat_model, embeddings, mask), mask).item())
    assert found[1] < found[0]


def test_a_model_of_two_blocks_is_refused_in_a_sentence(task, chat_model):
    short = dataclasses.replace(chat_model, blocks=chat_model.blocks[:2])
    with pytest.raises(UserError, match="2 blocks"):
        crow(short, task)
