"""`actor testbed` and `actor demo`."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

import actor_tune as at

from ..storage.files import new_folder
from .fit import show_and_save
from .measure import print_gate, show
from .options import Device, MaxNewTokens, OutputDir, Seed, command_line, console


def testbed(output_dir: OutputDir) -> None:
    """Build the reference testbed: a small real chat model that refuses too much."""
    console.print(f"The testbed is in {at.build_testbed(output_dir)}")


def demo(
    output_dir: Annotated[
        Path | None, typer.Option(help="New or empty folder; default: runs/demo-DATE-TIME.", metavar="DIR")
    ] = None,
    max_new_tokens: MaxNewTokens = at.ANSWER_TOKENS,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """The whole road on a small real model: testbed, fit, measurements before and after on held-out prompts, report."""
    folder = new_folder(output_dir or Path("runs") / f"demo-{datetime.now():%Y%m%d-%H%M%S}")
    from ..show.measurement import side_by_side
    from ..show.pictures import draw_validation

    console.rule("1 of 4  The testbed: a chat model that refuses too much")
    base, model = str(at.build_testbed(folder / "testbed")), str(folder / "run" / "model")
    placement, held_out = at.Placement(device), at.starter("held_out")

    console.rule("2 of 4  Measured as it is, on held-out prompts")
    subject, work, command = at.subject(base, placement=placement), folder / "before", command_line()
    before = at.measure(subject, held_out, max_new_tokens=max_new_tokens, work=work, command=command)
    before.save(work)
    show(before)

    console.rule("3 of 4  One block trained, on the training prompts alone")
    fitted = at.fit(at.load(base, placement), at.starter("train"), at.Settings(seed=seed))
    show_and_save(fitted, new_folder(folder / "run"), "merged")

    console.rule("4 of 4  Measured again")
    after = at.measure(
        at.subject(model, placement=placement),
        at.questions(held_out, at.trained_on(model), at.MARGIN),
        baseline=at.EarlierMeasurement.read(folder / "before", lambda name: at.subject(name, placement=placement)),
        max_new_tokens=max_new_tokens,
        work=folder / "after",
        command=command,
    )
    after.save(folder / "after")
    show(after)
    console.print(side_by_side(after.baseline, after.responses, count=3))
    picture = folder / "projections.png"
    draw_validation(picture, fitted.block)
    page = at.write_report([folder / "run", folder / "after"], folder / "report.html")
    console.print(f"Picture: {picture}\nReport:  {page}\nModel:   {model}")
    print_gate(after)
