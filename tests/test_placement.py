import gc
import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig

from actor_tune.errors import UserError
from actor_tune.models.chat import encode
from actor_tune.models.checkpoint import save_merged
from actor_tune.models.load import load
from actor_tune.models.placement import (
    Placement,
    device_map_with_disk,
    held,
    is_elsewhere,
    resolve_device,
    resolve_dtype,
    settle,
)
from actor_tune.models.structure import empty_model
from actor_tune.repair.method import fit_block
from actor_tune.repair.settings import Settings
from actor_tune.repair.train import train_block
from conftest import CONFIGS, SIZES, make_model, make_prompts, plain_logprobs, save_model

STREAM = Placement("cpu", "float32", offload="stream")
WHOLE = Placement("cpu", "float32")


@pytest.fixture(params=["5GB", "20KB"])
def checkpoint(request, tmp_path):
    """A tiny bfloat16 Llama, in one file and in shards."""
    chat_model = make_model(dtype=torch.bfloat16)
    chat_model.model.save_pretrained(tmp_path / "m", max_shard_size=request.param)
    chat_model.tokenizer.save_pretrained(tmp_path / "m")
    return tmp_path / "m"


def test_a_processor_slow_in_half_precision_computes_in_float32(monkeypatch):
    monkeypatch.setattr("actor_tune.models.placement.float32_gain", lambda _dtype: 8.0)
    assert resolve_dtype("auto", torch.bfloat16, "cpu") == torch.float32
    assert resolve_dtype("bfloat16", torch.bfloat16, "cpu") == torch.bfloat16
    assert resolve_dtype("auto", torch.bfloat16, "cuda") == torch.bfloat16


def test_one_that_is_fast_in_it_computes_in_what_is_stored(monkeypatch):
    monkeypatch.setattr("actor_tune.models.placement.float32_gain", lambda _dtype: 0.5)
    assert resolve_dtype("auto", torch.bfloat16, "cpu") == torch.bfloat16
    assert resolve_dtype("auto", torch.float32, "cpu") == torch.float32


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(UserError, match=re.escape("`device=nowhere`")):
        resolve_device("nowhere")


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_every_tensor_has_a_place_and_blocks_on_disk_are_those_asked_for(family):
    model, blocks = empty_model(make_model(family).model.config)
    places = device_map_with_disk(model, blocks, "cpu", range(2, 4))
    for name, _ in model.named_parameters():
        place = [value for key, value in places.items() if name.startswith(f"{key}.")]
        assert place == ["disk" if ".layers.2." in name or ".layers.3." in name else "cpu"], name
    everything = device_map_with_disk(model, blocks, "cpu", range(4))
    assert everything["model.embed_tokens"] == everything["lm_head"] == "disk"
    assert everything["model.norm"] == "cpu"


def test_weights_on_disk_come_when_they_are_held_and_go_afterwards(checkpoint):
    chat_model = load(str(checkpoint), STREAM)
    assert all(is_elsewhere(block) for block in chat_model.blocks)
    whole = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).state_dict()
    with held(chat_model.blocks[1]):
        assert not is_elsewhere(chat_model.blocks[1])
        for name, parameter in chat_model.blocks[1].named_parameters():
            assert torch.equal(parameter, whole[f"model.layers.1.{name}"])
        assert next(chat_model.blocks[2].parameters()).is_meta
    assert all(parameter.is_meta for parameter in chat_model.blocks[1].parameters())


def test_blocks_above_the_named_one_stay_on_disk_until_they_are_settled(checkpoint):
    chat_model = load(str(checkpoint), WHOLE, last_block=1)
    assert [is_elsewhere(block) for block in chat_model.blocks] == [False, False, True, True]
    settle(chat_model.model)
    assert not any(parameter.is_meta for parameter in chat_model.model.parameters())
    ids = encode(chat_model.tokenizer, make_prompts(2))
    assert torch.equal(plain_logprobs(chat_model, ids), plain_logprobs(load(str(checkpoint), WHOLE), ids))


def test_training_reads_no_weight_of_the_blocks_above(checkpoint, monkeypatch):
    read = []
    chat_model = load(str(checkpoint), WHOLE, last_block=1)
    loader = chat_model.blocks[2].mlp.up_proj._hf_hook.weights_map.dataset
    plain = type(loader).__getitem__
    monkeypatch.setattr(type(loader), "__getitem__", lambda self, key: read.append(key) or plain(self, key))
    monkeypatch.setattr("actor_tune.repair.method.settle", lambda _model: (_ for _ in ()).throw(InterruptedError))
    with pytest.raises(InterruptedError):  # training is over where the blocks above are fetched
        fit_block(chat_model, make_prompts(), Settings(rule="boundary", layer=1, starter=False))
    assert read == []


