"""Each method on planted activations and on a tiny model."""

import pytest
import torch

from actor_tune.chat import encode
from actor_tune.errors import UserError
from actor_tune.inputs import block_inputs, last_activations
from actor_tune.methods import Task
from actor_tune.methods.cae import cae, random_direction
from actor_tune.methods.inferaligner import inferaligner
from actor_tune.methods.known import CORESETS, DEFAULT, METHODS, methods
from actor_tune.methods.method import method_logprobs, rows_of_kind
from actor_tune.methods.scans import scans
from actor_tune.methods.sft import Adapter, adapted, refusals, sft, sft_examples, train_adapters
from actor_tune.methods.surgical import false_refusal_vector
from actor_tune.prompts import split_validation
from actor_tune.respond import Response
from actor_tune.strength import first_token_logprobs


@pytest.fixture
def task(prompts):
    return Task(prompts, split_validation(prompts, 0.25, 0), layer=1, seed=0, starter=False)


@pytest.mark.parametrize(
    "name", [name for name in METHODS if name not in (DEFAULT, "sft", "actor", "paper", "uniform")]
)
def test_a_method_changes_first_tokens_and_leaves_the_model_as_it_was(chat_model, task, name):
    before = {key: tensor.clone() for key, tensor in chat_model.model.state_dict().items()}
    fitted = methods({})[name](chat_model, task)
    token_ids = encode(chat_model.tokenizer, task.split.validation)
    inputs = block_inputs(chat_model, fitted.layer, token_ids)
    plain = first_token_logprobs(chat_model, inputs)
    changed = method_logprobs(chat_model, fitted, fitted.strengths[-1], inputs, fitted.signs(token_ids), plain)
    assert not torch.allclose(plain, changed, atol=1e-3)
    assert torch.equal(first_token_logprobs(chat_model, inputs), plain)
    assert all(torch.equal(tensor, before[key]) for key, tensor in chat_model.model.state_dict().items())


def test_cae_at_strength_1_moves_the_harmful_mean_to_the_harmless_one(chat_model, task):
    fitted = cae(chat_model, task)
    train = task.split.train
    token_ids = encode(chat_model.tokenizer, train)
    harmful, harmless = (rows_of_kind(train, kind) for kind in ("harmful", "harmless"))
    plain = last_activations(chat_model, token_ids, [1])[1]
    with fitted.changed(1.0, 1):
        moved = last_activations(chat_model, token_ids, [1])[1]
    # The hook that reads was there after the one that steers, so it sees what the next block sees.
    assert torch.allclose(moved[harmful].mean(dim=0), plain[harmless].mean(dim=0), atol=1e-4)


def test_the_random_control_is_as_long_as_the_vector_and_another_with_another_seed(chat_model, task):
    token_ids = encode(chat_model.tokenizer, task.split.train[:2])
    plain = last_activations(chat_model, token_ids, [1])[1]

    def shift(fitted):
        with fitted.changed(1.0, 1):
            return (last_activations(chat_model, token_ids, [1])[1] - plain)[0]

    other = Task(task.given, task.split, 1, seed=1, starter=False)
    vector, drawn, again = (
        shift(each)
        for each in (cae(chat_model, task), random_direction(chat_model, task), random_direction(chat_model, other))
    )
    assert drawn.norm() == pytest.approx(float(vector.norm()), rel=1e-4)
    assert abs(torch.cosine_similarity(drawn, again, dim=0)) < 0.9


def test_the_false_refusal_vector_is_orthogonal_to_the_true_one():
    false, true = torch.tensor([3.0, 4.0, 0.0]), torch.tensor([1.0, 0.0, 0.0])
    assert torch.allclose(false_refusal_vector(false, true), torch.tensor([0.0, 1.0, 0.0]))


