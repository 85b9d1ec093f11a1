import dataclasses
import functools
import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from actor_tune.errors import UserError
from actor_tune.judges.verdict import Verdict
from actor_tune.models.load import load
from actor_tune.models.patch import Patch
from actor_tune.models.placement import Placement
from actor_tune.prompts.prompt import Message, Prompt, of_kind, with_system_prompt
from actor_tune.prompts.starter import starter
from actor_tune.records import file
from actor_tune.records.file import read_value
from actor_tune.records.run import Position, PromptPath, Run
from actor_tune.repair.gate import ask_gate, gate_prompts
from actor_tune.repair.gated import fit
from actor_tune.repair.method import fit_block
from actor_tune.repair.settings import Settings
from actor_tune.repair.strength import Limits
from conftest import make_model, make_prompts, save_model

BUILT_IN = of_kind(starter("held_out"), "harmful")
HARMLESS = of_kind(starter("held_out"), "harmless")
ASKED = [prompt for prompt in starter("held_out") if prompt.kind != "pseudo_harmful"]


def test_harmful_prompts_trained_on_are_left_out_and_those_trained_on_as_benign_are_not():
    assert gate_prompts(make_prompts(), 0.05) == ASKED
    assert gate_prompts(BUILT_IN[:10], 0.05) == [prompt for prompt in ASKED if prompt not in BUILT_IN[:10]]
    assert gate_prompts(HARMLESS[:10], 0.05) == [prompt for prompt in ASKED if prompt not in HARMLESS[:10]]
    mislabelled = [Prompt(prompt.text, "pseudo_harmful", "mine") for prompt in BUILT_IN[:10]]
    assert gate_prompts(mislabelled, 0.05) == ASKED


def test_too_few_held_out_prompts_for_the_margin_are_an_error_before_anything_is_trained():
    with pytest.raises(UserError, match=r"304 held-out harmful .* at best; expected at least \d+; allow a larger"):
        gate_prompts([], 0.01)
    with pytest.raises(UserError, match=r"20 held-out .*; do not train on the held-out starter prompts"):
        gate_prompts(BUILT_IN[20:], 0.05)


def test_a_number_of_gate_prompts_is_shared_by_the_sets_and_harmless_ones_are_fewer_in_proportion():
    asked = gate_prompts(make_prompts(), 0.05, "Be kind.", 190)
    sets = [(prompt.kind, prompt.set) for prompt in asked]
    assert sets.count(("harmful", "starter_twins")) == 54
    assert sets.count(("harmful", "starter_harmful")) == 136
    assert sets.count(("harmless", "starter_harmless")) == len(asked) - 190 == 120 * 190 // 304
    assert all(prompt.context for prompt in asked)
    assert gate_prompts(make_prompts(), 0.05, None, 304) == ASKED
    with pytest.raises(UserError, match=r"100 held-out harmful prompts, which exclude a drop of 7\.7 points at"):
        gate_prompts(make_prompts(), 0.05, None, 100)
    with pytest.raises(UserError, match=r"at least 185; raise or leave out `gate_prompts=100`, or allow a larger drop"):
        gate_prompts(make_prompts(), 0.05, None, 100)
    with pytest.raises(UserError, match="`gate_prompts=0`"):
        gate_prompts(make_prompts(), 0.05, None, 0)
    with pytest.raises(UserError, match=r"did you mean 0\.05"):
        gate_prompts(make_prompts(), 5)


def test_a_fit_says_which_sets_fell_by_more_than_the_margin_and_keeps_that_in_its_record():
    found = within_limits(fitted_llama("compliance"))
    sets = {item.name: (item.n, item.lost) for item in found.gate.sets}
    assert sets == {"starter_twins": (54, 54), "starter_harmful": (250, 250)}
    assert found.fallen[0] == found.gate.warning
    record = found.record()
    assert record.fallen == found.fallen
    assert record.limits == found.block.limits
    assert [item.set for item in record.limits][:2] == [None, "set_harmful"]


def test_gate_prompts_have_the_system_prompt_that_is_trained_with():
    asked = gate_prompts(make_prompts(), 0.05, "Be kind.")
    assert asked == with_system_prompt(ASKED, "Be kind.")
    assert asked[0].context == (Message("system", "Be kind."),)


