"""What the benchmark programs share: machine, peak memory, random checkpoints, loading, and how they report.

A benchmark writes progress to stderr, and to stdout exactly one line: its figures as JSON.
"""

import importlib
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import astuple, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from actor_tune.checkpoint import checkpoint_names, save_patch
from actor_tune.engines.local import local_engine
from actor_tune.fit import Fit, Settings, fit
from actor_tune.model import ChatModel, find_blocks, load_model, weights_hash
from actor_tune.placement import DtypeName, Offload, Placement
from actor_tune.prompts import KINDS, Kind, Prompt, of_kind
from actor_tune.runs import VERSIONS_OF

GIB = 2**30
WARM_UP_PROMPTS = 12  # of each kind

Record = dict[str, Any]


def say(text: str) -> None:
    """Progress."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


def report(run: Callable[[], Record]) -> None:
    """Write what `run` returns as the only line of stdout; what libraries print goes to stderr."""
    with redirect_stdout(sys.stderr):
        record = run()
    sys.stdout.write(json.dumps(record, allow_nan=False) + "\n")


def in_subprocess(script: str, arguments: Sequence[object]) -> Record:
    """The record of `script` run with `arguments` in a Python of its own, so that its memory is its own.

    **Raises:** `CalledProcessError` when it fails.
    """
    command = [sys.executable, script, *map(str, arguments)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines()[-1])


def environment() -> Record:
    """The machine and the versions of what decides the figures."""
    return {"machine": machine(), "versions": versions()}


def machine() -> Record:
    """Processor, cores that this process may use, threads of torch, memory, and GPU, None where there is none."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": _cpu_model(),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _cpu_model() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide the figures; "not installed" where one is used from its source."""
    found = {"python": platform.python_version()}
    for name in (*VERSIONS_OF, "accelerate", "peft"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def peak_rss() -> int:
    """Most memory in bytes that this process had resident since it began or `reset_peak` was called.

    Read from /proc and not by getrusage, whose figure a child takes over from its parent.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmHWM: peak memory is measured on Linux only")


def reset_peak() -> bool:
    """Let `peak_rss` begin anew; False where the system does not permit it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except PermissionError:
        return False
    return True


@dataclass
class Phases:
    """Seconds and peak memory of named phases.

    - `peak`: bytes, of all time that the process has lived, between phases too.
    - `separate`: whether a phase's peak is its own; otherwise it is that of everything before it too.
    """

    records: dict[str, Record] = field(default_factory=dict)
    peak: int = 0
    separate: bool = True

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Record what happens inside under `name`."""
        self.note_peak()
        self.separate = reset_peak()
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self.records[name] = {"seconds": round(seconds, 2), "peak_rss_bytes": peak_rss()}
        self.note_peak()
        say(f"{name}: {seconds:.1f} s, peak {self.records[name]['peak_rss_bytes'] / GIB:.2f} GiB")

    def note_peak(self) -> None:
        """Take the time since the last phase into `peak`."""
        self.peak = max(self.peak, peak_rss())


class StageReached(Exception):  # noqa: N818 - not an error
    """The stage of `fit` after which a benchmark wanted to leave it."""


@contextmanager
def stages_as_phases(phases: Phases, until: str | None = None) -> Iterator[None]:
    """Record the stages of every `fit` inside as phases, and leave it after the stage `until`."""
    stopwatch = _fit_module()._Stopwatch
    own = stopwatch.stage

    @contextmanager
    def stage(watch: Any, name: str) -> Iterator[None]:
        with phases.phase(name), own(watch, name):
            yield
        if name == until:
            raise StageReached(name)

    stopwatch.stage = stage
    try:
        yield
    except StageReached:
        pass
    finally:
        stopwatch.stage = own


def load(
    folder: Path | str, dtype: DtypeName = "auto", offload: Offload = "none", last_block: int | None = None
) -> ChatModel:
    """Load a model as `actor fit` does; with `last_block` as where `--layer` is given."""
    return load_model(str(folder), Placement(dtype=dtype, offload=offload), last_block)


def answers(chat_model: ChatModel, prompts: list[Prompt], tokens: int) -> list[str]:
    """The model's greedy answers of at most `tokens` tokens, in the order of `prompts`."""
    texts = {answer.row: answer.text for answer in local_engine(chat_model, None)(prompts, tokens)}
    return [texts[row] for row in range(len(prompts))]


def _fit_module() -> Any:
    return importlib.import_module("actor_tune.fit")  # The package may name the function `fit` as it names the module.


def in_memory(model: Any, tokenizer: Any) -> ChatModel:
    """`model`, which has no folder, as the package takes it."""
    return ChatModel("random weights", Path("nowhere"), model, tokenizer, find_blocks(model))


