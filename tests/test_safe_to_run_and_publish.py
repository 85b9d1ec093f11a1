"""Commands on local models reach for no network and run no code of a model; what is published tells of no machine."""

import json
import os
import pickle
import socket
import sys
import traceback
from contextlib import nullcontext
from itertools import cycle
from pathlib import Path

import huggingface_hub.constants
import pytest
from safetensors import safe_open

from actor_tune.errors import UserError
from actor_tune.models.load import load
from actor_tune.records.labels import read_labels
from actor_tune.show import keys
from actor_tune.storage.model_folder import is_local, public_name
from actor_tune.storage.model_folder import model_folder as folder_of
from conftest import make_prompts
from report_folders import make_results
from test_cli import OTHER, run


class ReachedOut(BaseException):
    """No library takes it for a failed connection and goes on."""


@pytest.fixture
def no_network(monkeypatch):
    """What tried to reach out, though no thread and no library told; files of this machine may be connected to."""
    reached = []

    def refuse(*arguments, **_):
        reached.append("".join(traceback.format_stack(limit=12)))
        raise ReachedOut(arguments)

    def guarded(real):
        def connect(self, address):
            return real(self, address) if self.family == getattr(socket, "AF_UNIX", None) else refuse(address)

        return connect

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, guarded(getattr(socket.socket, name)))
    for name in ("create_connection", "getaddrinfo", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse)
    # Else the Hub's own switch, where it is set, would keep what is tested here from being tried.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return reached


def test_the_trap_shuts_where_something_reaches_out(no_network):
    with pytest.raises(ReachedOut):
        folder_of("someone/a-model")
    with pytest.raises(ReachedOut):
        socket.create_connection(("127.0.0.1", 9))
    assert len(no_network) >= 2
    here, there = socket.socketpair(socket.AF_UNIX)
    here.close()
    there.close()


@pytest.fixture
def prompts_file(tmp_path):
    path = tmp_path / "prompts.jsonl"
    asked = [{"prompt": prompt.text, "kind": prompt.kind, "set": prompt.set} for prompt in make_prompts()]
    rows = [row | {"response": "Sure, here it is."} for row in asked]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def held_out(tmp_path):
    other = {
        "harmful": OTHER["harmful"],
        "pseudo_harmful": OTHER["harmless"],
        "harmless": ["Name three rivers of Asia"],
    }
    rows = [{"prompt": text, "kind": kind} for kind, texts in other.items() for text in texts]
    path = tmp_path / "held_out.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def fit(model, prompts, out):
    settings = ("--layer", 1, "--no-starter", "--allow-unsafe")
    return run("fit", model, "--prompts", prompts, "--output-dir", out, *settings)


def test_no_command_reaches_out_where_all_it_is_given_is_local(
    tmp_path, model_folder, prompts_file, held_out, no_network, monkeypatch
):
    given, out = ("--prompts", prompts_file, "--no-starter"), tmp_path / "run"
    assert run("scan", model_folder, *given, "--output-dir", tmp_path / "s") == 0
    assert fit(model_folder, prompts_file, out) == 0
    after = tmp_path / "after"
    measure = ("measure", out / "model", "--baseline", model_folder, "--prompts", held_out, "--max-new-tokens", 3)
    assert run(*measure, "--judge", "trained", "--judge", "strings", "--output-dir", after) == 0
    few = ("--methods", "actor,cae,sft", "--seeds", 1, "--max-new-tokens", 2, "--output-dir", tmp_path / "c")
    assert run("compare", model_folder, "--train", prompts_file, "--eval", held_out, *few) == 0
    monkeypatch.setattr("actor_tune.comparison.probe.starter", lambda _part: make_prompts(6))
    assert run("probe", out, "--steps", 1, "--every", 1, "--output-dir", tmp_path / "p") == 0
    judges = ("--judge", "trained", "--judge", "strings")
    assert run("judge", after / "responses.jsonl", *judges, "--output", tmp_path / "judged.jsonl") == 0
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(keys, "keys", lambda: nullcontext(cycle("cq").__next__))
    answered = make_results(tmp_path / "answered")  # the tiny model's answers are none that can be labelled
    assert run("label", answered) == 0
    assert read_labels(answered / "labels.csv")
    assert run("report", out, after, "--output", tmp_path / "report.html") == 0
    assert no_network == []