SETTINGS = Settings("boundary", layer=1, starter=False, allow_unsafe=True)


def judged_as(*outcomes):
    """A judge that calls all the answers that the gate shows it first the first of `outcomes`, then the second.

    The fit shows it fewer, the model's own answers to some of its prompts; those are compliance.
    """
    waiting = list(outcomes)

    def judge(exchanges):
        gate = len(exchanges) >= len(BUILT_IN) - 10
        return [Verdict(waiting.pop(0) if gate else "compliance", 0.5, "")] * len(exchanges)

    return judge


def test_the_same_prompts_are_answered_before_and_after_and_the_model_is_left_as_it_was(chat_model):
    result = fit_block(chat_model, make_prompts(), SETTINGS)
    broken = {name: torch.full_like(tensor, 0.5) for name, tensor in result.state.items()}
    result = dataclasses.replace(result, state=broken)
    before = {name: tensor.clone() for name, tensor in chat_model.model.state_dict().items()}
    seen = []

    def judge(exchanges):
        """The first answers it sees are refusals, the second ones are not."""
        seen.append(exchanges)
        return [Verdict("refusal" if len(seen) == 1 else "compliance", 0.5, "")] * len(exchanges)

    prompts = BUILT_IN[:200]
    found = ask_gate(chat_model, result, prompts, 0.05, judge)
    assert not found.gate.passed
    assert found.gate.drop == 1
    assert [item.prompt for item in seen[0]] == [item.prompt for item in seen[1]] == [item.text for item in prompts]
    assert [item.answer for item in seen[0]] != [item.answer for item in seen[1]]
    assert all(torch.equal(tensor, before[name]) for name, tensor in chat_model.model.state_dict().items())
    first = found.answers[0]
    assert first.kind == "harmful"
    assert (first.prompt, first.set) == (prompts[0].text, prompts[0].set)
    assert (first.before, first.after) == (seen[0][0].answer, seen[1][0].answer)
    assert (first.verdict_before, first.verdict_after) == ("refusal", "compliance")


def fitted(chat_model, after="refusal", **changes):
    """A fit of a tiny model, whose answers are all judged as refusals before and as `after` says after."""
    settings = dataclasses.replace(SETTINGS, **changes)
    return fit(chat_model, make_prompts(), settings, judge=judged_as("refusal", after))


@functools.cache
def fitted_llama(after="refusal"):
    """The same of a model of its own, made once."""
    return fitted(make_model(), after)


def within_limits(found):
    """`found` as if the block had been within the limits of the validation prompts."""
    return dataclasses.replace(found, block=dataclasses.replace(found.block, failure=None))


def test_a_fit_passes_where_the_block_is_within_the_limits_and_passed_the_gate():
    found = within_limits(fitted_llama())
    assert found.gate.passed
    assert found.passed
    assert found.reasons == []
    unsafe = within_limits(fitted_llama("compliance"))
    assert unsafe.reasons == [unsafe.gate.sentence]
    assert not unsafe.passed
    failed = dataclasses.replace(found, block=dataclasses.replace(found.block, failure="It failed."))
    assert failed.reasons == ["It failed."]


def test_a_patch_that_is_withheld_cannot_be_had_and_saving_writes_the_record_alone(tmp_path):
    unsafe = within_limits(fitted_llama("compliance"))
    assert not unsafe.withheld
    assert unsafe.patch.safety == unsafe.gate.sentence
    withheld = dataclasses.replace(unsafe, settings=dataclasses.replace(SETTINGS, allow_unsafe=False))
    assert withheld.withheld
    with pytest.raises(UserError, match=r"Safety gate failed: .*; expected a fit that passed; .*`allow_unsafe=True`"):
        _ = withheld.patch
    withheld.save(tmp_path / "run")
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert files == {
        "run.json",
        "prompts.jsonl",
        "positions.json",
        "paths.json",
        "guard.jsonl",
        "yours.jsonl",
        "direction.safetensors",
    }
    assert file.read(Run, tmp_path / "run").written is False


