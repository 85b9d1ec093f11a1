"""A model is loaded as it is on disk, or not at all."""

import json
import logging
import re
import shutil
import warnings

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.models.llama import LlamaConfig

from actor_tune.errors import UserError
from actor_tune.models.load import load
from actor_tune.models.origin import origin_of
from actor_tune.models.patch import Patch, base_hash
from actor_tune.models.placement import Placement
from actor_tune.models.state import state_of
from actor_tune.models.stored import stored_block
from conftest import SIZES, make_model, make_tokenizer, save_model
from families import FAMILIES, make_family

FLOAT32 = Placement("cpu", "float32")
STREAM = Placement("cpu", "float32", offload="stream")
NAME = "model.layers.2.mlp.up_proj.weight"


def edit_tensors(folder, change):
    """Put the tensors of the one weight file through `change`, which gives them back."""
    file = folder / "model.safetensors"
    save_file(change({name: tensor.clone() for name, tensor in load_file(file).items()}), file, {"format": "pt"})


def edit_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


@pytest.mark.parametrize("placement", [FLOAT32, STREAM])
def test_a_checkpoint_that_lacks_a_tensor_is_refused_with_its_name(model_folder, placement):
    edit_tensors(model_folder, lambda tensors: {name: tensor for name, tensor in tensors.items() if name != NAME})
    with pytest.raises(UserError, match=re.escape(f"{NAME} missing in the weight files")):
        load(str(model_folder), placement)


def test_a_missing_attention_is_counted(model_folder):
    edit_tensors(
        model_folder, lambda tensors: {name: t for name, t in tensors.items() if "layers.1.self_attn" not in name}
    )
    with pytest.raises(UserError, match=r"model\.layers\.1\.self_attn\.k_proj\.weight and 3 more missing"):
        load(str(model_folder), FLOAT32)


def test_a_config_with_more_blocks_than_the_files_have_is_refused(model_folder):
    edit_config(model_folder, num_hidden_layers=5)
    with pytest.raises(UserError, match=r"model\.layers\.4\..* missing in the weight files"):
        load(str(model_folder), FLOAT32)


@pytest.mark.parametrize("placement", [FLOAT32, STREAM])
def test_a_config_with_fewer_blocks_than_the_files_have_is_refused(model_folder, placement):
    edit_config(model_folder, num_hidden_layers=3)
    with pytest.raises(UserError, match=r"model\.layers\.3\..* in the weight files and not in the model"):
        load(str(model_folder), placement)


def test_names_with_a_foreign_prefix_are_refused(model_folder):
    edit_tensors(model_folder, lambda tensors: {f"policy.{name}": tensor for name, tensor in tensors.items()})
    with pytest.raises(UserError, match="missing in the weight files"):
        load(str(model_folder), FLOAT32)


def test_a_tensor_of_another_shape_is_refused(model_folder):
    edit_tensors(model_folder, lambda tensors: tensors | {NAME: torch.zeros(24, 32)})
    with pytest.raises(UserError, match=re.escape(f"{NAME} is [24, 32] in the weight files; expected [48, 32]")):
        load(str(model_folder), FLOAT32)


def test_what_predicts_further_tokens_and_what_belongs_to_no_part_is_left_out_and_listed(model_folder, caplog):
    extra = {
        name: torch.ones(2) for name in ("mtp.layers.0.weight", "value_head.weight", "model.layers.4.eh_proj.weight")
    }
    edit_tensors(model_folder, lambda tensors: tensors | extra)
    with pytest.raises(UserError, match=r"model\.layers\.4\.eh_proj\.weight in the weight files and not in the model"):
        load(str(model_folder), FLOAT32)
    edit_config(model_folder, num_nextn_predict_layers=1)
    with caplog.at_level(logging.INFO, "actor_tune"):
        chat_model = load(str(model_folder), FLOAT32)
    assert "left out, as they are no part of what is run: model.layers.4.eh_proj.weight and 2 more" in caplog.text
    state = state_of(chat_model.blocks[2])
    state["mlp.up_proj.weight"] += 1
    tensors = stored_block(chat_model, 2).on_disk({name: tensor.bfloat16() for name, tensor in state.items()})
    Patch(2, tensors, chat_model.name, base_hash(chat_model), "").save_merged(
        chat_model, model_folder.parent / "merged"
    )
    merged = load_file(model_folder.parent / "merged" / "model.safetensors")
    assert all(torch.equal(merged[name], tensor) for name, tensor in extra.items())


def test_a_tied_head_is_not_missing(tmp_path):
    model = AutoModelForCausalLM.from_config(LlamaConfig(**SIZES, tie_word_embeddings=True))
    model.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    load(str(tmp_path), FLOAT32)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_named_where_weights_stay_on_disk_too(model_folder, value):
    def broken(tensors):
        tensors[NAME][3, 3] = value
        return tensors

    edit_tensors(model_folder, broken)
    with pytest.raises(UserError, match=re.escape(f"NaN or infinity in {NAME}")):
        load(str(model_folder), STREAM)


