"""A patch goes into a model's folder and comes out again, bit for bit, whatever the layout of its files."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from actor_tune.errors import UnsafeError, UserError
from actor_tune.measurement.trained_on import trained_on
from actor_tune.models.load import load
from actor_tune.models.patch import Patch
from actor_tune.models.patched import revert
from actor_tune.models.placement import Placement
from actor_tune.prompts.leakage import find_leaks, traces
from actor_tune.prompts.prompt import Prompt
from actor_tune.records.file import read, row_json
from actor_tune.records.lineage import Lineage, lineage_of
from actor_tune.records.results import Gate
from actor_tune.records.run import Base, Position, Run
from actor_tune.storage.files import write_json
from actor_tune.storage.model_folder import weights_hash
from conftest import CONFIGS
from test_checkpoint import LAYER, save_tiny
from test_cli import run as actor
from test_patch import patch_of

PASSED = "Safety gate passed: refusal of 304 harmful prompts went from 90.0 to 90.0 %."
FAILED = "Safety gate failed: refusal of 304 harmful prompts went from 90.0 to 60.0 %."


def bytes_of(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def planted(base, safety=PASSED):
    """A patch for the model in the folder `base`."""
    return replace(patch_of(load(str(base), Placement(dtype="bfloat16"))), safety=safety, base=base.name)


def saved_run(folder, patch, **changes):
    """The folder of a fit: its patch, and a record that fits it."""
    folder.mkdir()
    patch.save(folder / "patch.safetensors")
    gate = Gate(patch.passed, 0.05, 0.0, 0.0, 0.0, 304, 80, patch.safety)
    about = {"layer": LAYER, "training": {"rule": "odds"}, "strength": 0.7, "gate": gate} | changes
    Run(model=Base("BASE", patch.base_sha256, 4), **about).save(folder)
    position = Position(prompt="steal the scene", kind="pseudo_harmful", set="s", part="train", before=0.0, after=0.0)
    write_json(folder / "positions.json", [row_json(position)])
    return folder


@pytest.mark.parametrize("family", sorted(CONFIGS))
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("shard_size", ["5GB", "20KB"])
def test_a_patch_goes_in_and_out_of_a_folder_bit_for_bit(tmp_path, family, tied, shard_size):
    base = save_tiny(tmp_path / "base", family, tied, shard_size)
    (base / "README.md").write_text("the base's own card")
    before = bytes_of(base)
    patch = planted(base)
    patch.write(base, tmp_path / "patched")
    old, new = (
        AutoModelForCausalLM.from_pretrained(base, dtype="auto").state_dict() for base in (base, tmp_path / "patched")
    )
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert changed == {name for name in old if name.startswith(f"model.layers.{LAYER}.")}
    stored = {
        name: tensor
        for file in (tmp_path / "patched").glob("*.safetensors")
        for name, tensor in load_file(file).items()
    }
    assert all(torch.equal(stored[name], tensor) for name, tensor in patch.tensors.items())
    assert weights_hash(tmp_path / "patched") != patch.base_sha256

    shutil.rmtree(base)  # the patched model alone is left
    revert(tmp_path / "patched", tmp_path / "again")
    assert bytes_of(tmp_path / "again") == before
    assert weights_hash(tmp_path / "again") == patch.base_sha256


def test_a_patch_on_a_patched_model_comes_out_first(tmp_path):
    base = save_tiny(tmp_path / "base")
    planted(base).write(base, tmp_path / "one")
    before = traces([Prompt("Forge a cheque", "harmful", "mine")])
    replace(read(Lineage, tmp_path / "one"), trained_on=before).save(tmp_path / "one")
    planted(tmp_path / "one").write(tmp_path / "one", tmp_path / "two")
    assert read(Lineage, tmp_path / "two").trained_on == before
    revert(tmp_path / "two", tmp_path / "one again")
    assert bytes_of(tmp_path / "one again") == bytes_of(tmp_path / "one")
    revert(tmp_path / "one again", tmp_path / "base again")
    assert bytes_of(tmp_path / "base again") == bytes_of(base)


def test_what_stands_beside_a_patched_model_says_what_it_is(tmp_path):
    base = save_tiny(tmp_path / "base")
    run = saved_run(tmp_path / "run", planted(base))
    assert actor("apply", run / "patch.safetensors", base, "--output-dir", tmp_path / "patched") == 0
    known = read(Lineage, tmp_path / "patched")
    assert (known.base_sha256, known.layer, known.rule, known.strength) == (weights_hash(base), LAYER, "odds", 0.7)
    assert (known.passed, known.gate.sentence, len(known.trained_on)) == (True, PASSED, 1)
    assert PASSED in (tmp_path / "patched" / "README.md").read_text()
    said = b"".join(bytes_of(tmp_path / "patched").values())
    assert str(tmp_path).encode() not in said
    assert b"steal the scene" not in said

    (leak,) = find_leaks([Prompt("Steal the scene!", "pseudo_harmful", "mine")], trained_on(str(tmp_path / "patched")))
    assert leak.similarity == 1

    run.joinpath("patch.safetensors").rename(tmp_path / "alone.safetensors")
    Patch.load(tmp_path / "alone.safetensors").write(base, tmp_path / "alone")
    known = read(Lineage, tmp_path / "alone")
    assert (known.passed, known.rule, known.gate, known.trained_on) == (True, None, None, [])


def test_the_folder_of_a_fit_stands_for_its_patch_and_a_model_in_its_place_is_a_mistake(tmp_path, capsys):
    base = save_tiny(tmp_path / "base")
    run = saved_run(tmp_path / "run", planted(base))
    assert actor("apply", run, base, "--output-dir", tmp_path / "patched") == 0
    assert read(Lineage, tmp_path / "patched").rule == "odds", "which the record of the fit says"
    assert actor("apply", base, run, "--output-dir", tmp_path / "other") == 2
    said = f"{base}: a folder without patch.safetensors; expected a patch; name the patch.safetensors of a fit, or its"
    assert said in capsys.readouterr().err


def test_a_patch_that_failed_is_applied_only_where_that_is_asked_for(tmp_path, capsys):
    base = save_tiny(tmp_path / "base")
    for name, safety in (("gate", FAILED), ("limits", f"No strength keeps the limits. {PASSED}"), ("nothing", "")):
        file = tmp_path / f"{name}.safetensors"
        planted(base, safety).save(file)
        arguments = ("apply", file, base, "--output-dir", tmp_path / name)
        assert actor(*arguments) == 3
        told = capsys.readouterr()
        assert " ".join(told.out.split()).startswith(safety)
        assert told.err.count("\n") == 1
        assert "--allow-unsafe gives it out all the same" in told.err
        assert not (tmp_path / name).exists()
        assert actor(*arguments, "--allow-unsafe") == 0
        known = read(Lineage, tmp_path / name)
        assert not known.passed
        assert known.reasons == [safety or "Nothing is known of its safety"]
        assert "Not safe to ship" in (tmp_path / name / "README.md").read_text()
        assert Patch.load(file).passed is False
        assert capsys.readouterr().out


def refused(capsys, *arguments):
    assert actor(*arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_another_base_a_packed_one_and_none_are_refused_in_a_line(tmp_path, capsys):
    base, other = save_tiny(tmp_path / "base"), save_tiny(tmp_path / "other", tied=True)
    patch = tmp_path / "patch.safetensors"
    planted(base).save(patch)
    out = ("--output-dir", tmp_path / "out")
    assert "other weights than those of base that the patch was trained in" in refused(
        capsys, "apply", patch, other, *out
    )
    assert "no such folder; expected a model" in refused(capsys, "apply", patch, tmp_path / "no" / "such" / "x", *out)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "fp8"}}))
    assert "weights that are packed" in refused(capsys, "apply", patch, base, *out)
    assert not (tmp_path / "out").exists()
    assert not [entry for entry in tmp_path.iterdir() if entry.name.startswith(".")]


def test_a_damaged_patch_is_refused_in_a_line(tmp_path, capsys):
    base = save_tiny(tmp_path / "base")
    patch, file = planted(base), tmp_path / "patch.safetensors"
    patch.save(file)
    whole = file.read_bytes()
    for damaged in (whole[:-9], whole[:-1] + bytes([whole[-1] ^ 1])):
        file.write_bytes(damaged)
        assert "no patch that can be read" in refused(capsys, "apply", file, base, "--output-dir", tmp_path / "out")
    name = f"model.layers.{LAYER}.mlp.up_proj.weight"
    for tensors, said in (
        ({"model.layers.2.mlp.other.weight": torch.zeros(2)}, r"other.weight is missing in the model"),
        ({name: torch.zeros(2, 3, dtype=torch.bfloat16)}, r"up_proj.weight is bfloat16 \[48, 32\] in the model and"),
        ({name: patch.tensors[name].float()}, r"up_proj.weight is bfloat16 .* in the model and float32"),
        ({name: patch.tensors[name] * float("nan")}, "NaN or infinity in"),
    ):
        with pytest.raises(UserError, match=said):
            replace(patch, tensors=tensors).write(base, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_record_of_another_fit_beside_the_patch_is_refused(tmp_path):
    base = save_tiny(tmp_path / "base")
    patch = planted(base)
    run = saved_run(tmp_path / "run", patch, layer=1)
    with pytest.raises(UserError, match=r"run.json: the record of another patch; expected that of block 2"):
        patch.write(base, tmp_path / "out", run)
    safe = saved_run(tmp_path / "safe", patch)
    with pytest.raises(UserError, match="the record of another patch"):
        replace(patch, safety=FAILED).write(base, tmp_path / "out", safe, allow_unsafe=True)


def test_of_a_fits_own_model_the_base_is_taken_from_where_the_run_says_or_as_it_is_named(tmp_path):
    base = save_tiny(tmp_path / "base")
    (base / "README.md").write_text("the base's own card")
    patch = planted(base)
    run = saved_run(tmp_path / "run", patch)
    patch.save_merged(load(str(base)), run / "model")
    (run / "model" / "README.md").rename(run / "model" / "BASE_README.md")
    (run / "model" / "README.md").write_text("the card of the fit")
    lineage_of(run).save(run / "model")
    with pytest.raises(UserError, match="BASE: no such folder"):  # what run.json says
        revert(run / "model", tmp_path / "again")
    revert(run / "model", tmp_path / "again", base)
    assert bytes_of(tmp_path / "again") == bytes_of(base)
    moved = shutil.copytree(run / "model", tmp_path / "moved")
    with pytest.raises(UserError, match=r"no actor_tune.original; expected the block as it was; give `base=MODEL`"):
        revert(moved, tmp_path / "more")
    other = save_tiny(tmp_path / "other", tied=True)
    with pytest.raises(UserError, match=r"other: other weights than .* was made from"):
        revert(moved, tmp_path / "more", other)
    with pytest.raises(UserError, match=r"base: no actor_tune.json; expected a model with a patch in it"):
        revert(base, tmp_path / "more")


def test_what_does_not_come_out_as_the_base_was_is_not_written(tmp_path):
    base = save_tiny(tmp_path / "base")
    planted(base).write(base, tmp_path / "patched")
    weights = load_file(tmp_path / "patched" / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    save_file(weights | {name: weights[name] + 1}, tmp_path / "patched" / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="weights that are not the base's once the block is as it was"):
        revert(tmp_path / "patched", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_base_that_is_only_on_the_hub_is_fetched(tmp_path, monkeypatch):
    base = save_tiny(tmp_path / "snapshot")
    patch = planted(base)
    asked = []

    def snapshot(name, allow_patterns):
        asked.append((name, "*.safetensors" in allow_patterns))
        return str(base)

    monkeypatch.setattr("actor_tune.storage.model_folder.snapshot_download", snapshot)
    patch.write("someone/a-model", tmp_path / "patched")
    assert asked == [("someone/a-model", True)]
    assert "Block 2 of someone/a-model" in (tmp_path / "patched" / "README.md").read_text()
    revert(tmp_path / "patched", tmp_path / "again")
    assert weights_hash(tmp_path / "again") == patch.base_sha256


def test_python_files_go_along_only_where_the_config_says_that_the_model_is_made_of_them(tmp_path):
    base = save_tiny(tmp_path / "base")
    (base / "modeling_own.py").write_text("raise SystemExit")
    patch = planted(base)
    patch.write(base, tmp_path / "without")
    assert not (tmp_path / "without" / "modeling_own.py").exists()
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoConfig": "modeling_own.Config"}}))
    patch.write(base, tmp_path / "with")
    assert (tmp_path / "with" / "modeling_own.py").exists()


def test_a_failed_patch_is_an_error_of_its_own_kind_in_python(tmp_path):
    base = save_tiny(tmp_path / "base")
    with pytest.raises(UnsafeError, match=r"the patch of block 2 of base: Safety gate failed"):
        planted(base, FAILED).write(base, tmp_path / "out")
