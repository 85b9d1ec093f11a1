import copy
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from actor_tune.errors import UserError
from actor_tune.models import checkpoint
from actor_tune.models.checkpoint import (
    save_merged,
    save_tensors,
)
from actor_tune.models.load import load as load_placed
from actor_tune.models.model import ChatModel
from actor_tune.models.placement import Placement
from actor_tune.models.state import state_of
from actor_tune.models.stored import stored_block
from conftest import CONFIGS, make_model, make_tokenizer, save_model

LAYER = 2


def load(folder: str) -> ChatModel:
    """In the stored dtype, whatever this processor would choose."""
    return load_placed(folder, Placement(dtype="bfloat16"))


def edited(chat_model):
    state = state_of(chat_model.blocks[LAYER])
    return stored_block(chat_model, LAYER).on_disk({name: tensor + 1 for name, tensor in state.items()})


def save_tiny(folder, family="llama", tied=False, shard_size="5GB"):
    """A tiny bfloat16 checkpoint; of 20KB a shard it is many files."""
    config = copy.deepcopy(CONFIGS[family])
    config.tie_word_embeddings = tied
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    model.save_pretrained(folder, max_shard_size=shard_size)
    make_tokenizer().save_pretrained(folder)
    return folder


def tensors_of(file):
    """Name -> tensor of one weight file, copied: a mapped file would be seen to change."""
    return {name: tensor.clone() for name, tensor in load_file(file).items()}


def weights(folder):
    return sorted(folder.glob("*.safetensors"))


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("shard_size", ["5GB", "20KB"])
def test_nothing_outside_the_block_changes_and_the_block_does(tmp_path, family, tied, shard_size):
    base = save_tiny(tmp_path / "base", family, tied, shard_size)
    stored = {name for file in weights(base) for name in tensors_of(file)}
    assert ("lm_head.weight" in stored) != tied
    assert (len(weights(base)) > 1) == (shard_size == "20KB")
    tensors = edited(load(str(base)))
    save_merged(base, tensors, tmp_path / "merged")

    before = AutoModelForCausalLM.from_pretrained(base, dtype="auto").state_dict()
    after = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto").state_dict()
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        inside = name.startswith(f"model.layers.{LAYER}.")
        assert (name in tensors) == inside
        assert torch.equal(after[name], tensor + 1 if inside else tensor), name
        assert after[name].dtype == torch.bfloat16
    assert [file.name for file in sorted(base.iterdir())] == [
        file.name for file in sorted((tmp_path / "merged").iterdir())
    ]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shard_size", ["5GB", "20KB"])
def test_a_loader_that_reads_all_files_in_any_order_sees_no_old_tensor(tmp_path, reverse, shard_size):
    base = save_tiny(tmp_path / "base", shard_size=shard_size)
    tensors = edited(load(str(base)))
    save_merged(base, tensors, tmp_path / "merged")
    seen = {}
    for file in sorted(weights(tmp_path / "merged"), reverse=reverse):
        contents = tensors_of(file)
        assert not seen.keys() & contents.keys(), "TGI refuses a name that is in two files"
        seen.update(contents)
    assert all(torch.equal(seen[name], tensor) for name, tensor in tensors.items())
    assert seen.keys() == {name for file in weights(base) for name in tensors_of(file)}


def test_only_bytes_of_changed_tensors_differ(tmp_path):
    """Read with the library's own reader: the header and every other tensor are where and what they were."""
    base = save_tiny(tmp_path / "base")
    tensors = edited(load(str(base)))
    save_merged(base, tensors, tmp_path / "merged")
    before, after = ((folder / "model.safetensors").read_bytes() for folder in (base, tmp_path / "merged"))
    assert len(before) == len(after)
    differing = sum(a != b for a, b in zip(before, after, strict=True))
    assert 0 < differing <= sum(tensor.nbytes for tensor in tensors.values())
    length = 8 + int.from_bytes(before[:8], "little")
    assert before[:length] == after[:length]


