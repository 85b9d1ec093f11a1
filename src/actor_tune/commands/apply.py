"""`actor apply` and `actor revert`."""

from pathlib import Path
from typing import Annotated

import typer

import actor_tune as at

from ..records.run import Run
from .options import AllowUnsafe, OutputDir
from .terminal import Result, console

PatchFile = Annotated[Path, typer.Argument(help="The patch.safetensors of a fit, or its folder.", metavar="PATCH")]
Base = Annotated[str, typer.Argument(help="The model that it was trained in: a folder or Hub id.", metavar="BASE")]
Patched = Annotated[str, typer.Argument(help="Folder of a model with a patch in it.", metavar="MODEL")]
RevertTo = Annotated[
    str | None,
    typer.Option(help="The model it was made from, where the block as it was does not lie beside.", metavar="MODEL"),
]


def apply(patch: PatchFile, base: Base, output_dir: OutputDir, allow_unsafe: AllowUnsafe = False) -> Result:
    """Write a whole model with the block of a patch in it. The model is not loaded."""
    loaded = at.Patch.load(patch)
    console.print(loaded.safety, style="green" if loaded.passed else "bold red")
    folder = patch if patch.is_dir() else patch.parent
    loaded.write(base, output_dir, folder if (folder / Run.FILE).is_file() else None, allow_unsafe)
    console.print(f"Block {loaded.layer} of {base} is the patch's in {output_dir}; `actor revert` takes it out again.")
    return Result({"model": str(output_dir), "layer": loaded.layer, "safety": loaded.safety, "passed": loaded.passed})


def revert(model: Patched, output_dir: OutputDir, base: RevertTo = None) -> Result:
    """Write a model that has a patch in it as its base was, bit for bit."""
    at.revert(model, output_dir, base)
    console.print(f"The model as it was before the patch is in {output_dir}")
    return Result({"model": str(output_dir)})
