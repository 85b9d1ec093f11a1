"""A fit that is cut off anywhere goes on, and comes to what one that was not cut off comes to."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file

from actor_tune.errors import UserError
from actor_tune.judges.verdict import Verdict
from actor_tune.prompts.starter import starter
from actor_tune.records.file import read
from actor_tune.records.run import Run
from actor_tune.repair.gated import fit
from actor_tune.repair.settings import Settings
from conftest import make_model, make_prompts

SETTINGS = Settings("boundary", starter=False, allow_unsafe=True)
PARTS = ["answers.jsonl", "scan.json", "trained.safetensors", "trials.json", "gate-before.jsonl", "gate-after.jsonl"]


class Cut(BaseException):
    """As a kill would, nothing catches it."""


@pytest.fixture(autouse=True)
def few_held_out(monkeypatch):
    """The gate asks 120 prompts instead of all."""
    few = [prompt for kind in ("harmful", "harmless") for prompt in starter("held_out") if prompt.kind == kind][::4]
    monkeypatch.setattr("actor_tune.repair.gated.gate_prompts", lambda *_: few)
    monkeypatch.setattr("actor_tune.measurement.gate.check_power", lambda *_: None)


def judge(exchanges):
    """Says the same of the same answer."""
    return [Verdict("refusal" if sum(one.answer.encode()) % 3 else "compliance", 0.5, "") for one in exchanges]


def fitted(work, folder):
    fit(make_model(), make_prompts(), SETTINGS, judge=judge, work=work).save(folder)
    record = json.loads((folder / "run.json").read_text())
    return {key: value for key, value in record.items() if key != "seconds"}, load_file(folder / "patch.safetensors")


STEPS = {
    "answers.jsonl": "actor_tune.repair.method.scan_candidates",
    "scan.json": "actor_tune.repair.learn.train_block",
    "trained.safetensors": "actor_tune.repair.method.try_strengths",
    "trials.json": "actor_tune.repair.gated.ask_gate",
    "gate-after.jsonl": "actor_tune.repair.gate.decide",
}


@pytest.mark.parametrize("part", STEPS)
def test_a_fit_that_was_cut_off_goes_on_where_it_was_and_comes_to_the_same(tmp_path, monkeypatch, part):
    expected = fitted(None, tmp_path / "whole")

    def cut(*_arguments, **_keywords):
        raise Cut

    with monkeypatch.context() as patched:
        patched.setattr(STEPS[part], cut)
        with pytest.raises(Cut):
            fitted(tmp_path / "work", tmp_path / "run")
    assert not (tmp_path / "run").exists()
    done = PARTS[: PARTS.index(part) + 1]
    there = {file.name for file in (tmp_path / "work").iterdir()}
    assert {*done, "request.json"} <= there

    def again(*_arguments, **_keywords):
        raise AssertionError("done again")

    for step in [STEPS[name] for name in done if name in STEPS][:-1]:
        if step != STEPS["trials.json"]:  # the gate is asked again, but for what it had answered
            monkeypatch.setattr(step, again)
    record, tensors = fitted(tmp_path / "work", tmp_path / "run")
    assert record == expected[0]
    assert all(torch.equal(tensors[name], expected[1][name]) for name in expected[1])
    assert read(Run, tmp_path / "run").layer == expected[0]["layer"]


def test_what_another_fit_keeps_is_not_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.setattr("actor_tune.repair.gated.fit_block", lambda *_: (_ for _ in ()).throw(Cut()))
    with pytest.raises(Cut):
        fit(make_model(), make_prompts(), SETTINGS, judge=judge, work=tmp_path)
    (tmp_path / "answers.jsonl").touch()  # of a fit that has nothing yet, the arguments can be corrected
    for settings, margin, message in (
        (dataclasses.replace(SETTINGS, seed=1), 0.05, "begun with seed = 0; expected 1"),
        (SETTINGS, 0.1, r"begun with margin = 0\.05; expected 0\.1"),
    ):
        with pytest.raises(UserError, match=message):
            fit(make_model(), make_prompts(), settings, margin, judge=judge, work=tmp_path)
    with pytest.raises(UserError, match="begun with prompts_sha256"):
        fit(make_model(), make_prompts(20), SETTINGS, judge=judge, work=tmp_path)


@pytest.mark.parametrize("part", ["scan.json", "trained.safetensors", "trials.json", "answers.jsonl"])
def test_a_damaged_part_is_named(tmp_path, part):
    fit(make_model(), make_prompts(), SETTINGS, judge=judge, work=tmp_path)
    content = (tmp_path / part).read_bytes()
    (tmp_path / part).write_bytes(b"{" + content[: len(content) // 2] + b"\n")
    with pytest.raises(UserError, match=part):
        fit(make_model(), make_prompts(), SETTINGS, judge=judge, work=tmp_path)
