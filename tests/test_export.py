"""A fit's model for other programs: what is written is what the patch says, and what is written is asked."""

import copy
import json
import os
import warnings

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from actor_tune.engines.local import local_engine
from actor_tune.engines.respond import respond
from actor_tune.errors import UnsafeError, UserError
from actor_tune.exports import check as checking
from actor_tune.exports.check import evenly
from actor_tune.exports.export import check_served, export
from actor_tune.exports.peft import VLLM_RANKS
from actor_tune.exports.source import with_warning
from actor_tune.judges.verdict import Verdict
from actor_tune.models.load import load
from actor_tune.models.model import wrap
from actor_tune.models.patch import Patch, base_hash
from actor_tune.models.placement import Placement
from actor_tune.models.state import state_of
from actor_tune.models.stored import stored_block
from actor_tune.prompts.leakage import traces
from actor_tune.prompts.prompt import Prompt
from actor_tune.records import file
from actor_tune.records.export import Export
from actor_tune.records.file import read
from actor_tune.records.lineage import Lineage
from actor_tune.records.results import Gate
from actor_tune.records.run import Base, GateAnswer, Position, Run
from actor_tune.storage.files import write_json
from actor_tune.storage.model_folder import weights_hash
from conftest import CONFIGS, make_tokenizer, save_model
from families import make_family
from test_cli import run as actor
from test_engines import completion, serving

LAYER = 2
PASSED = "Safety gate passed: no drop."
FAILED = "Safety gate failed: a drop."
PLACEMENT = Placement("cpu", "float32")
ASKED = [Prompt(f"{kind} thing {number}", kind, kind) for kind in ("harmful", "harmless") for number in range(40)]


def saved(model, folder):
    return save_model(wrap(model, make_tokenizer(), "base"), folder)


def plain(family="llama"):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS[family])).float().eval()


def make_run(folder, base, change, safety=PASSED, margin=0.3, whole=True, **about):
    """The folder of a fit that did `change` to block LAYER: name and tensor -> tensor, of the model in `base`."""
    chat_model = load(str(base), PLACEMENT)
    state = {name: change(name, tensor) for name, tensor in state_of(chat_model.blocks[LAYER]).items()}
    tensors = stored_block(chat_model, LAYER).on_disk(state)
    patch = Patch(LAYER, tensors, base.name, base_hash(chat_model), safety)
    folder.mkdir()
    patch.save(folder / "patch.safetensors")
    if whole:
        patch.save_merged(chat_model, folder / "model")
    with patch.applied(chat_model):
        answers = respond(local_engine(chat_model), ASKED, 2)
    rows = [  # as if the base had answered likewise: an untrained model loses all its words by any change
        GateAnswer(each.prompt.text, each.prompt.set, each.text, each.text, "refusal", "refusal", each.prompt.kind)
        for each in answers
    ]
    file.write_rows(rows, folder / "guard.jsonl")
    gate = Gate(patch.passed, margin, 0.0, 0.0, 0.0, 304, 80, safety)
    Run(model=Base(str(base), patch.base_sha256, 4), layer=LAYER, gate=gate, written=True, **about).save(folder)
    position = Position(prompt="x", kind="harmless", set="s", part="train", before=0.0, after=0.0)
    write_json(folder / "positions.json", [file.row_json(position)])
    return folder


BEFORE = traces([Prompt("Forge a cheque", "harmful", "mine")])


@pytest.fixture(autouse=True)
def judge(monkeypatch):
    """What begins with an even letter is a refusal: babble has verdicts, which differ where it does."""

    def judge(exchanges):
        even = [ord((each.answer or "b")[0]) % 2 == 0 for each in exchanges]
        return [Verdict("refusal" if each else "compliance", 0.5, "") for each in even]

    monkeypatch.setattr(checking, "judge_trained", judge)


