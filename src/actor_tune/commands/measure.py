"""`actor measure`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UserError
from ..judges.choose import CHOICES, DEFAULT, judge_by_name
from ..prompts import Prompt
from .options import (
    ANSWER_TOKENS,
    EXIT_NOT_SAFE,
    MARGIN,
    Device,
    DeviceMap,
    Dtype,
    EngineName,
    Harmful,
    Harmless,
    MaxNewTokens,
    Model,
    OffloadOption,
    Prompts,
    PseudoHarmful,
    QuantizationOption,
    SystemPrompt,
    command_line,
    console,
    gather,
    load,
    placement_of,
    remote_engine,
)
from .options import (
    batch_size as parse_batch_size,
)

if TYPE_CHECKING:
    from ..measure import Job, Subject
    from ..placement import Placement
    from ..results import Results


TrainedOn = Annotated[
    list[str],
    typer.Option(
        help="Run folder or prompts that the model was trained on: the like of them are kept out. A model inside "
        "its run folder needs none. Repeatable.",
        metavar="RUN|FILE",
        default_factory=list,
        show_default=False,
    ),
]
Judges = Annotated[
    list[str],
    typer.Option(
        help=f"{', '.join(CHOICES)}. Repeatable: the first decides, the others are compared with it.",
        metavar="NAME",
        default_factory=lambda: [DEFAULT],
        show_default=DEFAULT,
    ),
]
JudgeBaseUrl = Annotated[str | None, typer.Option(help="Of the server, for --judge openai=MODEL.", metavar="URL")]
BaselineOption = Annotated[
    str | None,
    typer.Option(
        help="Model to compare with, prompt by prompt, or the folder of its earlier measurement.",
        metavar="MODEL|DIR",
    ),
]
MaxSafetyDrop = Annotated[
    float | None,
    typer.Option(
        help="Safety gate: exit with 3 unless refusal of harmful prompts is shown to have fallen by less than "
        f"this since the baseline; {MARGIN} is 5 points."
    ),
]


def measure(
    model: Model,
    prompts: Prompts,
    harmful: Harmful,
    harmless: Harmless,
    pseudo_harmful: PseudoHarmful,
    trained_on: TrainedOn,
    judge: Judges,
    output_dir: Annotated[
        Path, typer.Option(help="Folder for the results: new, or that of the same command cut off.", metavar="DIR")
    ],
    baseline: BaselineOption = None,
    max_safety_drop: MaxSafetyDrop = None,
    system_prompt: SystemPrompt = None,
    limit: Annotated[int | None, typer.Option(help="At most this many prompts of each set.", min=1)] = None,
    max_new_tokens: MaxNewTokens = ANSWER_TOKENS,
    engine: EngineName = "transformers",
    base_url: Annotated[str | None, typer.Option(help="Of the server, for --engine openai.", metavar="URL")] = None,
    judge_base_url: JudgeBaseUrl = None,
    perplexity: Annotated[
        Path | None, typer.Option(help="Plain text to measure perplexity on.", metavar="FILE")
    ] = None,
    lm_eval: Annotated[
        str | None, typer.Option(help="Benchmarks of lm-eval to run too, such as mmlu,arc_easy.", metavar="TASKS")
    ] = None,
    batch_size: Annotated[
        str, typer.Option(help="Prompts at a time, for --engine transformers: auto or a number.")
    ] = "auto",
    device: Device = "auto",
    dtype: Dtype = "auto",
    device_map: DeviceMap = None,
    offload: OffloadOption = "none",
    quantization: QuantizationOption = "none",
) -> None:
    """Answer prompts greedily, judge the answers, and report refusal rates with intervals; compare with a baseline."""
    if max_safety_drop is not None and baseline is None:
        raise UserError("--max-safety-drop", "no --baseline", "a model to compare with", "give --baseline MODEL")
    _check_engine(engine, base_url, perplexity, lm_eval)
    _check_placement(engine, dtype, device_map, offload, quantization)
    given = gather(prompts, harmful, harmless, pseudo_harmful, "held_out")
    size = parse_batch_size(batch_size)
    placement = placement_of(device, dtype, device_map, offload, quantization)
    from ..measure import Baseline, Job, plan, run
    from ..runs import trained_prompts, versions
    from ..show import results_table

    asked = plan(given, trained_prompts(model, trained_on), max_safety_drop, limit, system_prompt)
    job = Job(
        model=model,
        baseline=None if baseline is None else Baseline.of(baseline),
        open_subject=lambda name: _subject(name, engine, base_url, placement, size),
        plan=asked,
        max_new_tokens=max_new_tokens,
        settings={
            "engine": engine,
            "base_url": base_url,
            "dtype": dtype,
            "quantization": quantization,
            "system_prompt": system_prompt,
            "limit": limit,
            "max_safety_drop": max_safety_drop,
        },
        judges={name: judge_by_name(name, device, judge_base_url) for name in judge},
        text=perplexity,
        benchmarks=lm_eval.split(",") if lm_eval else [],
        device=device,
        record={"engine": engine, "command": command_line(), "versions": versions()},
    )
    found = run(job, output_dir)
    console.print(results_table(found))
    console.print(f"Answers in {output_dir / 'responses.jsonl'}, rates in {output_dir / 'results.json'}")
    print_gate(found)


def _check_engine(engine: str, base_url: str | None, perplexity: Path | None, lm_eval: str | None) -> None:
    """Stop where an option would be ignored."""
    if base_url and engine != "openai":
        raise UserError(f"--base-url {base_url}", f"--engine {engine}", "--engine openai", "add it, or leave this out")
    for option, value in (("--perplexity", perplexity), ("--lm-eval", lm_eval)):
        if value and engine != "transformers":
            fix = "measure that without --engine"
            raise UserError(f"{option} {value}", f"--engine {engine}", "a model in this process", fix)


def _check_placement(engine: str, dtype: str, device_map: str | None, offload: str, quantization: str) -> None:
    """Stop where an option about a model in this process would be ignored."""
    given = {"--dtype": dtype != "auto", "--device-map": device_map is not None}
    given |= {"--offload": offload != "none", "--quantization": quantization != "none"}
    for option in (name for name, is_given in given.items() if is_given and engine != "transformers"):
        raise UserError(option, f"--engine {engine}", "a model in this process", f"leave {option} or --engine out")


def print_gate(found: "Results") -> None:
    """Say what the safety gate decided, if there was one. Exits with status 3 where the model did not pass."""
    if found.gate:
        console.print(found.gate.sentence, style="green" if found.gate.passed else "bold red")
        if not found.gate.passed:
            console.print(
                "Look at the harmful prompts that are answered now (actor report shows them as flipped); where the "
                "interval is wide, add harmful prompts with --harmful FILE. Do not ship this model before."
            )
            raise typer.Exit(EXIT_NOT_SAFE)


def local_job(
    model: str, baseline: str | None, prompts: list[Prompt], margin: float | None, max_new_tokens: int, device: str
) -> "Job":
    """A measurement in this process with all defaults."""
    from ..measure import Baseline, Job, plan
    from ..placement import Placement
    from ..runs import trained_prompts, versions

    return Job(
        model=model,
        baseline=None if baseline is None else Baseline.of(baseline),
        open_subject=lambda name: _subject(name, "transformers", None, Placement(device), None),
        plan=plan(prompts, trained_prompts(model, []), margin),
        max_new_tokens=max_new_tokens,
        settings={"engine": "transformers", "dtype": Placement().dtype, "quantization": Placement().quantization},
        judges={DEFAULT: judge_by_name(DEFAULT)},
        text=None,
        benchmarks=[],
        device=device,
        record={"engine": "transformers", "command": command_line(), "versions": versions()},
    )


def _subject(name: str, engine: str, base_url: str | None, placement: "Placement", size: int | None) -> "Subject":
    from ..measure import Subject

    if engine != "transformers":
        return Subject(name, remote_engine(engine, name, base_url), None)
    from ..engines.local import local_engine

    chat_model = load(name, placement)
    return Subject(name, local_engine(chat_model, size), chat_model)
