"""`actor push` and `actor reproduce`."""

from pathlib import Path
from typing import Annotated

import typer

import actor_tune as at

from ..storage.folders import unfinished
from . import options
from .fit import show_and_save
from .terminal import EXIT_NOT_SAFE, Result, console

EXIT_OTHER_BYTES = 1

Run = Annotated[Path, typer.Argument(help="Run folder of `actor fit`.", metavar="RUN")]
Repo = Annotated[str, typer.Argument(help="Repository on the Hub; made where it is not there.", metavar="OWNER/NAME")]
PatchOnly = Annotated[bool, typer.Option(help="Publish the trained block alone, and no whole model.")]
WithPrompts = Annotated[bool, typer.Option(help="Publish the prompts given too, and the system prompt.")]
Measured = Annotated[
    Path | None, typer.Option(help="Measurement of the run's model, for the card.", metavar="DIR", show_default=False)
]
Private = Annotated[bool, typer.Option(help="Make a private repository; else as its owner has set, most often public.")]
AllowUnsafe = Annotated[bool, typer.Option(help="Publish a model that failed the safety gate.")]
Written = Annotated[Path | None, options.output_folder("Write what would be published here, and send nothing.")]
Name = Annotated[str, typer.Argument(help="Published model: folder or Hub id.", metavar="MODEL")]
Base = Annotated[
    str | None,
    typer.Option("--model", help="The base, where it is not on the Hub.", metavar="MODEL", show_default=False),
]
AllowAgain = Annotated[bool, typer.Option(help="Make again what was made with --allow-unsafe, and may be unsafe.")]
DeviceAgain = Annotated[str | None, typer.Option(help="Where it runs; default: as it did.", show_default=False)]


def push(
    run: Run,
    repo: Repo,
    patch_only: PatchOnly = False,
    with_prompts: WithPrompts = False,
    measured: Measured = None,
    private: Private = False,
    allow_unsafe: AllowUnsafe = False,
    output_dir: Written = None,
) -> Result:
    """Publish a trained model on the Hugging Face Hub: with a card, and with what is needed to make it again."""
    what = at.publication(run, repo, patch_only, with_prompts, measured)
    from ..show.publishing import files_table

    told = {"repo": repo, "passed": what.passed, "reasons": what.reasons, "files": what.sizes}
    if not what.passed:
        console.print(f"Not safe to ship: {' '.join(what.reasons)}", style="bold red")
    console.print(files_table(what.sizes, repo))
    if what.left_out:
        console.print(f"Left out: {', '.join(what.left_out)}")
    console.print(what.sentence, style="green" if what.passed else "bold red")
    if not what.passed and not allow_unsafe:
        console.print("Nothing was published. --allow-unsafe publishes it all the same; its card says so first.")
        return Result(told, EXIT_NOT_SAFE)
    if output_dir:
        what.save(output_dir, allow_unsafe)
        console.print(f"Written to {output_dir}. Nothing was sent.")
        return Result(told)
    console.print(f"If {repo} is new, it is {'private' if private else 'public, unless its owner has set otherwise'}.")
    url = what.push(private, allow_unsafe)
    console.print(f"Published: {url}")
    return Result(told | {"url": url})


def reproduce(
    name: Name,
    prompts: options.Prompts,
    harmful: options.Harmful,
    harmless: options.Harmless,
    pseudo_harmful: options.PseudoHarmful,
    output_dir: options.OutputDir,
    columns: options.Columns = None,
    model: Base = None,
    system_prompt: options.SystemPrompt = None,
    allow_unsafe: AllowAgain = False,
    device: DeviceAgain = None,
    trust_remote_code: options.TrustRemoteCode = False,
) -> Result:
    """Make a published model again, and say of each file whether it has the same bytes; exits with 1 where not."""
    given = options.given(prompts, harmful, harmless, pseudo_harmful, columns)
    again = at.published(name, given, model, system_prompt, allow_unsafe, device, trust_remote_code)
    from ..show.publishing import checks_table

    for difference in again.differences:
        console.print(f"Other bytes may come of this: {difference}", style="yellow")
    told = again.recipe.chat_template_kwargs
    with unfinished(output_dir) as work:
        need = at.preflight(again.base, again.prompts, again.settings, again.placement, again.recipe.margin, told)
        console.print(need.sentence)
        need.check()
        fitted = again.fit(need.answer_batch, work / "parts", need.stages())
        saved = show_and_save(fitted, output_dir, again.recipe.export)
    if saved.status:
        return saved
    checks = again.compare(output_dir)
    console.print(checks_table(checks))
    same = sum(check.same for check in checks)
    style = "green" if same == len(checks) else "bold red"
    console.print(f"{same} of {len(checks)} files have the same bytes", style=style)
    found = {"files": {check.name: check.same for check in checks}, "differences": again.differences}
    return Result(found, 0 if same == len(checks) else EXIT_OTHER_BYTES)