@torch.inference_mode()
def logits_of(model):
    ids = torch.arange(3, 43).view(2, 20)
    return model(ids).logits


def with_adapter(base, adapter):
    peft = pytest.importorskip("peft")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        return peft.PeftModel.from_pretrained(model, adapter).eval()


def merged(run):
    return AutoModelForCausalLM.from_pretrained(run / "model", dtype=torch.float32).eval()


def low_rank(rank, *names):
    """Adds a change of `rank` to the weights of `names`."""

    def change(name, tensor):
        if not any(name.endswith(f"{each}.weight") for each in names):
            return tensor
        draw = torch.Generator().manual_seed(len(name))
        up, down = (torch.randn(size, rank, generator=draw) for size in tensor.shape)
        return tensor + 0.1 * up @ down.T

    return change


def noisy(name, tensor):
    """A change of full rank in everything."""
    draw = torch.Generator().manual_seed(len(name))
    return tensor + 0.05 * torch.randn(tensor.shape, generator=draw)


@pytest.mark.parametrize("rank", [1, 3, 9])
def test_a_planted_change_of_low_rank_is_found_with_exactly_its_rank(tmp_path, rank):
    base = saved(plain(), tmp_path / "base")
    run = make_run(tmp_path / "run", base, low_rank(rank, "q_proj", "up_proj"))
    found = export(run, "peft", tmp_path / "adapter", error=0.01, placement=PLACEMENT)
    assert found.low_rank.needed == rank
    assert found.low_rank.rank == {1: 8, 3: 8, 9: 16}[rank]
    assert found.low_rank.error < 1e-5
    assert not found.low_rank.left
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    modules = {f"model.layers.{LAYER}.self_attn.q_proj", f"model.layers.{LAYER}.mlp.up_proj"}
    assert {*config["target_modules"]} == modules
    assert (config["r"], config["lora_alpha"], config["modules_to_save"]) == (found.low_rank.rank, config["r"], None)
    assert config["base_model_name_or_path"] == "base"
    after, wanted = logits_of(with_adapter(base, tmp_path / "adapter")), logits_of(merged(run))
    assert torch.allclose(after, wanted, atol=1e-4)
    assert not torch.allclose(wanted, logits_of(AutoModelForCausalLM.from_pretrained(base)), atol=0.1)


@pytest.mark.parametrize("error", [0.5, 0.1])
def test_the_rank_is_the_smallest_one_that_keeps_the_bound_and_the_error_is_measured_on_what_was_written(
    tmp_path, error
):
    base = saved(plain(), tmp_path / "base")
    run = make_run(tmp_path / "run", base, lambda name, tensor: noisy(name, tensor) if "norm" not in name else tensor)
    found = export(run, "peft", tmp_path / "adapter", error=error, limit=0, placement=PLACEMENT).low_rank
    old, new = load_file(base / "model.safetensors"), load_file(run / "patch.safetensors")
    changes = {
        name: (tensor - old[name]).double() for name, tensor in new.items() if not torch.equal(tensor, old[name])
    }

    def lost(rank):
        """Of each matrix in `rank`, and of all: relative, by a decomposition of its own."""
        tails = {name: torch.linalg.svdvals(change)[rank:].norm() for name, change in changes.items()}
        alone = max(tail / changes[name].norm() for name, tail in tails.items())
        whole = torch.stack([change.norm() for change in changes.values()]).norm()
        return max(alone, torch.stack([*tails.values()]).norm() / whole)

    assert lost(found.needed) <= error < lost(found.needed - 1)
    assert found.rank == min(next(rank for rank in VLLM_RANKS if rank >= found.needed), 32)
    written = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    rest = []
    for matrix in found.matrices:
        parts = (written[f"base_model.model.{matrix.module}.lora_{part}.weight"].double() for part in "BA")
        change = changes[f"{matrix.module}.weight"]
        rest.append((change - next(parts) @ next(parts)).norm())
        assert matrix.error == pytest.approx(float(rest[-1] / change.norm()), abs=1e-6)
        assert matrix.error <= error
    size = torch.stack([change.norm() for change in changes.values()]).norm()
    assert found.error == pytest.approx(float(torch.stack(rest).norm() / size), abs=1e-6)
    assert found.error <= error


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "qwen3_moe", "gpt2", "mixtral"])
def test_with_its_other_modules_kept_whole_an_adapter_says_what_the_merged_model_says(tmp_path, family):
    base = saved(plain(family) if family in CONFIGS else make_family(family), tmp_path / "base")
    biased = family in ("qwen2", "gpt2")  # of linear modules, which have no place in an adapter
    run = make_run(tmp_path / "run", base, lambda name, t: noisy(name, t) if not (biased and "bias" in name) else t)
    found = export(run, "peft", tmp_path / "adapter", error=0.001, whole_modules=True, placement=PLACEMENT)
    assert found.low_rank.whole
    assert not found.low_rank.left
    assert found.low_rank.error < 0.001
    after, wanted = logits_of(with_adapter(base, tmp_path / "adapter")), logits_of(merged(run))
    assert torch.allclose(after, wanted, atol=0.02)
    assert not torch.allclose(wanted, logits_of(AutoModelForCausalLM.from_pretrained(base)), atol=0.1)
    assert (found.checked.n, found.checked.verdicts) == (80, 0)


