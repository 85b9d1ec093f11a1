"""Read tables of text: csv, json, jsonl, parquet, and txt with one entry a line. Every mistake names file and row."""

import csv
import io
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UserError
from .text import json_of_text, repeated, text_of

FORMATS = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".txt")

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
"""What may stand between the fields of a csv file, as messages name it."""


@dataclass(frozen=True)
class Row:
    """One row: its cells, and where it stands (csv and jsonl: the line it ends on; others: its 1-based number).

    - `names`: of columns that have another name in this file, by ours.
    - `fix`: what to do where a column lacks, for messages.
    """

    path: Path
    number: int
    cells: dict[str, Any]
    names: Mapping[str, str] = field(default_factory=dict)
    fix: str = "rename or add the column"

    @property
    def where(self) -> str:
        """File and row, for messages."""
        return f"{self.path}, row {self.number}"

    def name(self, column: str) -> str:
        """What `column` is called in this file."""
        return self.names.get(column, column)

    def get(self, column: str) -> Any:
        """The cell of `column`; None where there is none."""
        return self.cells.get(self.name(column))

    def text(self, column: str) -> str:
        """The cell of `column`, stripped.

        **Raises:** `UserError` when there is no such column, no text in it, or what no text has: `text_of`.
        """
        name = self.name(column)
        if name not in self.cells:
            columns = ", ".join(self.cells) or "none"
            raise UserError(self.where, f"no column `{name}` (columns: {columns})", f"`{name}`", self.fix)
        return text_of(self.cells[name], self.where, name)


def read_table(path: Path, bare: str | None = None) -> list[Row]:
    """The rows of a csv, tsv, json, jsonl or parquet file (parquet needs the extra `parquet`).

    The header of a csv file says whether commas, semicolons or tabs stand between its fields. A json file is a list of
    objects, or of strings where they have a column, `bare`.

    **Raises:** `UserError` when the file is missing, empty, of another format or damaged.
    """
    if path.suffix in (".csv", ".tsv"):
        rows = _read_csv(path)
    elif path.suffix == ".json":
        rows = _read_json(path, bare)
    elif path.suffix == ".jsonl":
        rows = _read_jsonl(path)
    elif path.suffix == ".parquet":
        rows = _read_parquet(path)
    elif path.is_dir():
        raise UserError(path, "a folder", "a file of prompts", "name a file in it")
    else:
        found = f"a file that ends in {path.suffix!r}"
        raise UserError(path, found, "one of " + ", ".join(FORMATS), "convert it or rename it")
    if not rows:
        raise UserError(path, "no rows", "at least one", "add rows or leave the file out")
    return rows


def read_lines(path: Path, column: str) -> list[Row]:
    """The lines of a text file that are not blank, as rows of one `column`. Lines end as on any system.

    **Raises:** `UserError` when the file is missing, empty or not UTF-8.
    """
    lines = enumerate(re.split("\r\n|\r|\n", read_text(path)), start=1)
    rows = [Row(path, number, {column: line}) for number, line in lines if line.strip()]
    if not rows:
        raise UserError(path, "the file is empty", "one entry a line", "add some or leave the option out")
    return rows


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
    except (OSError, ValueError) as error:  # the latter for a NUL in the name
        found = f"cannot be read ({getattr(error, 'strerror', None) or error})"
        raise UserError(path, found, "a readable file", "check the path") from None


LARGEST_CELL = 2**31 - 1
"""Characters; the csv module's own limit of 131,072 is less than some models answer."""


def _read_csv(path: Path) -> list[Row]:
    limit = csv.field_size_limit(LARGEST_CELL)
    try:
        return _csv_rows(path)
    finally:
        csv.field_size_limit(limit)


