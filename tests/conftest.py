"""Tiny models built from configs and a byte tokenizer: nothing is downloaded, unless `--run-slow` is given."""

import copy
import os
from pathlib import Path

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.models.gemma2 import Gemma2Config
from transformers.models.llama import LlamaConfig
from transformers.models.qwen2 import Qwen2Config
from transformers.models.qwen3_moe import Qwen3MoeConfig

import families
from actor_tune.comparison.methods.method import Task
from actor_tune.models.load import load
from actor_tune.models.model import ChatModel, wrap
from actor_tune.prompts.prompt import Prompt, with_system_prompt
from actor_tune.prompts.split import split_validation
from actor_tune.repair.odds import RefusalStart
from actor_tune.repair.refusals import Refusals

TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
# Tied, where a family ties its embeddings.
SIZES = {name: value for name, value in families.SIZES.items() if name != "tie_word_embeddings"}

CONFIGS = {
    "llama": LlamaConfig(**SIZES),
    "qwen2": Qwen2Config(**{key: value for key, value in SIZES.items() if key != "head_dim"}),
    "gemma2": Gemma2Config(**SIZES, sliding_window=16),
    "qwen3_moe": Qwen3MoeConfig(**SIZES, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24),
}


def pytest_addoption(parser):
    parser.addoption(
        "--run-slow",
        action="store_true",
        default=os.environ.get("RUN_SLOW") == "1",
        help="also run tests that build the real testbed model (minutes); RUN_SLOW=1 does the same",
    )


def pytest_collection_modifyitems(config, items):
    skipped = {}
    if os.environ.get("RUN_HOURS") != "1":
        skipped["hours"] = pytest.mark.skip(reason="half an hour or more: run with RUN_HOURS=1")
    if not config.getoption("--run-slow"):
        skipped["slow"] = pytest.mark.skip(reason="needs the real testbed model, minutes: run with --run-slow")
        if os.environ.get("RUN_LONG") != "1":
            skipped["long"] = pytest.mark.skip(reason="one of many alike: run with --run-slow")
    for item in items:
        for name, skip in skipped.items():
            if name in item.keywords:
                item.add_marker(skip)


def make_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {character: index for index, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>", chat_template=TEMPLATE
    )


def make_model(family: str = "llama", dtype: torch.dtype = torch.float32) -> ChatModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS[family])).to(dtype).eval().requires_grad_(False)
    return wrap(model, make_tokenizer(), family)


def save_model(chat_model: ChatModel, folder: Path) -> Path:
    chat_model.model.save_pretrained(folder)
    chat_model.tokenizer.save_pretrained(folder)
    return folder


def make_prompts(count: int = 12) -> list[Prompt]:
    """`count` of each kind; kinds differ in their words, so that even an untrained model tells them apart."""
    words = {"harmful": "steal the {} now", "harmless": "name a {}?", "pseudo_harmful": "steal the {} scene"}
    things = [f"thing {number * 7919 % 100}" for number in range(count)]
    return [Prompt(text.format(thing), kind, f"set_{kind}") for kind, text in words.items() for thing in things]


@pytest.fixture
def chat_model() -> ChatModel:
    return make_model()


@pytest.fixture(scope="session")
def testbed_model(tmp_path_factory) -> Path:
    """The real testbed model, built once for all slow tests."""
    from test_cli import run

    folder = tmp_path_factory.mktemp("testbed") / "model"
    assert run("testbed", "--output-dir", folder) == 0
    return folder


@pytest.fixture(autouse=True)
def short_gate_answers(request, monkeypatch) -> None:
    """Tiny models babble: two tokens of that are as good as 24. Real ones, in tests so marked, are not cut short."""
    if not {"slow", "hours"} & set(request.keywords):
        for module in ("gate", "refusals"):
            monkeypatch.setattr(f"actor_tune.repair.{module}.ANSWER_TOKENS", 2)


@pytest.fixture
def prompts() -> list[Prompt]:
    return make_prompts()


@pytest.fixture
def task(prompts) -> Task:
    """What a method to compare learns from."""
    refusals = Refusals([], [], [], RefusalStart(torch.tensor([65, 66])), [], None)
    return Task(split_validation(prompts, 0.25, 0), layer=1, seed=0, refusals=refusals)


@pytest.fixture
def saved_model(model_folder) -> ChatModel:
    """A model loaded from disk, for what reads its checkpoint too."""
    return load(str(model_folder))


@pytest.fixture(params=sorted(CONFIGS))
def any_family(request) -> ChatModel:
    return make_model(request.param)


@pytest.fixture(params=["apart", "together"])
def opened_prompts(request) -> list[Prompt]:
    """Prompts with and without a system prompt, which makes an opening that all of them share."""
    prompts = make_prompts()
    return with_system_prompt(prompts, "You are the friendly assistant.") if request.param == "apart" else prompts


@pytest.fixture
def model_folder(tmp_path) -> Path:
    """A saved tiny Llama, in bfloat16 as most checkpoints are."""
    return save_model(make_model(dtype=torch.bfloat16), tmp_path / "model")


@torch.inference_mode()
def plain_logprobs(chat_model: ChatModel, token_ids: list[list[int]]) -> torch.Tensor:
    """Log-probabilities of the first answer token, one prompt at a time and without padding: (prompt, vocabulary)."""
    logits = [chat_model.model(torch.tensor([ids])).logits[0, -1] for ids in token_ids]
    return torch.stack(logits).float().log_softmax(dim=-1)
