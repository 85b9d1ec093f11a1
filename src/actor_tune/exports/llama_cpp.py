"""llama.cpp's own programs: where they are, how they are run, and a GGUF file answered by them."""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from ..engines.engine import PORTION, Answer, Engine
from ..engines.local import local_engine
from ..engines.openai import openai_engine
from ..errors import UserError
from ..judges.reasoning import split
from ..models.load import load
from ..models.placement import Placement
from ..prompts.prompt import Prompt
from .check import Answering

CONVERTER = "convert_hf_to_gguf.py"
QUANTIZER = "llama-quantize"
SERVER = "llama-server"
CONTEXT = 4096
"""Tokens of a conversation: the gate's are short, and a model's own limit may need more memory than there is."""
Reader = Literal["bindings", "server", "transformers"]

START_SECONDS = 300.0
"""How long a server may take to load a model."""


def converter(folder: Path | None) -> Path:
    """The program that makes a GGUF file of a checkpoint.

    **Raises:** `UserError` when it is not there.
    """
    places = [folder / CONVERTER] if folder else []
    if found := next((place for place in places if place.is_file()), None) or _on_path(CONVERTER):
        return found
    raise _missing(folder, CONVERTER, "get llama.cpp's source, and give its folder as `llama_cpp=FOLDER`")


def program(folder: Path | None, name: str) -> Path | None:
    """One of llama.cpp's compiled programs; None where it is not there."""
    places = [folder / part / name for part in ("build/bin", "bin", "")] if folder else []
    return next((place for place in places if place.is_file()), None) or _on_path(name)


def quantizer(folder: Path | None) -> Path:
    """The program that packs a GGUF file.

    **Raises:** `UserError` when it is not there.
    """
    if (found := program(folder, QUANTIZER)) is None:
        raise _missing(folder, QUANTIZER, "build llama.cpp, or leave `quantize=` out")
    return found


def folder_of(named: Path | None) -> Path | None:
    """llama.cpp's folder: the one that is `named`, or the environment's LLAMA_CPP.

    **Raises:** `UserError` when there is no such folder.
    """
    said = named or (Path(os.environ["LLAMA_CPP"]) if os.environ.get("LLAMA_CPP") else None)
    if said is not None and not said.is_dir():
        where = f"`llama_cpp={said}`" if named else f"LLAMA_CPP={said}"
        raise UserError(where, "no such folder", "llama.cpp's", "correct it")
    return said


def _on_path(name: str) -> Path | None:
    found = shutil.which(name)
    return Path(found) if found else None


def _missing(folder: Path | None, name: str, fix: str) -> UserError:
    return UserError(folder or "llama.cpp", f"no {name}, nor on the PATH", "llama.cpp's own", fix)


def run(command: Sequence[object], result: Path) -> None:
    """Run a program that writes `result`; one in Python with the environment in its folder, or else this interpreter.

    **Raises:** `UserError` with the last that it said, when it fails, or writes nothing.
    """
    words = [str(word) for word in command]
    if words[0].endswith(".py"):
        own = (Path(words[0]).parent / name / "bin" / "python" for name in (".venv", "venv"))
        words = [str(next((each for each in own if each.is_file()), sys.executable)), *words]
    try:
        ended = subprocess.run(
            words,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise UserError(command[0], f"it cannot be run ({error.strerror})", "a program", "build it again") from None
    lines = [line.strip() for line in (ended.stdout + "\n" + ended.stderr).splitlines() if line.strip()]
    said = lines[-1] if lines else "nothing"
    if ended.returncode or not result.is_file():
        what = f"it ended with status {ended.returncode} and said: {said}"
        raise UserError(
            command[0], what, f"a file {result.name}", "do what it says, or try another version of llama.cpp"
        )


def reader(folder: Path | None, told: Mapping[str, Any]) -> Reader | None:
    """What answers here with a GGUF file: llama.cpp where it is there, else transformers; None: nothing.

    **Arguments:**

    - `told`: what the chat template is told besides, which llama-cpp-python does not pass on.
    """
    installed = {name for name in ("llama_cpp", "openai", "gguf") if importlib.util.find_spec(name) is not None}
    if "llama_cpp" in installed and not told:
        return "bindings"
    if "openai" in installed and program(folder, SERVER) is not None:
        return "server"
    return "transformers" if "gguf" in installed else None


@contextmanager
def answering(
    gguf: Path, folder: Path | None, told: Mapping[str, Any], device: str, max_reasoning_tokens: int, by: Reader
) -> Iterator[Answering]:
    """The file `gguf`, answering by what `reader` found."""
    server = program(folder, SERVER)
    if by == "bindings":
        yield Answering(
            _bindings_engine(gguf, max_reasoning_tokens), f"llama.cpp (llama-cpp-python {version('llama-cpp-python')})"
        )
    elif by == "server" and server is not None:
        with _served(server, gguf) as url:
            asked = openai_engine(url, "auto", chat_template_kwargs=told, max_reasoning_tokens=max_reasoning_tokens)
            yield Answering(asked, "llama.cpp (its llama-server)")
    else:
        name = f"transformers {version('transformers')}, which read the GGUF file, and not llama.cpp"
        chat_model = load(str(gguf), Placement(device), chat_template_kwargs=told)
        yield Answering(local_engine(chat_model, max_reasoning_tokens=max_reasoning_tokens), name, PORTION)


def _bindings_engine(gguf: Path, max_reasoning_tokens: int) -> Engine:
    """An engine of llama-cpp-python, greedy, with the chat template in the file."""
    from llama_cpp import Llama

    try:
        model = Llama(str(gguf), n_ctx=CONTEXT, verbose=False)
    except (ValueError, RuntimeError) as error:
        fix = "try another version of llama.cpp"
        raise UserError(gguf.name, f"llama.cpp says: {error}", "a file that it can load", fix) from None

    def answers(prompts: Sequence[Prompt], max_new_tokens: int) -> Iterator[Answer]:
        for row, prompt in enumerate(prompts):
            ask = partial(model.create_chat_completion, messages=prompt.messages(), temperature=0.0, repeat_penalty=1.0)
            text, finished = _choice(ask(max_tokens=max_new_tokens))
            if not finished and split(text).reasoning is not None:
                text, finished = _choice(ask(max_tokens=max_new_tokens + max_reasoning_tokens))
            parted = split(text)
            yield Answer(row, parted.answer, finished and parted.ended, parted.reasoning)

    return answers


def _choice(completion: Any) -> tuple[str, bool]:
    choice = completion["choices"][0]
    return choice["message"]["content"] or "", choice["finish_reason"] == "stop"


@contextmanager
def _served(server: Path, gguf: Path) -> Iterator[str]:
    """The URL of llama.cpp's server with the file `gguf`, which runs as long as the block does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["-m", str(gguf), "-c", str(CONTEXT), "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen([str(server), *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait(f"http://127.0.0.1:{port}/health", process, server)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()


def _wait(url: str, process: "subprocess.Popen[bytes]", server: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            found = f"it ended with status {process.returncode} before it answered"
            raise UserError(server, found, "a server", "try another version of llama.cpp")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.2)
    raise UserError(server, f"no answer in {START_SECONDS:.0f} s", "a server", "try a smaller file")
