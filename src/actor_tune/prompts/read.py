"""Read files of prompts. Every mistake names file and row."""

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import UserError, shown
from ..storage.tables import Row, read_lines, read_table
from ..storage.text import check_text, has_text, json_of_text, text_of
from .prompt import KINDS, ROLES, Kind, Message, Prompt, Role

log = logging.getLogger(__name__)

COLUMNS = ("prompt", "messages", "conversations", "kind", "set", "category", "response")

Columns = Mapping[str, str]
"""What columns are called in a user's files, by our names for them."""

NO_COLUMNS: Columns = {}

_ROLES: dict[str, Role] = {role: role for role in ROLES}
SPEAKERS: dict[str, Role] = {"human": "user", "gpt": "assistant", **_ROLES}
"""Who says a turn of `conversations`."""


def columns_of(text: str | None) -> dict[str, str]:
    """The columns that a text such as "prompt=text,kind=label" names; none of None.

    **Raises:** `UserError` when it is no such text.
    """
    pairs = [part.partition("=")[::2] for part in text.split(",")] if text else []
    columns = {ours.strip(): yours.strip() for ours, yours in pairs}
    if len(columns) < len(pairs) or not all(columns.values()):
        fix = "write `columns=prompt=text,kind=label`"
        raise UserError(f"`columns={text}`", "no names in pairs, each once", "OURS=YOURS,...", fix)
    return _checked(columns)


def _checked(columns: Columns) -> dict[str, str]:
    for ours in columns:
        if ours not in COLUMNS:
            where, fix = f"`columns={ours}={columns[ours]}`", "write our name first, then yours"
            raise UserError(where, f"{ours!r}, which no prompt has", f"one of {', '.join(COLUMNS)}", fix)
    return dict(columns)


def load_prompts(path: Path, columns: Columns = NO_COLUMNS) -> list[Prompt]:
    """Read a csv, tsv, json, jsonl or parquet file with the columns `kind`, a prompt, and optionally `set`.

    The prompt is in `prompt`, or in `messages`, a conversation that ends with the user's query: a list of
    {"role", "content"}, in a csv as JSON; or in `conversations`, a list of {"from", "value"}, whose last human turn it
    is. Kinds may be written with capitals, and with a hyphen or a space. `set` defaults to the file's stem. `category`
    says what a prompt is about, and may be empty. A column `response` may be there (`load_responses`). Parquet needs
    the extra `parquet`.

    Other columns are passed over, and the log says once which. `columns` says what ours are called in this file.

    **Raises:** `UserError` when the file is missing, empty or of another format, when a column is missing, or when a
    row has no prompt or an unknown kind.
    """
    if path.suffix == ".txt":
        raise UserError(
            path, "a txt file has no column `kind`", "csv, json, jsonl or parquet", "or name the kind: `harmful=FILE`"
        )
    return [_prompt(row, row.text("kind")) for row in _rows(path, columns)]


def load_responses(path: Path, columns: Columns = NO_COLUMNS) -> dict[Prompt, str]:
    """The prompts of a file as for `load_prompts`, with what its column `response` says; rows without are left out.

    **Raises:** `UserError` as `load_prompts`.
    """
    rows = _table(path, columns)  # whose other columns were named when its prompts were read
    return {_prompt(row, row.text("kind")): row.text("response") for row in rows if row.get("response")}


def load_prompts_of_kind(path: Path, kind: Kind, columns: Columns = NO_COLUMNS) -> list[Prompt]:
    """Read a file whose prompts are all of one `kind`: txt (one prompt a line), a json list of strings, or a table as
    for `load_prompts`.

    **Raises:** `UserError` as `load_prompts`; also when a column `kind` says something else, or a txt file is a table.
    """
    if path.suffix == ".txt":
        rows = read_lines(path, "prompt")
        _check_no_table(rows[0])
    else:
        rows = _rows(path, columns, needed=("prompt", "messages", "conversations"))
    for row in rows:
        said = row.cells.get(row.name("kind"), kind)
        if _kind(said) != kind:
            fix = "use `prompts=FILE` for files of several kinds"
            raise UserError(row.where, f"kind {said!r}", f"{kind!r}, as the setting says", fix)
    return [_prompt(row, kind) for row in rows]


def _rows(path: Path, columns: Columns, needed: tuple[str, ...] = COLUMNS) -> list[Row]:
    """The rows of a table; of `columns`, those that are `needed` must be there."""
    rows = _table(path, columns)
    there = dict.fromkeys(column for row in rows for column in row.cells)
    for ours, yours in columns.items():
        if ours in needed and yours not in there:
            found = f"no column `{yours}` (columns: {', '.join(there) or 'none'})"
            raise UserError(path, found, f"`{yours}`, as `columns={ours}={yours}` says", "correct the name")
    known = {columns.get(column, column) for column in COLUMNS}
    if other := [column for column in there if column not in known]:
        log.info("%s: columns passed over: %s", path, shown(", ".join(other)))
    name = columns.get("category", "category")
    if other_than_text := sum(not isinstance(row.get("category"), str | int | None) for row in rows):
        log.warning("%s: %d of %d rows have no text in `%s`: no category", path, other_than_text, len(rows), name)
    return rows