class Bomb:
    """Unpickled, it makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def trapped(tmp_path, model_folder):
    """A model folder with code and pickles that make a folder `tmp_path / "hit ..."` where something runs them."""
    code = f"import os\nos.mkdir({str(tmp_path / 'hit by code')!r})\nclass Own: pass\n"
    for name in ("modeling_own.py", "configuration_own.py", "tokenization_own.py", "__init__.py"):
        (model_folder / name).write_text(code)
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "vocab.pkl"):
        (model_folder / name).write_bytes(pickle.dumps(Bomb(tmp_path / f"hit by {name}")))
    for name, found in (
        ("config.json", {"AutoModelForCausalLM": "modeling_own.Own", "AutoConfig": "configuration_own.Own"}),
        ("tokenizer_config.json", {"AutoTokenizer": ["tokenization_own.Own", None]}),
    ):
        file = model_folder / name
        file.write_text(json.dumps(json.loads(file.read_text()) | {"auto_map": found}))
    return model_folder


def hits(tmp_path):
    return [path.name for path in tmp_path.glob("hit *")]


def test_the_bomb_goes_off_where_it_is_unpickled(tmp_path, trapped):
    pickle.loads((trapped / "pytorch_model.bin").read_bytes())
    exec((trapped / "modeling_own.py").read_text())
    assert sorted(hits(tmp_path)) == ["hit by code", "hit by pytorch_model.bin"]


def test_neither_code_nor_a_pickle_that_comes_with_a_model_is_run_or_passed_on(tmp_path, trapped, prompts_file):
    assert fit(trapped, prompts_file, tmp_path / "run") == 0
    few = ("--limit", 1, "--max-new-tokens", 2, "--output-dir", tmp_path / "m")
    assert run("measure", tmp_path / "run" / "model", *few) == 0
    assert hits(tmp_path) == []
    passed_on = {file.name for file in (tmp_path / "run" / "model").iterdir()}
    assert "config.json" in passed_on
    assert [name for name in passed_on if name.endswith((".py", ".bin", ".pt", ".pkl"))] == []


def test_a_model_of_pickles_alone_is_refused_unread(tmp_path, trapped):
    (trapped / "model.safetensors").unlink()
    with pytest.raises(UserError, match="only pickled weights, which can run code and are never loaded"):
        load(str(trapped))
    assert hits(tmp_path) == []


TOKEN = "hf_planted0token0that0nobody0may0read"


def published(folder):
    """Every byte of what is meant to be published, by name."""
    return {file.name: file.read_bytes() for file in [folder / "patch.safetensors", *(folder / "model").iterdir()]}


def test_what_is_published_has_no_path_of_the_machine_and_no_token(tmp_path, model_folder, prompts_file, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    (model_folder / ".env").write_text(f"HF_TOKEN={TOKEN}")
    out = tmp_path / "run"
    assert fit(model_folder, prompts_file, out) == 0
    files = published(out)
    assert {"patch.safetensors", "README.md", "config.json", "model.safetensors"} <= files.keys()
    secrets = [str(tmp_path), str(Path.home()), TOKEN]
    assert [(name, secret) for name, bytes_ in files.items() for secret in secrets if secret.encode() in bytes_] == []
    assert str(model_folder) in (out / "run.json").read_text(), "the record, which is not published, says which it was"
    assert "# model, trained against over-refusal" in files["README.md"].decode()
    assert "base_model" not in files["README.md"].decode(), "the Hub would link to another model of that name"
    with safe_open(out / "patch.safetensors", "pt") as patch:
        assert patch.metadata()["base_model"] == "model"


@pytest.mark.parametrize(
    ("name", "local", "public"),
    [
        ("Qwen/Qwen2.5-0.5B", False, "Qwen/Qwen2.5-0.5B"),
        ("gpt2", False, "gpt2"),
        ("/home/me/secret/llama", True, "llama"),
        ("./llama", True, "llama"),
        ("runs/me/model", True, "model"),
        ("runs/model", True, "model"),
        ("here.gguf", True, "here.gguf"),
        (".", True, "FOLDER"),
    ],
)
def test_of_a_path_the_last_part_is_public_and_of_a_hub_id_the_whole(tmp_path, monkeypatch, name, local, public):
    here = tmp_path / "FOLDER"
    (here / "runs" / "model").mkdir(parents=True)
    (here / "here.gguf").touch()
    monkeypatch.chdir(here)
    assert is_local(name) == local
    assert public_name(name) == public
