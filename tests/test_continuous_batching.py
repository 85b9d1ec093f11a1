from itertools import combinations

import pytest
import torch
from transformers import GenerationConfig
from transformers.models.gemma2 import Gemma2Config
from transformers.models.mistral import MistralConfig
from transformers.models.qwen3_next import Qwen3NextConfig

from actor_tune.engines.continuous_batching import Slots, shared_prefix, slots_agree
from actor_tune.engines.local import local_engine
from actor_tune.errors import UserError
from actor_tune.models.chat import encode
from actor_tune.models.kv_cache import attends_to_all
from actor_tune.prompts.prompt import Prompt, with_system_prompt
from conftest import CONFIGS, make_model, make_prompts

BATCH_BY_BATCH = "answering batch by batch"
NEW_TOKENS = 12


def generate_alone(chat_model, token_ids, new_tokens):
    """Each prompt's new tokens by greedy `generate`, one prompt at a time."""
    answers = []
    for ids in token_ids:
        output = chat_model.model.generate(
            input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=new_tokens
        )
        answers.append(output[0, len(ids) :].tolist())
    return answers


def plant_ends(chat_model, token_ids):
    """Make ends of the two tokens that cut answers to the most lengths. Returns them, and all prompts' new tokens."""
    chat_model.model.generation_config = GenerationConfig(do_sample=False, pad_token_id=256)
    answers = generate_alone(chat_model, token_ids, NEW_TOKENS)

    def cut(tokens, ends):
        return tokens[: next((at for at, token in enumerate(tokens, start=1) if token in ends), NEW_TOKENS)]

    found = sorted({token for tokens in answers for token in tokens})
    ends = max(combinations(found, 2), key=lambda pair: len({len(cut(tokens, pair)) for tokens in answers}))
    chat_model.model.generation_config.eos_token_id = list(ends)
    expected = generate_alone(chat_model, token_ids, NEW_TOKENS)
    assert expected == [cut(tokens, ends) for tokens in answers]
    assert len({len(tokens) for tokens in expected}) >= 4
    return ends, expected


def mixed(prompts):
    """Prompts of many lengths."""
    return [
        Prompt(prompt.text + " and then" * (number % 5), prompt.kind, prompt.set)
        for number, prompt in enumerate(prompts)
    ]


@pytest.fixture(params=["llama", "qwen2", "gemma2", "gemma2_wide", "qwen3_moe"])
def family_model(request, monkeypatch):
    """gemma2 attends to 16 tokens in every other block, gemma2_wide to all that are there."""
    if request.param == "gemma2_wide":
        monkeypatch.setitem(
            CONFIGS, "gemma2_wide", Gemma2Config(**CONFIGS["gemma2"].to_dict() | {"sliding_window": 256})
        )
    chat_model = make_model(request.param)
    # A head of its own: with Gemma's, its embedding, an untrained model says the prompt's last token for ever.
    weight = torch.randn(chat_model.model.lm_head.weight.shape, generator=torch.Generator().manual_seed(1))
    chat_model.model.lm_head.weight = torch.nn.Parameter(weight, requires_grad=False)
    return chat_model


@pytest.mark.parametrize("system", [None, "Be kind and brief."])
@pytest.mark.parametrize("size", [5, 64])
def test_answers_are_those_of_generate_one_at_a_time(family_model, caplog, system, size):
    prompts = mixed(make_prompts(8))
    prompts = with_system_prompt(prompts, system) if system else prompts
    token_ids = encode(family_model.tokenizer, prompts)
    assert bool(shared_prefix(token_ids)) == bool(system)
    ends, expected = plant_ends(family_model, token_ids)
    with caplog.at_level("INFO"):
        answers = sorted(local_engine(family_model, size)(prompts, NEW_TOKENS), key=lambda answer: answer.row)
    assert [answer.text for answer in answers] == [
        family_model.tokenizer.decode(tokens, skip_special_tokens=True) for tokens in expected
    ]
    assert [answer.finished for answer in answers] == [tokens[-1] in ends for tokens in expected]
    assert (BATCH_BY_BATCH in caplog.text) == (family_model.name == "gemma2")


def test_no_token_is_computed_twice_or_after_an_end(chat_model, monkeypatch):
    prompts = with_system_prompt(mixed(make_prompts(8)), "Be kind and brief.")
    token_ids = encode(chat_model.tokenizer, prompts)
    prefix = len(shared_prefix(token_ids))
    _, expected = plant_ends(chat_model, token_ids)
    read, written = [], []

    def count(_module, _arguments, keywords):
        ids = keywords["input_ids"]
        if ids.shape[1] == 1:
            written.append(len(ids))
        else:
            read.append(int(keywords["attention_mask"][:, -ids.shape[1] :].sum()))

    monkeypatch.setattr("actor_tune.engines.local.slots_agree", lambda *_: True)
    chat_model.model.register_forward_pre_hook(count, with_kwargs=True)
    assert len(list(local_engine(chat_model, 5)(prompts, NEW_TOKENS))) == len(prompts)
    assert sum(read) == prefix + sum(len(ids) - prefix for ids in token_ids)
    assert sum(written) == sum(len(tokens) - 1 for tokens in expected)  # the model does not read an answer's last token
    assert max(written) == 5
    # Most passes are of full slots: answered prompts make room, without waiting for the others of their batch.
    assert len(written) < 1.25 * sum(written) / 5


