"""`actor scan` and `actor fit`."""

import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, cast

import typer

import actor_tune as at

from ..errors import UserError
from ..prompts.starter import with_missing_kinds
from ..records.results import check_margin
from ..show.trackers import check_tracker
from ..storage.folders import unfinished
from . import options
from .options import command_line
from .settings import resolved
from .terminal import EXIT_NOT_SAFE, Result, console, print_details

RuleOption = Annotated[
    Literal["auto", "odds", "boundary", "paper", "uniform"],
    typer.Option(help="auto: of boundary and odds the one that suits the model; the paper's Algorithm 1; its control."),
]
Layer = Annotated[str, typer.Option(help="Block to train: auto (by effect), silhouette (the paper's), or an index.")]
Export = Annotated[
    Literal["merged", "patch", "none"],
    typer.Option(help="merged: patch and whole checkpoint; patch: the changed tensors alone; none: the record."),
]
Select = Annotated[
    Literal["none", "upcore", "random"],
    typer.Option(help="Train on a share of the prompts only: the least outlying ones (UPCORE), or any."),
]
SelectFraction = Annotated[
    float | None, typer.Option(help="That share, for each kind; 0.9 if not given.", min=0.01, max=1.0)
]
Consistency = Annotated[
    float, typer.Option(help="Weight of CROW's regulariser, against jumps that a trigger makes.", min=0.0)
]
MaxSafetyDrop = Annotated[float, typer.Option(help="How far refusal of held-out harmful prompts may fall, 0 to 1.")]

Categories = Annotated[
    list[str] | None,
    typer.Option(
        help="Free the pseudo-harmful prompts of these categories alone, and hold all others where they are.",
        metavar="NAME,...",
        show_default="all",
    ),
]
Strengthen = Annotated[
    bool,
    typer.Option("--strengthen", help="Refuse harmful prompts that slip through, instead of freeing benign ones."),
]
LogTo = Annotated[
    Literal["trackio", "wandb", "mlflow", "tensorboard"] | None,
    typer.Option(help="Log losses, strengths and the gate there as they come.", show_default=False),
]


def scan(
    model: options.Model,
    prompts: options.Prompts,
    harmful: options.Harmful,
    harmless: options.Harmless,
    pseudo_harmful: options.PseudoHarmful,
    output_dir: Annotated[Path, options.output_folder("Folder for scan.json.")] = Path("."),
    columns: options.Columns = None,
    starter: options.Starter = True,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    device_map: options.DeviceMap = None,
    offload: options.Offload = "none",
    quantization: options.Quantization = "none",
    trust_remote_code: options.TrustRemoteCode = False,
    chat_template_kwargs: options.ChatTemplateKwargs = None,
) -> Result:
    """Show what each block does to refusal, and which one `fit` would take. Writes scan.json."""
    given = with_missing_kinds(options.given(prompts, harmful, harmless, pseudo_harmful, columns), starter)
    target = output_dir / at.Scan.FILE
    if output_dir.is_file():
        raise UserError(output_dir, "a file", "a folder", "give another `output_dir=`")
    if target.exists():
        raise UserError(target, "a file of this name exists", "a new name", "give another `output_dir=`")
    placement = at.Placement(device, dtype, device_map, offload, quantization, trust_remote_code).checked()
    told = options.template_kwargs(chat_template_kwargs)
    blocks = at.scan(at.subject(model, placement=placement, chat_template_kwargs=told), given, starter, seed)
    from ..show.repair import scan_table

    console.print(scan_table(blocks))
    console.print(f"Written to {blocks.save(output_dir)}")
    return Result(blocks.json())


