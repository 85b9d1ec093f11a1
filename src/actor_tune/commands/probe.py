"""`actor probe`."""

from pathlib import Path
from typing import Annotated

import typer

import actor_tune as at

from ..errors import UserError, require_package
from ..records.file import read
from ..records.run import Run
from .options import (
    ChatTemplateKwargs,
    Device,
    Dtype,
    OutputDir,
    Seed,
    TrustRemoteCode,
    command_line,
    template_kwargs,
)
from .settings import keep_settings
from .terminal import Result, console


def probe(
    run: Annotated[Path, typer.Argument(help="Run folder of `actor fit`, with its model.", metavar="RUN")],
    output_dir: OutputDir,
    steps: Annotated[int, typer.Option(help="Steps of benign fine-tuning (LoRA, batches of 16).", min=1)] = 40,
    every: Annotated[int, typer.Option(help="Look after so many steps.", min=1)] = 10,
    harmless: Annotated[
        Path | None, typer.Option(help="Harmless prompts for the damage by topic.", metavar="FILE", show_default=False)
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    trust_remote_code: TrustRemoteCode = False,
    chat_template_kwargs: ChatTemplateKwargs = None,
) -> Result:
    """Does safety last when the model is fine-tuned on benign data, and which topics did the edit disturb?"""
    require_package("actor probe", "matplotlib", "plot")
    record = _record(run)
    asked = at.read(harmless=[harmless]) if harmless else None
    placement = at.Placement(device, dtype, trust_remote_code=trust_remote_code).checked()
    told = template_kwargs(chat_template_kwargs)
    default, trained = (
        at.subject(name, placement=placement, chat_template_kwargs=told)
        for name in (record.model.name, str(run / "model"))
    )
    system_prompt = record.settings.get("system_prompt")
    probed = at.probe(default, trained, asked, system_prompt, steps, every, seed, output_dir, command_line())
    from ..show.probe import draw_durability, probe_tables

    picture = output_dir / "durability.png"
    console.print(probe_tables(probed))
    draw_durability(picture, probed.durability)
    keep_settings(output_dir)
    console.print(f"Numbers in {probed.save(output_dir)}, picture in {picture}")
    return Result(probed.json())


def _record(folder: Path) -> Run:
    """The record of the fit in `folder`, which has its model."""
    if not (folder / Run.FILE).is_file():
        raise UserError(folder, f"no {Run.FILE}", "the folder of a fit", "give the `output_dir=` of `actor fit`")
    if not (folder / "model").is_dir():
        fix = "fit again with `export=merged`"
        raise UserError(folder, "no model (it was withheld, or not exported)", "a model to probe", fix)
    return read(Run, folder)
