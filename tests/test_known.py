import pytest
import torch

from actor_tune.chat import encode
from actor_tune.inputs import block_inputs
from actor_tune.methods.known import DEFAULT, FINE_TUNING, METHODS, SPECIAL, methods
from actor_tune.methods.method import method_logprobs
from actor_tune.strength import first_token_logprobs


@pytest.mark.parametrize("name", [name for name in [*METHODS, *SPECIAL] if name not in (DEFAULT, *FINE_TUNING)])
def test_a_method_changes_first_tokens_and_leaves_the_model_as_it_was(saved_model, task, name):
    before = {key: tensor.clone() for key, tensor in saved_model.model.state_dict().items()}
    fitted = methods({})[name](saved_model, task)
    token_ids = encode(saved_model.tokenizer, task.split.validation)
    inputs = block_inputs(saved_model, fitted.layer, token_ids)
    plain = first_token_logprobs(saved_model, inputs)
    changed = method_logprobs(saved_model, fitted, fitted.strengths[-1], inputs, fitted.signs(token_ids), plain)
    assert not torch.allclose(plain, changed, atol=1e-3)
    assert torch.equal(first_token_logprobs(saved_model, inputs), plain)
    assert all(torch.equal(tensor, before[key]) for key, tensor in saved_model.model.state_dict().items())


def test_every_method_but_the_default_is_known_by_name():
    assert [DEFAULT, *methods({})] == [*METHODS, *SPECIAL]
