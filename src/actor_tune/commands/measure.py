"""`actor measure`."""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import actor_tune as at

from ..errors import UserError
from ..judges.choose import CHOICES
from ..records.response import DISAGREEMENTS_FILE
from ..records.results import check_margin
from ..storage.tables import read_text
from . import options
from .options import command_line
from .settings import keep_settings
from .terminal import EXIT_NOT_SAFE, Result, as_options, console

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
OutputDir = Annotated[
    Path | None,
    options.output_folder("New folder, or that of the same command cut off; default: runs/measure-DATE-TIME."),
]
Limit = Annotated[int | None, typer.Option(help="At most this many prompts of each set.", min=1)]
BatchSize = Annotated[str, typer.Option(help="Prompts at a time, for --engine transformers: auto or a number.")]


def measure(
    model: options.Model,
    prompts: options.Prompts,
    harmful: options.Harmful,
    harmless: options.Harmless,
    pseudo_harmful: options.PseudoHarmful,
    trained_on: Annotated[list[str], options.several("--trained-on", TRAINED_ON, "RUN|FILE")],
    judge: Annotated[list[str], options.judge_names(JUDGES)],
    base_url: Annotated[list[str], options.several("--base-url", BASE_URL, "URL")],
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
    _check(engine, perplexity, lm_eval, max_safety_drop, baseline)
    given = options.given(prompts, harmful, harmless, pseudo_harmful, columns) or at.starter("held_out")
    output_dir = output_dir or _new_folder()
    subject = partial(
        at.subject,
        engine=engine,
        base_url=base_url,
        placement=at.Placement(device, dtype, device_map, offload, quantization, trust_remote_code).checked(),
        batch_size=_batch_size(batch_size),
        chat_template_kwargs=options.template_kwargs(chat_template_kwargs),
        max_reasoning_tokens=max_reasoning_tokens,
        engine_kwargs=options.json_object("engine_kwargs", engine_kwargs),
    )
    learnt, before = at.trained_on(subject(model), trained_on), _baseline(baseline, subject)
    asked = at.questions(given, learnt, max_safety_drop, limit, system_prompt, gate_prompts)
    settings = _settings(judge, device, judge_base_url, perplexity, lm_eval, labels)
    found = at.measure(
        subject(model), asked, before, max_new_tokens=max_new_tokens, work=output_dir, device=device, **settings
    )
    return _saved_and_told(found, output_dir)


def _settings(
    judge: list[str],
    device: str,
    judge_base_url: str | None,
    perplexity: Path | None,
    lm_eval: str | None,
    labels: Path | None,
) -> "dict[str, Any]":
    """What `measure` is told of judges and of what is looked at besides."""
    return {
        "judges": {name: at.judge_by_name(name, device, judge_base_url) for name in judge},
        "text": read_text(perplexity) if perplexity else None,
        "benchmarks": lm_eval.split(",") if lm_eval else [],
        "labels": at.read_labels(labels) if labels else None,
        "command": command_line(),
    }


def _saved_and_told(found: "at.Measurement", folder: Path) -> Result:
    keep_settings(folder)  # first: where the results are, all is
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


def _baseline(value: str | None, subject: "Callable[[str], at.Subject]") -> "at.Subject | at.EarlierMeasurement | None":
    """What the user gave: a model, or the folder of its earlier measurement."""
    if value is None:
        return None
    return at.EarlierMeasurement.read(value, subject) if at.EarlierMeasurement.is_in(value) else subject(value)


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
