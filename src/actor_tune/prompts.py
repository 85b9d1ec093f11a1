"""Prompts: what they are, where they come from, how they are split. Knows nothing of models."""

import csv
import hashlib
import importlib.resources
import io
import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from .errors import UserError

Kind = Literal["harmful", "harmless", "pseudo_harmful"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Part = Literal["train", "held_out"]

FORMATS = (".csv", ".jsonl", ".parquet", ".txt")


@dataclass(frozen=True)
class Prompt:
    """One user query: its text, what answering it would mean (`kind`), and the collection it belongs to (`set`)."""

    text: str
    kind: Kind
    set: str


def load_prompts(path: Path) -> list[Prompt]:
    """Read a file with the columns `prompt`, `kind` and optionally `set` (default: the file's stem).

    Formats: csv, jsonl, parquet (parquet needs the extra `parquet`).

    **Raises:** `UserError` when the file is missing, empty or of another format, when a column is missing or
    unknown, or when a row has no prompt or an unknown kind.
    """
    if path.suffix == ".txt":
        raise UserError(
            path, "a txt file has no column `kind`", "csv, jsonl or parquet", "or name the kind: --harmful FILE"
        )
    rows = _read_table(path, required=("prompt", "kind"))
    return [_prompt(path, number, row, row["kind"]) for number, row in rows]


def load_prompts_of_kind(path: Path, kind: Kind) -> list[Prompt]:
    """Read a file whose prompts are all of one `kind`: txt (one prompt a line), or a table with a column `prompt`.

    **Raises:** `UserError` as `load_prompts`; also when a column `kind` says something else.
    """
    if path.suffix == ".txt":
        lines = _read_text(path).split("\n")
        prompts = [Prompt(line.strip(), kind, path.stem) for line in lines if line.strip()]
        if not prompts:
            raise UserError(path, "the file is empty", "one prompt a line", "add prompts or leave the option out")
        return prompts
    rows = _read_table(path, required=("prompt",))
    for number, row in rows:
        if row.get("kind", kind) != kind:
            raise UserError(
                f"{path}, row {number}",
                f"kind {row['kind']!r}",
                f"{kind!r}, as the option says",
                "use --prompts for files of several kinds",
            )
    return [_prompt(path, number, row, kind) for number, row in rows]


def starter_prompts(part: Part) -> list[Prompt]:
    """The prompts that ship with the package; `part` is "train" or "held_out". Twins stay in the same part."""
    file = importlib.resources.files(__package__) / "starter" / "prompts.csv"
    rows = csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"), newline=""))
    return [Prompt(row["prompt"], cast(Kind, row["kind"]), row["set"]) for row in rows if row["part"] == part]


def require(prompts: Sequence[Prompt], minimum: int, kinds: Iterable[Kind] = KINDS) -> None:
    """Stop unless there are at least `minimum` prompts of each of `kinds`.

    **Raises:** `UserError` naming the kind with too few.
    """
    counts = Counter(prompt.kind for prompt in prompts)
    for kind in kinds:
        if counts[kind] < minimum:
            option = "--" + kind.replace("_", "-")
            raise UserError(
                "prompts", f"{counts[kind]} of kind {kind}", f"at least {minimum}", f"add some with {option} FILE"
            )


def of_kind(prompts: Iterable[Prompt], kind: Kind) -> list[Prompt]:
    """Those of `kind`, in order."""
    return [prompt for prompt in prompts if prompt.kind == kind]


def fingerprint(prompts: Iterable[Prompt]) -> str:
    """SHA-256 (hex) over texts, kinds and sets in order: two runs with the same value saw the same prompts."""
    digest = hashlib.sha256()
    for prompt in prompts:
        digest.update(json.dumps([prompt.text, prompt.kind, prompt.set]).encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class Split:
    """Prompts to train on, and prompts to choose settings on."""

    train: list[Prompt]
    validation: list[Prompt]


def split_validation(prompts: Sequence[Prompt], share: float, seed: int) -> Split:
    """Put `share` (0..1) of each set's prompts, at least one of every set of two or more, aside. Order is kept.

    **Raises:** `UserError` when a kind then has no prompt in one of the parts.
    """
    chooser = random.Random(seed)
    groups: dict[tuple[Kind, str], list[int]] = {}
    for index, prompt in enumerate(prompts):
        groups.setdefault((prompt.kind, prompt.set), []).append(index)
    aside: set[int] = set()
    for members in groups.values():
        count = min(len(members) - 1, max(1, round(share * len(members))))  # a prompt alone in its set is trained on
        aside.update(chooser.sample(members, count))
    split = Split(
        train=[prompt for index, prompt in enumerate(prompts) if index not in aside],
        validation=[prompt for index, prompt in enumerate(prompts) if index in aside],
    )
    for kind in KINDS:
        if not (of_kind(split.train, kind) and of_kind(split.validation, kind)):
            found = f"the {kind} prompts are alone in their sets"
            raise UserError("prompts", found, "a set of at least two of each kind", "give more prompts the same set")
    return split


def distinct(prompts: Sequence[Prompt]) -> list[Prompt]:
    """`prompts` without repetitions, so that none is both trained and validated on.

    **Raises:** `UserError` when a text is given under two kinds.
    """
    kinds: dict[str, Kind] = {}
    kept = []
    for prompt in prompts:
        if prompt.text not in kinds:
            kinds[prompt.text] = prompt.kind
            kept.append(prompt)
        elif kinds[prompt.text] != prompt.kind:
            found = f"{prompt.text[:60]!r} is {kinds[prompt.text]} and {prompt.kind}"
            raise UserError("prompts", found, "one kind for each prompt", "remove it from one of the files")
    return kept


def limit_per_set(prompts: Sequence[Prompt], limit: int) -> list[Prompt]:
    """The first `limit` prompts of every set."""
    seen: Counter[tuple[Kind, str]] = Counter()
    kept = []
    for prompt in prompts:
        seen[prompt.kind, prompt.set] += 1
        if seen[prompt.kind, prompt.set] <= limit:
            kept.append(prompt)
    return kept


Row = tuple[int, dict[str, str]]


def _prompt(path: Path, number: int, row: dict[str, str], kind: str) -> Prompt:
    text = row["prompt"].strip()
    if not text:
        raise UserError(f"{path}, row {number}", "an empty prompt", "text", "fill it in or remove the row")
    if kind not in KINDS:
        fix = "correct the column `kind`"
        raise UserError(f"{path}, row {number}", f"kind {kind!r}", f"one of {', '.join(KINDS)}", fix)
    return Prompt(text, kind, row.get("set") or path.stem)


def _read_table(path: Path, required: tuple[str, ...]) -> list[Row]:
    """Rows with their number in the file (csv: line of the row's end; jsonl: line; parquet: 1-based row)."""
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
        raise UserError(path, "no rows", "at least one prompt", "add prompts or leave the file out")
    known = (*required, "kind", "set")
    for number, row in rows:
        columns = ", ".join(row) or "none"
        for column in required:
            if column not in row:
                found = f"no column `{column}` (columns: {columns})"
                raise UserError(f"{path}, row {number}", found, f"`{column}`", "rename or add the column")
        for column in row:
            if column not in known:
                fix = "remove or rename the column"
                raise UserError(f"{path}, row {number}", f"unknown column `{column}`", "prompt, kind, set", fix)
    return rows


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(path, "no such file", "a file of prompts", "check the path") from None
    except PermissionError:
        raise UserError(path, "may not be read", "a readable file", "change its permissions") from None
    except IsADirectoryError:
        raise UserError(path, "a folder", "a file of prompts", "name a file in it") from None
    except UnicodeDecodeError as error:
        raise UserError(path, f"not UTF-8 at byte {error.start}", "UTF-8 text", "convert the file") from None


def _read_csv(path: Path) -> list[Row]:
    reader = csv.DictReader(io.StringIO(_read_text(path), newline=""), strict=True)
    rows = []
    try:
        for row in reader:
            if None in row or None in row.values():
                found = "more or fewer fields than the header has"
                fix = 'quote prompts that contain commas: "..."'
                raise UserError(f"{path}, line {reader.line_num}", found, f"{len(reader.fieldnames or [])} fields", fix)
            rows.append((reader.line_num, row))
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}", str(error), "csv", "mend the quoting") from None
    return rows


def _read_jsonl(path: Path) -> list[Row]:
    rows = []
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            fix = "write one JSON object a line"
            raise UserError(f"{path}, line {number}", f"not JSON ({error.msg})", "an object", fix) from None
        if not isinstance(row, dict) or not all(isinstance(value, str) for value in row.values()):
            expected = "an object whose values are strings"
            raise UserError(f"{path}, line {number}", line[:60], expected, 'write {"prompt": "...", "kind": "..."}')
        rows.append((number, row))
    return rows


def _read_parquet(path: Path) -> list[Row]:
    if not path.exists():
        raise UserError(path, "no such file", "a file of prompts", "check the path")
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
    rows = list(enumerate(table.to_pylist(), start=1))
    for number, row in rows:
        for column, value in row.items():
            if not isinstance(value, str):
                fix = "write the column as strings"
                raise UserError(f"{path}, row {number}", f"`{column}` is {value!r}", "a string", fix)
    return rows
