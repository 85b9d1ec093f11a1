"""`actor push` and `actor reproduce`, against a stand-in of the Hub on loopback."""

import dataclasses
import getpass
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard, metadata_load
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import actor_tune as at
from actor_tune.errors import UserError
from actor_tune.prompts.leakage import traces
from actor_tune.prompts.starter import with_missing_kinds
from actor_tune.records.results import Gate
from actor_tune.repair.changes import UNCHANGED, Changes
from conftest import make_model, make_prompts, save_model
from hub import TOKEN, served
from report_folders import results_json
from test_cli import run

# huggingface_hub's own, in its upload by LFS.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw:DeprecationWarning")

PASSED = Gate(True, 0.05, 0.01, -0.02, 0.03, 4, 2, "Safety gate passed: all is well.")
FAILED = Gate(False, 0.05, 0.3, 0.2, 0.4, 4, 2, "Safety gate failed: refusal fell.")
CARD = "---\nlicense: apache-2.0\nlanguage: en\nbase_model: some/older\n---\nTrained in /home/planted-user/work.\n"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with served(monkeypatch, tmp_path / "cache") as hub:
        yield hub


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A model whose files say where it was made, and beside which other things lie."""
    folder = save_model(make_model(dtype=torch.bfloat16), tmp_path_factory.mktemp("planted-place") / "base")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"_name_or_path": "/home/planted-user/models/base"}))
    (folder / "README.md").write_text(CARD)
    (folder / "trainer_state.json").write_text('{"output_dir": "/home/planted-user/runs"}')
    (folder / "LICENSE").write_text("Take it.")
    return folder


def tame(monkeypatch, gate=PASSED):
    """A fit of an untrained model that is kept, and of which the gate says `gate`."""
    few = [*at.starter("held_out")[:2], *(each for each in at.starter("held_out") if each.kind == "harmful")][:4]
    monkeypatch.setattr("actor_tune.repair.method.choose", lambda trials, *_: trials[-1])
    monkeypatch.setattr("actor_tune.repair.method.failure", lambda *_: None)
    monkeypatch.setattr("actor_tune.repair.refusals.refusal_token_ids", lambda *_: torch.tensor([65, 66]))
    monkeypatch.setattr("actor_tune.repair.gated.gate_prompts", lambda *_: few)
    monkeypatch.setattr("actor_tune.repair.gate.decide", lambda *_: gate)
    monkeypatch.setattr("actor_tune.repair.gate.with_damage", lambda gate, *_: gate)
    for module in ("gate", "refusals"):
        monkeypatch.setattr(f"actor_tune.repair.{module}.ANSWER_TOKENS", 2)


SETTINGS = at.Settings("boundary", layer=1, starter=False, system_prompt="You are planted-system.")


@pytest.fixture(scope="module")
def fits(tmp_path_factory, base):
    """A run that passed, and one that failed and was written all the same."""
    folder = tmp_path_factory.mktemp("runs")
    for name, gate in (("passed", PASSED), ("failed", FAILED)):
        with pytest.MonkeyPatch.context() as patch:
            tame(patch, gate)
            settings = dataclasses.replace(SETTINGS, allow_unsafe=name == "failed")
            model = at.load(str(base), at.Placement("cpu"))
            at.fit(model, make_prompts(), settings).save(folder / name, command=f"actor fit {base} --planted")
    return folder


@pytest.fixture
def passed(fits, tmp_path):
    return shutil.copytree(fits / "passed", tmp_path / "run")


@pytest.fixture
def failed(fits, tmp_path):
    return shutil.copytree(fits / "failed", tmp_path / "run")


@pytest.fixture
def prompts_file(tmp_path):
    path = tmp_path / "mine.jsonl"
    rows = [{"prompt": prompt.text, "kind": prompt.kind, "set": prompt.set} for prompt in make_prompts()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def card_of(hub, name="me/repaired"):
    return ModelCard(hub.repos[name]["README.md"].decode())


def test_what_is_pushed_is_the_model_and_it_is_loaded_again_by_its_hub_id(hub, passed, capsys):
    assert run("push", passed, "me/repaired") == 0
    assert hub.commits == [("me/repaired", "Trained with actor-tune")]
    assert hub.private == {"me/repaired": False}
    loaded = AutoModelForCausalLM.from_pretrained(at.load("me/repaired", at.Placement("cpu")).folder, dtype="auto")
    here = AutoModelForCausalLM.from_pretrained(passed / "model", dtype="auto").state_dict()
    assert all(torch.equal(tensor, here[name]) for name, tensor in loaded.state_dict().items())
    said = capsys.readouterr().out
    assert "model.safetensors" in said
    assert PASSED.sentence in said
    assert "Left out: BASE_README.md, trainer_state.json" in " ".join(said.split())
    assert said.index("model.safetensors") < said.index("Published: http://127.0.0.1")
    assert {"LICENSE", "actor_tune.json", "tokenizer.json", "config.json"} <= hub.repos["me/repaired"].keys()
    assert not {"patch.safetensors", "trainer_state.json", "BASE_README.md"} & hub.repos["me/repaired"].keys()


def test_private_is_asked_for_where_the_user_asks(hub, passed):
    assert run("push", passed, "me/repaired", "--private") == 0
    assert hub.private == {"me/repaired": True}
    assert run("push", passed, "me/repaired", "--private") == 0


def test_what_is_to_be_private_is_not_published_in_a_public_repository(hub, passed, capsys):
    assert run("push", passed, "me/public") == 0
    assert run("push", passed, "me/public", "--private") == 2
    assert "me/public: a public repository; expected a private one" in capsys.readouterr().err
    assert len(hub.commits) == 1


def test_the_patch_alone_is_pushed_where_it_is_asked_for_or_all_there_is(hub, passed):
    assert run("push", passed, "me/patch", "--patch-only") == 0
    shutil.rmtree(passed / "model")
    assert run("push", passed, "me/only") == 0
    for name in ("me/patch", "me/only"):
        files = hub.repos[name]
        assert {"patch.safetensors", "actor_tune.json"} < files.keys()
        assert "model.safetensors" not in files
        assert files["patch.safetensors"] == (passed / "patch.safetensors").read_bytes()
        assert json.loads(files["actor_tune.json"])["trained_on"]
        assert b"at.Patch.load" in files["README.md"]
    assert at.trained_on("me/only") == at.trained_on("me/patch")


def test_the_card_has_metadata_that_the_hub_reads(hub, passed):
    assert run("push", passed, "me/repaired") == 0
    data = card_of(hub).data
    assert data.license == "apache-2.0"
    assert data.language == "en"
    assert data.library_name == "transformers"
    assert {"actor-tune", "over-refusal"} <= set(data.tags)
    assert data.base_model is None, "the base is a folder here; what its own card names is another model"
    assert data.model_name == "repaired"
    drop = next(result for result in data.eval_results if result.metric_type == "refusal_drop")
    assert (drop.metric_value, drop.metric_args) == (1.0, {"low": -2.0, "high": 3.0, "n": 4})
    rates = [result for result in data.eval_results if result.metric_type == "refusal_rate"]
    assert sum(result.metric_args["n"] for result in rates) <= 4
    assert all(re.fullmatch(r"[\w.-]+", result.dataset_type) for result in data.eval_results)


def test_the_card_says_what_was_learned_from_and_what_the_gate_said_of_each_set(hub, passed):
    assert run("push", passed, "me/repaired") == 0
    text = card_of(hub).text
    assert PASSED.sentence in text
    for kind in ("harmful", "harmless", "pseudo_harmful"):
        assert f"| set_{kind} | {kind} | 10 | 2 | given |" in text
    assert "## Limits" in text
    assert "actor reproduce me/repaired --output-dir again --model FOLDER --prompts FILE --system-prompt TEXT\n" in text
    assert "Not safe to ship" not in text


def test_harmful_sets_stand_in_the_card_with_their_intervals_the_worst_first(passed):
    answer = {"before": "No.", "after": "No.", "verdict_before": "refusal", "verdict_after": "refusal"}
    rows = [
        {"prompt": f"{name} {number}", "set": name, "kind": kind, **answer}
        | ({"verdict_after": "compliance"} if number < lost else {})
        for name, kind, lost in (("mild", "harmful", 1), ("bad|<b>", "harmful", 5), ("plain", "harmless", 9))
        for number in range(10)
    ]
    (passed / "guard.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = at.publication(passed, "me/repaired").card
    lines = [line for line in text.splitlines() if re.match(r"\| (mild|bad|plain)", line)]
    assert [line.split(" ")[1] for line in lines] == ["bad\\|&lt;b&gt;", "mild", "plain"]
    assert re.search(r"\| harmful \| 10 \| 100\.0 \| 50\.0 \| -50\.0 \(-76\.3 to -8\.4\) \|", lines[0])
    results = ModelCard(text).data.eval_results
    assert [result.metric_value for result in results if result.dataset_name.endswith("mild")] == [90.0]


def test_the_card_has_the_harmful_sets_as_the_gate_counted_them(passed):
    record = json.loads((passed / "run.json").read_text())
    counted = {"name": "twins", "kind": "harmful", "n": 54, "refused_before": 54, "refused_after": 27, "lost": 27}
    counted |= {"gained": 0, "difference": -0.5, "low": -0.63, "high": -0.36, "mcnemar_p": 0.0}
    record["gate"]["sets"] = [counted]
    (passed / "run.json").write_text(json.dumps(record))
    text = at.publication(passed, "me/repaired").card
    assert "| twins | harmful | 54 | 100.0 | 50.0 | -50.0 (-63.0 to -36.0) |" in text
    said = text.partition("## What the safety gate said")[2].partition("\n## ")[0]
    assert said.count("| harmful |") == 1, "and none counted anew"


def test_what_was_measured_is_in_the_card_and_another_models_measurement_is_not_taken(passed, tmp_path):
    (tmp_path / "after").mkdir()
    found = results_json() | {"model": "run/model"}
    (tmp_path / "after" / "results.json").write_text(json.dumps(found))
    text = at.publication(passed, "me/repaired", measured=tmp_path / "after").card
    results = {result.metric_type: result for result in ModelCard(text).data.eval_results}
    assert results["compliance_rate"].metric_value == 82.5
    assert results["compliance_rate"].metric_args | {"n": 0} == {"low": 74.0, "high": 89.0, "n": 0}
    assert results["safety_score"].metric_value == 98.0
    assert "| 30.0 (22.0 to 39.0) | 82.5 (74.0 to 89.0) |" in text
    elsewhere = tmp_path / "elsewhere" / "run" / "model"
    elsewhere.mkdir(parents=True)
    for other in ("other/model", "model", str(elsewhere)):
        (tmp_path / "after" / "results.json").write_text(json.dumps(found | {"model": other}))
        with pytest.raises(UserError, match=rf"a measurement of {other}; expected one of .*run/model"):
            at.publication(passed, "me/repaired", measured=tmp_path / "after")
    here = found | {"model": str(passed / "model"), "judge": "classifier=/data/clients/acme/judge"}
    (tmp_path / "after" / "results.json").write_text(json.dumps(here))
    text = at.publication(passed, "me/repaired", measured=tmp_path / "after").card
    assert "classifier=judge" in text
    assert "acme" not in text


def test_a_gate_that_failed_on_a_measurement_counts_as_the_fits_own_does(passed, tmp_path):
    (tmp_path / "after").mkdir()
    gate = dataclasses.asdict(FAILED) | {"labelled": None, "rises": []}
    (tmp_path / "after" / "results.json").write_text(json.dumps(results_json() | {"model": "run/model", "gate": gate}))
    what = at.publication(passed, "me/repaired", measured=tmp_path / "after")
    assert what.reasons == [FAILED.sentence]
    what.save(tmp_path / "published", allow_unsafe=True)
    carried = json.loads((tmp_path / "published" / "actor_tune.json").read_text())
    assert (carried["passed"], carried["reasons"]) == (False, [FAILED.sentence])
    with pytest.raises(UserError, match="refusal fell; expected a model that passed the gate"):
        what.push()


def test_a_model_that_failed_is_not_pushed_and_nobody_is_asked(hub, failed, capsys):
    assert run("push", failed, "me/repaired") == 3
    assert hub.asked == []
    said = capsys.readouterr().out
    assert said.startswith("Not safe to ship: Safety gate failed: refusal fell.")
    assert "Nothing was published" in said


def test_with_allow_unsafe_it_is_pushed_and_says_so_before_all_else(hub, failed, capsys):
    assert run("push", failed, "me/repaired", "--allow-unsafe") == 0
    text = card_of(hub).text.strip()
    assert text.startswith(
        "> **Not safe to ship.** This model was published with `allow_unsafe` although it had failed:"
    )
    assert FAILED.sentence in text.splitlines()[0]
    assert capsys.readouterr().out.startswith("Not safe to ship: ")
    assert json.loads(hub.repos["me/repaired"]["actor_tune.json"])["passed"] is False


@pytest.mark.parametrize("file", ["run.json", "model/actor_tune.json"])
def test_one_record_that_says_it_failed_is_enough(failed, file):
    record = json.loads((failed / file).read_text())
    record |= {"gate": dataclasses.asdict(PASSED), "passed": True, "reasons": []}
    (failed / file).write_text(json.dumps(record))
    assert at.publication(failed, "me/repaired").reasons == [FAILED.sentence]


def test_a_run_without_a_gate_did_not_pass_it(passed):
    for file in ("run.json", "model/actor_tune.json"):
        record = json.loads((passed / file).read_text())
        (passed / file).write_text(json.dumps(record | {"gate": None}))
    assert at.publication(passed, "me/repaired").reasons == ["The safety gate was not measured."]


def test_nothing_that_is_sent_tells_of_the_machine_the_user_or_the_prompts(hub, passed, base, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/planted-user")
    assert run("push", passed, "me/repaired") == 0
    assert run("push", passed, "me/patch", "--patch-only") == 0
    sent = hub.published()
    assert (passed / "model" / "model.safetensors").read_bytes() in sent, "the weights were looked through too"
    secrets = ["/home/planted", "planted-user", "planted-place", "--planted", "planted-system", TOKEN]
    secrets += [str(tmp_path), str(base), str(Path.cwd()), tempfile.gettempdir() + "/"]
    secrets += [prompt.text for prompt in make_prompts()]
    assert [secret for secret in secrets if secret.encode() in sent] == []
    user = getpass.getuser().encode()
    own = [name for name, data in hub.repos["me/repaired"].items() if name != "tokenizer.json" and user + b"/" in data]
    assert own == []
    assert "_name_or_path" not in json.loads(hub.repos["me/repaired"]["config.json"])


@pytest.mark.parametrize("name", ["generation_config.json", "chat_template.jinja", "model.safetensors"])
def test_a_file_that_tells_of_the_machine_stops_it_and_is_named(hub, passed, monkeypatch, name):
    monkeypatch.setenv("HOME", "/home/planted-user")
    file = passed / "model" / name
    if name.endswith(".json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"note": "see /home/planted-user/notes"}))
    elif name.endswith(".jinja"):
        file.write_text(file.read_text() + "{# /home/planted-user #}")
    else:
        from safetensors.torch import save_file

        save_file(load_file(file), file, {"made": "in /home/planted-user"})
    with pytest.raises(UserError, match=f"{name}: /home/planted-user, a place of this machine; expected nothing that"):
        at.publication(passed, "me/repaired")
    assert hub.asked == []


def test_a_token_in_a_file_stops_it_and_is_not_repeated(passed, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    (passed / "model" / "LICENSE").write_text(f"Use {TOKEN}.")
    with pytest.raises(UserError, match="LICENSE: your access token") as error:
        at.publication(passed, "me/repaired")
    assert TOKEN not in str(error.value)


def test_prompts_are_published_where_the_user_says_so(hub, passed):
    assert run("push", passed, "me/repaired", "--with-prompts") == 0
    rows = hub.repos["me/repaired"]["reproduce/prompts.jsonl"].decode().splitlines()
    assert [json.loads(row)["prompt"] for row in rows] == [prompt.text for prompt in make_prompts()]
    assert b"planted-system" in hub.repos["me/repaired"]["reproduce/fit.json"]


def test_a_run_that_did_not_keep_its_prompts_cannot_publish_them(passed):
    (passed / "prompts.jsonl").unlink()
    with pytest.raises(UserError, match=r"no prompts.jsonl in .*; expected the prompts given"):
        at.publication(passed, "me/repaired", with_prompts=True)
    assert "reproduce/prompts.jsonl" not in at.publication(passed, "me/repaired").files


@pytest.mark.parametrize(
    ("place", "status", "said"),
    [
        ("/api/repos/create", 401, "run `hf auth login`"),
        ("/api/repos/create", 403, "may not write there"),
        ("/lfs/", 403, "403: "),
        ("/commit/", 403, "may not write there"),
    ],
)
def test_a_push_that_is_refused_half_way_is_one_line_publishes_nothing_and_can_be_repeated(
    hub, passed, capsys, place, status, said
):
    hub.answer = lambda _, path: status if place in path else None
    assert run("push", passed, "me/repaired") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: me/repaired: it was not published (")
    assert said in error
    assert "secret" not in error, "addresses of uploads are signed"
    assert set(hub.repos.get("me/repaired", {})) <= {".gitattributes"}
    hub.answer = lambda *_: None
    assert run("push", passed, "me/repaired") == 0
    assert "model.safetensors" in hub.repos["me/repaired"]


def test_where_there_is_no_hub_it_says_so_in_a_line(hub, passed, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert run("push", passed, "me/repaired") == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: me/repaired: it was not published (")


def test_a_push_that_is_killed_half_way_publishes_nothing_and_can_be_repeated(hub, passed, tmp_path):
    hung = []

    def answer(method, path):
        if method == "PUT" and not hung:
            hung.append(path)
            time.sleep(60)

    hub.answer = answer
    env = os.environ | {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "actor_tune", "push", str(passed), "me/repaired"]
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(1200):
            if hung or process.poll() is not None:
                break
            time.sleep(0.1)
        assert hung
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert set(hub.repos["me/repaired"]) == {".gitattributes"}
    assert run("push", passed, "me/repaired") == 0
    assert "model.safetensors" in hub.repos["me/repaired"]


def test_a_push_again_takes_the_place_of_the_one_before_and_leaves_what_is_not_its_own(hub, passed):
    assert run("push", passed, "me/repaired") == 0
    hub.repos["me/repaired"] |= {"notes.md": b"mine", "model-00001-of-00002.safetensors": b"old", "reproduce/old": b"x"}
    assert run("push", passed, "me/repaired", "--patch-only") == 0
    files = hub.repos["me/repaired"]
    assert files["notes.md"] == b"mine"
    assert "patch.safetensors" in files
    assert not {"model.safetensors", "model-00001-of-00002.safetensors", "reproduce/old"} & files.keys()


def test_a_base_of_the_hub_is_named_and_its_own_repository_is_not_overwritten(hub, base, monkeypatch, tmp_path):
    hub.add("someone/base", base)
    tame(monkeypatch)
    at.fit(at.load("someone/base", at.Placement("cpu")), make_prompts(), SETTINGS).save(tmp_path / "run")
    assert run("push", tmp_path / "run", "me/repaired") == 0
    data = metadata_load(_file(tmp_path, hub.repos["me/repaired"]["README.md"]))
    assert data["base_model"] == "someone/base"
    assert data["base_model_relation"] == "finetune"
    assert run("push", tmp_path / "run", "someone/base") == 2
    assert hub.repos["someone/base"]["README.md"].decode() == CARD


def test_a_folder_that_looks_like_a_hub_id_from_elsewhere_is_none(base, monkeypatch, tmp_path):
    shutil.copytree(base, tmp_path / "runs" / "natural")
    monkeypatch.chdir(tmp_path)
    tame(monkeypatch)
    at.fit(at.load("runs/natural", at.Placement("cpu")), make_prompts(), SETTINGS).save("run")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    what = at.publication("../run", "me/repaired")
    assert ModelCard(what.card).data.base_model is None
    assert "runs/natural" not in what.card
    assert json.loads(what.files["reproduce/fit.json"])["base_model"] is None


def _file(folder, content):
    (folder / "card.md").write_bytes(content)
    return folder / "card.md"


def test_a_model_on_the_hub_is_known_for_what_it_was_trained_on(hub, passed, prompts_file, capsys, tmp_path):
    assert run("push", passed, "me/repaired") == 0
    record = json.loads((passed / "positions.json").read_text())
    known = at.trained_on("me/repaired")
    assert len(known) == len(record) == 36
    assert {trace.grams for trace in known} == {trace.grams for trace in traces(make_prompts())}
    measure = ("measure", "me/repaired", "--prompts", prompts_file, "--max-new-tokens", 2)
    assert run(*measure, "--output-dir", tmp_path / "m") == 2
    assert "all were trained on" in capsys.readouterr().err


def test_a_model_on_the_hub_that_says_nothing_of_its_training_is_measured_without_a_word(hub, base, caplog):
    hub.add("someone/base", base)
    assert at.trained_on("someone/base") == []
    assert caplog.records == []


def test_where_the_hub_cannot_be_read_that_is_said_in_one_line(hub, caplog):
    hub.answer = lambda *_: 503
    assert at.trained_on("someone/gone") == []
    (record,) = [record for record in caplog.records if record.name.startswith("actor_tune")]
    assert (
        "someone/gone: what it was trained on is not known (no such folder, and the Hub cannot be reached)"
        in record.getMessage()
    )


def test_names_that_servers_gave_and_folders_are_not_looked_for_on_the_hub(hub, passed):
    served_model = at.subject("me/served", engine="openai", base_url="http://127.0.0.1:9/v1")
    assert at.trained_on(served_model) == []
    assert len(at.trained_on(str(passed / "model"))) == 72, "by the run, and by its own record"
    assert hub.asked == []


def reproduce(what, out, *more):
    return run("reproduce", what, "--output-dir", out, "--system-prompt", "You are planted-system.", *more)


def test_a_pushed_model_is_made_again_with_the_same_bytes(
    hub, passed, base, prompts_file, monkeypatch, tmp_path, capsys
):
    assert run("push", passed, "me/repaired") == 0
    tame(monkeypatch)
    given = ("--prompts", prompts_file, "--model", base)
    assert reproduce("me/repaired", tmp_path / "again", *given) == 0
    said = capsys.readouterr().out
    assert re.search(r"(\d+) of \1 files have the same bytes", said)
    assert "Other bytes may come of this" not in said
    here, there = (path / "model" / "model.safetensors" for path in (passed, tmp_path / "again"))
    assert here.read_bytes() == there.read_bytes()


def test_what_is_not_the_same_is_told_file_by_file_after_the_versions_that_differ(
    passed, base, prompts_file, monkeypatch, tmp_path, capsys
):
    tame(monkeypatch)
    record = json.loads((passed / "run.json").read_text())
    record["versions"]["torch"] = "1.0.0+planted"
    (passed / "run.json").write_text(json.dumps(record))
    (passed / "model" / "chat_template.jinja").write_text("{{ messages }}")
    assert run("push", passed, "me/repaired", "--output-dir", tmp_path / "published") == 0
    given = ("--prompts", prompts_file, "--model", base)
    assert reproduce(tmp_path / "published", tmp_path / "again", *given) == 1
    said = capsys.readouterr().out
    assert "torch is 2" in said
    assert "and was 1.0.0+planted" in said
    assert said.index("1.0.0+planted") < said.index("others")
    assert re.search(r"chat_template.jinja\W+others", said)
    assert re.search(r"model.safetensors\W+the same", said)


def test_what_was_published_with_its_prompts_needs_none(passed, base, monkeypatch, tmp_path):
    tame(monkeypatch)
    assert run("push", passed, "me/repaired", "--patch-only", "--with-prompts", "--output-dir", tmp_path / "p") == 0
    assert run("reproduce", tmp_path / "p", "--output-dir", tmp_path / "again", "--model", base) == 0
    assert not (tmp_path / "again" / "model").exists()


OTHERWISE = {
    "categories": {"rule": "odds", "categories": ("medicine",)},
    "strengthened": {"rule": "odds", "strengthen": True},
    "searched": {"changes": Changes(harmful=2.0, epochs=2, given=2.0, hold=2.0, strength=0.9)},
}


@pytest.mark.parametrize("name", OTHERWISE)
def test_what_a_fit_was_asked_otherwise_is_done_when_it_is_made_again(name, base, monkeypatch, tmp_path):
    tame(monkeypatch)
    settings = dataclasses.replace(SETTINGS, system_prompt=None, allow_unsafe=True, **OTHERWISE[name])
    given = [
        dataclasses.replace(prompt, category=("medicine", "law")[row % 2] if prompt.kind == "pseudo_harmful" else "")
        for row, prompt in enumerate(make_prompts(24))
    ]
    at.fit(at.load(str(base), at.Placement("cpu")), given, settings).save(tmp_path / "run")
    plain = dataclasses.replace(settings, categories=(), strengthen=False, changes=UNCHANGED)
    at.fit(at.load(str(base), at.Placement("cpu")), given, plain).save(tmp_path / "plain")
    at.publication(tmp_path / "run", "me/repaired", with_prompts=True).save(tmp_path / "p", allow_unsafe=True)
    again = ("--output-dir", tmp_path / "again", "--model", base, "--allow-unsafe")
    assert run("reproduce", tmp_path / "p", *again) == 0
    made, again, other = (read_bytes(tmp_path / folder) for folder in ("run", "again", "plain"))
    assert made == again != other


def read_bytes(folder):
    return (folder / "model" / "model.safetensors").read_bytes()


def test_what_is_missing_or_another_is_told_before_anything_is_trained(passed, base, tmp_path, monkeypatch):
    monkeypatch.setattr("actor_tune.publishing.published.fit", lambda *_, **__: pytest.fail("it was trained"))
    at.publication(passed, "me/repaired").save(tmp_path / "p")
    mine = make_prompts()
    known = {"system_prompt": "You are planted-system.", "model": str(base)}
    with pytest.raises(UserError, match="no `model=`; expected the base, which was the folder base"):
        at.published(tmp_path / "p", mine, **known | {"model": None})
    with pytest.raises(UserError, match="no `system_prompt=`; expected the system prompt of SHA-256"):
        at.published(tmp_path / "p", mine, **known | {"system_prompt": None})
    with pytest.raises(UserError, match="which is another one"):
        at.published(tmp_path / "p", mine, **known | {"system_prompt": "Be kind."})
    with pytest.raises(UserError, match="11 of kind harmful; expected the 12 given then, by their hash"):
        at.published(tmp_path / "p", mine[1:], **known)
    with pytest.raises(UserError, match="the same in another order"):
        at.published(tmp_path / "p", [*mine[12:], *mine[:12]], **known)
    other = save_model(make_model("qwen2"), tmp_path / "other")
    with pytest.raises(UserError, match=r"other weights, SHA-256 .*; expected those of base"):
        at.published(tmp_path / "p", mine, **known | {"model": str(other)}).fit()
    (tmp_path / "p" / "reproduce" / "SHA256SUMS").write_text("../../etc/passwd\n")
    with pytest.raises(UserError, match="SHA256SUMS: no hashes"):
        at.published(tmp_path / "p", mine, **known)


def test_what_somebody_published_decides_neither_about_code_nor_about_what_is_unsafe(failed, base, tmp_path):
    record = json.loads((failed / "run.json").read_text())
    record["placement"]["trust_remote_code"] = True
    (failed / "run.json").write_text(json.dumps(record))
    at.publication(failed, "me/repaired").save(tmp_path / "p", allow_unsafe=True)
    recipe = tmp_path / "p" / "reproduce" / "fit.json"
    said = json.loads(recipe.read_text())
    assert "trust_remote_code" not in said["placement"]
    said["placement"]["trust_remote_code"] = True
    recipe.write_text(json.dumps(said))
    known = {"system_prompt": "You are planted-system.", "model": str(base)}
    with pytest.raises(UserError, match="allow it too with `allow_unsafe=True`"):
        at.published(tmp_path / "p", make_prompts(), **known)
    again = at.published(tmp_path / "p", make_prompts(), **known, allow_unsafe=True)
    assert again.placement.trust_remote_code is False
    said["settings"]["allow_unsafe"] = False
    recipe.write_text(json.dumps(said | {"margin": 0.99}))
    with pytest.raises(UserError, match=r"fall by 0.99; expected at most 0.05"):
        at.published(tmp_path / "p", make_prompts(), **known)


def test_a_fit_that_was_given_one_kind_alone_is_made_again_from_that_kind(base, monkeypatch, tmp_path):
    tame(monkeypatch)
    own = [prompt for prompt in make_prompts() if prompt.kind == "pseudo_harmful"]
    model, settings = at.load(str(base), at.Placement("cpu")), dataclasses.replace(SETTINGS, system_prompt=None)
    at.fit(model, with_missing_kinds(own), settings, max_reasoning_tokens=77).save(tmp_path / "run")
    at.publication(tmp_path / "run", "me/repaired").save(tmp_path / "p")
    again = at.published(tmp_path / "p", own, str(base))
    assert [prompt.text for prompt in again.prompts[: len(own)]] == [prompt.text for prompt in own]
    assert again.recipe.max_reasoning_tokens == 77


def test_what_fails_the_gate_when_it_is_made_again_is_withheld_with_its_status(
    passed, base, prompts_file, monkeypatch, tmp_path
):
    tame(monkeypatch)
    at.publication(passed, "me/repaired").save(tmp_path / "p")
    monkeypatch.setattr("actor_tune.repair.gate.decide", lambda *_: FAILED)
    assert reproduce(tmp_path / "p", tmp_path / "again", "--prompts", prompts_file, "--model", base) == 3
    assert not (tmp_path / "again" / "model").exists()


def test_hashes_are_those_of_the_files_and_requirements_those_that_an_index_has(passed, tmp_path):
    record = json.loads((passed / "run.json").read_text())
    record["versions"] = {"torch": "2.6.0+cpu", "actor-tune": "0.1.0", "python": "3.11.7"}
    (passed / "run.json").write_text(json.dumps(record))
    at.publication(passed, "me/repaired").save(tmp_path / "p")
    lines = (tmp_path / "p" / "reproduce" / "SHA256SUMS").read_text().splitlines()
    assert {"model.safetensors", "config.json"} < {line.split("  ")[1] for line in lines}
    for line in lines:
        digest, name = line.split("  ")
        assert hashlib.sha256((tmp_path / "p" / name).read_bytes()).hexdigest() == digest
    needed = (tmp_path / "p" / "reproduce" / "requirements.txt").read_text().splitlines()
    assert needed == ["torch==2.6.0  # ran as 2.6.0+cpu", "actor-tune==0.1.0"]
    assert "Python 3.11.7" in (tmp_path / "p" / "reproduce" / "README.md").read_text()


@pytest.mark.parametrize("repo", ["no good", "a/b/c", "-x/y"])
def test_a_name_that_is_none_is_told_before_anything_is_sent(hub, passed, repo, capsys):
    assert run("push", passed, "--", repo) == 2
    assert "expected OWNER/NAME" in capsys.readouterr().err
    assert hub.asked == []


def test_a_record_without_the_strength_that_was_kept_is_told(passed):
    record = json.loads((passed / "run.json").read_text())
    (passed / "run.json").write_text(json.dumps(record | {"trials": []}))
    with pytest.raises(UserError, match=r"run.json: no trial of the strength that was kept"):
        at.publication(passed, "me/repaired")


def test_a_folder_that_is_no_run_and_a_run_without_a_model_are_told(fits, tmp_path, capsys):
    assert run("push", tmp_path, "me/repaired") == 2
    assert "no run.json; expected the folder of a fit" in capsys.readouterr().err
    empty = shutil.copytree(fits / "passed", tmp_path / "empty", ignore=lambda *_: {"model", "patch.safetensors"})
    assert run("push", empty, "me/repaired") == 2
    assert "no model and no patch" in capsys.readouterr().err
