"""`actor label`: a person's labels of a measurement's answers."""

import sys
from pathlib import Path
from typing import Annotated

import typer

import actor_tune as at

from ..errors import UserError
from ..records.labels import LABELS_FILE, add_label, write_labels
from ..records.to_label import LABELLED_PROMPTS, check_sample, choose, read_pairs
from .options import console


def label(
    folder: Annotated[Path, typer.Argument(help="Folder of `actor measure`.", metavar="FOLDER")],
    n: Annotated[
        int, typer.Option("--n", help="Prompts to label; where there is a baseline, both answers.", min=1)
    ] = LABELLED_PROMPTS,
) -> None:
    """Label answers yourself, a key each, for rates that are right for your model; the same command goes on."""
    from ..show.keys import keys
    from ..show.labelling import label_answers

    if not sys.stdin.isatty():
        raise UserError("stdin", "no terminal", "one to press keys in", "run it in a terminal")
    chosen, file = choose(read_pairs(folder), n), folder / LABELS_FILE
    labels = check_sample(at.read_labels(file), chosen, file) if file.exists() else []
    if labels:
        write_labels(file, labels)
    with keys() as read_key:
        done = label_answers(console, chosen, labels, lambda one: add_label(file, one), read_key)
    console.print(f"{done} of {len(chosen)} answers labelled, in {file}")
    console.print(f"Rates by them: the command that measured, with --labels {file}")
