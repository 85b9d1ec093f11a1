"""`actor measure`."""

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import actor_tune as at

from ..errors import UserError
from ..judges.choose import CHOICES
from ..judges.verdict import Judge
from ..records.response import DISAGREEMENTS_FILE
from ..records.results import Results, check_margin
from ..storage.tables import read_text
from . import options
from .options import command_line
from .settings import keep_settings
from .terminal import EXIT_NOT_SAFE, EXIT_USER_ERROR, Result, as_options, console

TRAINED_ON = (
    "Run folder or prompts that the model was trained on: the like of them are kept out. A model inside its run folder "
    "needs none. Repeatable."
)
JUDGES = f"{', '.join(CHOICES)}. Repeatable: the first decides, the others are compared with it."
BASE_URL = "Of the server, for --engine openai. Repeatable: several with the same model share the work."
EngineName = Annotated[
    Literal["transformers", "vllm", "openai"],
    typer.Option(help="What answers: this process, vLLM, or a server that speaks the OpenAI protocol."),
]
EngineKwargs = Annotated[
    str | None,
    typer.Option(
        help="What vLLM is told besides, for --engine vllm, as JSON: '{\"tensor_parallel_size\": 8}'.", metavar="JSON"
    ),
]
JudgeBaseUrl = Annotated[str | None, typer.Option(help="Of the server, for --judge openai=MODEL.", metavar="URL")]
BaselineOption = Annotated[
    str | None,
    typer.Option(
        help="Model to compare with, prompt by prompt, or the folder of its earlier measurement.", metavar="MODEL|DIR"
    ),
]
MaxSafetyDrop = Annotated[
    float | None,
    typer.Option(
        help="Safety gate: exit with 3 unless refusal of harmful prompts is shown to have fallen by less than "
        f"this since the baseline; {at.MARGIN} is 5 points."
    ),
]
Perplexity = Annotated[Path | None, typer.Option(help="Plain text to measure perplexity on.", metavar="FILE")]
LmEval = Annotated[
    str | None, typer.Option(help="Benchmarks of lm-eval to run too, such as mmlu,arc_easy.", metavar="TASKS")
]
LabelsOption = Annotated[
    Path | None,
    typer.Option(
        help="Your labels of some answers (`actor label`): rates by them stand beside; goes on in the same folder.",
        metavar="FILE",
    ),
]
ModelOrTable = Annotated[str | None, typer.Argument(help="Model folder or Hugging Face Hub id.", metavar="MODEL")]
Models = Annotated[
    Path | None,
    typer.Option(
        help="Instead of MODEL: a csv, tsv, json or jsonl file with the column model and optionally name, baseline, "
        "base_url, engine, chat_template_kwargs and dtype; each is measured into DIR/NAME.",
        metavar="FILE",
    ),
]
OutputDir = Annotated[
    Path | None,
    options.output_folder("New folder, or that of the same command cut off; default: runs/measure-DATE-TIME."),
]
Limit = Annotated[int | None, typer.Option(help="At most this many prompts of each set.", min=1)]
BatchSize = Annotated[str, typer.Option(help="Prompts at a time, for --engine transformers: auto or a number.")]


def measure(
    prompts: options.Prompts,
    harmful: options.Harmful,
    harmless: options.Harmless,
    pseudo_harmful: options.PseudoHarmful,
    trained_on: Annotated[list[str], options.several("--trained-on", TRAINED_ON, "RUN|FILE")],
    judge: Annotated[list[str], options.judge_names(JUDGES)],
    base_url: Annotated[list[str], options.several("--base-url", BASE_URL, "URL")],
    model: ModelOrTable = None,
    models: Models = None,
    output_dir: OutputDir = None,
    columns: options.Columns = None,
    baseline: BaselineOption = None,
    max_safety_drop: MaxSafetyDrop = None,
    gate_prompts: options.GatePrompts = None,
    system_prompt: options.SystemPrompt = None,
    limit: Limit = None,
    max_new_tokens: options.MaxNewTokens = at.ANSWER_TOKENS,
    engine: EngineName = "transformers",
    judge_base_url: JudgeBaseUrl = None,
    perplexity: Perplexity = None,
    lm_eval: LmEval = None,
    batch_size: BatchSize = "auto",
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    device_map: options.DeviceMap = None,
    offload: options.Offload = "none",
    quantization: options.Quantization = "none",
    trust_remote_code: options.TrustRemoteCode = False,
    chat_template_kwargs: options.ChatTemplateKwargs = None,
    max_reasoning_tokens: options.MaxReasoningTokens = at.REASONING_TOKENS,
    engine_kwargs: EngineKwargs = None,
    labels: LabelsOption = None,
) -> Result:
    """Answer prompts greedily, judge the answers, and report refusal rates with intervals; compare with a baseline."""
    asked = _to_measure(model, models)
    for each in asked:
        _check(each.engine or engine, perplexity, lm_eval, max_safety_drop, each.baseline or baseline)
    given = options.given(prompts, harmful, harmless, pseudo_harmful, columns) or at.starter("held_out")
    placement = at.Placement(device, dtype, device_map, offload, quantization, trust_remote_code).checked()
    subject = partial(
        at.subject,
        engine=engine,
        base_url=base_url,
        batch_size=_batch_size(batch_size),
        chat_template_kwargs=options.template_kwargs(chat_template_kwargs),
        max_reasoning_tokens=max_reasoning_tokens,
        engine_kwargs=options.json_object("engine_kwargs", engine_kwargs),
    )
    questions = partial(
        at.questions, given, margin=max_safety_drop, limit=limit, system_prompt=system_prompt, gate_prompts=gate_prompts
    )
    judges = {name: at.judge_by_name(name, device, judge_base_url) for name in judge}
    measure_so = _measure_so(judges, max_new_tokens, device, perplexity, lm_eval, labels)
    how = at.Procedure(subject, questions, measure_so, placement, trained_on, baseline)
    folder = output_dir or _new_folder()
    if models:
        return _several(at.measure_models(asked, how, folder, again=labels is not None))
    return _saved_and_told(how.measured(asked[0], folder), folder)


