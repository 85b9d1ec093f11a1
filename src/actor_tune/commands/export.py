"""`actor export`."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

import actor_tune as at

from ..errors import UserError
from ..records.file import read
from ..records.run import Run as RunRecord
from . import options
from .terminal import Result, console

Run = Annotated[Path, typer.Argument(help="Folder of a fit.", metavar="RUN")]
To = Annotated[
    Literal["peft", "gguf", "ollama", "vllm"],
    typer.Option(
        "--to", help="peft: an adapter, also for vLLM; gguf: for llama.cpp; ollama: with a Modelfile; vllm: whole."
    ),
]
Base = Annotated[
    str | None, typer.Option(help="The model that was trained; default: where run.json says.", metavar="MODEL")
]
Error = Annotated[float, typer.Option(help="peft: how much of the change may be lost, 0 to 1.")]
WholeModules = Annotated[bool, typer.Option(help="peft: keep norms and experts whole, which vLLM does not take.")]
LlamaCpp = Annotated[
    Path | None, typer.Option(help="llama.cpp's folder; default: LLAMA_CPP, or the PATH.", metavar="DIR")
]
Quantize = Annotated[str | None, typer.Option(help="gguf, ollama: pack it, as Q4_K_M.", metavar="TYPE")]
Limit = Annotated[int | None, typer.Option(help="Ask at most this many of the gate's prompts; 0: none.", min=0)]
BaseUrl = Annotated[
    str | None, typer.Option(help="Ask a server that serves an export made before, in --output-dir.", metavar="URL")
]
ServedModel = Annotated[str | None, typer.Option(help="The name that the server knows it by.", metavar="NAME")]

SERVE = {
    "peft": "vllm serve {base} --enable-lora --max-lora-rank {rank} --lora-modules actor={folder}",
    "gguf": "llama-server -m {file}",
    "ollama": "cd {folder} && ollama create actor-model -f Modelfile",
    "vllm": "vllm serve {folder} --served-model-name actor-model",
}


def export(
    run: Run,
    to: To,
    output_dir: options.OutputDir,
    base: Base = None,
    error: Error = at.ADAPTER_ERROR,
    whole_modules: WholeModules = False,
    llama_cpp: LlamaCpp = None,
    quantize: Quantize = None,
    limit: Limit = None,
    base_url: BaseUrl = None,
    served_model: ServedModel = None,
    allow_unsafe: options.AllowUnsafe = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    trust_remote_code: options.TrustRemoteCode = False,
) -> Result:
    """Write a fit's model for another program; what was written answers the safety gate's prompts."""
    if base_url is None:
        if served_model is not None:
            raise UserError(f"`served_model={served_model}`", "no `base_url=`", "a server", "add it, or leave this out")
        placement = at.Placement(device, dtype, trust_remote_code=trust_remote_code).checked()
        made = at.export(
            run, to, output_dir, base, error, whole_modules, llama_cpp, quantize, limit, allow_unsafe, placement
        )
    else:
        ignored: dict[str, object] = {"whole_modules": whole_modules, "llama_cpp": llama_cpp, "quantize": quantize}
        ignored |= {"error": error != at.ADAPTER_ERROR, "device": device != "auto", "dtype": dtype != "auto"}
        for name in (name for name, given in (ignored | {"trust_remote_code": trust_remote_code}).items() if given):
            found = "beside `base_url=`, with which nothing is written"
            raise UserError(f"`{name}=`", found, "one of the two", "leave one out")
        made = at.check_served(run, to, output_dir, base_url, served_model, limit, allow_unsafe)
    for note in made.notes:
        console.print(note)
    if made.checked:
        console.print(made.checked.sentence, style="yellow" if made.checked.verdicts else "green")
        if made.checked.gate:
            console.print(made.checked.gate.sentence, style="green" if made.checked.gate.passed else "bold red")
    if made.reasons:
        console.print(f"Not shown to be safe: {' '.join(made.reasons)}", style="bold red")
    rank = made.low_rank.rank if made.low_rank else 0
    places = {"base": base or read(RunRecord, run).model.name, "folder": output_dir, "file": output_dir / made.files[0]}
    quoted = {name: shlex.quote(str(place)) for name, place in places.items()}
    again = shlex.join(["actor", "export", str(run), "--to", to, "--output-dir", str(output_dir), "--base-url", "URL"])
    console.print(f"Everything is in {output_dir}. To serve it, and then to ask what is served:", soft_wrap=True)
    console.print(f"  {SERVE[made.target].format(rank=rank, **quoted)}\n  {again}", soft_wrap=True)
    return Result(made.json())
