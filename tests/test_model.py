import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from actor_tune.errors import UserError
from actor_tune.models.load import load
from actor_tune.models.model import check_layer, wrap
from actor_tune.models.placement import Placement
from actor_tune.models.state import state_of
from actor_tune.storage.model_folder import weights_hash
from conftest import make_model, make_tokenizer, save_model


def test_a_saved_model_loads_in_the_dtype_of_its_checkpoint(model_folder):
    chat_model = load(str(model_folder), Placement(dtype="bfloat16"))
    assert chat_model.model.dtype == torch.bfloat16
    assert len(chat_model.blocks) == 4
    assert not any(parameter.requires_grad for parameter in chat_model.model.parameters())


def test_blocks_are_found_by_structure_in_every_family(any_family):
    assert [type(block).__name__.endswith("DecoderLayer") for block in any_family.blocks] == [True] * 4


def test_the_weights_hash_changes_with_any_weight(model_folder):
    before = weights_hash(model_folder)
    assert weights_hash(model_folder) == before
    file = model_folder / "model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"][0] += 1
    save_file(tensors, file, {"format": "pt"})
    assert weights_hash(model_folder) != before


def break_weights(folder, value):
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.2.mlp.up_proj.weight"][3, 3] = value
    save_file(tensors, file, {"format": "pt"})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(model_folder, value):
    break_weights(model_folder, value)
    with pytest.raises(UserError, match=re.escape("NaN or infinity in model.layers.2.mlp.up_proj.weight")):
        load(str(model_folder))


def test_a_folder_without_weights_config_or_template_is_refused(tmp_path, model_folder):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=re.escape("no config.json")):
        load(str(tmp_path / "empty"))
    (model_folder / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="the tokenizer has no chat template"):
        load(str(model_folder))
    (model_folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no weights"):
        load(str(model_folder))


def test_weights_that_are_cut_short_are_refused(model_folder):
    file = model_folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match="it cannot be loaded"):
        load(str(model_folder))


def test_a_block_out_of_range_is_refused_and_a_negative_one_counts_from_the_end():
    chat_model = make_model()
    assert check_layer(chat_model, 2) == 2
    assert check_layer(chat_model, -2) == 2
    for layer in (3, 4, -1, -5):
        with pytest.raises(UserError, match=re.escape(f"`layer={layer}`: 4 blocks; expected 0 to 2")):
            check_layer(chat_model, layer)


def test_save_model_writes_what_the_other_tests_load(tmp_path):
    assert load(str(save_model(make_model("qwen2"), tmp_path / "m"))).name == str(tmp_path / "m")


def test_a_model_in_memory_is_wrapped_as_it_would_be_loaded(model_folder):
    hf_model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.bfloat16).train()
    chat_model = wrap(hf_model, make_tokenizer())
    assert (chat_model.model, chat_model.folder, chat_model.name) == (hf_model, None, str(model_folder))
    assert not hf_model.training
    assert not any(parameter.requires_grad for parameter in hf_model.parameters())
    assert chat_model.computed_in == "bfloat16"
    assert wrap(hf_model, make_tokenizer(), "mine").name == "mine"
    loaded = load(str(model_folder), Placement(dtype="bfloat16"))
    assert state_of(loaded.model).keys() == state_of(chat_model.model).keys()


def test_a_model_in_memory_needs_a_chat_template_and_finite_weights():
    chat_model, plain = make_model(), make_tokenizer()
    plain.chat_template = None
    with pytest.raises(UserError, match="mine: the tokenizer has no chat template"):
        wrap(chat_model.model, plain, "mine")
    chat_model.blocks[1].mlp.up_proj.weight[0, 0] = float("nan")
    with pytest.raises(UserError, match=re.escape("mine: NaN or infinity in model.layers.1.mlp.up_proj.weight")):
        wrap(chat_model.model, make_tokenizer(), "mine")
