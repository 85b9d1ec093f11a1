"""`actor scan` and `actor fit`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..errors import UserError
from ..files import new_folder, write_json
from ..prompts import Prompt, require, with_system_prompt
from .options import (
    EXIT_NOT_SAFE,
    MARGIN,
    Device,
    DeviceMap,
    Dtype,
    Harmful,
    Harmless,
    Model,
    OffloadOption,
    OutputDir,
    Prompts,
    PseudoHarmful,
    QuantizationOption,
    Seed,
    Starter,
    SystemPrompt,
    command_line,
    console,
    gather,
    load,
    placement_of,
)

if TYPE_CHECKING:
    from ..fit import Fit, LayerChoice, Settings
    from ..model import ChatModel
    from ..runs import Export


def scan(
    model: Model,
    prompts: Prompts,
    harmful: Harmful,
    harmless: Harmless,
    pseudo_harmful: PseudoHarmful,
    output_dir: Annotated[Path, typer.Option(help="Folder for scan.json.", metavar="DIR")] = Path("."),
    starter: Starter = True,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    device_map: DeviceMap = None,
    offload: OffloadOption = "none",
    quantization: QuantizationOption = "none",
) -> None:
    """Show what each block does to refusal, and which one `fit` would take. Writes scan.json."""
    given = gather(prompts, harmful, harmless, pseudo_harmful, "train")
    from ..fit import MINIMUM_PROMPTS, Settings, prepare
    from ..scan import scan as run_scan
    from ..show import scan_reason, scan_table

    target = output_dir / "scan.json"
    if output_dir.is_file():
        raise UserError(output_dir, "a file", "a folder", "give another --output-dir")
    if target.exists():
        raise UserError(target, "a file of this name exists", "a new name", "give another --output-dir")
    require(given, MINIMUM_PROMPTS)
    chat_model = load(model, placement_of(device, dtype, device_map, offload, quantization))
    # The prompts that fit would scan, so that the choice is the same.
    split = prepare(given, Settings(seed=seed, starter=starter))
    found = run_scan(chat_model, split.train, range(len(chat_model.blocks) - 1), silhouettes=True, seed=seed)
    output_dir.mkdir(parents=True, exist_ok=True)
    write_json(
        target,
        {
            "schema": 1,
            "model": model,
            "layer": found.best().layer,
            "reason": scan_reason(found),
            "refusal_tokens": found.refusal_tokens,
            "blocks": [asdict(block) | {"effect": block.effect} for block in found.blocks],
        },
    )
    console.print(scan_table(found))
    console.print(f"Written to {target}")


def fit(
    model: Model,
    prompts: Prompts,
    harmful: Harmful,
    harmless: Harmless,
    pseudo_harmful: PseudoHarmful,
    output_dir: OutputDir,
    rule: Annotated[
        Literal["boundary", "paper", "uniform"],
        typer.Option(help="Where activations should go: boundary (default), the paper's Algorithm 1, or its control."),
    ] = "boundary",
    layer: Annotated[
        str, typer.Option(help="Block to train: auto (by effect), silhouette (the paper's), or an index.")
    ] = "auto",
    seed: Seed = 0,
    export: Annotated[
        Literal["merged", "patch", "none"],
        typer.Option(help="merged: patch and whole checkpoint; patch: the changed tensors alone; none: the record."),
    ] = "merged",
    starter: Starter = True,
    select: Annotated[
        Literal["none", "upcore", "random"],
        typer.Option(help="Train on a share of the prompts only: the least outlying ones (UPCORE), or any."),
    ] = "none",
    select_fraction: Annotated[
        float | None, typer.Option(help="That share, for each kind; 0.9 if not given.", min=0.01, max=1.0)
    ] = None,
    consistency: Annotated[
        float, typer.Option(help="Weight of CROW's regulariser, against jumps that a trigger makes.", min=0.0)
    ] = 0.0,
    system_prompt: SystemPrompt = None,
    max_safety_drop: Annotated[
        float, typer.Option(help="How far refusal of held-out harmful prompts may fall, 0 to 1.")
    ] = MARGIN,
    allow_unsafe: Annotated[
        bool,
        typer.Option(
            "--allow-unsafe", help="Write the trained model even where it refuses fewer harmful prompts than it may."
        ),
    ] = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    device_map: DeviceMap = None,
    offload: OffloadOption = "none",
    quantization: QuantizationOption = "none",
) -> None:
    """Train one block so that benign prompts are answered and harmful ones stay refused."""
    given = gather(prompts, harmful, harmless, pseudo_harmful, "train")
    choice = _layer(layer)
    if select_fraction is not None and select == "none":
        fix = "add --select upcore, or leave the share out"
        raise UserError(f"--select-fraction {select_fraction:g}", "no --select", "a way to choose them", fix)
    new_folder(output_dir)
    from ..coreset import FRACTION
    from ..fit import MINIMUM_PROMPTS, Settings, prepare
    from ..guard import guard_prompts
    from ..machine import free_memory
    from ..preflight import check, phases, plan_of, sentence, smaller_answers

    require(given, MINIMUM_PROMPTS)
    gate = guard_prompts(given, max_safety_drop)  # now, not after minutes of training
    placement = placement_of(device, dtype, device_map, offload, quantization)
    # The paper's rules are kept to the letter, so they see the given prompts alone.
    starter = starter and rule == "boundary"
    share = FRACTION if select_fraction is None else select_fraction
    settings = Settings(rule, choice, seed, starter, allow_unsafe, system_prompt, select, share, consistency)
    layer_given = choice if isinstance(choice, int) else None
    plan = plan_of(model, prepare(given, settings), gate, placement, layer_given, rule)
    free = free_memory(plan.setup.device)
    plan = smaller_answers(plan, free)
    console.print(sentence(phases(plan), free))
    if device_map is None:
        check(plan, free, model)
    chat_model = load(model, placement, layer_given)
    fit_and_save(chat_model, given, settings, output_dir, export, max_safety_drop, plan.work.answer_batch)


def fit_and_save(
    chat_model: "ChatModel",
    given: list[Prompt],
    settings: "Settings",
    folder: Path,
    export: "Export",
    margin: float = MARGIN,
    answer_batch: int | None = None,
) -> "Fit":
    """Fit, pass the safety gate, show and save. Exits with status 3 where the model was withheld as unsafe.

    **Arguments:**

    - `answer_batch`: prompts that the gate answers at a time; None: as many as an engine takes.
    """
    from ..fit import fit as run_fit
    from ..guard import guard, guard_prompts
    from ..judges.trained import judge_trained
    from ..runs import save_run
    from ..show import fit_table

    result = run_fit(chat_model, given, settings)
    console.print(fit_table(result))
    guarded = None
    if result.chosen.strength:  # else nothing has changed, and `failure` says so
        prompts = guard_prompts(given, margin)
        if settings.system_prompt:
            prompts = with_system_prompt(prompts, settings.system_prompt)
        guarded = guard(chat_model, result, prompts, margin, judge_trained, answer_batch)
    reasons = [result.failure, None if guarded is None or guarded.gate.passed else guarded.gate.sentence]
    for reason in filter(None, reasons):
        console.print(reason, style="bold red")
    withheld = any(reasons) and not settings.allow_unsafe
    save_run(folder, chat_model, result, settings, given, export, guarded, command_line(), written=not withheld)
    if withheld:
        console.print(
            "No model was written. Add harmful prompts that look like your pseudo-harmful ones, look for harmful "
            "prompts among your pseudo-harmful ones, or try another --layer; --allow-unsafe writes it all the same. "
            f"Record: {folder / 'run.json'}"
        )
        raise typer.Exit(EXIT_NOT_SAFE)
    if chat_model.placement.quantization != "none" and export == "merged":
        console.print(
            "The gate answered with all blocks but one in 4 bits. Before you ship it, measure what was written: "
            f"actor measure {folder / 'model'} --baseline {chat_model.name} --max-safety-drop {margin} --output-dir DIR"
        )
    if guarded and guarded.gate.passed:
        console.print(guarded.gate.sentence, style="green")
    console.print(f"Block {result.layer} trained. Everything is in {folder}")
    return result


def _layer(value: str) -> "LayerChoice":
    if value in ("auto", "silhouette"):
        return value  # type: ignore[return-value]
    try:
        return int(value)
    except ValueError:
        expected = "auto, silhouette or a block index"
        raise UserError("--layer", repr(value), expected, "see `actor scan MODEL`") from None