@pytest.mark.parametrize("rule", ["boundary", "odds"])
@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2"])
def test_a_fit_with_weights_on_disk_is_the_fit_with_weights_in_memory(tmp_path, family, monkeypatch, rule):
    # an untrained model has no refusal tokens
    monkeypatch.setattr("actor_tune.repair.refusals.refusal_token_ids", lambda *_: torch.tensor([65, 66]))
    folder = save_model(make_model(family, torch.bfloat16), tmp_path / "m")
    settings = Settings(rule=rule, layer="auto", starter=False)
    whole = fit_block(load(str(folder), WHOLE), make_prompts(), settings)
    streamed = fit_block(load(str(folder), STREAM), make_prompts(), settings)
    below = fit_block(load(str(folder), WHOLE, whole.layer), make_prompts(), replace(settings, layer=whole.layer))
    for other in (streamed, below):
        assert other.layer == whole.layer
        # Gemma scales its embeddings by a number that is made, and so rounded, in the dtype that it is loaded in.
        rounded = 1e-2 if family == "gemma2" else 0.0
        for name, tensor in other.state.items():
            assert torch.allclose(tensor, whole.state[name], rtol=rounded, atol=rounded), name
        for trial, expected in zip(other.trials, whole.trials, strict=True):
            assert trial.safety == pytest.approx(expected.safety, abs=rounded)
            assert trial.kl_harmless == pytest.approx(expected.kl_harmless, abs=rounded)


def test_the_folder_for_rearranged_weights_goes_with_the_model(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    chat_model = load(str(save_model(make_model("qwen3_moe"), tmp_path / "m")), STREAM)
    assert list((tmp_path / "temporary").iterdir())
    del chat_model
    gc.collect()
    assert not list((tmp_path / "temporary").iterdir())


@pytest.fixture
def wide(monkeypatch):
    """On a processor with bfloat16, bitsandbytes needs widths that its blocks of 64 divide, as all real models have."""
    sizes = {**SIZES, "hidden_size": 64, "intermediate_size": 128, "head_dim": 16}
    monkeypatch.setitem(CONFIGS, "wide", LlamaConfig(**sizes))


@pytest.mark.parametrize("rule", ["boundary", "odds"])
def test_a_quantised_model_trains_its_block_in_full_precision_for_the_base(tmp_path, monkeypatch, wide, rule):
    pytest.importorskip("bitsandbytes", reason="the extra `bnb` is not installed")
    monkeypatch.setattr("actor_tune.repair.refusals.refusal_token_ids", lambda *_: torch.tensor([65, 66]))
    folder = save_model(make_model("wide", torch.bfloat16), tmp_path / "m")
    chat_model = load(str(folder), Placement("cpu", "float32", quantization="bnb_4bit"))
    found = fit_block(chat_model, make_prompts(), Settings(rule=rule, layer=1, starter=False, allow_unsafe=True))
    assert all(type(chat_model.blocks[layer].mlp.up_proj).__name__ == "Linear4bit" for layer in (0, 2, 3))
    stored = load_file(folder / "model.safetensors")
    for name, parameter in chat_model.blocks[1].named_parameters():  # the base's own weights, not rounded to 4 bits
        assert torch.equal(parameter.bfloat16(), stored[f"model.layers.1.{name}"])
    tensors = found.stored.on_disk(found.state)
    save_merged(folder, tensors, tmp_path / "merged")
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    for name, tensor in stored.items():
        assert torch.equal(merged[name], tensors.get(name, tensor)), name
    assert any(not torch.equal(tensor, stored[name]) for name, tensor in tensors.items())


def test_what_could_not_be_fetched_is_the_error_and_the_rest_is_let_go(checkpoint, monkeypatch):
    chat_model = load(str(checkpoint), STREAM)
    loader = chat_model.blocks[1].mlp.up_proj._hf_hook.weights_map.dataset
    plain = type(loader).__getitem__

    def unreadable(self, key):
        if "down_proj" in key:
            raise OSError("the disk is gone")
        return plain(self, key)

    monkeypatch.setattr(type(loader), "__getitem__", unreadable)
    with pytest.raises(OSError, match="the disk is gone"), held(chat_model.blocks[1]):
        pass
    assert is_elsewhere(chat_model.blocks[1])
    assert all(parameter.is_meta for parameter in chat_model.blocks[1].parameters())


def test_a_named_block_does_not_undo_a_device_map(checkpoint):
    spread = load(str(checkpoint), Placement("cpu", "float32", device_map="auto"), last_block=1)
    assert not any(is_elsewhere(block) for block in spread.blocks)


def test_a_named_block_of_a_quantised_model_can_be_loaded(tmp_path, wide):
    pytest.importorskip("bitsandbytes", reason="the extra `bnb` is not installed")
    folder = save_model(make_model("wide", torch.bfloat16), tmp_path / "m")
    chat_model = load(str(folder), Placement("cpu", "float32", quantization="bnb_4bit"), last_block=1)
    assert all(type(block.mlp.up_proj).__name__ == "Linear4bit" for block in chat_model.blocks)


class WiringRefusedError(Exception):
    pass


@pytest.mark.parametrize(
    ("rule", "last_block"), [("odds", None), ("odds", 1), ("auto", 1), ("boundary", None), ("boundary", 1)]
)
def test_wiring_is_proved_before_training_where_the_blocks_above_are_there(checkpoint, monkeypatch, rule, last_block):
    def refuse(*_arguments):
        raise WiringRefusedError

    trained = []
    monkeypatch.setattr("actor_tune.repair.method.check_effect", refuse)
    monkeypatch.setattr("actor_tune.repair.learn.train_block", lambda *given: trained.append(1) or train_block(*given))
    settings = Settings(rule=rule, layer=1, starter=False)
    monkeypatch.setattr("actor_tune.repair.refusals.refusal_token_ids", lambda *_: torch.tensor([65, 66]))
    with pytest.raises(WiringRefusedError):
        fit_block(load(str(checkpoint), WHOLE, last_block), make_prompts(), settings)
    assert bool(trained) == (last_block is not None and rule == "boundary")  # by odds, they are needed before
