"""Options that several commands share, and what they turn into."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import actor_tune as at

from ..errors import UserError
from ..judges.choose import DEFAULT
from ..prompts.read import columns_of

PROMPTS = (
    "csv, tsv, json, jsonl or parquet with the columns prompt (or messages, or conversations), kind and optionally "
    "set and category; or a public set by name (xstest, or-bench-hard-1k ...), from a local file as NAME=FILE. "
    "Repeatable."
)


def several(name: str, text: str, metavar: str = "FILE") -> Any:
    """An option that may be given several times, or not at all."""
    return typer.Option(name, help=text, metavar=metavar, default_factory=list, show_default=False)


def output_folder(text: str) -> Any:
    """The option --output-dir, or -o."""
    return typer.Option("--output-dir", "-o", help=text, metavar="DIR")


def judge_names(text: str) -> Any:
    """The option --judge, which may be given several times."""
    return typer.Option("--judge", help=text, metavar="NAME", default_factory=lambda: [DEFAULT], show_default=DEFAULT)


Model = Annotated[str, typer.Argument(help="Model folder or Hugging Face Hub id.", metavar="MODEL")]
OutputDir = Annotated[Path, output_folder("New folder, or that of the same command cut off.")]
Prompts = Annotated[list[str], several("--prompts", PROMPTS, "FILE|NAME[=FILE]")]
Harmful = Annotated[list[Path], several("--harmful", "Harmful prompts alone; also txt, one a line.")]
Harmless = Annotated[list[Path], several("--harmless", "Harmless prompts alone.")]
PseudoHarmful = Annotated[list[Path], several("--pseudo-harmful", "Benign prompts alone that only look harmful.")]
Columns = Annotated[
    str | None,
    typer.Option(help="What your files call them: prompt=text,kind=label.", metavar="OURS=YOURS", show_default=False),
]
GatePrompts = Annotated[
    int | None,
    typer.Option(
        help="At most so many built-in harmful prompts for the safety gate; fewer exclude only a larger drop.",
        show_default="all",
    ),
]
SystemPrompt = Annotated[
    str | None, typer.Option(help="System prompt for every prompt that has none of its own.", metavar="TEXT")
]
Starter = Annotated[
    bool,
    typer.Option(help="Also train on the built-in prompts, which hold refusal in place; not by the paper's rules."),
]
Seed = Annotated[int, typer.Option(help="Seed of splits, order, noise and t-SNE.", min=0)]
AllowUnsafe = Annotated[
    bool, typer.Option(help="Write the model even where it refuses fewer harmful prompts than it may.")
]
Device = Annotated[str, typer.Option(help="Where the model runs: auto, cpu, cuda, mps ...")]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    typer.Option(
        help="What it is computed in; auto: as it is stored, or float32 on a processor that is slower in that."
    ),
]
DeviceMap = Annotated[
    Literal["auto", "balanced"] | None,
    typer.Option(help="Spread the blocks over all GPUs and RAM, as transformers does.", show_default=False),
]
Offload = Annotated[
    Literal["none", "stream"],
    typer.Option("--offload", help="stream: weights stay on disk, one block at a time is in memory."),
]
Quantization = Annotated[
    Literal["none", "bnb_4bit"],
    typer.Option("--quantization", help="bnb_4bit: all blocks but the trained one are held in 4 bits."),
]
TrustRemoteCode = Annotated[bool, typer.Option(help="Run Python code that comes with the model. Read it first.")]
ChatTemplateKwargs = Annotated[
    str | None,
    typer.Option(
        help="What the chat template is told besides, as JSON: '{\"enable_thinking\": false}'.", metavar="JSON"
    ),
]
MaxReasoningTokens = Annotated[
    int, typer.Option(help="What a model that reasons may think before its answer, in tokens.", min=1)
]
MaxNewTokens = Annotated[int, typer.Option(help="Length of answers in tokens.", min=1)]


def given(
    prompts: list[str], harmful: list[Path], harmless: list[Path], pseudo_harmful: list[Path], columns: str | None
) -> list["at.Prompt"]:
    """What the options for prompts name."""
    names = columns_of(columns)
    return at.read(*prompts, harmful=harmful, harmless=harmless, pseudo_harmful=pseudo_harmful, columns=names)


def template_kwargs(text: str | None) -> dict[str, Any]:
    """What --chat-template-kwargs says."""
    return json_object("chat_template_kwargs", text)


def json_object(setting: str, text: str | None) -> dict[str, Any]:
    """What an option says that is given as a JSON object."""
    try:
        value = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise UserError(f"`{setting}={text}`", "no JSON object", '{"NAME": VALUE, ...}', "correct it")
    return value


def command_line() -> str:
    """The command as it was typed, for the record."""
    return shlex.join(["actor", *sys.argv[1:]])