CODE = """import pathlib
pathlib.Path({marker!r}).touch()
from transformers import LlamaConfig, LlamaForCausalLM


class OwnConfig(LlamaConfig):
    model_type = "own_model"


class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture
def own_code(model_folder, tmp_path):
    """A model that comes with Python code, which leaves `marker` behind when it is run."""
    marker = tmp_path / "was_run"
    (model_folder / "own.py").write_text(CODE.format(marker=str(marker)))
    classes = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"}
    edit_config(model_folder, model_type="own_model", architectures=["OwnForCausalLM"], auto_map=classes)
    return model_folder, marker


def test_code_that_comes_with_a_model_is_not_run_and_nobody_is_asked(own_code, monkeypatch):
    folder, marker = own_code
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(UserError, match=r"it needs Python code of its own.* use `trust_remote_code=True`"):
        load(str(folder), FLOAT32)
    assert not marker.exists()


def test_code_that_is_trusted_is_run_and_goes_with_the_model(own_code, tmp_path):
    folder, marker = own_code
    chat_model = load(str(folder), Placement("cpu", "bfloat16", trust_remote_code=True))
    assert marker.exists()
    assert type(chat_model.model).__name__ == "OwnForCausalLM"
    tensors = stored_block(chat_model, 2).on_disk(state_of(chat_model.blocks[2]))
    Patch(2, tensors, chat_model.name, base_hash(chat_model), "").save_merged(chat_model, tmp_path / "merged")
    assert (tmp_path / "merged" / "own.py").is_file()


def test_code_that_is_not_run_does_not_go_with_the_model(model_folder, tmp_path):
    (model_folder / "own.py").write_text("raise SystemExit")
    chat_model = load(str(model_folder), Placement("cpu", "bfloat16"))
    tensors = stored_block(chat_model, 2).on_disk(state_of(chat_model.blocks[2]))
    Patch(2, tensors, chat_model.name, base_hash(chat_model), "").save_merged(chat_model, tmp_path / "merged")
    assert not (tmp_path / "merged" / "own.py").exists()


@pytest.fixture
def adapter(tmp_path):
    """A LoRA adapter by PEFT, with weights that change something, and the model it is for."""
    base = save_model(make_model(), tmp_path / "base")
    torch.manual_seed(1)
    wanted = LoraConfig(r=2, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    with warnings.catch_warnings():  # PEFT asks transformers for a property that the latter has renamed
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), wanted)
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter", model.eval()


def test_an_adapter_is_merged_into_the_model_that_its_config_names(adapter, tmp_path):
    folder, expected = adapter
    chat_model = load(str(folder), FLOAT32)
    ids = torch.tensor([[1, 2, 3, 4]])
    with torch.no_grad():
        torch.testing.assert_close(chat_model.model(ids).logits, expected(ids).logits)
        plain = load(str(tmp_path / "base"), FLOAT32).model(ids).logits
        assert not torch.allclose(chat_model.model(ids).logits, plain, atol=1e-3)
    assert chat_model.folder is None
    tensors = stored_block(chat_model, 2).on_disk(state_of(chat_model.blocks[2]))
    Patch(2, tensors, chat_model.name, base_hash(chat_model), "").save_merged(chat_model, tmp_path / "merged")
    with torch.no_grad():
        again = load(str(tmp_path / "merged"), FLOAT32).model(ids).logits
        torch.testing.assert_close(again, expected(ids).logits)


def test_an_adapter_without_its_base_or_for_another_model_is_refused_in_one_line(adapter, tmp_path):
    folder, _ = adapter
    about = json.loads((folder / "adapter_config.json").read_text())
    narrow = LlamaConfig(**{**SIZES, "hidden_size": 16})
    AutoModelForCausalLM.from_config(narrow).save_pretrained(tmp_path / "narrow")
    make_tokenizer().save_pretrained(tmp_path / "narrow")
    (folder / "adapter_config.json").write_text(
        json.dumps(about | {"base_model_name_or_path": str(tmp_path / "narrow")})
    )
    with pytest.raises(UserError, match=r"it cannot be loaded .* expected an adapter for LlamaForCausalLM"):
        load(str(folder), FLOAT32)
    shutil.rmtree(tmp_path / "narrow")
    with pytest.raises(UserError, match="no such folder"):
        origin_of(str(folder))
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="no base_model_name_or_path"):
        load(str(folder), FLOAT32)


def test_what_is_merged_when_it_is_loaded_is_not_left_on_disk(adapter):
    with pytest.raises(UserError, match=r"`offload=stream`: .*dequantised or merged when it is loaded"):
        load(str(adapter[0]), STREAM)


def test_weights_in_float8_are_unpacked_and_written_as_what_they_are_computed_in(tmp_path):
    """As FineGrainedFP8 stores them: each block of a matrix with the number that it is multiplied by."""
    model = make_model(dtype=torch.bfloat16)
    folder = save_model(model, tmp_path / "fp8")
    scales = {}

    def packed(tensors):
        for name, tensor in [*tensors.items()]:
            if name.endswith("_proj.weight"):
                rows, columns = tensor.shape[0] // 16, tensor.shape[1] // 16
                parts = tensor.float().view(rows, 16, columns, 16)
                scale = parts.abs().amax(dim=(1, 3)) / 448
                scales[name] = scale
                small = (parts / scale[:, None, :, None]).view(tensor.shape).to(torch.float8_e4m3fn)
                tensors |= {name: small, f"{name}_scale_inv": scale}
        return tensors

    edit_tensors(folder, packed)
    edit_config(folder, quantization_config={"quant_method": "fp8", "weight_block_size": [16, 16]})
    stored = load_file(folder / "model.safetensors")
    chat_model = load(str(folder), FLOAT32)
    assert chat_model.folder is None
    for name, parameter in chat_model.model.named_parameters():
        assert parameter.dtype == torch.float32
        if name in scales:
            whole = scales[name].repeat_interleave(16, 0).repeat_interleave(16, 1)
            # transformers rounds what it unpacks to bfloat16.
            torch.testing.assert_close(parameter, stored[name].float() * whole, rtol=1e-2, atol=1e-4)
    tensors = stored_block(chat_model, 2).on_disk(state_of(chat_model.blocks[2]))
    Patch(2, tensors, chat_model.name, base_hash(chat_model), "").save_merged(chat_model, tmp_path / "merged")
    again = load(str(tmp_path / "merged"), FLOAT32)
    assert again.folder is not None
    for (name, one), other in zip(chat_model.model.named_parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other), name


MXFP4 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


def test_experts_in_mxfp4_are_unpacked(tmp_path, monkeypatch):
    """As gpt-oss stores them: 32 numbers of 4 bits share a power of two, and lie two in a byte, the first one low."""
    wide = {"hidden_size": 64, "intermediate_size": 64, "head_dim": 16}
    monkeypatch.setitem(FAMILIES, "gpt_oss", ("gpt_oss", FAMILIES["gpt_oss"][1] | wide))
    folder = tmp_path / "mxfp4"
    make_family("gpt_oss").bfloat16().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    values = {}

    def packed(tensors):
        for name in [name for name in tensors if name.endswith(("gate_up_proj", "down_proj"))]:
            experts, d_in, d_out = tensors.pop(name).shape
            codes = torch.randint(0, 16, (experts, d_out, d_in // 32, 32))
            scales = torch.randint(120, 127, (experts, d_out, d_in // 32))
            numbers = MXFP4[codes] * torch.exp2(scales - 127.0)[..., None]
            values[name] = numbers.view(experts, d_out, d_in).transpose(1, 2)
            tensors[f"{name}_blocks"] = (codes[..., 0::2] | codes[..., 1::2] << 4).to(torch.uint8)
            tensors[f"{name}_scales"] = scales.to(torch.uint8)
        return tensors

    edit_tensors(folder, packed)
    kept = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    edit_config(folder, quantization_config={"quant_method": "mxfp4", "modules_to_not_convert": kept})
    chat_model = load(str(folder), Placement("cpu", "bfloat16"))
    parameters = dict(chat_model.model.named_parameters())
    assert len(values) == 8
    assert all(torch.equal(parameters[name].float(), numbers) for name, numbers in values.items())
    tensors = stored_block(chat_model, 2).on_disk(state_of(chat_model.blocks[2]))
    Patch(2, tensors, chat_model.name, base_hash(chat_model), "").save_merged(chat_model, tmp_path / "merged")
    again = load(str(tmp_path / "merged"), Placement("cpu", "bfloat16"))
    assert all(torch.equal(parameters[name], one) for name, one in again.model.named_parameters())


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 16}, "GPTQ.*pip install"),
        ({"quant_method": "awq", "bits": 4, "group_size": 16}, "AWQ.*pip install|gptqmodel"),
        ({"quant_method": "compressed-tensors", "format": "pack-quantized"}, "compressed.tensors"),
    ],
)
def test_weights_that_need_another_package_are_refused_with_its_name(model_folder, packed, message):
    edit_config(model_folder, quantization_config=packed)
    with pytest.raises(UserError, match=message) as caught:
        load(str(model_folder), FLOAT32)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("folder", [True, False])
def test_a_model_that_writes_token_0_again_and_again_is_stopped_with_the_name_of_the_block(chat_model, prompts, folder):
    """In float16 what a block returns may exceed 65504; the answer would be `!!!!`."""
    from actor_tune.engines.local import local_engine

    chat_model.model.half()
    chat_model.blocks[1].mlp.down_proj.weight.fill_(6e4)
    asked = prompts if folder else prompts[:2]  # with slots, and by `generate`
    with pytest.raises(
        UserError, match=r"block 1 returns NaN or infinity in float16; .* try `dtype=float32` or `dtype=bfloat16`"
    ):
        list(local_engine(chat_model)(asked, 3))
