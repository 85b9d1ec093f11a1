"""Options that several commands share, and what they turn into."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

import actor_tune as at

from ..errors import UserError

if TYPE_CHECKING:
    from ..models.placement import DtypeName, Offload, Quantization
    from ..prompts.starter import StarterPart

EXIT_NOT_SAFE = 3

# No markup: set names, paths and answers are not to be trusted with it.
console = Console(markup=False, emoji=False, highlight=False)

Model = Annotated[str, typer.Argument(help="Model folder or Hugging Face Hub id.", metavar="MODEL")]
OutputDir = Annotated[Path, typer.Option(help="New or empty folder for the results.", metavar="DIR")]
Prompts = Annotated[
    list[str],
    typer.Option(
        "--prompts",
        help="csv, jsonl or parquet with the columns prompt (or messages), kind and optionally set; or a public set "
        "by name (xstest, or-bench-hard-1k ...), from a local file as NAME=FILE. Repeatable.",
        metavar="FILE|NAME[=FILE]",
        default_factory=list,
        show_default=False,
    ),
]
Harmful = Annotated[
    list[Path],
    typer.Option(
        "--harmful",
        help="Harmful prompts alone; also txt, one a line.",
        metavar="FILE",
        default_factory=list,
        show_default=False,
    ),
]
Harmless = Annotated[
    list[Path],
    typer.Option(
        "--harmless", help="Harmless prompts alone.", metavar="FILE", default_factory=list, show_default=False
    ),
]
PseudoHarmful = Annotated[
    list[Path],
    typer.Option(
        "--pseudo-harmful",
        help="Benign prompts alone that only look harmful.",
        metavar="FILE",
        default_factory=list,
        show_default=False,
    ),
]
SystemPrompt = Annotated[
    str | None, typer.Option(help="System prompt for every prompt that has none of its own.", metavar="TEXT")
]
Starter = Annotated[
    bool, typer.Option(help="Also train on the built-in prompts, which hold refusal in place (boundary rule).")
]
Seed = Annotated[int, typer.Option(help="Seed of splits, order, noise and t-SNE.", min=0)]
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
OffloadOption = Annotated[
    Literal["none", "stream"],
    typer.Option("--offload", help="stream: weights stay on disk, one block at a time is in memory."),
]
QuantizationOption = Annotated[
    Literal["none", "bnb_4bit"],
    typer.Option("--quantization", help="bnb_4bit: all blocks but the trained one are held in 4 bits."),
]
MaxNewTokens = Annotated[int, typer.Option(help="Length of answers in tokens.", min=1)]
EngineName = Annotated[
    Literal["transformers", "vllm", "openai"],
    typer.Option(help="What answers: this process, vLLM, or a server that speaks the OpenAI protocol."),
]


def gather(
    prompts: list[str], harmful: list[Path], harmless: list[Path], pseudo_harmful: list[Path], part: "StarterPart"
) -> list[at.Prompt]:
    """The prompts of all options; the starter prompts of `part` where there are none."""
    return at.read(*prompts, harmful=harmful, harmless=harmless, pseudo_harmful=pseudo_harmful) or at.starter(part)


def placement_of(
    device: str,
    dtype: "DtypeName",
    device_map: str | None = None,
    offload: "Offload" = "none",
    quantization: "Quantization" = "none",
) -> "at.Placement":
    """Where the model goes.

    **Raises:** `UserError` when two of the options exclude each other, or the machine has no such device.
    """
    return at.Placement(device, dtype, device_map, offload, quantization).checked()


def batch_size(value: str) -> int | None:
    """The number, or None for "auto".

    **Raises:** `UserError` when it is neither.
    """
    if value == "auto":
        return None
    if value.isdecimal() and int(value) > 0:
        return int(value)
    raise UserError("`batch_size=`", repr(value), "auto or a positive number", "leave it out for auto")


def command_line() -> str:
    """The command as it was typed, for the record."""
    return shlex.join(["actor", *sys.argv[1:]])
