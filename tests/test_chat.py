import pytest

from actor_tune.errors import UserError
from actor_tune.models.chat import encode
from actor_tune.prompts.prompt import Message, Prompt
from conftest import make_tokenizer


def decoded(prompt, tokenizer):
    return tokenizer.decode(encode(tokenizer, [prompt])[0])


def test_a_conversation_is_encoded_turn_by_turn_up_to_the_answer():
    context = (Message("system", "Be brief."), Message("user", "Hi"), Message("assistant", "Hello"))
    text = decoded(Prompt("And now?", "harmless", "s", context), make_tokenizer())
    assert text == (
        "<|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>Hello<|end|><|user|>And now?<|end|><|assistant|>"
    )


def test_a_template_that_takes_no_system_prompt_is_named():
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(UserError, match="the chat template says: System role not supported"):
        encode(tokenizer, [Prompt("x", "harmless", "s")])


def test_a_tokenizer_without_a_chat_template_is_refused():
    tokenizer = make_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="the tokenizer has no chat template"):
        encode(tokenizer, [Prompt("x", "harmless", "s")])