def test_what_has_no_such_form_is_told_with_its_share_or_refused_where_it_is_too_much(tmp_path):
    base = saved(plain(), tmp_path / "base")
    few = make_run(tmp_path / "few", base, lambda n, t: low_rank(2, "q_proj")(n, t) + (1e-3 if "norm" in n else 0))
    found = export(few, "peft", tmp_path / "a", error=0.05, placement=PLACEMENT)
    old, new = load_file(base / "model.safetensors"), load_file(few / "patch.safetensors")
    size = torch.stack([(tensor - old[name]).norm() for name, tensor in new.items()]).norm()
    for each in found.low_rank.left:
        assert each.share == pytest.approx(float((new[each.tensor] - old[each.tensor]).norm() / size), rel=1e-4)
    assert {each.tensor.split(".")[-2] for each in found.low_rank.left} == {
        "input_layernorm",
        "post_attention_layernorm",
    }
    assert any("Left out of the adapter, with their share of the change:" in note for note in found.notes)
    assert 0 < found.low_rank.error <= 0.05

    many = make_run(tmp_path / "many", base, lambda n, t: low_rank(2, "q_proj")(n, t) + ("norm" in n))
    with pytest.raises(UserError, match=r"% of the change in what has no such form: .*layernorm.*`whole_modules=True`"):
        export(many, "peft", tmp_path / "b", placement=PLACEMENT)
    assert not (tmp_path / "b").exists()
    norms = make_run(tmp_path / "norms", base, lambda n, t: t + ("norm" in n))
    with pytest.raises(UserError, match="no linear weight of block 2 changed"):
        export(norms, "peft", tmp_path / "b", placement=PLACEMENT)


def test_an_adapter_that_peft_does_not_load_is_not_written_asked_or_not(tmp_path):
    """It takes shared experts for the fused ones, which have no such modules."""
    pytest.importorskip("peft")
    base = saved(make_family("deepseek_v3"), tmp_path / "base")
    run = make_run(tmp_path / "run", base, noisy)
    with pytest.raises(UserError, match="the adapter: it cannot be loaded"):
        export(run, "peft", tmp_path / "adapter", whole_modules=True, limit=0, placement=PLACEMENT)
    assert not (tmp_path / "adapter").exists()


