"""GGUF files and Modelfiles: llama.cpp's programs are run as they are; stand-ins say what they were asked for."""

import importlib.util
import json
import os
import re
import sys
from pathlib import Path

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from actor_tune.errors import UserError
from actor_tune.exports import llama_cpp
from actor_tune.exports.export import export
from actor_tune.exports.ollama import modelfile, pieces_of
from actor_tune.records.export import Export
from actor_tune.records.file import read
from conftest import TEMPLATE, make_tokenizer
from test_cli import run as actor
from test_export import PLACEMENT, judge, low_rank, make_run, plain, saved  # noqa: F401 - `judge` is a fixture

READER = llama_cpp.reader

CONVERTER = """
import json, pathlib, sys
folder, rest = pathlib.Path(sys.argv[1]), sys.argv[2:]
assert rest[0] == "--outfile" and rest[2:] == ["--outtype", "auto", "--model-name", "base-actor"], rest
print("INFO: loading")
weights = (folder / "model.safetensors").read_bytes()
pathlib.Path(rest[1]).write_bytes(b"GGUF" + weights)
"""
QUANTIZER = """#!{python}
import pathlib, sys
plain, packed, kind = sys.argv[1:]
pathlib.Path(packed).write_bytes(kind.encode() + pathlib.Path(plain).read_bytes()[:99])
"""


@pytest.fixture
def llama(tmp_path, monkeypatch):
    """A folder with a converter and a quantiser that are none, and nothing that answers."""
    monkeypatch.delenv("LLAMA_CPP", raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(llama_cpp, "reader", lambda folder, told: None)
    folder = tmp_path / "llama.cpp"
    (folder / "build" / "bin").mkdir(parents=True)
    (folder / "convert_hf_to_gguf.py").write_text(CONVERTER)
    packer = folder / "build" / "bin" / "llama-quantize"
    packer.write_text(QUANTIZER.format(python=sys.executable))
    packer.chmod(0o755)
    return folder


@pytest.fixture
def made(tmp_path):
    return make_run(tmp_path / "run", saved(plain(), tmp_path / "base"), low_rank(2, "q_proj"))


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_a_gguf_file_is_made_of_the_trained_model_by_llama_cpps_converter(tmp_path, llama, made):
    found = export(made, "gguf", tmp_path / "out", llama_cpp=llama)
    weights = (made / "model" / "model.safetensors").read_bytes()
    assert (tmp_path / "out" / "base-actor.gguf").read_bytes() == b"GGUF" + weights
    assert found.files == ["base-actor.gguf"]
    assert (found.checked, found.unchecked) == (None, "nothing here reads a GGUF file")
    assert names(tmp_path / "out") == {"base-actor.gguf", "export.json", "actor_tune.json"}
    model = made / "model"
    model.rename(tmp_path / "gone")  # then it is made of base and patch
    export(made, "gguf", tmp_path / "again", llama_cpp=llama)
    assert (tmp_path / "again" / "base-actor.gguf").read_bytes() == b"GGUF" + weights
    assert {path.name for path in (tmp_path / "again").iterdir()} == {
        path.name for path in (tmp_path / "out").iterdir()
    }


def test_it_is_packed_by_llama_cpps_quantiser_where_that_is_asked_for(tmp_path, llama, made, monkeypatch, capsys):
    monkeypatch.setenv("LLAMA_CPP", str(llama))
    assert actor("export", made, "--to", "gguf", "--output-dir", tmp_path / "out", "--quantize", "Q4_K_M") == 0
    assert (tmp_path / "out" / "base-actor-Q4_K_M.gguf").read_bytes().startswith(b"Q4_K_MGGUF")
    assert not (tmp_path / "out" / "base-actor.gguf").exists()
    said = " ".join(capsys.readouterr().out.split())
    assert "by convert_hf_to_gguf.py and llama-quantize" in said
    assert "not put before the safety gate: nothing here reads a GGUF file" in said
    with pytest.raises(UserError, match=r"`quantize=\.\./x`: no type"):
        export(made, "gguf", tmp_path / "other", quantize="../x")


FAILING = [
    ("raise SystemExit('Model TinyForCausalLM is not supported')", "status 1 and said: Model TinyForCausalLM is not"),
    ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
    ("print('x' * 5000 + 'end'); raise SystemExit(3)", "status 3"),
    ("print('done')", "it ended with status 0 and said: done; expected a file base-actor.gguf"),
]


@pytest.mark.parametrize(("script", "said"), FAILING)
def test_what_llama_cpp_says_is_told_in_a_line_that_is_cut(tmp_path, llama, made, capsys, script, said):
    (llama / "convert_hf_to_gguf.py").write_text(script)
    arguments = ("export", made, "--to", "gguf", "--output-dir", tmp_path / "out", "--llama-cpp", llama)
    assert actor(*arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said in error
    assert len(error) < 1200
    assert not (tmp_path / "out").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_what_is_missing_of_llama_cpp_is_told_before_anything_is_written(tmp_path, llama, made, monkeypatch):
    (llama / "build" / "bin" / "llama-quantize").unlink()
    with pytest.raises(UserError, match="no llama-quantize, nor on the PATH"):
        export(made, "gguf", tmp_path / "out", llama_cpp=llama, quantize="Q8_0")
    (llama / "convert_hf_to_gguf.py").unlink()
    with pytest.raises(UserError, match=r"no convert_hf_to_gguf.py, nor on the PATH.*`llama_cpp=FOLDER`"):
        export(made, "gguf", tmp_path / "out", llama_cpp=llama)
    with pytest.raises(UserError, match=r"`llama_cpp=.*nowhere`: no such folder"):
        export(made, "gguf", tmp_path / "out", llama_cpp=tmp_path / "nowhere")
    monkeypatch.setenv("LLAMA_CPP", "elsewhere")
    with pytest.raises(UserError, match="LLAMA_CPP=elsewhere: no such folder"):
        export(made, "gguf", tmp_path / "out")


def test_a_converter_with_an_environment_of_its_own_is_run_in_that(tmp_path, llama, made):
    own = llama / ".venv" / "bin"
    own.mkdir(parents=True)
    (own / "python").write_text(f'#!/bin/sh\nexport OWN=1\nexec {sys.executable} "$@"\n')
    (own / "python").chmod(0o755)
    (llama / "convert_hf_to_gguf.py").write_text("import os\nassert os.environ['OWN'] == '1'\n" + CONVERTER)
    assert export(made, "gguf", tmp_path / "out", llama_cpp=llama).files == ["base-actor.gguf"]


CHATML = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{% for m in messages %}{% set c = '<|start|>' + m['role'] + '<|middle|>\n\n' + m['content'] + '<|over|>' %}"
    "{% if loop.first %}{% set c = bos_token + c %}{% endif %}{{ c }}{% endfor %}"
    "{{ '<|start|>assistant<|middle|>\n\n' }}"
)
EACH = "{% for m in messages %}<{{ m['role'] }}>"
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    f"{EACH}{{{{ m['content'] }}}}{{% endfor %}}"
)
UPPER = EACH + "{{ m['content'] | upper }}{% endfor %}<assistant>"
BRACES = EACH + "{{ '{{' + m['content'] }}{% endfor %}<assistant>"
LAST = EACH + "{{ m['content'] }}{% if loop.last %}!{% endif %}{% endfor %}<assistant>"