def warm_up(chat_model: ChatModel, prompts: Sequence[Prompt]) -> None:
    """Fit on a few of `prompts`, so that what libraries do once, at first use, is in nobody's seconds."""
    few = [replace(prompt, set=kind) for kind in KINDS for prompt in of_kind(prompts, kind)[:WARM_UP_PROMPTS]]
    fit(chat_model, few, Settings(layer=len(chat_model.blocks) // 2, starter=False))


def write_patch(chat_model: ChatModel, result: Fit, path: Path) -> None:
    """Write the changed block as `actor fit --export patch` does."""
    tensors = checkpoint_names(chat_model, result.layer, result.state)
    save_patch(path, tensors, result.layer, chat_model.name, weights_hash(chat_model.folder), "random weights")


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama."""

    blocks: int
    d_model: int
    d_ff: int
    heads: int
    kv_heads: int
    vocabulary: int


SHAPES = {
    "tiny": Shape(4, 64, 128, 4, 2, 512),
    "testbed": Shape(30, 576, 1536, 9, 3, 49152),
    "llama-2-7b": Shape(32, 4096, 11008, 32, 32, 32000),
    "llama-3-8b": Shape(32, 4096, 14336, 32, 8, 128256),
}

PEAKY = 8.0
"""Standard deviation of random logits: large, so that a few tokens have most of the probability, as in real models."""


def llama_config(shape: Shape) -> LlamaConfig:
    """A Llama of that shape whose special tokens are those of `byte_tokenizer`."""
    return LlamaConfig(
        num_hidden_layers=shape.blocks,
        hidden_size=shape.d_model,
        intermediate_size=shape.d_ff,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        vocab_size=shape.vocabulary,
        max_position_embeddings=4096,
        pad_token_id=256,
        bos_token_id=257,
        eos_token_id=257,
        tie_word_embeddings=False,
        architectures=["LlamaForCausalLM"],
        dtype="bfloat16",
    )


@torch.no_grad()
def fill(name: str, tensor: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Random weights for the tensor called `name`, in place: norms are 1, and matrices keep the length of vectors.

    So the last token's activation carries what it has read, and prompts of different words get different answers.
    """
    if tensor.dim() == 1:
        return tensor.fill_(1)
    if "embed" in name:
        return tensor.normal_(generator=generator)
    gain = PEAKY if "lm_head" in name else 1.0
    return tensor.normal_(0, gain / tensor.shape[1] ** 0.5, generator=generator)


def random_checkpoint(work: Path, shape: Shape) -> Path:
    """A bfloat16 checkpoint of random weights in `work`, one file a block; built once, one tensor at a time."""
    folder = work / "-".join(["llama", *map(str, astuple(shape))])
    if folder.is_dir():  # It got its name when it was whole.
        return folder
    say(f"building {folder.name}")
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    config = llama_config(shape)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in AutoModelForCausalLM.from_config(config).state_dict().items()}
    files: dict[str, list[str]] = {}
    for name in shapes:
        block = name.split(".layers.")[-1].split(".")[0] if ".layers." in name else name.split(".")[-2]
        files.setdefault(f"model-{block}.safetensors", []).append(name)
    generator = torch.Generator().manual_seed(0)
    for file, names in files.items():
        tensors = {name: fill(name, torch.empty(shapes[name], dtype=torch.bfloat16), generator) for name in names}
        save_file(tensors, partial / file, metadata={"format": "pt"})
    weight_map = {name: file for file, names in files.items() for name in names}
    index = {"metadata": {"total_size": 2 * sum(map(torch.Size.numel, shapes.values()))}, "weight_map": weight_map}
    (partial / "model.safetensors.index.json").write_text(json.dumps(index))
    config.save_pretrained(partial)
    byte_tokenizer().save_pretrained(partial)
    partial.rename(folder)
    return folder


def random_model(shape: Shape, device: str, dtype: torch.dtype) -> nn.Module:
    """A model of random weights, made on `device` itself."""
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(llama_config(shape), dtype=dtype)
    for name, tensor in model.named_parameters():
        fill(name, tensor)
    return model.eval().requires_grad_(False)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of single bytes with a chat template, which fits any vocabulary of 260 or more."""
    vocabulary = {character: index for index, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(f"<|{name}|>", special=True) for name in ("pad", "end", "user", "model")])
    template = (
        "{% for message in messages %}<|user|>{{ message.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|model|>{% endif %}"
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>", chat_template=template
    )


TEMPLATE_TOKENS = 3
LETTERS: dict[Kind, str] = {"harmful": "abcdefgh", "harmless": "opqrstuv", "pseudo_harmful": "abcdopqr"}
"""What random prompts of each kind are written in, so that even random weights tell them apart."""


def random_prompts(count: int, shortest: int = 10, longest: int = 120, seed: int = 0) -> list[Prompt]:
    """`count` different prompts, kinds in turn, of `shortest` to `longest` tokens of `byte_tokenizer`, log-uniform."""
    chooser = random.Random(seed)
    prompts = []
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        length = round(shortest * (longest / shortest) ** chooser.random()) - TEMPLATE_TOKENS
        text = f"{number} "
        prompts.append(Prompt(text + "".join(chooser.choices(LETTERS[kind], k=max(1, length - len(text)))), kind, kind))
    return prompts