def test_slots_refilled_and_dropped_in_any_order_give_the_logits_of_plain_passes(family_model):
    if family_model.name == "gemma2":
        pytest.skip("has blocks that slots cannot serve")
    prompts = with_system_prompt(mixed(make_prompts(3)), "Be kind and brief.")
    token_ids = encode(family_model.tokenizer, prompts)
    slots = Slots(family_model, shared_prefix(token_ids), 4)
    texts, waiting = [], list(token_ids)
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        for _ in range(30):
            while waiting and len(texts) < 4:
                new, waiting = waiting[: 4 - len(texts)][:2], waiting[len(waiting[: 4 - len(texts)][:2]) :]
                slots.admit(new)
                texts += [list(ids) for ids in new]
            tokens = torch.randint(0, 256, (len(texts),), generator=generator)
            texts = [[*ids, int(token)] for ids, token in zip(texts, tokens, strict=True)]
            logits = slots.advance(tokens)
            plain = torch.stack([family_model.model(torch.tensor([ids])).logits[0, -1] for ids in texts])
            torch.testing.assert_close(logits, plain, rtol=1e-3, atol=1e-3)
            kept = [slot for slot in range(len(texts)) if torch.rand((), generator=generator) > 0.2 or len(texts) == 1]
            texts = [texts[slot] for slot in slots.keep(kept)]
            assert len(slots) == len(texts) == len(kept)


def test_a_prompt_that_gives_nan_is_an_error_that_names_the_block_and_not_an_answer(chat_model):
    texts = ["a prompt", "another ~", "short"]
    token_ids = encode(chat_model.tokenizer, [Prompt(text, "harmless", "s") for text in texts])
    handle = chat_model.blocks[2].register_forward_hook(lambda _module, _arguments, output: output * float("inf"))
    with pytest.raises(UserError, match=r"block 2 returns NaN or infinity in float32; .*; try `dtype=bfloat16`, or"):
        Slots(chat_model, [], 4).admit(token_ids)
    handle.remove()
    chat_model.model.lm_head.weight *= 1e38
    with pytest.raises(UserError, match="its logits are NaN or infinity in float32"):
        Slots(chat_model, [], 4).admit(token_ids)


def test_a_model_whose_logits_depend_on_more_than_earlier_tokens_is_answered_batch_by_batch(
    chat_model, prompts, caplog
):
    def by_length(_module, arguments, output):
        return output + arguments[0].shape[1]

    other = make_model()
    assert slots_agree(Slots(other, [], 3), encode(other.tokenizer, prompts))
    handle = chat_model.blocks[1].mlp.register_forward_hook(by_length)
    assert len(list(local_engine(chat_model, None)(prompts, 3))) == len(prompts)
    assert BATCH_BY_BATCH in caplog.text
    handle.remove()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_rounding_is_no_disagreement(dtype):
    for family in sorted(set(CONFIGS) - {"gemma2"}):
        chat_model = make_model(family, dtype)
        token_ids = encode(chat_model.tokenizer, with_system_prompt(mixed(make_prompts(4)), "Be kind and brief."))
        assert slots_agree(Slots(chat_model, shared_prefix(token_ids), 3), token_ids)


@pytest.mark.parametrize(
    ("config", "columns", "shares"),
    [
        (CONFIGS["llama"], 10**6, True),
        (CONFIGS["gemma2"], 16, True),
        (CONFIGS["gemma2"], 17, False),
        (MistralConfig(num_hidden_layers=2, sliding_window=4096), 4097, False),
        (MistralConfig(num_hidden_layers=2, sliding_window=None), 4097, True),
        (Qwen3NextConfig(num_hidden_layers=4), 20, False),  # has linear attention
    ],
)
def test_only_blocks_that_attend_to_everything_share(config, columns, shares):
    assert attends_to_all(config, columns) == shares


@pytest.mark.parametrize(
    ("token_ids", "length"),
    [
        ([[*range(9), 20, 1], [*range(9), 21], [*range(9), 20, 2, 3]], 9),
        ([[*range(12)], [*range(9)]], 8),  # a token is left to each
        ([[*range(9)], [*range(9)]], 8),
        ([[*range(8)], [*range(8)]], 0),  # not worth it
        ([[*range(20)], [5, *range(20)]], 0),
        ([[*range(20)]], 19),
    ],
)
def test_the_shared_prefix_leaves_every_prompt_a_token(token_ids, length):
    assert shared_prefix(token_ids) == token_ids[0][:length]