def with_template(template, begin="<|im_start|>", added=False):
    """A tokenizer with a token that begins texts, which it may put there itself."""
    tokenizer = make_tokenizer()
    tokenizer.chat_template, tokenizer.bos_token = template, begin
    if added:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{begin} $A", special_tokens=[(begin, tokenizer.bos_token_id)]
        )
    return tokenizer


def filled(text, system, turns):
    """What Ollama writes by a template `text`: it is filled in once for each query, and ends where an answer begins."""
    written = ""
    for number, (query, answer) in enumerate(turns):
        one = text
        for name, value in (("System", "" if number else system), ("Prompt", query)):
            one = re.sub(rf"{{{{ if \.{name} }}}}(.*?){{{{ end }}}}", r"\1" if value else "", one, flags=re.S)
            one = one.replace(f"{{{{ .{name} }}}}", value or "")
        before, _, after = one.partition("{{ .Response }}")
        written += before + (answer + after if answer else "")
    return written


@pytest.mark.parametrize("system", ["", "Be brief."])
@pytest.mark.parametrize(
    ("template", "default", "begin"), [(CHATML, "Be kind.", None), (LLAMA3, None, "<|pad|>"), (TEMPLATE, None, None)]
)
def test_ollamas_template_says_what_the_chat_template_says(template, default, begin, system):
    """But for a beginning that llama.cpp puts there itself, as the tokenizer does."""
    tokenizer = with_template(template, begin, added=True) if begin else with_template(template)
    pieces = pieces_of(tokenizer, {})
    assert pieces.default == default
    text = modelfile("x.gguf", pieces, ["<|end|>"])
    (written,) = re.findall(r'^TEMPLATE """(.*?)"""$', text, re.S | re.M)
    assert re.findall(r'^SYSTEM """(.*?)"""$', text, re.S | re.M) == ([default] if default else [])
    turns = [("How are you?", "Well."), ("And now?", "As before."), ("Really?", None)]
    messages = [{"role": "system", "content": system}] if system else []
    for query, answer in turns:
        messages += [{"role": "user", "content": query}]
        messages += [{"role": "assistant", "content": answer}] if answer else []
    said = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert (begin or "") + filled(written, system or default, turns) == said


