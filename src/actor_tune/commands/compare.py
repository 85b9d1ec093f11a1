"""`actor compare`."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

import actor_tune as at

from ..errors import require_package
from ..prompts.presets import read_source
from ..prompts.read import columns_of, load_responses
from ..records.outcome import ANSWER_TOKENS
from .options import (
    ChatTemplateKwargs,
    Columns,
    Device,
    Dtype,
    MaxNewTokens,
    Model,
    TrustRemoteCode,
    command_line,
    output_folder,
    template_kwargs,
)
from .settings import keep_settings
from .terminal import Result, console

Limit = Annotated[int | None, typer.Option(help="At most this many evaluation prompts of each set.", min=1)]
AnswersFrom = Annotated[
    str | None,
    typer.Option(
        help="For sft and crow: a model that answers benign prompts, such as the one before alignment; not needed "
        "where --train has a column `response`.",
        metavar="MODEL",
    ),
]


def compare(
    model: Model,
    output_dir: Annotated[
        Path, output_folder("Folder for the results: new, or one begun with the same command, whatever its methods.")
    ],
    train: Annotated[str, typer.Option(help="Prompts of all three kinds to learn from.", metavar="FILE|NAME")],
    evaluation: Annotated[
        str, typer.Option("--eval", help="Prompts to be measured on; nothing is chosen on them.", metavar="FILE|NAME")
    ],
    columns: Columns = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated; default: all but ablation, upcore, random-subset and crow.",
            metavar="NAMES",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many seeds, from 0 on.", min=1)] = 3,
    starter: Annotated[bool, typer.Option(help="Every method also learns from the built-in prompts.")] = False,
    answers_from: AnswersFrom = None,
    limit: Limit = None,
    max_new_tokens: MaxNewTokens = ANSWER_TOKENS,
    device: Device = "auto",
    dtype: Dtype = "auto",
    trust_remote_code: TrustRemoteCode = False,
    chat_template_kwargs: ChatTemplateKwargs = None,
) -> Result:
    """Compare methods on the same prompts, with the same judge and the same rule for their strength."""
    require_package("actor compare", "matplotlib", "plot")
    placement = at.Placement(device, dtype, trust_remote_code=trust_remote_code).checked()
    subject = partial(at.subject, placement=placement, chat_template_kwargs=template_kwargs(chat_template_kwargs))
    names = columns_of(columns)
    contest = at.Contest(
        train=read_source(train, "train", names),
        evaluation=read_source(evaluation, "evaluation", names),
        methods=[name.strip() for name in methods.split(",")] if methods else at.Contest.methods,
        seeds=seeds,
        starter=starter,
        answers=load_responses(Path(train), names) if Path(train).is_file() else {},
        answers_from=subject(answers_from) if answers_from else None,
        limit=limit,
        max_new_tokens=max_new_tokens,
        train_source=train,
        evaluation_source=evaluation,
    )
    compared = at.compare(subject(model), contest, output_dir, command_line())
    from ..show.comparison import compare_table, draw_frontier

    console.print(compare_table(compared.methods))
    picture = output_dir / "frontier.png"
    draw_frontier(picture, compared.methods)  # before the record, which says that all is there
    keep_settings(output_dir)
    console.print(f"Numbers in {compared.save(output_dir)}, picture in {picture}")
    return Result(compared.json())
