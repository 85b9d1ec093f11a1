"""`actor compare`."""

from pathlib import Path
from typing import Annotated

import typer

import actor_tune as at

from ..errors import require_package
from ..prompts.presets import read_source
from ..prompts.read import load_responses
from ..records.outcome import ANSWER_TOKENS
from .options import Device, Dtype, MaxNewTokens, Model, command_line, console


def compare(
    model: Model,
    output_dir: Annotated[
        Path,
        typer.Option(
            help="Folder for the results: new, or one begun with the same command, whatever its methods.", metavar="DIR"
        ),
    ],
    train: Annotated[str, typer.Option(help="Prompts of all three kinds to learn from.", metavar="FILE|NAME")],
    evaluation: Annotated[
        str, typer.Option("--eval", help="Prompts to be measured on; nothing is chosen on them.", metavar="FILE|NAME")
    ],
    methods: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated; default: all but upcore, random-subset and crow.",
            metavar="NAMES",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many seeds, from 0 on.", min=1)] = 3,
    starter: Annotated[bool, typer.Option(help="Every method also learns from the built-in prompts.")] = False,
    answers_from: Annotated[
        str | None,
        typer.Option(
            help="For sft and crow: a model that answers benign prompts, such as the one before alignment; not "
            "needed where --train has a column `response`.",
            metavar="MODEL",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="At most this many evaluation prompts of each set.", min=1)] = None,
    max_new_tokens: MaxNewTokens = ANSWER_TOKENS,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Compare methods on the same prompts, with the same judge and the same rule for their strength."""
    require_package("actor compare", "matplotlib", "plot")
    placement = at.Placement(device, dtype).checked()
    contest = at.Contest(
        train=read_source(train, "train"),
        evaluation=read_source(evaluation, "evaluation"),
        methods=[name.strip() for name in methods.split(",")] if methods else at.Contest.methods,
        seeds=seeds,
        starter=starter,
        answers=load_responses(Path(train)) if Path(train).is_file() else {},
        answers_from=at.subject(answers_from, placement=placement) if answers_from else None,
        limit=limit,
        max_new_tokens=max_new_tokens,
        train_source=train,
        evaluation_source=evaluation,
    )
    compared = at.compare(at.subject(model, placement=placement), contest, output_dir, command_line())
    from ..show.comparison import compare_table, draw_frontier

    file, picture = compared.save(output_dir), output_dir / "frontier.png"
    console.print(compare_table(compared.methods))
    draw_frontier(picture, compared.methods)
    console.print(f"Numbers in {file}, picture in {picture}")
