"""`actor testbed` and `actor demo`."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from ..files import new_folder
from .fit import fit_and_save
from .measure import local_job, print_gate
from .options import ANSWER_TOKENS, MARGIN, Device, MaxNewTokens, OutputDir, Seed, console, load, quiet_bars


def testbed(output_dir: OutputDir) -> None:
    """Build the reference testbed: a small real chat model that refuses too much."""
    from ..testbed import build_testbed

    quiet_bars()
    console.print(f"The testbed is in {build_testbed(output_dir)}")


def demo(
    output_dir: Annotated[
        Path | None, typer.Option(help="New or empty folder; default: runs/demo-DATE-TIME.", metavar="DIR")
    ] = None,
    max_new_tokens: MaxNewTokens = ANSWER_TOKENS,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """The whole road on a small real model: testbed, fit, measurements before and after on held-out prompts, report."""
    folder = new_folder(output_dir or Path("runs") / f"demo-{datetime.now():%Y%m%d-%H%M%S}")
    from ..fit import Settings
    from ..measure import run as run_measure
    from ..placement import Placement
    from ..prompts import starter_prompts
    from ..report import write_report
    from ..show import draw_validation, results_table, side_by_side
    from ..testbed import build_testbed

    quiet_bars()
    console.rule("1 of 4  The testbed: a chat model that refuses too much")
    base = str(build_testbed(folder / "testbed"))

    console.rule("2 of 4  Measured as it is, on held-out prompts")
    held_out = starter_prompts("held_out")
    before = local_job(base, None, held_out, None, max_new_tokens, device)
    console.print(results_table(run_measure(before, folder / "before")))

    console.rule("3 of 4  One block trained, on the training prompts alone")
    training, trained = starter_prompts("train"), new_folder(folder / "run")
    result = fit_and_save(load(base, Placement(device)), training, Settings(seed=seed), trained, "merged")

    console.rule("4 of 4  Measured again")
    after = local_job(str(trained / "model"), str(folder / "before"), held_out, MARGIN, max_new_tokens, device)
    found = run_measure(after, folder / "after")
    console.print(results_table(found))
    console.print(side_by_side(found, count=3))
    picture = folder / "projections.png"
    draw_validation(picture, result)
    page = write_report([trained, folder / "after"], folder / "report.html")
    console.print(f"Picture: {picture}\nReport:  {page}\nModel:   {trained / 'model'}")
    print_gate(found)