@pytest.mark.parametrize("linkable", [True, False])
def test_shards_without_a_changed_tensor_are_linked_or_copied(tmp_path, monkeypatch, linkable):
    base = save_tiny(tmp_path / "base", shard_size="20KB")
    tensors = edited(load(str(base)))
    if not linkable:

        def refuse(source, target):
            raise OSError("no links here")

        monkeypatch.setattr(os, "link", refuse)
    save_merged(base, tensors, tmp_path / "merged")
    changed = [bool(tensors.keys() & tensors_of(file).keys()) for file in weights(base)]
    assert len(set(changed)) == 2
    for file, is_changed in zip(weights(base), changed, strict=True):
        merged = tmp_path / "merged" / file.name
        assert merged.samefile(file) == (linkable and not is_changed)
        assert (merged.read_bytes() == file.read_bytes()) != is_changed


def test_files_are_copied_where_the_system_cannot_copy_within_itself(tmp_path, monkeypatch):
    base = save_tiny(tmp_path / "base")
    tensors = edited(load(str(base)))
    monkeypatch.delattr(os, "copy_file_range", raising=False)
    save_merged(base, tensors, tmp_path / "plain")
    monkeypatch.setattr(os, "copy_file_range", lambda *_: 0, raising=False)
    save_merged(base, tensors, tmp_path / "nothing_copied")
    for folder in ("plain", "nothing_copied"):
        contents = tensors_of(tmp_path / folder / "model.safetensors")
        assert all(torch.equal(contents[name], tensor) for name, tensor in tensors.items())


def test_a_folder_of_symbolic_links_as_the_hub_makes_gives_real_files(tmp_path):
    base = save_tiny(tmp_path / "base", shard_size="20KB")
    tensors = edited(load(str(base)))
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for file in base.iterdir():
        (snapshot / file.name).symlink_to(file)
    before = {file.name: file.read_bytes() for file in base.iterdir()}
    save_merged(snapshot, tensors, tmp_path / "merged")
    assert not any(file.is_symlink() for file in (tmp_path / "merged").iterdir())
    assert {file.name: file.read_bytes() for file in base.iterdir()} == before


