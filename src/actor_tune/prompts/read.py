"""Read files of prompts. Every mistake names file and row."""

import logging
import re
from pathlib import Path

from ..errors import UserError, shown
from ..storage.tables import Row, read_lines, read_table
from ..storage.text import check_text, has_text, json_of_text, text_of
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

    **Raises:** `UserError` as `load_prompts`; also when a column `kind` says something else, or a txt file is a table.
    """
    if path.suffix == ".txt":
        rows = read_lines(path, "prompt")
        _check_no_table(rows[0])
    else:
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
        log.info("%s: columns passed over: %s", path, shown(", ".join(other)))
    return rows


def _prompt(row: Row, kind: str) -> Prompt:
    if kind not in KINDS:
        raise UserError(row.where, f"kind {kind!r}", f"one of {', '.join(KINDS)}", "correct the column `kind`")
    name = row.text("set") if row.cells.get("set") else text_of(row.path.stem, row.where, "name of the file")
    if not row.cells.get("messages"):
        return Prompt(row.text("prompt"), kind, name)
    *context, query = _conversation(row)
    if row.cells.get("prompt") and row.text("prompt") != query.content.strip():
        found = f"`prompt` is {row.text('prompt')[:60]!r} and `messages` end with {query.content[:60]!r}"
        raise UserError(row.where, found, "the same query in both", "remove one of the columns")
    return Prompt(query.content, kind, name, tuple(context))


def _check_no_table(first: Row) -> None:
    """Stop where the `first` line of a txt file is a csv's header or an object of a jsonl file, and no prompt."""
    line = first.cells["prompt"]
    names = [name.strip(" \"'").lower() for name in re.split("[,;\t]", line)]
    header = {"prompt", "messages"} & set(names) and all(re.fullmatch(r"\w*", name) for name in names)
    suffix = ".csv" if header else ".jsonl" if re.match(r'\s*\{\s*"(prompt|messages|kind|set)"\s*:', line) else None
    if suffix:
        fix = f"rename it to {Path(first.path.name).with_suffix(suffix)}"
        raise UserError(first.where, f"{line!r}, as a {suffix[1:]} file begins", "a prompt", fix)


def _conversation(row: Row) -> list[Message]:
    """The column `messages`: a list, or JSON of one."""
    value = row.cells["messages"]
    fix = 'write [{"role": "user", "content": "..."}]'
    if isinstance(value, str):
        value = json_of_text(value, f"{row.where}, `messages`", "a list of turns", fix)
    if not isinstance(value, list) or not value:
        raise UserError(row.where, f"`messages` is {value!r}", "a list of turns", fix)
    turns = []
    for turn in value:
        if not (isinstance(turn, dict) and isinstance(turn.get("content"), str) and turn.get("role") in ROLES):
            expected = f"role ({', '.join(ROLES)}) and content"
            raise UserError(row.where, f"a turn {turn!r}", expected, fix)
        check_text(turn["content"], row.where, "`messages`")
        turns.append(Message(turn["role"], turn["content"]))
    if turns[-1].role != "user" or not has_text(turns[-1].content):
        raise UserError(row.where, "the last turn is not a user's query", "one to answer", "end with the user's turn")
    return turns
