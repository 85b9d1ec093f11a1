"""The command `actor judge`: judge stored answers, without generating them again."""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated

import typer

import actor_tune as at

from ..errors import UserError
from ..judges.agreement import agreement
from ..judges.choose import CHOICES, judge_by_name
from ..judges.rows import disagreement_rows, human_verdicts, judged_rows, read_exchanges, write_rows
from ..records.file import json_of
from ..records.labels import said_of
from ..storage.tables import read_table
from .options import judge_names
from .terminal import Result, console

HUMAN = "human"
JUDGES = f"One of {', '.join(CHOICES)}. Repeatable: agreement and disagreements are shown."


def judge(
    file: Annotated[
        Path,
        typer.Argument(
            help="csv, jsonl or parquet with the columns prompt and response (or completion).", metavar="FILE"
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="New file for the rows with their verdicts: .jsonl or .csv.", metavar="FILE"
        ),
    ],
    judge: Annotated[list[str], judge_names(JUDGES)],
    labels: Annotated[
        str | None,
        typer.Option(
            help="Column with human labels (compliance, partial, refusal, unscored), a further judge; or a csv file of "
            "labels of some answers (`actor label`), for rates by them.",
            metavar="COLUMN|FILE",
        ),
    ] = None,
    judge_base_url: Annotated[
        str | None, typer.Option(help="Server of openai=MODEL, as http://localhost:8000/v1.", metavar="URL")
    ] = None,
    device: Annotated[str, typer.Option(help="Where judge models run: auto, cpu, cuda ...")] = "auto",
) -> Result:
    """Judge stored answers: compliance, partial, refusal or unscored, each with its reason."""
    names = list(dict.fromkeys(judge))
    differing = output.with_name(f"{output.stem}.disagreements.jsonl")
    people = at.read_labels(labels) if labels and labels.endswith(".csv") else None
    column = labels if people is None else None
    several = len(names) + (column is not None) > 1
    _check_output(output, [output, differing] if several else [output])
    rows = read_table(file)
    exchanges = read_exchanges(rows)
    human = {} if column is None else {HUMAN: human_verdicts(rows, column)}
    said = None if people is None else said_of(people, rows, exchanges)
    judges = {name: judge_by_name(name, device, judge_base_url) for name in names}
    verdicts = {name: judge_all(exchanges) for name, judge_all in judges.items()} | human
    write_rows(output, judged_rows(rows, verdicts))
    from ..show.judges import agreement_table, disagreements_listed, rates_table, unscored_listed
    from ..show.measurement import label_note

    console.print(rates_table(rows, verdicts, said.labels if said else None))
    if said:
        console.print(label_note(said.count))
    if unscored := [one.reason for one in verdicts[next(iter(verdicts))] if one.outcome == "unscored"]:
        console.print(unscored_listed(unscored))
    pairs = [agreement(a, verdicts[a], b, verdicts[b]) for a, b in combinations(verdicts, 2)]
    if several:
        console.print(agreement_table(pairs))
        disagreeing = disagreement_rows([row.number for row in rows], exchanges, verdicts)
        write_rows(differing, disagreeing)
        console.print(disagreements_listed(disagreeing, list(verdicts)), f"All of them in {differing}", sep="\n")
    console.print(f"Verdicts in {output}")
    counts = {name: Counter(one.outcome for one in given) for name, given in verdicts.items()}
    return Result({"output": str(output), "verdicts": counts, "agreement": json_of(pairs)})


def _check_output(output: Path, files: Sequence[Path]) -> None:
    if output.suffix not in (".jsonl", ".csv"):
        raise UserError(f"--output {output}", f"a name that ends in {output.suffix!r}", ".jsonl or .csv", "rename it")
    if not output.parent.is_dir():
        raise UserError(f"--output {output}", f"no folder {output.parent}", "a file in a folder", "create the folder")
    for path in files:
        if path.exists():
            raise UserError(f"--output {output}", f"{path} exists", "a new file", "choose another name")
