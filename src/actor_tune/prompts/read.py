"""Read files of prompts. Every mistake names file and row."""

import logging
from pathlib import Path

from ..errors import UserError
from ..storage.tables import Row, read_json, read_lines, read_table
from .prompt import KINDS, ROLES, Kind, Message, Prompt

log = logging.getLogger(__name__)

COLUMNS = ("prompt", "messages", "kind", "set", "response")


def load_prompts(path: Path) -> list[Prompt]:
    """Read a csv, jsonl or parquet file with the columns `kind`, `prompt` or `messages`, and optionally `set`.

    `messages` is a conversation that ends with the user's query: a list of {"role", "content"}, in a csv as JSON.
    `set` defaults to the file's stem. A column `response` may be there (`load_responses`). Parquet needs the extra
    `parquet`.

    Other columns are passed over, and the log says once which.

    **Raises:** `UserError` when the file is missing, empty or of another format, when a column is missing, or when a
    row has no prompt or an unknown kind.
    """
    if path.suffix == ".txt":
        raise UserError(
            path, "a txt file has no column `kind`", "csv, jsonl or parquet", "or name the kind: `harmful=FILE`"
        )
    return [_prompt(row, row.text("kind")) for row in _rows(path)]


def load_responses(path: Path) -> dict[Prompt, str]:
    """The prompts of a file as for `load_prompts`, with what its column `response` says; rows without are left out.

    **Raises:** `UserError` as `load_prompts`.
    """
    rows = read_table(path)  # whose other columns were named when its prompts were read
    return {_prompt(row, row.text("kind")): row.text("response") for row in rows if row.cells.get("response")}


def load_prompts_of_kind(path: Path, kind: Kind) -> list[Prompt]:
    """Read a file whose prompts are all of one `kind`: txt (one prompt a line), or a table as for `load_prompts`.

    **Raises:** `UserError` as `load_prompts`; also when a column `kind` says something else.
    """
    if path.suffix == ".txt":
        return [Prompt(line, kind, path.stem) for line in read_lines(path)]
    rows = _rows(path)
    for row in rows:
        said = row.cells.get("kind", kind)
        if said != kind:
            fix = "use `prompts=FILE` for files of several kinds"
            raise UserError(row.where, f"kind {said!r}", f"{kind!r}, as the setting says", fix)
    return [_prompt(row, kind) for row in rows]


def _rows(path: Path) -> list[Row]:
    rows = read_table(path)
    if other := dict.fromkeys(column for row in rows for column in row.cells if column not in COLUMNS):
        log.info("%s: columns passed over: %s", path, ", ".join(other))
    return rows


def _prompt(row: Row, kind: str) -> Prompt:
    if kind not in KINDS:
        raise UserError(row.where, f"kind {kind!r}", f"one of {', '.join(KINDS)}", "correct the column `kind`")
    name = row.text("set") if row.cells.get("set") else row.path.stem
    if row.cells.get("messages"):
        *context, query = _conversation(row)
        return Prompt(query.content, kind, name, tuple(context))
    return Prompt(row.text("prompt"), kind, name)


def _conversation(row: Row) -> list[Message]:
    """The column `messages`: a list, or JSON of one."""
    value = row.cells["messages"]
    fix = 'write [{"role": "user", "content": "..."}]'
    if isinstance(value, str):
        try:
            value = read_json(value)
        except ValueError as error:
            raise UserError(row.where, f"`messages` is {error}", "a list of turns", fix) from None
    if not isinstance(value, list) or not value:
        raise UserError(row.where, f"`messages` is {str(value)[:60]!r}", "a list of turns", fix)
    turns = []
    for turn in value:
        if not (isinstance(turn, dict) and isinstance(turn.get("content"), str) and turn.get("role") in ROLES):
            expected = f"role ({', '.join(ROLES)}) and content"
            raise UserError(row.where, f"a turn {str(turn)[:60]!r}", expected, fix)
        turns.append(Message(turn["role"], turn["content"]))
    if turns[-1].role != "user" or not turns[-1].content.strip():
        raise UserError(row.where, "the last turn is not a user's query", "one to answer", "end with the user's turn")
    return turns
