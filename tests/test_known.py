import pytest
import torch

from actor_tune.comparison.methods.known import DEFAULT, KNOWN, METHODS, STEERING
from actor_tune.comparison.methods.method import method_logprobs
from actor_tune.models.chat import encode
from actor_tune.models.first_token import first_token_logprobs
from actor_tune.models.inputs import block_inputs


@pytest.mark.parametrize("name", [name for name, known in KNOWN.items() if not known.learns])
def test_a_method_changes_first_tokens_and_leaves_the_model_as_it_was(saved_model, task, name):
    before = {key: tensor.clone() for key, tensor in saved_model.model.state_dict().items()}
    fitted = KNOWN[name].method(saved_model, task)
    token_ids = encode(saved_model.tokenizer, task.split.validation)
    inputs = block_inputs(saved_model, fitted.layer, token_ids)
    plain = first_token_logprobs(saved_model, inputs)
    changed = method_logprobs(saved_model, fitted, fitted.strengths[-1], inputs, fitted.signs(token_ids), plain)
    assert not torch.allclose(plain, changed, atol=1e-3)
    assert torch.equal(first_token_logprobs(saved_model, inputs), plain)
    assert all(torch.equal(tensor, before[key]) for key, tensor in saved_model.model.state_dict().items())


def test_what_is_compared_unless_something_else_is_named_is_every_method_but_the_special_ones():
    assert METHODS == (
        "default",
        "actor",
        "paper",
        "uniform",
        "sft",
        "cae",
        "random-direction",
        "surgical",
        "scans",
        "inferaligner",
    )
    assert [*KNOWN] == [METHODS[1], "boundary", "odds", *METHODS[2:], "ablation", "upcore", "random-subset", "crow"]
    assert (*METHODS[5:], "ablation") == STEERING
    assert {name: known.learns for name, known in KNOWN.items() if known.learns} == {
        "sft": ("harmful", "harmless", "pseudo_harmful"),
        "crow": ("harmless",),
    }
    assert DEFAULT not in KNOWN
