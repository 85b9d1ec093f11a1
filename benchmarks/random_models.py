"""Llamas of random weights, as checkpoints or in memory, a tokenizer of bytes, and prompts for them."""

import json
import random
import shutil
from dataclasses import astuple, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, PreTrainedTokenizerFast

import actor_tune as at
from actor_tune.prompts.prompt import KINDS, Kind

from .common import say


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama."""

    blocks: int
    d_model: int
    d_ff: int
    heads: int
    kv_heads: int
    vocabulary: int


SHAPES = {
    "tiny": Shape(4, 64, 128, 4, 2, 512),
    "testbed": Shape(30, 576, 1536, 9, 3, 49152),
    "llama-2-7b": Shape(32, 4096, 11008, 32, 32, 32000),
    "llama-3-8b": Shape(32, 4096, 14336, 32, 8, 128256),
    "llama-3-70b": Shape(80, 8192, 28672, 64, 8, 128256),
    "llama-3-405b": Shape(126, 16384, 53248, 128, 8, 128256),
}

PEAKY = 8.0
"""Standard deviation of random logits: large, so that a few tokens have most of the probability, as in real models."""


def llama_config(shape: Shape) -> LlamaConfig:
    """A Llama of that shape whose special tokens are those of `byte_tokenizer`."""
    return LlamaConfig(
        num_hidden_layers=shape.blocks,
        hidden_size=shape.d_model,
        intermediate_size=shape.d_ff,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        vocab_size=shape.vocabulary,
        max_position_embeddings=4096,
        pad_token_id=256,
        bos_token_id=257,
        eos_token_id=257,
        tie_word_embeddings=False,
        architectures=["LlamaForCausalLM"],
        dtype="bfloat16",
    )


@torch.no_grad()
def fill(name: str, tensor: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Random weights for the tensor called `name`, in place: norms are 1, and matrices keep the length of vectors.

    So the last token's activation carries what it has read, and prompts of different words get different answers.
    """
    if tensor.dim() == 1:
        return tensor.fill_(1)
    if "embed" in name:
        return tensor.normal_(generator=generator)
    gain = PEAKY if "lm_head" in name else 1.0
    return tensor.normal_(0, gain / tensor.shape[1] ** 0.5, generator=generator)


def random_checkpoint(work: Path, shape: Shape) -> Path:
    """A bfloat16 checkpoint of random weights in `work`, one file a block; built once, one file at a time."""
    folder = work / "-".join(["llama", *map(str, astuple(shape))])
    if folder.is_dir():  # It got its name when it was whole.
        return folder
    say(f"building {folder.name}")
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    config = llama_config(shape)
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).state_dict()
    # model.layers.7.mlp.up_proj.weight is in model-7, model.embed_tokens.weight in model-model.
    files = {name: f"model-{name.removeprefix('model.layers.').split('.')[0]}.safetensors" for name in empty}
    generator = torch.Generator().manual_seed(0)
    for file in dict.fromkeys(files.values()):
        names = [name for name in empty if files[name] == file]
        tensors = {name: fill(name, torch.empty_like(empty[name], device="cpu"), generator) for name in names}
        save_file(tensors, partial / file, metadata={"format": "pt"})
    index = {"metadata": {"total_size": sum(tensor.nbytes for tensor in empty.values())}, "weight_map": files}
    (partial / "model.safetensors.index.json").write_text(json.dumps(index))
    config.save_pretrained(partial)
    byte_tokenizer().save_pretrained(partial)
    return partial.rename(folder)


def random_model(shape: Shape, device: str, dtype: torch.dtype) -> PreTrainedModel:
    """A model of random weights, made on `device` itself."""
    with torch.device(device):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(llama_config(shape), dtype=dtype)
    for name, tensor in model.named_parameters():
        fill(name, tensor)
    return model


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of single bytes with a chat template, which fits any vocabulary of 260 or more."""
    vocabulary = {character: index for index, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(f"<|{name}|>", special=True) for name in ("pad", "end", "user", "model")])
    template = (
        "{% for message in messages %}<|user|>{{ message.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|model|>{% endif %}"
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>", chat_template=template
    )


TEMPLATE_TOKENS = 3
LETTERS: dict[Kind, str] = {"harmful": "abcdefgh", "harmless": "opqrstuv", "pseudo_harmful": "abcdopqr"}
"""What random prompts of each kind are written in, so that even random weights tell them apart."""


def random_prompts(count: int, shortest: int = 10, longest: int = 120, seed: int = 0) -> list[at.Prompt]:
    """`count` different prompts, kinds in turn, of `shortest` to `longest` tokens of `byte_tokenizer`, log-uniform."""
    chooser = random.Random(seed)
    prompts = []
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        length = round(shortest * (longest / shortest) ** chooser.random()) - TEMPLATE_TOKENS
        text = f"{number} "
        prompts.append(
            at.Prompt(text + "".join(chooser.choices(LETTERS[kind], k=max(1, length - len(text)))), kind, kind)
        )
    return prompts
