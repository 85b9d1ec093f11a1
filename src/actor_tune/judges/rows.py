"""Tables of stored answers, as other tools write them, and their verdicts. Pure but for `write_rows`."""

import csv
import json
import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..storage.files import replacing, write_jsonl
from ..storage.tables import Row
from .agreement import disagreements
from .verdict import Exchange, Verdict

Verdicts = Mapping[str, Sequence[Verdict]]
"""Each judge's verdicts, one an answer, in the order the judges were named."""


def read_exchanges(rows: Sequence[Row]) -> list[Exchange]:
    """Prompt and answer of each row; the answer, from `response` or else `completion`, may be empty.

    Where `filtered` is true, as responses of a measurement have it, a filter stopped the answer.

    **Raises:** `UserError` when a row lacks one of them, or it is no string.
    """
    return [
        Exchange(
            _string(row, "prompt"),
            _string(row, "response" if "response" in row.cells else "completion"),
            filtered=str(row.cells.get("filtered")).lower() == "true",
        )
        for row in rows
    ]


def human_verdicts(rows: Sequence[Row], column: str) -> list[Verdict]:
    """The verdicts that people gave, from labels such as `compliance`, `2_full_refusal` or `unscored`.

    **Raises:** `UserError` when a label is missing or is none of the classes.
    """
    return [human_verdict(row, column) for row in rows]


def human_verdict(row: Row, column: str) -> Verdict:
    """The verdict that a person gave: compliance, partial, refusal, or unscored where none can be said.

    **Raises:** `UserError` when the label is missing or is none of them.
    """
    label = row.text(column)
    words = re.findall("partial|refus|compliance|non|unscored", label.lower())
    if words == ["unscored"]:
        return Verdict("unscored", 0.5, f"labelled {label}")
    if "partial" in words:
        return Verdict("partial", 1.0, f"labelled {label}")
    if words and not {"non", "unscored"} & set(words):
        refused = "refus" in words
        return Verdict("refusal" if refused else "compliance", float(refused), f"labelled {label}")
    expected = "a label that says compliance, partial, refusal or unscored"
    raise UserError(row.where, f"label {label[:60]!r}", expected, f"correct the column `{column}`")


def judged_rows(rows: Sequence[Row], verdicts: Verdicts) -> list[dict[str, Any]]:
    """The cells of each row with the verdict, score and reason of the first judge; of every judge where there are
    several, in columns that end in its name. Columns of these names that were there are replaced.
    """
    first = next(iter(verdicts.values()))
    judged = []
    for index, row in enumerate(rows):
        cells = {column: _storable(value) for column, value in row.cells.items()} | _columns("", first[index])
        judged.append(cells | (_columns_of_all(verdicts, index) if len(verdicts) > 1 else {}))
    return judged


def disagreement_rows(
    numbers: Sequence[int], exchanges: Sequence[Exchange], verdicts: Verdicts
) -> list[dict[str, Any]]:
    """The answers that any two judges put in different classes, in order, with the columns of every judge.

    - `row`: its number, of `numbers`; `on_refusal`: whether judges differ on refused or not, and not only in degree.
    """
    pairs = combinations(verdicts.values(), 2)
    differing = [item for a, b in pairs for item in disagreements(exchanges, a, b)]
    on_refusal = {item.row for item in differing if item.on_refusal}
    return [
        {
            "row": numbers[index],
            "on_refusal": index in on_refusal,
            "prompt": exchanges[index].prompt,
            "response": exchanges[index].answer,
            **_columns_of_all(verdicts, index),
        }
        for index in sorted({item.row for item in differing})
    ]


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `rows` as jsonl, or as csv with the columns of all rows and cells that are no strings as JSON."""
    if path.suffix == ".jsonl":
        write_jsonl(path, [dict(row) for row in rows])
        return
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, restval="")
        writer.writeheader()
        for row in rows:
            writer.writerow({column: _csv_cell(value) for column, value in row.items()})


def _string(row: Row, column: str) -> str:
    if column not in row.cells:
        found = f"no column `{'response` or `completion' if column == 'completion' else column}`"
        columns = ", ".join(row.cells) or "none"
        raise UserError(row.where, f"{found} (columns: {columns})", "prompt and response", "rename or add the column")
    value = row.cells[column]
    if value is None and column != "prompt":
        return ""
    if not isinstance(value, str):
        raise UserError(row.where, f"`{column}` is {str(value)[:60]!r}", "a string", "write the column as strings")
    return _encodable(value)


def _columns_of_all(verdicts: Verdicts, index: int) -> dict[str, Any]:
    return {
        column: value
        for name, given in verdicts.items()
        for column, value in _columns(f"_{name}", given[index]).items()
    }


def _columns(suffix: str, verdict: Verdict) -> dict[str, Any]:
    return {
        f"verdict{suffix}": verdict.outcome,
        f"score{suffix}": verdict.score,
        f"reason{suffix}": _encodable(verdict.reason),
    }


def _storable(value: Any) -> Any:
    """A cell as JSON can hold it: dates of a parquet file, and NaN, as text."""
    if isinstance(value, str):
        return _encodable(value)
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError):  # also UnicodeEncodeError, deep in a list
        return _encodable(str(value))
    return value


def _csv_cell(value: Any) -> Any:
    if value is None or (isinstance(value, str | int | float) and not isinstance(value, bool)):
        return value
    return json.dumps(value, ensure_ascii=False)


def _encodable(text: str) -> str:
    """`text` without lone surrogates, which JSON escapes can write and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")