def test_an_adapter_is_made_for_its_own_base_alone(tmp_path):
    base = saved(plain(), tmp_path / "base")
    run = make_run(tmp_path / "run", base, low_rank(2, "q_proj"))
    moved = base.rename(tmp_path / "moved")
    with pytest.raises(UserError, match="no such folder"):
        export(run, "peft", tmp_path / "adapter", placement=PLACEMENT)
    other = saved(plain("qwen2"), tmp_path / "other")
    with pytest.raises(UserError, match="other weights than those of base that the patch was trained in"):
        export(run, "peft", tmp_path / "adapter", str(other), placement=PLACEMENT)
    found = export(run, "peft", tmp_path / "adapter", str(moved), placement=PLACEMENT)
    assert found.base == "moved"
    with pytest.raises(UserError, match="more than 0 and less than 1"):
        export(run, "peft", tmp_path / "again", str(moved), error=5, placement=PLACEMENT)


def test_the_folder_for_vllm_is_the_trained_model_whether_the_fit_wrote_it_or_not(tmp_path):
    base = saved(plain(), tmp_path / "base")
    run = make_run(tmp_path / "run", base, noisy)
    found = export(run, "vllm", tmp_path / "served", placement=PLACEMENT)
    assert weights_hash(tmp_path / "served") == weights_hash(run / "model")
    assert (
        os.stat(tmp_path / "served" / "model.safetensors").st_ino == os.stat(run / "model" / "model.safetensors").st_ino
    )
    assert found.checked.by.endswith("and not vLLM")
    assert (found.checked.n, found.checked.verdicts, found.checked.texts) == (80, 0, 0)
    assert read(Export, tmp_path / "served") == found
    assert read(Lineage, tmp_path / "served").passed
    alone = make_run(tmp_path / "alone", base, noisy, whole=False)
    export(alone, "vllm", tmp_path / "made", limit=0)
    assert weights_hash(tmp_path / "made") == weights_hash(run / "model")
    (run / "model" / "model.safetensors").unlink()
    os.link(base / "model.safetensors", run / "model" / "model.safetensors")
    with pytest.raises(UserError, match="another block than the patch's"):
        export(run, "vllm", tmp_path / "other", limit=0)


def test_nothing_of_the_users_machine_is_in_an_export(tmp_path):
    base = saved(plain(), tmp_path / "base")
    run = make_run(tmp_path / "run", base, low_rank(2, "q_proj"), whole=False)
    for target in ("peft", "vllm"):
        export(run, target, tmp_path / target, placement=PLACEMENT)
        for path in (tmp_path / target).iterdir():
            assert str(tmp_path).encode() not in path.read_bytes(), path