def _to_measure(model: str | None, models: Path | None) -> "list[at.ToMeasure]":
    """The models that are named: one, or those of a table."""
    if (model is None) == (models is None):
        found, fix = ("neither" if model is None else "both"), "name a model, or a table of models: `models=FILE`"
        raise UserError("MODEL and `models=`", found, "one of them", fix)
    return at.read_models(models) if models else [at.ToMeasure(str(model), "")]


def _measure_so(
    judges: "dict[str, Judge]",
    max_new_tokens: int,
    device: str,
    perplexity: Path | None,
    lm_eval: str | None,
    labels: Path | None,
) -> "Callable[..., at.Measurement]":
    """`at.measure` with all given that is the same for every model."""
    return partial(
        at.measure,
        max_new_tokens=max_new_tokens,
        judges=judges,
        text=read_text(perplexity) if perplexity else None,
        benchmarks=lm_eval.split(",") if lm_eval else [],
        device=device,
        labels=at.read_labels(labels) if labels else None,
        command=command_line(),
    )


def _several(outcomes: "Iterable[at.MeasuredModel]") -> Result:
    """Save and show each as it comes, then all in one table. The status is the worst: a mistake, else the gate's."""
    from ..show.measurement import models_table

    told, statuses = [], [0]
    results: dict[str, Results | None] = {}
    for outcome in outcomes:
        name, found = outcome.asked.name, outcome.found
        console.print(f"{name}:")
        entry: dict[str, Any] = {"name": name, "folder": str(outcome.folder)}
        results[name] = found.results if found else None
        if found is None:
            mistake = as_options(str(outcome.mistake))
            typer.echo(f"error: {name}: {mistake}", err=True)
            entry, status = entry | {"error": mistake}, EXIT_USER_ERROR
        elif outcome.done:
            console.print(f"Measured already: see actor report {outcome.folder}")
            entry, status = entry | found.results.json(), 0 if found.passed in (True, None) else EXIT_NOT_SAFE
        else:
            own = {"models": None} | outcome.asked.own
            if "chat_template_kwargs" in own:
                own["chat_template_kwargs"] = json.dumps(own["chat_template_kwargs"])
            kept = _saved_and_told(found, outcome.folder, own)
            entry, status = entry | kept.found, kept.status
        told.append(entry)
        statuses.append(status)
    console.print(models_table(results))
    return Result({"models": told}, EXIT_USER_ERROR if EXIT_USER_ERROR in statuses else max(statuses))


def _saved_and_told(found: "at.Measurement", folder: Path, own: Mapping[str, Any] | None = None) -> Result:
    """`own`: settings that this model alone had."""
    keep_settings(folder, own)  # first: where the results are, all is
    found.save(folder)
    show(found)
    console.print(f"Answers in {folder / 'responses.jsonl'}, rates in {folder / 'results.json'}")
    if found.disagreements:
        console.print(f"All on which judges disagree in {folder / DISAGREEMENTS_FILE}")
    return Result(found.results.json(), gate_status(found))


def show(found: "at.Measurement") -> None:
    """Print the table of rates."""
    from ..show.judges import disagreements_listed, unscored_listed
    from ..show.measurement import refused_listed, results_table

    console.print(results_table(found.results), refused_listed(found.responses), sep="")
    if unscored := [row.reason or "" for row in found.responses if row.verdict == "unscored"]:
        console.print(unscored_listed(unscored))
    if found.disagreements:
        console.print(disagreements_listed(found.disagreements, found.judges))


def gate_status(found: "at.Measurement") -> int:
    """Say what the safety gate decided, if there was one, and return the exit status."""
    if not found.gate:
        if found.baseline:
            said = (
                f"Whether refusal of harmful prompts held was not decided: `margin={at.MARGIN}` asks the safety gate."
            )
            console.print(as_options(said))
        return 0
    from ..show.gate import gate_told

    console.print(gate_told(found.gate))
    if found.gate.passed:
        return 0
    console.print(
        "Look at the harmful prompts that are answered now (actor report shows them as flipped); where the "
        "interval is wide, add harmful prompts with --harmful FILE. Do not ship this model before."
    )
    return EXIT_NOT_SAFE


def _new_folder() -> Path:
    folder = Path("runs") / f"measure-{datetime.now():%Y%m%d-%H%M%S}"
    console.print(f"Answers are kept in {folder}: with --output-dir {folder} the same command goes on there")
    return folder


def _check(
    engine: str, perplexity: Path | None, lm_eval: str | None, margin: float | None, baseline: str | None
) -> None:
    """Stop where an option would be ignored, or is wrong by itself; the margin is checked again after this."""
    if margin is not None:
        check_margin(margin)
        if baseline is None:
            raise UserError("`margin=`", "no `baseline=`", "a model to compare with", "give `baseline=MODEL`")
    for setting, value in (("perplexity", perplexity), ("lm_eval", lm_eval)):
        if value and engine != "transformers":
            fix = "measure that without `engine=`"
            raise UserError(f"`{setting}={value}`", f"`engine={engine}`", "a model in this process", fix)


def _batch_size(value: str) -> int | None:
    """The number, or None for "auto"."""
    if value == "auto":
        return None
    if value.isdecimal() and int(value) > 0:
        return int(value)
    raise UserError("`batch_size=`", repr(value), "auto or a positive number", "leave it out for auto")