def fit(
    model: options.Model,
    prompts: options.Prompts,
    harmful: options.Harmful,
    harmless: options.Harmless,
    pseudo_harmful: options.PseudoHarmful,
    output_dir: options.OutputDir,
    columns: options.Columns = None,
    rule: RuleOption = "auto",
    layer: Layer = "auto",
    seed: options.Seed = 0,
    export: Export = "merged",
    starter: options.Starter = True,
    select: Select = "none",
    select_fraction: SelectFraction = None,
    consistency: Consistency = 0.0,
    system_prompt: options.SystemPrompt = None,
    max_safety_drop: MaxSafetyDrop = at.MARGIN,
    gate_prompts: options.GatePrompts = None,
    allow_unsafe: options.AllowUnsafe = False,
    categories: Categories = None,
    strengthen: Strengthen = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    device_map: options.DeviceMap = None,
    offload: options.Offload = "none",
    quantization: options.Quantization = "none",
    trust_remote_code: options.TrustRemoteCode = False,
    chat_template_kwargs: options.ChatTemplateKwargs = None,
    max_reasoning_tokens: options.MaxReasoningTokens = at.REASONING_TOKENS,
    log_to: LogTo = None,
) -> Result:
    """Train one block so that benign prompts are answered and harmful ones stay refused."""
    _check(max_safety_drop, select, select_fraction, log_to)
    given = with_missing_kinds(options.given(prompts, harmful, harmless, pseudo_harmful, columns), starter)
    placement = at.Placement(device, dtype, device_map, offload, quantization, trust_remote_code).checked()
    chosen = partial(at.Settings, rule=rule, layer=layer_named(layer), seed=seed, starter=starter)
    settings = chosen(
        allow_unsafe=allow_unsafe,
        system_prompt=system_prompt,
        select=select,
        select_fraction=select_fraction or at.Settings.select_fraction,
        consistency=consistency,
        gate_prompts=gate_prompts,
        categories=_names(categories),
        strengthen=strengthen,
    )
    told = options.template_kwargs(chat_template_kwargs)
    with unfinished(output_dir) as work:
        need = _told(at.preflight(model, given, settings, placement, max_safety_drop, told))
        with (stages := need.stages())("load"):
            loaded = at.load(model, placement, settings.last_block, told)
        stages.expected = need.seconds(loaded, given, max_reasoning_tokens)
        fitting = partial(at.fit, loaded, given, settings, max_safety_drop, answer_batch=need.answer_batch)
        with at.report_to(log_to, output_dir) as report:
            fitted = fitting(
                max_reasoning_tokens=max_reasoning_tokens, work=work / "parts", stages=stages, report=report
            )
        return show_and_save(fitted, output_dir, export)


def _advice(settings: "at.Settings") -> str:
    """What may mend a fit that was withheld."""
    if settings.strengthen:
        return "Add pseudo-harmful prompts that look like your harmful ones, look for benign prompts among those"
    looks = "Add harmful prompts that look like your pseudo-harmful ones, look for harmful prompts among those"
    return f"{looks}, name more --categories" if settings.categories else looks


def _told(need: "at.Preflight") -> "at.Preflight":
    """Say what the fit needs, and stop where there is not enough of it."""
    console.print(need.sentence, need.gate_sentence, sep="\n")
    need.check()
    return need


def show_and_save(
    fitted: "at.Fit",
    folder: Path,
    export: Literal["merged", "patch", "none"],
    beside: "Sequence[at.Tuning]" = (),
) -> Result:
    """Print what a fit found and save it; the exit status says whether the model was withheld as unsafe."""
    from ..show.gate import gate_told
    from ..show.repair import benign_told, fit_table, limits_told

    print_details(fit_table(fitted.block))
    console.print(limits_told(fitted.block))
    if fitted.gate:
        console.print(gate_told(fitted.gate, fitted.fallen), benign_told(fitted), sep="")
    fitted.save(folder, export, command := command_line(), resolved(), beside)
    record = fitted.record(export, command).json()
    if fitted.withheld:
        console.print(
            f"No model was written. {_advice(fitted.settings)}, or try another --rule or --layer; --allow-unsafe "
            f"writes it all the same. Record: {folder / 'run.json'}"
        )
        return Result(record, EXIT_NOT_SAFE)
    console.print(
        f"Block {fitted.layer} trained. Everything is in {folder}; `actor report {folder}` shows every answer."
    )
    if export == "merged":
        after = ["actor", "measure", f"{folder / 'model'}", "--baseline", fitted.model.name]
        after += ["--max-safety-drop", f"{fitted.margin:g}", "-o", "DIR"]
        next_step = "Next, on prompts that it has not seen"
        if fitted.gate_in_four_bits:
            next_step = (
                "The gate answered with all blocks but one in 4 bits. Before you ship it, measure what was written"
            )
        console.print(f"{next_step}: {shlex.join(after)}", soft_wrap=True)
    return Result(record)


def _check(margin: float, select: str, fraction: float | None, log_to: str | None) -> None:
    """Stop at what is wrong whatever the prompts and the model are."""
    check_margin(margin)
    check_tracker(log_to)
    if fraction is not None and select == "none":
        fix = "add `select=upcore`, or leave the share out"
        raise UserError(f"`select_fraction={fraction:g}`", "no `select=`", "a way to choose them", fix)


def _names(said: list[str] | None) -> tuple[str, ...]:
    """Names, each given by itself or several with commas between them."""
    return tuple(name.strip() for part in said or [] for name in part.split(",") if name.strip())


def layer_named(value: str) -> int | Literal["auto", "silhouette"]:
    """What --layer says."""
    if value in ("auto", "silhouette"):
        return cast(Literal["auto", "silhouette"], value)
    try:
        return int(value)
    except ValueError:
        expected = "auto, silhouette or a block index"
        raise UserError("`layer=`", repr(value), expected, "see `actor scan MODEL`") from None
