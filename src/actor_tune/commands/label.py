"""`actor label`: a person's labels of a measurement's answers."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..errors import UserError
from ..records.labels import LABELS_FILE, read_own_labels, write_labels
from ..records.to_label import LABELLED_PROMPTS, choose, labels_of, read_pairs, said_before
from .terminal import Result, console


def label(
    folder: Annotated[Path, typer.Argument(help="Folder of `actor measure`.", metavar="FOLDER")],
    n: Annotated[
        int, typer.Option("--n", help="Prompts to label; where there is a baseline, both answers.", min=1)
    ] = LABELLED_PROMPTS,
) -> Result:
    """Label answers yourself, a key each, for rates that are right for your model; the same command goes on."""
    from ..show.keys import keys
    from ..show.labelling import label_answers

    if not sys.stdin.isatty():
        raise UserError("stdin", "no terminal", "one to press keys in", "or label on the page of `actor report`")
    chosen, file = choose(read_pairs(folder), n), folder / LABELS_FILE
    earlier = read_own_labels(file)
    said = said_before(earlier, chosen, file)
    with keys() as read_key:
        for now in label_answers(console, chosen, said, read_key):
            write_labels(file, labels_of(chosen, now, earlier))
            said = now
    done = f"{len(said)} of {len(chosen)} answers labelled"
    console.print(
        f"{done}, in {file}\nRates by them: the command that measured, with --labels {file}" if said else done
    )
    return Result({"labels": str(file) if said else None, "labelled": len(said), "to_label": len(chosen)})