def _table(path: Path, columns: Columns) -> list[Row]:
    names = _checked(columns)
    fix = "rename or add the column, or name yours with `columns=OURS=YOURS`"
    return [replace(row, names=names, fix=fix) for row in read_table(path, bare=names.get("prompt", "prompt"))]


def _kind(said: Any) -> Kind | None:
    """The kind that somebody wrote, whatever its capitals and what stands between its words."""
    plain = re.sub("[\\s_\\-\u2010-\u2015]", "", said).casefold() if isinstance(said, str) else None
    return next((kind for kind in KINDS if kind.replace("_", "") == plain), None)


def _prompt(row: Row, said: str) -> Prompt:
    kind = _kind(said)
    if kind is None:
        fix = f"correct the column `{row.name('kind')}`, or give each kind a file: `harmful=FILE`"
        raise UserError(row.where, f"kind {said!r}", f"one of {', '.join(KINDS)}", fix)
    name = row.text("set") if row.get("set") else text_of(row.path.stem, row.where, "name of the file")
    told = [column for column in ("messages", "conversations") if row.get(column)]
    category = category_of(row)
    if not told:
        return Prompt(row.text("prompt"), kind, name, category=category)
    if len(told) > 1:
        raise UserError(row.where, "`messages` and `conversations`", "one of them", "remove one of the columns")
    *context, query = _conversation(row, told[0])
    if row.get("prompt") and row.text("prompt") != query.content.strip():
        found = f"`{row.name('prompt')}` is {row.text('prompt')[:60]!r} and `{row.name(told[0])}` end with "
        found += f"{query.content[:60]!r}"
        raise UserError(row.where, found, "the same query in both", "remove one of the columns")
    return Prompt(query.content, kind, name, tuple(context), category)


def category_of(row: Row) -> str:
    """What the column `category` says; nothing where there is none, or it is no text, such as a list of several."""
    said = row.get("category")
    said = str(said) if type(said) is int else said
    return text_of(said, row.where, row.name("category")) if isinstance(said, str) and has_text(said) else ""


def _check_no_table(first: Row) -> None:
    """Stop where the `first` line of a txt file is a csv's header or how a json or jsonl file begins, and no prompt."""
    line = first.cells["prompt"]
    names = [name.strip(" \"'").lower() for name in re.split("[,;\t]", line)]
    suffix = None
    if {"prompt", "messages", "conversations"} & set(names) and all(re.fullmatch(r"\w*", name) for name in names):
        suffix = ".csv"
    elif begun := re.match(r'\s*(\[?)\s*\{\s*"(prompt|messages|conversations|kind|set)"\s*:|\s*\[\s*$', line):
        suffix = ".jsonl" if begun[1] == "" and begun[2] else ".json"
    if suffix:
        fix = f"rename it to {Path(first.path.name).with_suffix(suffix)}"
        raise UserError(first.where, f"{line!r}, as a {suffix[1:]} file begins", "a prompt", fix)


def _conversation(row: Row, column: str) -> list[Message]:
    """The turns in `column`, up to the user's query: a list, or JSON of one."""
    value, name = row.get(column), row.name(column)
    fix = 'write [{"role": "user", "content": "..."}]'
    if column == "conversations":
        fix = 'write [{"from": "human", "value": "..."}]'
    if isinstance(value, str):
        value = json_of_text(value, f"{row.where}, `{name}`", "a list of turns", fix)
    if not isinstance(value, list) or not value:
        raise UserError(row.where, f"`{name}` is {value!r}", "a list of turns", fix)
    turns = []
    for turn in value:
        role, content = _said(turn, column)
        if role is None or not isinstance(content, str):
            expected = f"role ({', '.join(ROLES)}) and content"
            if column == "conversations":
                expected = f"from ({', '.join(SPEAKERS)}) and value"
            raise UserError(row.where, f"a turn {turn!r}", expected, fix)
        check_text(content, row.where, f"`{name}`")
        turns.append(Message(role, content))
    while column == "conversations" and turns and turns[-1].role != "user":
        turns.pop()  # the answer to the query
    if not turns or turns[-1].role != "user" or not has_text(turns[-1].content):
        found = "the last turn is not a user's query" if column == "messages" else "no human turn with text at its end"
        raise UserError(row.where, found, "one to answer", "end with the user's turn")
    return turns


def _said(turn: Any, column: str) -> tuple[Role | None, Any]:
    """Who says a turn, and what; None where that is nobody known."""
    if not isinstance(turn, dict):
        return None, None
    if column == "conversations" and "from" in turn:
        role, content = turn["from"], turn.get("value")
    else:
        role, content = turn.get("role"), turn.get("content")
    known: Mapping[str, Role] = SPEAKERS if column == "conversations" else _ROLES
    return (known.get(role) if isinstance(role, str) else None), content
