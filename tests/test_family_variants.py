"""What checkpoints of one architecture differ in: names, shards, dtypes, experts, and where the weights are."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from actor_tune.models.experts import experts_changed
from actor_tune.models.load import load
from actor_tune.models.patch import Patch, base_hash
from actor_tune.models.placement import Placement
from actor_tune.models.state import state_of
from actor_tune.models.stored import stored_block
from actor_tune.repair.gated import fit
from actor_tune.repair.method import fit_block
from actor_tune.repair.settings import Settings
from conftest import make_prompts, make_tokenizer
from families import FAMILIES, make_family
from test_families import TOKENS, tensors_of

WHOLE = Placement("cpu", "float32")


@pytest.fixture(autouse=True)
def signs_of_refusal(monkeypatch):
    monkeypatch.setattr("actor_tune.repair.refusals.refusal_token_ids", lambda *_: TOKENS)


def save(family, folder, dtype=torch.float32, shard="5GB"):
    make_family(family).to(dtype).save_pretrained(folder, max_shard_size=shard)
    make_tokenizer().save_pretrained(folder)
    return folder


def changed_on_disk(chat_model, layer, folder):
    """Names of tensors that differ after block `layer` was written with 1 added to each of its weights."""
    stored, state = stored_block(chat_model, layer), state_of(chat_model.blocks[layer])
    state = {name: tensor.to(stored.dtypes.get(name, tensor.dtype)) + 1 for name, tensor in state.items()}
    patch = Patch(layer, stored.on_disk(state), chat_model.name, base_hash(chat_model), "")
    patch.save_merged(chat_model, folder.parent / "merged")
    before, after = tensors_of(folder), tensors_of(folder.parent / "merged")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert all(torch.equal(after[name], (before[name].float() + 1).to(before[name].dtype)) for name in changed)
    return changed


@pytest.mark.parametrize("family", ["llama", "mixtral", "falcon", "gemma3", "llama4_text"])
@pytest.mark.parametrize(("dtype", "shard"), [(torch.float32, "20KB"), (torch.float16, "5GB"), (torch.bfloat16, "5GB")])
def test_one_block_is_written_into_its_own_shards_in_its_own_dtype(family, dtype, shard, tmp_path):
    folder = save(family, tmp_path / "base", dtype, shard)
    chat_model = load(str(folder), Placement("cpu", "float32"))
    changed = changed_on_disk(chat_model, 2, folder)
    text = {
        name for name in tensors_of(folder) if ".2." in f".{name}." and not ("vision" in name or "experts.2." in name)
    }
    assert {name for name in changed if "experts" not in name} == {name for name in text if "experts" not in name}
    assert len({name for name in changed if "vision" in name}) == 0


@pytest.mark.parametrize(("family", "prefix"), [("gpt2", "transformer."), ("llama", "model.")])
def test_names_without_the_prefix_of_the_model_with_a_head_are_written_as_they_are(family, prefix, tmp_path):
    folder = save(family, tmp_path / "base")
    file = folder / "model.safetensors"
    save_file({name.removeprefix(prefix): tensor for name, tensor in load_file(file).items()}, file, {"format": "pt"})
    changed = changed_on_disk(load(str(folder), WHOLE), 1, folder)
    assert changed
    assert all(name.startswith(("h.1.", "layers.1.")) for name in changed)


@pytest.mark.parametrize("family", ["llama", "gemma4_text", "qwen3_5_text", "gpt_oss", "mixtral", "falcon"])
def test_a_fit_with_weights_on_disk_is_the_fit_with_weights_in_memory(family, tmp_path):
    folder, settings = save(family, tmp_path / "base"), Settings(layer="auto", starter=False)
    whole = fit_block(load(str(folder), WHOLE), make_prompts(), settings)
    streamed = fit_block(load(str(folder), Placement("cpu", "float32", offload="stream")), make_prompts(), settings)
    assert streamed.layer == whole.layer
    for name, tensor in streamed.trained.items():
        torch.testing.assert_close(tensor, whole.trained[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("rule", ["boundary", "odds"])
@pytest.mark.parametrize("family", ["qwen3_moe", "mixtral", "gpt_oss", "llama4_text", "olmoe"])
def test_experts_that_no_last_token_went_to_stay_and_the_others_are_counted(family, rule, tmp_path, monkeypatch):
    model_type, own = FAMILIES[family]
    name = next(name for name in ("num_local_experts", "num_experts") if name in own)
    monkeypatch.setitem(FAMILIES, family, (model_type, own | {name: 32, "num_experts_per_tok": 1}))
    layer = 1  # of Llama 4, every second block has experts
    folder = save(family, tmp_path / "base")
    chat_model = load(str(folder), WHOLE)
    settings = Settings(rule=rule, layer=layer, starter=False, allow_unsafe=True)
    seen = fit_block(chat_model, make_prompts(8), settings, judged).experts
    assert len(seen) == 32
    assert 0 < sum(seen) < 32
    result = fit(chat_model, make_prompts(8), settings, judge=judged)
    assert result.record().experts.changed == sum(seen)
    result.save(tmp_path / "run")
    before, after = tensors_of(folder), tensors_of(tmp_path / "run" / "model")
    for full, tensor in before.items():
        if f"layers.{layer}." in full and ".experts." in full:
            parts = full.split(".experts.")[1].split(".")
            if parts[0].isdigit():  # each expert by itself
                assert seen[int(parts[0])] or torch.equal(tensor, after[full]), full
            else:  # all in one tensor
                for expert in range(32):
                    assert seen[expert] or torch.equal(tensor[expert], after[full][expert]), full


def judged(exchanges):
    from actor_tune.judges.verdict import Verdict

    return [Verdict("refusal", 0.5, "")] * len(exchanges)


def test_experts_are_told_apart_by_name_and_by_the_first_axis():
    fused = {"mlp.experts.gate_up_proj": torch.zeros(3, 4, 2), "mlp.gate.weight": torch.zeros(3, 2)}
    new = {name: tensor.clone() for name, tensor in fused.items()}
    new["mlp.experts.gate_up_proj"][1, 3, 1] = 1
    new["mlp.gate.weight"] += 1
    assert experts_changed(fused, new) == [False, True, False]
    apart = {f"moe.experts.{number}.w1.weight": torch.zeros(2, 2) for number in range(2)}
    assert experts_changed(apart, apart | {"moe.experts.0.w1.weight": torch.ones(2, 2)}) == [True, False]
    assert experts_changed({"mlp.up_proj.weight": torch.zeros(2)}, {"mlp.up_proj.weight": torch.ones(2)}) is None
