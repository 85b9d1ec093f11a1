"""`actor probe`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import UserError, require_package
from ..files import write_json
from ..prompts import load_prompts_of_kind, of_kind, starter_prompts, with_system_prompt
from ..tables import read_text
from .options import Device, Dtype, OutputDir, Seed, command_line, console, load, placement_of

ANSWER_TOKENS = 24


def probe(
    run: Annotated[Path, typer.Argument(help="Run folder of `actor fit`, with its model.", metavar="RUN")],
    output_dir: OutputDir,
    steps: Annotated[int, typer.Option(help="Steps of benign fine-tuning (LoRA, batches of 16).", min=1)] = 40,
    every: Annotated[int, typer.Option(help="Look after so many steps.", min=1)] = 10,
    harmless: Annotated[
        Path | None, typer.Option(help="Harmless prompts for the damage by topic.", metavar="FILE", show_default=False)
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Does safety last when the model is fine-tuned on benign data, and which topics did the edit disturb?"""
    require_package("actor probe", "peft", "testbed")
    require_package("actor probe", "matplotlib", "plot")
    base, system_prompt = _base_of(run)
    asked = load_prompts_of_kind(harmless, "harmless") if harmless else of_kind(starter_prompts("held_out"), "harmless")
    from ..chat import encode
    from ..damage import answer_logprobs
    from ..engines.local import local_engine
    from ..files import new_folder
    from ..inputs import block_inputs
    from ..probe import damage_by_topic, durability, topics
    from ..respond import respond
    from ..scan import refusal_token_ids
    from ..show import draw_durability, probe_tables
    from ..strength import first_token_logprobs

    new_folder(output_dir)
    placement = placement_of(device, dtype, None, "none", "none")
    held_out = [prompt for prompt in starter_prompts("held_out") if prompt.kind != "harmless"]
    benign = of_kind(starter_prompts("train"), "harmless")
    if system_prompt:  # the model was calibrated under it
        asked, held_out, benign = (with_system_prompt(each, system_prompt) for each in (asked, held_out, benign))

    default = load(base, placement)
    engine = local_engine(default, None)
    learned = respond(engine, benign, ANSWER_TOKENS, output_dir / "benign.jsonl")
    texts = [answer.text for answer in respond(engine, asked, ANSWER_TOKENS, output_dir / "harmless.jsonl")]
    harmful = of_kind(held_out, "harmful")
    first = first_token_logprobs(default, block_inputs(default, 0, encode(default.tokenizer, [*harmful, *asked])))
    tokens = refusal_token_ids(first[: len(harmful)], first[len(harmful) :], base)
    before = answer_logprobs(default, asked, texts)
    curves = {"default": durability(default, learned, held_out, tokens, steps, every, seed)}
    del default, engine  # two models need not fit into memory
    calibrated = load(str(run / "model"), placement)
    after = answer_logprobs(calibrated, asked, texts)
    curves["calibrated"] = durability(calibrated, learned, held_out, tokens, steps, every, seed)

    disturbed = damage_by_topic(topics(asked, seed=seed), before, after)
    record: dict[str, Any] = {
        "schema": 1,
        "model": str(run / "model"),
        "base": base,
        "command": command_line(),
        "durability": {name: [asdict(step) for step in curve] for name, curve in curves.items()},
        "topics": [asdict(topic) for topic in disturbed],
    }
    write_json(output_dir / "probe.json", record)
    console.print(probe_tables(curves, disturbed))
    picture = output_dir / "durability.png"
    draw_durability(picture, curves)
    console.print(f"Numbers in {output_dir / 'probe.json'}, picture in {picture}")


def _base_of(run: Path) -> tuple[str, str | None]:
    """The model that `run` was made from, and the system prompt under which.

    **Raises:** `UserError` when it is no run, or its model was not written.
    """
    if not (run / "run.json").is_file():
        raise UserError(run, "no run.json", "the folder of a fit", "give the --output-dir of `actor fit`")
    if not (run / "model").is_dir():
        fix = "fit again with --export merged"
        raise UserError(run, "no model (it was withheld, or not exported)", "a model to probe", fix)
    try:
        record = json.loads(read_text(run / "run.json"))
        return str(record["model"]["name"]), record["settings"]["system_prompt"]
    except (ValueError, KeyError, TypeError):
        fix = "fit again"
        raise UserError(run / "run.json", "not written by this version", "the record of a fit", fix) from None