@pytest.mark.parametrize("shard_size", ["5GB", "20KB"])
def test_weights_that_transformers_does_not_load_are_left_out(tmp_path, shard_size):
    """They would have the old block: a `consolidated.safetensors` is what vLLM takes first."""
    base = save_tiny(tmp_path / "base", shard_size=shard_size)
    expected = {file.name for file in base.iterdir()}
    tensors = edited(load(str(base)))
    save_file({"layers.2.wq": torch.zeros(1)}, base / "consolidated.safetensors")
    save_file(tensors, base / "model.fp16.safetensors")
    (base / "pytorch_model.bin").write_bytes(b"x")
    (base / "pytorch_model.bin.index.json").write_text("{}")
    if shard_size == "5GB":
        names = {"weight_map": dict.fromkeys(tensors, "model.fp16.safetensors")}
        (base / "model.safetensors.index.json").write_text(json.dumps(names))
    save_merged(base, tensors, tmp_path / "merged")
    assert {file.name for file in (tmp_path / "merged").iterdir()} == expected


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_a_file_is_changed_without_being_loaded(tmp_path):
    """One tensor of 128 MiB beside the small ones."""
    size = 128 << 20
    (tmp_path / "base").mkdir()
    file = tmp_path / "base" / "model.safetensors"
    entries = {"small": ([4, 2], [0, 16]), "large": ([size // 2], [16, 16 + size])}
    header = {name: {"dtype": "BF16", "shape": shape, "data_offsets": at} for name, (shape, at) in entries.items()}
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(file, 8 + len(text) + 16 + size)

    def memory(name):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))

    small = torch.arange(8, dtype=torch.bfloat16).reshape(4, 2)
    Path("/proc/self/clear_refs").write_text("5")  # The peak starts anew.
    start = memory("VmRSS")
    save_merged(tmp_path / "base", {"small": small}, tmp_path / "merged")
    assert memory("VmHWM") - start < size // 4
    with safe_open(tmp_path / "merged" / "model.safetensors", framework="pt") as reader:
        assert torch.equal(reader.get_tensor("small"), small)
        assert reader.get_slice("large").get_shape() == [size // 2]


def test_a_half_written_model_is_never_seen(tmp_path, monkeypatch, model_folder):
    tensors = edited(load(str(model_folder)))

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(checkpoint, "clone_or_copy", full)
    with pytest.raises(OSError, match="no space left"):
        save_merged(model_folder, tensors, tmp_path / "merged")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_older_model_is_not_overwritten(tmp_path, model_folder):
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "config.json").touch()
    with pytest.raises(UserError, match="a folder that is not empty"):
        save_merged(model_folder, edited(load(str(model_folder))), tmp_path / "merged")


@pytest.mark.parametrize("wrong", [torch.float32, torch.float16])
def test_tensors_in_another_dtype_than_the_stored_are_a_bug_and_not_cast(tmp_path, model_folder, wrong):
    chat_model = load(str(model_folder))
    with pytest.raises(ValueError, match="bfloat16 in the checkpoint"):
        stored_block(chat_model, LAYER).on_disk(
            {name: tensor.to(wrong) for name, tensor in state_of(chat_model.blocks[LAYER]).items()}
        )
    tensors = {name: tensor.to(wrong) for name, tensor in edited(chat_model).items()}
    with pytest.raises(ValueError, match="in the weight files"):
        save_merged(model_folder, tensors, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_tensor_of_another_shape_is_a_bug(tmp_path, model_folder):
    tensors = {name: tensor.reshape(-1, 1) for name, tensor in edited(load(str(model_folder))).items()}
    with pytest.raises(ValueError, match="in the weight files"):
        save_merged(model_folder, tensors, tmp_path / "merged")


def test_the_stored_dtype_is_the_file_s_and_not_that_of_the_memory(tmp_path, model_folder):
    """Of a model that is computed in float32, with a norm that is stored in float32."""
    file = model_folder / "model.safetensors"
    contents = tensors_of(file)
    norm = f"model.layers.{LAYER}.input_layernorm.weight"
    contents[norm] = contents[norm].float()
    save_file(contents, file, metadata={"format": "pt"})
    chat_model = load(str(model_folder))
    chat_model = replace(chat_model, model=chat_model.model.float())
    stored = stored_block(chat_model, LAYER)
    dtypes = stored.dtypes
    assert dtypes.keys() == dict(chat_model.blocks[LAYER].named_parameters()).keys()
    assert {name for name, dtype in dtypes.items() if dtype == torch.float32} == {"input_layernorm.weight"}
    assert set(dtypes.values()) == {torch.float32, torch.bfloat16}
    rounded = {name: tensor.to(dtypes[name]) for name, tensor in state_of(chat_model.blocks[LAYER]).items()}
    save_merged(model_folder, stored.on_disk(rounded), tmp_path / "merged")
    assert (tmp_path / "merged" / "model.safetensors").read_bytes() == file.read_bytes()


def test_a_block_that_is_not_what_the_files_have_is_refused(model_folder):
    chat_model = load(str(model_folder))
    chat_model.blocks[LAYER].mlp.up_proj.weight[3, 3] += 1
    with pytest.raises(UserError, match=rf"layers\.{LAYER}\.mlp\.up_proj\.weight is .* with other values"):
        stored_block(chat_model, LAYER)


def test_a_block_that_is_quantised_in_the_files_is_refused_before_training(model_folder):
    chat_model = load(str(model_folder))
    file = model_folder / "model.safetensors"
    contents = tensors_of(file)
    name = f"model.layers.{LAYER}.mlp.up_proj.weight"
    contents[name] = contents[name].to(torch.float8_e4m3fn)
    save_file(contents, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"F8_E4M3 \[48, 32\] in the weight files"):
        stored_block(chat_model, LAYER)


def test_the_tokenizer_and_chat_template_come_along(tmp_path, model_folder):
    save_merged(model_folder, edited(load(str(model_folder))), tmp_path / "merged")
    messages = [{"role": "user", "content": "Hi"}]
    texts = [
        AutoTokenizer.from_pretrained(folder).apply_chat_template(messages, tokenize=False)
        for folder in (model_folder, tmp_path / "merged")
    ]
    assert texts[0] == texts[1] == "<|user|>Hi<|end|>"


def test_the_bytes_of_a_file_follow_from_what_is_in_it_and_its_metadata_keep_their_order(tmp_path):
    """The library writes them in an order that differs from run to run."""
    tensors = {name: torch.arange(5, dtype=torch.bfloat16) for name in ("b", "a")}
    metadata = {name: f"{name} \u201cq\u201d" for name in "zyxwvutsrq"}
    save_tensors(tmp_path / "t.safetensors", tensors, metadata)
    content = (tmp_path / "t.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert list(header) == ["__metadata__", "a", "b"]
    assert list(header["__metadata__"].items()) == list(metadata.items())
    with safe_open(tmp_path / "t.safetensors", framework="pt") as reader:
        assert reader.metadata() == metadata
        assert all(torch.equal(reader.get_tensor(name), tensor) for name, tensor in tensors.items())


def test_of_a_model_in_memory_alone_blocks_are_stored_as_they_are_there():
    chat_model = make_model(dtype=torch.bfloat16)
    assert set(stored_block(chat_model, LAYER).dtypes.values()) == {torch.bfloat16}
    assert edited(chat_model).keys() == {
        name for name in chat_model.model.state_dict() if name.startswith(f"model.layers.{LAYER}.")
    }
    chat_model.blocks[LAYER].mlp.up_proj.weight = torch.nn.Parameter(torch.zeros(2, 2).char(), requires_grad=False)
    with pytest.raises(UserError, match=r"mlp\.up_proj\.weight is torch\.int8; expected floating-point weights"):
        stored_block(chat_model, LAYER)


def test_a_tensor_that_the_base_does_not_have_is_a_bug_and_not_ignored(tmp_path, model_folder):
    with pytest.raises(KeyError, match="no tensors named"):
        save_merged(model_folder, {"other": torch.zeros(1)}, tmp_path / "a")


def test_experts_that_are_fused_in_memory_are_written_as_the_base_has_them(tmp_path):
    """transformers fuses the experts of Qwen3-MoE when it loads them; on disk each has three matrices of its own."""
    folder = save_model(make_model("qwen3_moe", torch.bfloat16), tmp_path / "moe")
    chat_model = load(str(folder))
    stored, base = stored_block(chat_model, LAYER), tensors_of(folder / "model.safetensors")
    state = state_of(chat_model.blocks[LAYER])
    assert all(torch.equal(tensor, base[name]) for name, tensor in stored.on_disk(state).items())
    gate_and_up = state["mlp.experts.gate_up_proj"]
    gate_and_up[3, 24 + 5, 7] = 9.0  # expert 3, of `up` (behind 24 rows of `gate`) row 5
    written = stored.on_disk(state)
    changed = {name for name, tensor in written.items() if not torch.equal(tensor, base[name])}
    assert changed == {f"model.layers.{LAYER}.mlp.experts.3.up_proj.weight"}
    assert written[changed.pop()][5, 7] == 9.0
    again = stored.in_memory(written)
    assert again.keys() == dict(chat_model.blocks[LAYER].named_parameters()).keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in again.items())


def test_what_is_written_can_be_read_by_others(tmp_path, model_folder):
    save_merged(model_folder, edited(load(str(model_folder))), tmp_path / "merged")
    umask = os.umask(0)
    os.umask(umask)
    save_tensors(tmp_path / "p.safetensors", {"x": torch.zeros(1)}, {"layer": "2"})
    for file in ("merged/model.safetensors", "p.safetensors"):
        assert (tmp_path / file).stat().st_mode & 0o777 == 0o666 & ~umask


def test_the_base_is_not_touched(tmp_path):
    folder = save_model(make_model(dtype=torch.bfloat16), tmp_path / "base")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    save_merged(folder, edited(load(str(folder))), tmp_path / "merged")
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
