"""Read tables of text: csv, jsonl, parquet, and txt with one entry a line. Every mistake names file and row."""

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError

FORMATS = (".csv", ".jsonl", ".parquet", ".txt")


@dataclass(frozen=True)
class Row:
    """One row: its cells, and where it stands (csv and jsonl: the line it ends on; parquet: its 1-based number)."""

    path: Path
    number: int
    cells: dict[str, Any]

    @property
    def where(self) -> str:
        """File and row, for messages."""
        return f"{self.path}, row {self.number}"

    def text(self, column: str) -> str:
        """The cell of `column`, stripped.

        **Raises:** `UserError` when there is no such column, or no text in it.
        """
        if column not in self.cells:
            columns = ", ".join(self.cells) or "none"
            fix = "rename or add the column"
            raise UserError(self.where, f"no column `{column}` (columns: {columns})", f"`{column}`", fix)
        value = self.cells[column]
        if not isinstance(value, str):
            raise UserError(self.where, f"`{column}` is {value!r}", "a string", "write the column as strings")
        if not value.strip():
            raise UserError(self.where, f"an empty {column}", "text", "fill it in or remove the row")
        return value.strip()


def read_table(path: Path) -> list[Row]:
    """The rows of a csv, jsonl or parquet file (parquet needs the extra `parquet`).

    **Raises:** `UserError` when the file is missing, empty, of another format or damaged.
    """
    if path.suffix == ".csv":
        rows = _read_csv(path)
    elif path.suffix == ".jsonl":
        rows = _read_jsonl(path)
    elif path.suffix == ".parquet":
        rows = _read_parquet(path)
    else:
        found = f"a file that ends in {path.suffix!r}"
        raise UserError(path, found, "one of " + ", ".join(FORMATS), "convert it or rename it")
    if not rows:
        raise UserError(path, "no rows", "at least one", "add rows or leave the file out")
    return rows


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank, stripped.

    **Raises:** `UserError` when the file is missing, empty or not UTF-8.
    """
    lines = [line.strip() for line in read_text(path).split("\n") if line.strip()]
    if not lines:
        raise UserError(path, "the file is empty", "one entry a line", "add some or leave the option out")
    return lines


def read_json(text: str) -> Any:
    """The value of a JSON `text`.

    **Raises:** `ValueError` that says in a few words why it has none.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        found = f"not JSON ({error.msg})"
    except RecursionError:
        found = "nested too deeply"
    except ValueError:  # Python reads no number of more than some thousand digits
        found = "a number of too many digits"
    raise ValueError(found)


def read_text(path: Path) -> str:
    """The text of a UTF-8 file.

    **Raises:** `UserError` when it is missing, a folder, unreadable or not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(path, "no such file", "a file to read", "check the path") from None
    except PermissionError:
        raise UserError(path, "may not be read", "a readable file", "change its permissions") from None
    except IsADirectoryError:
        raise UserError(path, "a folder", "a file", "name a file in it") from None
    except UnicodeDecodeError as error:
        raise UserError(path, f"not UTF-8 at byte {error.start}", "UTF-8 text", "convert the file") from None


LARGEST_CELL = 2**31 - 1
"""Characters; the csv module's own limit of 131,072 is less than some models answer."""


def _read_csv(path: Path) -> list[Row]:
    limit = csv.field_size_limit(LARGEST_CELL)
    try:
        return _csv_rows(path)
    finally:
        csv.field_size_limit(limit)


def _csv_rows(path: Path) -> list[Row]:
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    rows = []
    try:
        for cells in reader:
            if None in cells or None in cells.values():
                found = "more or fewer fields than the header has"
                fix = 'quote texts that contain commas: "..."'
                raise UserError(f"{path}, line {reader.line_num}", found, f"{len(reader.fieldnames or [])} fields", fix)
            rows.append(Row(path, reader.line_num, cells))
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}", str(error), "csv", "mend the quoting") from None
    return rows


def _read_jsonl(path: Path) -> list[Row]:
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            cells = read_json(line)
        except ValueError as error:
            fix = "write one JSON object a line"
            raise UserError(f"{path}, line {number}", str(error), "an object", fix) from None
        if not isinstance(cells, dict):
            raise UserError(f"{path}, line {number}", line[:60], "an object", 'write {"prompt": "...", "kind": "..."}')
        rows.append(Row(path, number, cells))
    return rows


def _read_parquet(path: Path) -> list[Row]:
    if not path.exists():
        raise UserError(path, "no such file", "a file to read", "check the path")
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        fix = "run: pip install 'actor-tune[parquet]'"
        raise UserError(path, "parquet cannot be read here", "the package pyarrow", fix) from None
    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowInvalid as error:
        raise UserError(path, f"not parquet ({error})", "a parquet file", "write it again") from None
    return [Row(path, number, cells) for number, cells in enumerate(table.to_pylist(), start=1)]