def _csv_rows(path: Path) -> list[Row]:
    text, before = read_text(path), 0
    if said := re.match("sep=.\r?\n", text):  # as Excel writes it, of what the header shows in any case
        text, before = text[said.end() :], 1
    header = f"{path}, line {1 + before}"
    separator = "\t" if path.suffix == ".tsv" else _separator(header, text)
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
    rows = []
    try:
        reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
        _check_columns(header, list(reader.fieldnames))
        for cells in reader:
            if None in cells or None in cells.values():
                found = "more or fewer fields than the header has"
                fix = f'quote texts that contain {SEPARATORS[separator]}: "..."'
                raise UserError(
                    f"{path}, line {reader.line_num + before}", found, f"{len(reader.fieldnames or [])} fields", fix
                )
            rows.append(Row(path, reader.line_num + before, cells))
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num + before}", str(error), "csv", "mend the quoting") from None
    return rows


def _separator(where: str, text: str) -> str:
    """What stands between the names in the first line, which is at `where`; nothing else is asked, as texts hold
    anything.
    """
    header = re.match('(?:"[^"]*"|[^"\r\n])*', text)
    names = re.sub('"[^"]*"', "", header[0] if header else "")
    found = [separator for separator in SEPARATORS if separator in names]
    if len(found) > 1:
        what, fix = " and ".join(SEPARATORS[each] for each in found), 'quote a name that contains one: "..."'
        raise UserError(where, f"{what} between the names of the columns", "one of them", fix)
    return found[0] if found else ","


def _read_json(path: Path, bare: str | None) -> list[Row]:
    expected = f"a list of objects{' or of strings' if bare else ''}"
    fix = 'write [{"prompt": "...", "kind": "..."}], or name it .jsonl where each line is an object'
    items = json_of_text(read_text(path), str(path), expected, fix)
    if not isinstance(items, list):
        raise UserError(path, f"{json.dumps(items)[:60]}, no list", expected, fix)
    rows = []
    for number, item in enumerate(items, start=1):
        cells = {bare: item} if bare and isinstance(item, str) else item
        if not isinstance(cells, dict):
            raise UserError(f"{path}, row {number}", json.dumps(item)[:60], expected, fix)
        rows.append(Row(path, number, cells))
    return rows


def _read_jsonl(path: Path) -> list[Row]:
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        cells = json_of_text(line, f"{path}, line {number}", "an object", "write one JSON object a line")
        if not isinstance(cells, dict):
            raise UserError(f"{path}, line {number}", line, "an object", 'write {"prompt": "...", "kind": "..."}')
        rows.append(Row(path, number, cells))
    return rows


def _check_columns(where: str, names: list[str]) -> None:
    """Stop where two columns have one name; several may have none, as behind the last comma of a line."""
    if twice := repeated([name for name in names if name.strip()]):
        raise UserError(where, f"two columns `{twice}`", "one of each name", "rename or remove one")


def _read_parquet(path: Path) -> list[Row]:
    if not os.path.exists(path):
        raise UserError(path, "no such file", "a file to read", "check the path")
    try:
        import pyarrow.parquet
    except ImportError:
        fix = "run: pip install 'actor-tune[parquet]'"
        raise UserError(path, "parquet cannot be read here", "the package pyarrow", fix) from None
    with _by_pyarrow(str(path)):
        names = list(pyarrow.parquet.read_schema(path).names) if path.is_file() else []
    _check_columns(str(path), names)
    with _by_pyarrow(str(path)):
        table = pyarrow.parquet.read_table(path)
    return [Row(path, number, cells) for number, cells in enumerate(_parquet_cells(path, table), start=1)]


def _parquet_cells(path: Path, table: Any) -> list[dict[str, Any]]:
    try:
        return table.to_pylist()
    except Exception:  # Row by row, the one that is damaged has a number.
        cells = []
        for row in range(table.num_rows):
            with _by_pyarrow(f"{path}, row {row + 1}"):
                cells += table.slice(row, 1).to_pylist()
        return cells


@contextmanager
def _by_pyarrow(where: str) -> Iterator[None]:
    """What pyarrow says of a file is a mistake in the file, of whatever class: damage shows anywhere in it."""
    try:
        yield
    except Exception as error:
        found = f"not parquet ({error or type(error).__name__})"
        raise UserError(where, found, "a parquet file", "write it again") from None
