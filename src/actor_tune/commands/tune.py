"""`actor tune`."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

import actor_tune as at

from ..errors import UserError, require_package
from ..prompts.starter import with_missing_kinds
from ..records.results import check_margin
from ..show.trackers import check_tracker
from ..storage.folders import unfinished
from . import options
from .fit import Export, Layer, LogTo, MaxSafetyDrop, layer_named, show_and_save
from .terminal import Result, console

Trials = Annotated[int, typer.Option(help="Trials that the study is to have, whoever runs them.", min=1)]
StorageUrl = Annotated[
    str | None,
    typer.Option(
        "--storage",
        help="Where processes share the study: a file for one machine or a shared folder, or "
        "postgresql://USER@HOST/DATABASE. Not given: a file beside the results.",
        metavar="FILE|URL",
        show_default=False,
    ),
]
StudyName = Annotated[str, typer.Option("--study", help="What the study is called in its storage.", metavar="NAME")]
OutputDir = Annotated[
    Path | None,
    options.output_folder("New folder, or that of the same command cut off. Without it, trials are run for others."),
]


def tune(
    model: options.Model,
    prompts: options.Prompts,
    harmful: options.Harmful,
    harmless: options.Harmless,
    pseudo_harmful: options.PseudoHarmful,
    output_dir: OutputDir = None,
    trials: Trials = at.TRIALS,
    storage: StorageUrl = None,
    study: StudyName = at.STUDY,
    columns: options.Columns = None,
    layer: Layer = "auto",
    seed: options.Seed = 0,
    export: Export = "merged",
    starter: options.Starter = True,
    system_prompt: options.SystemPrompt = None,
    max_safety_drop: MaxSafetyDrop = at.MARGIN,
    gate_prompts: options.GatePrompts = None,
    allow_unsafe: options.AllowUnsafe = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    trust_remote_code: options.TrustRemoteCode = False,
    chat_template_kwargs: options.ChatTemplateKwargs = None,
    max_reasoning_tokens: options.MaxReasoningTokens = at.REASONING_TOKENS,
    log_to: LogTo = None,
) -> Result:
    """Search for the recipe that suits a model and its prompts, then fit by it on prompts that it has not seen."""
    check_margin(max_safety_drop)
    require_package("`actor tune`", "optuna", "tune")
    if output_dir is None and storage is None:
        fix = "give one; without a folder, also the storage of the process that has it"
        raise UserError("`output_dir=`", "neither it nor `storage=`", "a folder for the result", fix)
    given = with_missing_kinds(options.given(prompts, harmful, harmless, pseudo_harmful, columns), starter)
    placement = at.Placement(device, dtype, trust_remote_code=trust_remote_code).checked()
    settings = at.Settings(
        layer=layer_named(layer),
        seed=seed,
        starter=starter,
        allow_unsafe=allow_unsafe,
        system_prompt=system_prompt,
        gate_prompts=gate_prompts,
    )
    told = options.template_kwargs(chat_template_kwargs)
    check_tracker(log_to)
    asked = at.Study(trials, storage, study)
    if output_dir is None:
        loaded = at.load(model, placement, chat_template_kwargs=told)
        count = at.assist(loaded, given, asked, settings)
        console.print(f"The study has {count} trials; the process that was given a folder goes on with it.")
        return Result({"trials": count})
    with unfinished(output_dir) as work:
        need = at.preflight(model, given, settings, placement, max_safety_drop, told)
        need.check()
        with (stages := need.stages())("load"):
            loaded = at.load(model, placement, chat_template_kwargs=told)
        tuning = partial(at.tune, loaded, given, asked, settings, max_safety_drop, answer_batch=need.answer_batch)
        with at.report_to(log_to, output_dir) as report:
            tuned = tuning(max_reasoning_tokens=max_reasoning_tokens, work=work, stages=stages, report=report)
        return _show_and_save(tuned, output_dir, export)


def _show_and_save(tuned: "at.Tuned", folder: Path, export: Export) -> Result:
    from ..show.tuning import trials_table, tuning_told

    console.print(trials_table(tuned.tuning), tuning_told(tuned.tuning), sep="\n")
    return show_and_save(tuned.fit, folder, export, [tuned.tuning])