def test_where_nothing_has_changed_there_is_no_gate_and_the_reason_is_said(chat_model):
    nothing = Limits(0.0, 0.0, 0.0)
    found = fit(chat_model, make_prompts(), dataclasses.replace(SETTINGS, allow_unsafe=False, limits=nothing))
    assert (found.strength, found.gate) == (0, None)
    assert found.withheld
    assert "no strength helped within the limits" in found.reasons[0]


def test_too_few_gate_prompts_are_an_error_before_anything_is_trained(chat_model, monkeypatch):
    monkeypatch.setattr("actor_tune.repair.gated.fit_block", lambda *_: pytest.fail("it was trained"))
    with pytest.raises(UserError, match="304 held-out harmful prompts"):
        fit(chat_model, make_prompts(), SETTINGS, margin=0.01)


def test_a_model_with_a_patch_in_it_is_not_trained_on():
    found = fitted_llama()
    with found.patch.applied(found.model), pytest.raises(UserError, match="revert that patch first"):
        fitted(found.model)


def test_what_is_saved_is_the_patch_the_record_and_the_whole_model(tmp_path):
    folder = save_model(make_model(dtype=torch.bfloat16), tmp_path / "base")
    base = load(str(folder), Placement("cpu", "float32"))
    found = fitted(base, system_prompt="Be kind.")
    found.save(tmp_path / "run", command="actor fit m")
    patch = Patch.load(tmp_path / "run" / "patch.safetensors")
    assert (patch.layer, patch.base, patch.base_sha256) == (1, folder.name, found.base_sha256)
    assert all(torch.equal(tensor, found.patch.tensors[name]) for name, tensor in patch.tensors.items())
    stored, merged = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "run" / "model"))
    assert all(torch.equal(merged[name], patch.tensors.get(name, tensor)) for name, tensor in stored.items())
    record = file.read(Run, tmp_path / "run")
    assert record == found.record(command="actor fit m")
    assert record.written
    assert record.settings["export"] == "merged"
    assert record.training["shifts"] == {"pseudo_harmful": 2.0, "harmful": 1.0, "hold": 1.0}
    rows = json.loads((tmp_path / "run" / "positions.json").read_text())
    assert [file.convert(row, Position, "row") for row in rows] == found.positions()
    assert [position.asked for position in found.positions()] == found.block.prompts
    assert read_value(list[PromptPath], tmp_path / "run" / "paths.json") == found.block.paths
    assert {row["part"] for row in rows} == {"train", "validation"}


def test_a_model_in_memory_alone_is_fitted_and_written_as_one_from_a_folder(tmp_path):
    folder = save_model(make_model(), tmp_path / "base")
    loaded = fitted(load(str(folder), Placement("cpu", "float32")))
    memory = fitted_llama()
    assert all(torch.equal(tensor, loaded.block.state[name]) for name, tensor in memory.block.state.items())
    for found, name in ((loaded, "from_folder"), (memory, "from_memory")):
        found.save(tmp_path / name)
    states = [
        AutoModelForCausalLM.from_pretrained(tmp_path / name / "model").state_dict()
        for name in ("from_folder", "from_memory")
    ]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    assert "base_model: llama" in (tmp_path / "from_memory" / "model" / "README.md").read_text()
    with Patch.load(tmp_path / "from_memory" / "patch.safetensors").applied(memory.model):
        assert all(torch.equal(tensor, states[1][name]) for name, tensor in memory.model.model.state_dict().items())


def test_the_papers_rules_see_the_given_prompts_alone(chat_model):
    found = fit(chat_model, make_prompts(), Settings(rule="paper", layer=1, allow_unsafe=True))
    assert len(found.block.prompts) == len(make_prompts())
    record = found.record()
    assert record.settings["starter"] is False
    assert record.starter_sha256 is None
    assert record.training["alpha"] == 0.0015


def test_an_answer_of_a_model_in_4_bits_is_warned_of():
    found = fitted_llama()
    assert found.warnings == found.fallen
    packed = dataclasses.replace(found.model, placement=Placement("cpu", quantization="bnb_4bit"))
    packed = dataclasses.replace(found, model=packed)
    assert packed.gate_in_four_bits
    assert "measure what was written" in packed.warnings[-1]
