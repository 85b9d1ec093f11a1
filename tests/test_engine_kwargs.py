"""vLLM's own options, passed through: by a module in its place that keeps what it is told."""

import json
import sys
from dataclasses import replace
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest

import actor_tune as at
from actor_tune.engines.vllm import OURS, RUNS_ALIKE
from actor_tune.errors import UserError
from conftest import make_prompts
from test_cli import run
from test_control_tokens import Unwilling

RAY = {"tensor_parallel_size": 8, "distributed_executor_backend": "ray"}


@pytest.fixture
def told(monkeypatch):
    """What each `LLM` was told."""
    package, errors, told = ModuleType("vllm"), ModuleType("vllm.exceptions"), []
    package.__spec__ = ModuleSpec("vllm", None)

    class LLM(Unwilling):
        def __init__(self, model, max_model_len, dtype, trust_remote_code, **options):
            known = {"tensor_parallel_size", "distributed_executor_backend", "quantization", "gpu_memory_utilization"}
            for name in options.keys() - known:
                raise TypeError(f"EngineArgs.__init__() got an unexpected keyword argument '{name}'")
            super().__init__()
            told.append({"model": model, "max_model_len": max_model_len, "dtype": dtype, **options})

    package.LLM, package.SamplingParams, errors.VLLMClientError = LLM, SimpleNamespace, ValueError
    monkeypatch.setitem(sys.modules, "vllm", package)
    monkeypatch.setitem(sys.modules, "vllm.exceptions", errors)
    return told


def subject(**options):
    return at.subject("m", engine="vllm", engine_kwargs=options)


def test_the_options_reach_vllm_beside_ours(told):
    at.answer(subject(**RAY), make_prompts(1))
    at.answer(subject(max_model_len=99), make_prompts(1))
    at.answer(at.subject("m", engine="vllm", placement=at.Placement(dtype="float16")), make_prompts(1))
    ours = {"model": "m", "max_model_len": None, "dtype": "auto"}
    assert told == [ours | RAY, ours | {"max_model_len": 99}, ours | {"dtype": "float16"}]


def test_the_command_passes_them_on_to_model_and_baseline_and_they_are_recorded(tmp_path, told):
    file = tmp_path / "p.jsonl"
    file.write_text(
        "".join(json.dumps({"prompt": prompt.text, "kind": prompt.kind}) + "\n" for prompt in make_prompts(2))
    )
    command = ("measure", "m", "--baseline", "b", "--engine", "vllm", "--prompts", file, "--output-dir", tmp_path / "m")
    assert run(*command, "--engine-kwargs", json.dumps(RAY)) == 0
    assert [{name: each[name] for name in ("model", *RAY)} for each in told] == [{"model": n} | RAY for n in "bm"]
    results = json.loads((tmp_path / "m" / "results.json").read_text())
    assert results["settings"]["engine_kwargs"] == RAY
    assert "engine_kwargs" not in json.loads((tmp_path / "m" / "request.json").read_text())
    assert (tmp_path / "m" / "actor.toml").read_text().count("tensor_parallel_size") == 1


def test_a_run_goes_on_on_other_gpus_and_not_with_another_quantization(tmp_path, told):
    prompts = make_prompts(3)

    def answered(work, **options):
        return at.measure(subject(**options), prompts, work=tmp_path / work)

    answered("spread", **RAY)
    assert [row.response for row in answered("spread", tensor_parallel_size=2).responses] == ["No."] * 9
    answered("plain")
    with pytest.raises(UserError, match=r'begun with engine_kwargs = null; expected \{"quantization": "fp8"\}'):
        answered("plain", quantization="fp8")
    answered("quantized", quantization="fp8", tensor_parallel_size=4)
    with pytest.raises(UserError, match="begun with quantization = "):
        answered("quantized", quantization="awq")
    assert len(told) == 4


def test_an_earlier_baseline_may_have_run_on_other_gpus_and_not_with_another_quantization(tmp_path, told):
    prompts = make_prompts(3)
    before = at.answer(subject(tensor_parallel_size=2), prompts)
    at.measure(subject(tensor_parallel_size=2), prompts).save(tmp_path / "before")
    earlier = at.EarlierMeasurement.read(tmp_path / "before", lambda name: subject(**RAY))
    for baseline in (before, earlier):
        assert at.measure(subject(**RAY), prompts, baseline=baseline).results.comparison
        with pytest.raises(UserError, match=r"answers with engine_kwargs .*fp8"):
            at.measure(subject(quantization="fp8"), prompts, baseline=baseline)
    older = replace(
        earlier, settings={name: value for name, value in earlier.settings.items() if name != "engine_kwargs"}
    )
    assert at.measure(subject(**RAY), prompts, baseline=older).results.comparison


def test_an_option_that_vllm_does_not_know_is_one_line(told):
    with pytest.raises(UserError) as raised:
        subject(tensor_paralel_size=8).open()
    assert str(raised.value) == (
        '`engine_kwargs={"tensor_paralel_size": 8}`: vLLM says: EngineArgs.__init__() got an unexpected keyword '
        "argument 'tensor_paralel_size'; expected options of the `LLM` of this version of vLLM; correct it"
    )


def test_a_bug_in_vllm_keeps_its_traceback(monkeypatch, told):
    monkeypatch.setattr(sys.modules["vllm"], "LLM", lambda **_: None + 1)
    with pytest.raises(TypeError):
        subject().open()


@pytest.mark.parametrize(
    ("name", "fix"),
    [("model", "name the model itself"), ("dtype", "give `dtype=`"), ("trust_remote_code", "`trust_remote_code=True`")],
)
def test_what_has_a_setting_of_its_own_is_named(told, name, fix):
    with pytest.raises(UserError, match=f"'{name}', which has a setting of its own.*{fix}"):
        subject(**{name: "x"})
    assert told == []
    assert name not in RUNS_ALIKE
    assert name in OURS


@pytest.mark.parametrize("engine", ["transformers", "openai"])
def test_other_engines_refuse_them(engine):
    url = "http://127.0.0.1:9/v1" if engine == "openai" else None
    with pytest.raises(UserError, match=f"`engine_kwargs=`: `engine={engine}`; expected `engine=vllm`"):
        at.subject("m", engine=engine, base_url=url, engine_kwargs=RAY)
    assert at.subject("m", engine=engine, base_url=url, engine_kwargs={}).engine_kwargs == {}


@pytest.mark.parametrize("given", ["8", "[1]", "{", '"a"'])
def test_what_is_no_object_is_one_line(tmp_path, told, capsys, given):
    assert run("measure", "m", "--engine", "vllm", "--engine-kwargs", given, "--output-dir", tmp_path / "m") == 2
    assert f"--engine-kwargs {given}: no JSON object" in capsys.readouterr().err
    assert told == []