def planted(chat_model):
    """Last-token activations by kind, told by the words: harmful at 1, pseudo-harmful at 0.4, harmless at 0."""

    def read(_chat_model, token_ids, layers):
        texts = [chat_model.tokenizer.decode(ids) for ids in token_ids]
        places = [1.0 if "now" in text else 0.4 if "scene" in text else 0.0 for text in texts]
        noise = 0.05 * torch.randn(len(texts), 32, generator=torch.Generator().manual_seed(0))
        rows = noise + torch.tensor(places)[:, None] * torch.eye(32)[0]
        return dict.fromkeys(layers, rows)

    return read


def test_inferaligners_gate_lets_benign_prompts_through_and_no_harmful_one(chat_model, task, monkeypatch):
    monkeypatch.setattr("actor_tune.methods.inferaligner.last_activations", planted(chat_model))
    fitted = inferaligner(chat_model, task)
    assert 0.4 < fitted.figures["threshold"] < 1
    signs = fitted.signs(encode(chat_model.tokenizer, task.given))
    assert fitted.harmful_sign == 0
    assert [sign == 0 for sign in signs] == [prompt.kind == "harmful" for prompt in task.given]


def test_scans_steers_prompts_that_move_as_harmful_ones_do_towards_refusal(chat_model, task):
    """Kinds differ in their words, which even an untrained model sees."""
    fitted = scans(chat_model, task)
    assert fitted.harmful_sign == 1
    signs = fitted.signs(encode(chat_model.tokenizer, task.given))
    caught = [signs[row] == 1 for row in rows_of_kind(task.given, "harmful")]
    passed = [signs[row] == -1 for row in rows_of_kind(task.given, "harmless")]
    assert sum(caught) / len(caught) + sum(passed) / len(passed) > 1.5


def test_every_method_but_the_default_is_known_by_name():
    assert [DEFAULT, *methods({})] == [*METHODS, *CORESETS]


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


def test_fine_tuning_makes_its_answers_likelier_and_leaves_the_model_as_it_was(chat_model, task):
    pytest.importorskip("peft")
    answers = {prompt: response(prompt, "no" if prompt.kind == "harmful" else "yes") for prompt in task.given}
    before = {key: tensor.clone() for key, tensor in chat_model.model.state_dict().items()}
    fitted = sft(answers)(chat_model, task)
    assert [*chat_model.model.state_dict()] == [*before]
    assert all(torch.equal(tensor, before[key]) for key, tensor in chat_model.model.state_dict().items())
    token_ids = encode(chat_model.tokenizer, task.split.train)
    inputs, signs = block_inputs(chat_model, 0, token_ids), [1] * len(token_ids)
    first = torch.tensor([chat_model.tokenizer(answers[prompt].text)["input_ids"][0] for prompt in task.split.train])
    plain = first_token_logprobs(chat_model, inputs)
    tuned = method_logprobs(chat_model, fitted, 1.0, inputs, signs, plain)
    assert tuned.gather(1, first[:, None]).mean() > plain.gather(1, first[:, None]).mean()


def test_adapters_are_trained_on_every_linear_layer_but_the_head(chat_model, task):
    pytest.importorskip("peft")
    examples = sft_examples(chat_model.tokenizer, [response(prompt, "yes") for prompt in task.given[:4]])
    adapters = train_adapters(chat_model, examples, seed=0, max_steps=1)
    names = {name for name, module in chat_model.model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert set(adapters) == names - {"lm_head"}


def test_a_prompt_without_an_answer_is_named(chat_model, task):
    with pytest.raises(UserError, match="no answer to 'steal the thing"):
        sft({})(chat_model, task)


def test_harmful_prompts_that_the_model_answers_are_learned_as_refused(prompts):
    own = [
        response(prompts[0], "I cannot help with that."),
        response(prompts[1], "Sure. First take the lid off the box."),
    ]
    learned = refusals(own)
    assert learned[prompts[0]].text == own[0].text
    assert "can't help" in learned[prompts[1]].text
