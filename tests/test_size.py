from pathlib import Path

import psutil
import pytest
import torch
from transformers.models.llama import LlamaConfig
from transformers.models.mamba import MambaConfig

from actor_tune.errors import UserError
from actor_tune.models.origin import Origin
from actor_tune.models.size import ModelSize, model_size
from actor_tune.models.structure import load_config
from conftest import CONFIGS, make_model

PLANTED = LlamaConfig(
    vocab_size=100,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=6,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=4,
    tie_word_embeddings=False,
    dtype="bfloat16",
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
BLOCK = 16 * 16 + 16 * 8 + 16 * 8 + 16 * 16 + 3 * 16 * 24 + 2 * 16  # queries, keys, values, output, MLP, norms
SIZE = ModelSize((BLOCK,) * 6, (BLOCK - 32,) * 6, 2 * 1600 + 16, 1600, 16, 100, 96, 2)
LLAMA_2_7B = LlamaConfig(
    vocab_size=32000,
    hidden_size=4096,
    intermediate_size=11008,
    num_hidden_layers=32,
    num_attention_heads=32,
    tie_word_embeddings=False,
    dtype="bfloat16",
)


def size_of(config, folder: Path) -> ModelSize:
    config.save_pretrained(folder)
    return model_size(load_config("m", Origin(folder)))


def test_parameters_are_counted_from_the_config(tmp_path):
    assert BLOCK == 1952
    assert size_of(PLANTED, tmp_path) == SIZE


def test_a_tied_head_is_counted_once(tmp_path):
    tied = LlamaConfig(**{**PLANTED.to_dict(), "tie_word_embeddings": True})
    assert size_of(tied, tmp_path).other_parameters == 1600 + 16


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_every_family_is_counted_as_its_real_model(tmp_path, family):
    size = size_of(CONFIGS[family], tmp_path)
    model = make_model(family).model
    cache = model(torch.tensor([[1, 2, 3]]), use_cache=True).past_key_values
    assert sum(size.blocks) + size.other_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert size.kv_values_per_token == sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers) / 3
    assert size.stored_bytes == 4


def test_experts_are_not_in_linear_layers_that_are_packed(tmp_path):
    size = size_of(CONFIGS["qwen3_moe"], tmp_path)
    experts = 4 * (2 * 24 * 32 + 24 * 32)
    assert all(linear <= block - experts for block, linear in zip(size.blocks, size.linear, strict=True))


def test_the_cache_is_taken_at_its_largest_where_the_empty_model_shows_none(tmp_path):
    config = MambaConfig(vocab_size=100, hidden_size=16, num_hidden_layers=3, state_size=4)
    assert size_of(config, tmp_path).kv_values_per_token == 3 * 2 * 16


def test_no_file_but_the_config_is_opened_and_no_weight_is_allocated(tmp_path):
    LLAMA_2_7B.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_text("no weights")
    before = psutil.Process().memory_info().rss
    size = model_size(load_config("m", Origin(tmp_path)))
    assert sum(size.blocks) + size.other_parameters == 6_738_415_616
    assert psutil.Process().memory_info().rss - before < 2**30


@pytest.mark.parametrize("content", [None, "{", '{"model_type": "no such family"}', '{"model_type": "t5"}'])
def test_a_folder_without_a_language_models_config_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"it cannot be loaded|no JSON that can be read"):
        model_size(load_config("m", Origin(tmp_path)))
