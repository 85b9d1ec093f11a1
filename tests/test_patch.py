from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from actor_tune.errors import UserError
from actor_tune.models.load import load
from actor_tune.models.patch import Patch, _tensors_hash, base_hash
from actor_tune.models.placement import Placement
from actor_tune.models.state import state_of
from actor_tune.models.stored import stored_block
from actor_tune.storage.model_folder import weights_hash
from conftest import make_model, save_model

LAYER = 2


def patch_of(chat_model, change=1.0):
    """Block LAYER with `change` added to each of its weights."""
    state = {name: tensor + change for name, tensor in state_of(chat_model.blocks[LAYER]).items()}
    tensors = stored_block(chat_model, LAYER).on_disk(state)
    return Patch(LAYER, tensors, chat_model.name, base_hash(chat_model), "It passed.")


@pytest.fixture(params=["in memory", "from a folder"])
def base(request, tmp_path):
    if request.param == "in memory":
        return make_model()
    return load(str(save_model(make_model(), tmp_path / "base")), Placement("cpu", "float32"))


def test_a_patch_is_in_the_model_until_it_is_reverted_and_then_every_bit_is_as_it_was(base):
    patch, before = patch_of(base), state_of(base.model)
    patch.apply(base)
    for name, tensor in base.model.state_dict().items():
        assert torch.equal(tensor, patch.tensors.get(name, before[name])), name
    assert not torch.equal(
        base.model.state_dict()[f"model.layers.{LAYER}.mlp.up_proj.weight"],
        before[f"model.layers.{LAYER}.mlp.up_proj.weight"],
    )
    patch.revert(base)
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.model.state_dict().items())


def test_it_is_taken_out_again_where_what_is_done_with_it_fails(base):
    before = state_of(base.model)
    with pytest.raises(ZeroDivisionError), patch_of(base).applied(base):
        1 / 0  # noqa: B018
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.model.state_dict().items())


def test_what_was_loaded_is_what_was_saved(base, tmp_path):
    patch = patch_of(base)
    patch.save(tmp_path / "patch.safetensors")
    loaded = Patch.load(tmp_path / "patch.safetensors")
    assert replace(loaded, tensors={}).__dict__ == replace(patch, tensors={}).__dict__
    assert all(torch.equal(tensor, loaded.tensors[name]) for name, tensor in patch.tensors.items())
    with loaded.applied(base):
        patch.revert(base)  # equal patches are one
        patch.apply(base)
    loaded.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "patch.safetensors").read_bytes()


def test_the_file_names_its_base(base, tmp_path):
    patch_of(base).save(tmp_path / "patch.safetensors")
    with safe_open(tmp_path / "patch.safetensors", framework="pt") as reader:
        assert reader.metadata() == {
            "format": "actor-tune patch 1",
            "layer": "2",
            "base_model": base.name,
            "base_sha256": base_hash(base),
            "safety": "It passed.",
            "tensors_sha256": _tensors_hash(patch_of(base).tensors),
        }


def test_of_a_model_with_a_folder_the_hash_is_that_of_its_files_and_follows_them(tmp_path):
    folder = save_model(make_model(), tmp_path / "base")
    base = load(str(folder))
    first = base_hash(base)
    assert first == weights_hash(folder)
    save_file({"x": torch.zeros(1)}, folder / "model.safetensors")
    assert base_hash(base) == weights_hash(folder) != first


def test_applying_twice_and_reverting_what_is_not_there_are_refused(base):
    patch, other = patch_of(base), patch_of(base, change=2.0)
    with pytest.raises(UserError, match=r"no patch is applied; expected this one, of block 2"):
        patch.revert(base)
    with patch.applied(base):
        for again in (patch, other):
            with pytest.raises(UserError, match=r"a patch of block 2 is applied; .*; revert that patch first"):
                again.apply(base)
        with pytest.raises(UserError, match="another patch is applied"):
            other.revert(base)


def test_another_model_is_refused_in_one_line(base):
    patch = patch_of(base)
    other = make_model()
    with torch.no_grad():
        other.blocks[0].mlp.up_proj.weight[0, 0] += 1
    with pytest.raises(UserError, match=r"other weights than those of .* that the patch was trained in") as caught:
        patch.apply(other)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="other weights than those of"):
        patch.apply(make_model("qwen2"))
    with pytest.raises(UserError, match=r"4 blocks, and the patch is one of block 7"):
        replace(patch, layer=7).apply(base)
    name = f"model.layers.{LAYER}.mlp.down_proj.weight"
    without = {other: tensor for other, tensor in patch.tensors.items() if other != name}
    with pytest.raises(UserError, match=r"down_proj.weight is \[32, 48\] in the model and missing in the patch"):
        replace(patch, tensors=without).apply(base)
    narrow = without | {name: torch.zeros(32, 24)}
    with pytest.raises(UserError, match=r"down_proj.weight is \[32, 48\] in the model and \[32, 24\] in the patch"):
        replace(patch, tensors=narrow).apply(base)


def test_a_block_whose_weights_are_on_disk_is_refused(tmp_path):
    folder = str(save_model(make_model(), tmp_path / "base"))
    patch = patch_of(load(folder, Placement("cpu", "float32")))
    with pytest.raises(UserError, match=r"block 2 are on disk; .* without `offload=stream`"):
        patch.apply(load(folder, Placement("cpu", "float32", offload="stream")))


@pytest.mark.parametrize("content", [None, b"text", "other"])
def test_what_is_no_patch_is_refused(tmp_path, content):
    file = tmp_path / "p.safetensors"
    if content == "other":
        save_file({"x": torch.zeros(1)}, file, metadata={"format": "pt"})
    elif content:
        file.write_bytes(content)
    with pytest.raises(UserError, match="no patch that can be read"):
        Patch.load(file)


def test_a_whole_model_with_the_patch_can_be_written_with_or_without_a_folder(base, tmp_path):
    patch, before = patch_of(base), state_of(base.model)
    patch.save_merged(base, tmp_path / "merged")
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.model.state_dict().items())
    merged = load(str(tmp_path / "merged"), Placement("cpu", "float32"))
    for name, tensor in merged.model.state_dict().items():
        assert torch.equal(tensor, patch.tensors.get(name, before[name])), name