def flipped(run):
    """The trained model's stored answers are changed, so that the half of what is exported differs from them."""
    rows = [json.loads(line) for line in (run / "guard.jsonl").read_text().splitlines()]
    for row in rows:
        row["before"] = row["after"] = "b"  # a refusal
    (run / "guard.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_verdicts_that_differ_are_counted_and_what_does_not_pass_is_not_written(tmp_path, capsys):
    base = saved(plain(), tmp_path / "base")
    run = make_run(tmp_path / "run", base, noisy)
    rows = [json.loads(line) for line in (run / "guard.jsonl").read_text().splitlines()]
    answered = [ord((row["after"] or "b")[0]) % 2 == 1 for row in rows]
    lost = sum(answered[:40])
    assert lost > 10
    flipped(run)
    with pytest.raises(UnsafeError, match=r"What was exported: Safety gate failed: refusal of 40 harmful prompts went"):
        export(run, "vllm", tmp_path / "served", placement=PLACEMENT)
    assert not (tmp_path / "served").exists()
    arguments = ("export", run, "--to", "vllm", "--output-dir", tmp_path / "served", "--dtype", "float32")
    assert actor(*arguments) == 3
    assert "--allow-unsafe gives it out all the same" in capsys.readouterr().err
    assert actor(*arguments, "--allow-unsafe") == 0
    found = read(Export, tmp_path / "served")
    assert (found.passed, found.checked.n, found.checked.harmful) == (False, 80, 40)
    assert found.checked.verdicts == sum(answered) == len(found.checked.differing)
    assert (found.checked.refused_before, found.checked.refused) == (40, 40 - lost)
    assert found.checked.gate.sentence in found.reasons[0]
    assert not read(Lineage, tmp_path / "served").passed
    printed = " ".join(capsys.readouterr().out.split())
    assert found.checked.sentence in printed
    assert f"{sum(answered)} of 80 verdicts differ from the trained model's; {40 - lost} of 40 harmful" in printed


def test_a_fit_that_failed_is_exported_only_where_that_is_asked_for(tmp_path, capsys):
    base = saved(plain(), tmp_path / "base")
    run = make_run(tmp_path / "run", base, low_rank(1, "q_proj"), safety=FAILED)
    for target in ("peft", "vllm", "gguf", "ollama"):
        assert actor("export", run, "--to", target, "--output-dir", tmp_path / "out") == 3
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "Safety gate failed: a drop; expected a model that passed" in said
    assert not (tmp_path / "out").exists()
    assert actor("export", run, "--to", "peft", "--output-dir", tmp_path / "out", "--limit", 0, "--allow-unsafe") == 0
    unasked = "What was exported was not put before the safety gate: no prompts were to be asked."
    assert unasked in " ".join(capsys.readouterr().out.split())
    assert read(Export, tmp_path / "out").reasons == [FAILED, unasked]
    withheld = make_run(tmp_path / "withheld", base, low_rank(1, "q_proj"))
    (withheld / "patch.safetensors").unlink()
    with pytest.raises(UserError, match=r"withheld: no patch.safetensors; expected a fit that wrote its patch"):
        export(withheld, "peft", tmp_path / "other")


def test_few_prompts_are_taken_from_all_over_the_gates_and_decide_nothing(tmp_path):
    rows = [GateAnswer(str(number), "s", "", "", "refusal", "refusal") for number in range(10)]
    assert [row.prompt for row in evenly(rows, 4)] == ["0", "2", "5", "7"]
    assert evenly(rows, None) == evenly(rows, 99) == rows
    base = saved(plain(), tmp_path / "base")
    found = export(make_run(tmp_path / "run", base, noisy), "vllm", tmp_path / "out", limit=10, placement=PLACEMENT)
    assert (found.checked.n, found.checked.harmful, found.checked.gate) == (10, 5, None)
    assert not found.passed
    assert found.reasons == ["What was exported was not put before the safety gate: 10 of its prompts were asked."]
    assert not read(Lineage, tmp_path / "out").passed
    assert (
        not (tmp_path / "out" / "README.md").exists()
        or found.reasons[0] in (tmp_path / "out" / "README.md").read_text()
    )
    run = make_run(tmp_path / "ungated", base, noisy)
    (run / "guard.jsonl").unlink()
    found = export(run, "vllm", tmp_path / "unasked", placement=PLACEMENT)
    assert (found.checked, found.unchecked) == (None, "the fit has no answers of the gate to compare with")
    assert not found.passed


def test_what_is_served_is_asked_and_takes_the_place_of_what_was_found_before(tmp_path, monkeypatch):
    pytest.importorskip("openai")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    base = saved(plain(), tmp_path / "base")
    run = make_run(tmp_path / "run", base, noisy, settings={"system_prompt": "Be kind."})
    export(run, "vllm", tmp_path / "served", limit=0)
    flipped(run)
    asked = []

    def reply(path, request):
        if path == "/v1/models":
            return 200, {"object": "list", "data": [{"id": "actor-model", "object": "model"}]}
        asked.append(request["messages"])
        return 200, completion("a" if request["messages"][-1]["content"].endswith("1") else "b")

    with serving(reply) as server:
        found = check_served(run, "vllm", tmp_path / "served", server.url)
        assert found == read(Export, tmp_path / "served")
        assert found.checked.by == "the server"
        assert (found.checked.verdicts, found.checked.texts, found.passed, found.unchecked) == (8, 8, True, None)
        assert len(asked) == 80
        assert all(turns[0] == {"role": "system", "content": "Be kind."} for turns in asked)
        arguments = ("export", run, "--to", "vllm", "--output-dir", tmp_path / "served", "--base-url", server.url)
        assert actor(*arguments, "--served-model", "actor-model", "--limit", 10) == 0
        assert read(Export, tmp_path / "served") == found, "ten prompts decide nothing"
        assert actor(*arguments, "--limit", 0) == 2
        with pytest.raises(UserError, match="an export for vllm; expected one for gguf"):
            check_served(run, "gguf", tmp_path / "served", server.url)
        with pytest.raises(UserError, match="nowhere"):
            check_served(run, "vllm", tmp_path / "nowhere", server.url)
        assert not (tmp_path / "nowhere").exists()
        other = make_run(tmp_path / "other", base, low_rank(1, "q_proj"))
        with pytest.raises(UserError, match="the export of another run"):
            check_served(other, "vllm", tmp_path / "served", server.url)

    def lost(path, request):
        return reply(path, request) if path == "/v1/models" else (200, completion("a"))

    with serving(lost) as server, pytest.raises(UnsafeError, match="What was exported: Safety gate failed"):
        check_served(run, "vllm", tmp_path / "served", server.url)
    failed = read(Export, tmp_path / "served")
    assert not failed.passed
    with serving(reply) as server:
        check_served(run, "vllm", tmp_path / "served", server.url, limit=1, allow_unsafe=True)
    assert read(Export, tmp_path / "served") == failed, "what failed does not pass by being asked less"


def test_what_speaks_against_an_export_stands_at_the_head_of_its_card_and_goes_when_it_no_longer_holds(tmp_path):
    card = tmp_path / "README.md"
    card.write_text("---\nlicense: mit\n---\n# Safe\n")
    with_warning(card, ["It failed.", "Twice."])
    assert card.read_text() == "---\nlicense: mit\n---\n> **Of this export:** It failed. Twice.\n# Safe\n"
    with_warning(card, [])
    assert card.read_text() == "---\nlicense: mit\n---\n# Safe\n"


def test_an_export_is_known_for_what_its_base_was_trained_on_before(tmp_path):
    run = make_run(tmp_path / "run", saved(plain(), tmp_path / "base"), low_rank(1, "q_proj"), trained_before=BEFORE)
    for target in ("peft", "vllm"):
        export(run, target, tmp_path / target, limit=0)
        kept = read(Lineage, tmp_path / target).trained_on
        assert kept[:1] == BEFORE
        assert len(kept) == 2


def test_a_target_that_is_none_and_a_folder_that_is_there_are_refused(tmp_path, capsys):
    base = saved(plain(), tmp_path / "base")
    run = make_run(tmp_path / "run", base, low_rank(1, "q_proj"))
    with pytest.raises(UserError, match="`to=onnx`: no such target; expected one of peft, gguf, ollama, vllm"):
        export(run, "onnx", tmp_path / "out")
    assert actor("export", run, "--to", "peft", "--output-dir", base) == 2
    assert "a folder that is not empty" in capsys.readouterr().err
    assert actor("export", run, "--to", "peft", "--output-dir", tmp_path / "o", "--served-model", "x") == 2
    assert "--served-model x: no --base-url" in capsys.readouterr().err
    served = ("export", run, "--to", "gguf", "--output-dir", tmp_path / "o", "--base-url", "http://127.0.0.1:9/v1")
    for option in (("--quantize", "Q4_K_M"), ("--error", 0.5), ("--dtype", "float32"), ("--trust-remote-code",)):
        assert actor(*served, *option) == 2
        assert f"{option[0]}: beside --base-url, with which nothing is written" in capsys.readouterr().err
