"""Read and write records: dataclasses as JSON, checked against their types when they are read.

A record names its file and the number of its schema; a row is one line of a jsonl file.
"""

import json
import math
import re
from collections.abc import Iterable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import msgspec

from ..errors import UserError
from ..storage.files import write_json, write_jsonl
from ..storage.tables import read_text
from ..storage.text import json_of_text

FIX = "make it again, or leave it out"


LARGEST = 10**20
"""A number: ours are far smaller, and what is done with one as large does not overflow."""


class Record:
    """A dataclass that has a file of its own."""

    FILE: ClassVar[str]
    SCHEMA: ClassVar[int]

    def json(self) -> dict[str, Any]:
        """As it is stored, its schema first."""
        return {"schema": self.SCHEMA} | dict(json_of(self))

    def save(self, folder: str | Path) -> Path:
        """Write it into `folder`, which is made where it is missing, and return the file."""
        path = Path(folder) / self.FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, self.json())
        return path


Value = TypeVar("Value")
AnyRecord = TypeVar("AnyRecord", bound=Record)


def read(kind: type[AnyRecord], folder: Path, fix: str = FIX) -> AnyRecord:
    """The record of this `kind` in `folder`. Keys that it does not know are passed over.

    **Raises:** `UserError` when there is none, it is damaged, which `fix` may mend, or a newer version wrote it.
    """
    path = folder / kind.FILE
    value = parse(read_text(path), str(path), fix)
    if not isinstance(value, dict):
        raise UserError(path, shown(value), "an object", fix)
    schema = value.get("schema")
    if type(schema) is not int or not 1 <= schema <= kind.SCHEMA:
        raise UserError(f"{path}, schema", shown(schema), f"1 to {kind.SCHEMA}", "use the actor-tune that wrote it")
    return convert(value, kind, str(path), fix)


def read_value(kind: type[Value], path: Path, fix: str = FIX) -> Value:
    """A file that holds one value of this `kind` and no schema; `UserError`, with `fix`, where it is damaged."""
    return convert(parse(read_text(path), str(path), fix), kind, str(path), fix)


def read_rows(kind: type[Value], path: Path) -> list[Value]:
    """The rows of a jsonl file; `UserError` when there is none, or a line of it is damaged."""
    lines = ((f"{path}, line {number}", line) for number, line in enumerate(read_text(path).split("\n"), start=1))
    return [convert(parse(line, where), kind, where) for where, line in lines if line.strip()]


def write_rows(rows: Iterable[Any], path: Path) -> None:
    """Write `rows`, one a line."""
    write_jsonl(path, [row_json(row) for row in rows])


def row_json(row: Any) -> dict[str, Any]:
    """A row as it is stored: without what is None or empty."""
    return {name: value for name, value in json_of(row).items() if value is not None and value != []}


def json_of(value: Any) -> Any:
    """`value`, of dataclasses, lists and dicts, as JSON holds it: a tuple is a list."""
    return json.loads(json.dumps(msgspec.to_builtins(value)))


def parse(text: str, where: str, fix: str = FIX) -> Any:
    """The value of a JSON `text`; `where` it stands, and what may `fix` it, are for messages.

    **Raises:** `UserError` when it is not JSON, an object in it has a key twice, it is nested too deeply, or holds a
    number that is not finite or too large.
    """
    value = json_of_text(text, where, "a whole file", fix)
    _check(value, where, fix)
    return value


def convert(value: Any, kind: type[Value], where: str, fix: str = FIX) -> Value:
    """`value`, as JSON holds it, as a `kind`; `UserError` names the key that is missing or of another type."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        message = str(error)
    except UnicodeEncodeError:  # half of a surrogate pair in a key or a choice, which msgspec cannot look up
        whole = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
        return convert(json.loads(whole), kind, where, fix)
    what, _, path = message.partition(" - at `$")
    steps = _named([int(number) if number else key for key, number in _STEP.findall(path)], value, kind, message)
    where = _place(where, steps)
    missing = re.search("missing required field `(.+)`", what)
    if missing:
        raise UserError(f"{where}, {missing[1]}", "nothing", "a value", fix)
    expected = re.search("Expected (.+?)(, got|$)", what)
    words = "a choice that is known here" if "enum" in what else "a smaller number"
    raise UserError(where, shown(_at(value, steps)), _in_words(expected[1]) if expected else words, fix)


def shown(value: Any) -> str:
    """The start of `value` as JSON, for messages."""
    return json.dumps(value)[:60]


Step = str | int  # a key, or a place in a list

_STEP = re.compile(r"\.(\w+)|\[(\d+)\]|\[\.\.\.\]")
"""A step of a path of msgspec's: a key, a place, or neither for the key of a mapping, which it does not tell."""

_WORDS = {"object": "an object", "array": "a list", "str": "text", "bool": "true or false"}
_WORDS |= {"int": "a whole number", "float": "a number"}


def _named(steps: list[Step], value: Any, kind: type[Any], message: str) -> list[Step]:
    """`steps` to what is wrong with the keys of mappings named: those without which msgspec says something else."""
    rest = deepcopy(value)
    for place in [place for place, step in enumerate(steps) if step == ""]:
        mapping = _at(rest, steps[:place])
        for key in list(mapping):
            steps[place], part = key, mapping.pop(key)
            try:
                msgspec.convert(rest, kind)
                break
            except (msgspec.ValidationError, UnicodeEncodeError) as error:
                if str(error) != message:
                    break
        mapping[steps[place]] = part
    return steps


def _at(value: Any, steps: list[Step]) -> Any:
    for step in steps:
        value = value[step]
    return value


def _in_words(types: str) -> str:
    """msgspec's "`float | null`" as `a number or null`."""
    return re.sub(r"`(.+)`", lambda found: " or ".join(_WORDS.get(n, n) for n in found[1].split(" | ")), types)


def _place(where: str, steps: Sequence[Step]) -> str:
    """The place for messages, with control characters of keys escaped."""
    names = (f"item {step + 1}" if isinstance(step, int) else shown(step).strip('"') for step in steps)
    return ", ".join([where, *names])


def _check(value: Any, where: str, fix: str, steps: tuple[Step, ...] = ()) -> None:
    """Stop at a number that is not finite, or larger than what is done with it may stand."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, part in parts:
        if isinstance(part, (int, float)):
            if not abs(part) <= LARGEST:
                expected = "a smaller number" if abs(part) < math.inf else "a finite number"
                raise UserError(_place(where, [*steps, step]), shown(part), expected, fix)
        elif isinstance(part, (dict, list)):
            _check(part, where, fix, (*steps, step))