@pytest.mark.parametrize("template", [NO_SYSTEM, UPPER, BRACES, LAST])
def test_a_chat_template_that_does_more_is_not_written_and_that_is_told(tmp_path, llama, made, template):
    assert pieces_of(with_template(template), {}) is None
    assert "TEMPLATE" not in modelfile("x.gguf", None, ["<|end|>"])
    (made / "model" / "chat_template.jinja").write_text(template)
    found = export(made, "ollama", tmp_path / "out", llama_cpp=llama)
    assert any("cannot be said in Ollama's language" in note for note in found.notes)


def test_a_modelfile_stands_beside_the_gguf_file(tmp_path, llama, made):
    found = export(made, "ollama", tmp_path / "out", llama_cpp=llama, quantize="Q8_0")
    assert found.files == ["base-actor-Q8_0.gguf", "Modelfile"]
    lines = (tmp_path / "out" / "Modelfile").read_text().splitlines()
    assert lines[0] == "FROM ./base-actor-Q8_0.gguf"
    assert lines[1].startswith('TEMPLATE """{{ if .System }}<|system|>{{ .System }}<|end|>{{ end }}')
    assert 'PARAMETER stop "<|end|>"' in lines
    assert "PARAMETER temperature 0" in lines
    assert not any(line.startswith("SYSTEM") for line in lines)
    record = json.loads((made / "run.json").read_text())
    record["settings"] = {"system_prompt": "Be kind."}
    (made / "run.json").write_text(json.dumps(record))
    found = export(made, "ollama", tmp_path / "again", llama_cpp=llama)
    assert "It was trained with a system prompt, which the Modelfile does not have." in found.notes


SERVER = """#!{python}
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
assert open(options["-m"], "rb").read(4) == b"GGUF"

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send({{"object": "list", "data": [{{"id": "x.gguf", "object": "model"}}]}})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert asked["temperature"] == 0, asked
        turn = {{"role": "assistant", "content": "llama.cpp"}}
        self.send({{"id": "1", "object": "chat.completion", "choices": [
            {{"index": 0, "message": turn, "finish_reason": "stop"}}]}})

    def send(self, value):
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass

HTTPServer((options["--host"], int(options["--port"])), Handler).serve_forever()
"""


def test_the_file_is_answered_by_llama_cpps_server_where_that_is_all_there_is(tmp_path, llama, made, monkeypatch):
    pytest.importorskip("openai")
    server = llama / "build" / "bin" / "llama-server"
    server.write_text(SERVER.format(python=sys.executable))
    server.chmod(0o755)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(llama_cpp, "reader", READER)
    without(monkeypatch, "llama_cpp")
    found = export(made, "gguf", tmp_path / "out", llama_cpp=llama, limit=20)
    assert found.checked.by == "llama.cpp (its llama-server)"
    assert (found.checked.n, found.checked.texts) == (20, 20)
    server.write_text(f"#!{sys.executable}\nraise SystemExit(7)")
    with pytest.raises(UserError, match="it ended with status 7 before it answered"):
        export(made, "gguf", tmp_path / "other", llama_cpp=llama, limit=20)
    assert not (tmp_path / "other").exists()


def without(monkeypatch, *packages):
    known = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name in packages else known(name, *rest)
    )


def test_what_reads_a_gguf_file_is_llama_cpp_before_transformers(llama, monkeypatch):
    there = {"llama_cpp", "openai", "gguf"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "there" if name in there else None)
    assert READER(llama, {}) == "bindings"
    assert READER(llama, {"enable_thinking": False}) == "transformers"  # the bindings would not pass it on
    (llama / "build" / "bin" / "llama-server").touch()
    assert READER(llama, {"enable_thinking": False}) == "server"
    there -= {"llama_cpp", "openai"}
    assert READER(llama, {}) == "transformers"
    there.clear()
    assert READER(llama, {}) is None


@pytest.mark.slow
def test_llama_cpp_itself_says_what_the_trained_model_says(tmp_path, testbed_model, monkeypatch):
    """With LLAMA_CPP, a folder with its converter and what its requirements name; it answers by what is installed."""
    folder = Path(os.environ.get("LLAMA_CPP", "nowhere"))
    if not (folder / llama_cpp.CONVERTER).is_file():
        pytest.skip("needs llama.cpp's source: LLAMA_CPP=FOLDER")
    from test_export_slow import fitted

    run = fitted(tmp_path, testbed_model)
    found = export(run, "ollama", tmp_path / "out", llama_cpp=folder, limit=60, placement=PLACEMENT)
    assert found.checked.n == 60
    assert found.checked.verdicts <= 2, found.checked.differing
    tokenizer = AutoTokenizer.from_pretrained(testbed_model)
    assert "TEMPLATE" in (tmp_path / "out" / "Modelfile").read_text()
    assert f'PARAMETER stop "{tokenizer.eos_token}"' in (tmp_path / "out" / "Modelfile").read_text()
    assert read(Export, tmp_path / "out") == found
