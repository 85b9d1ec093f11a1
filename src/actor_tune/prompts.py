"""Prompts: what they are, where they come from, how they are split. Knows nothing of models."""

import csv
import hashlib
import importlib.resources
import io
import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

from .errors import UserError
from .tables import Row, read_lines, read_table

Kind = Literal["harmful", "harmless", "pseudo_harmful"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Part = Literal["train", "held_out"]
Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = get_args(Role)

COLUMNS = ("prompt", "messages", "kind", "set", "response")


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True)
class Prompt:
    """One user query: its text, what answering it would mean (`kind`), and the collection it belongs to (`set`).

    - `context`: what precedes the query: a system prompt, earlier turns; empty for a single turn.
    """

    text: str
    kind: Kind
    set: str
    context: tuple[Message, ...] = ()

    def messages(self) -> list[dict[str, str]]:
        """The whole conversation as chat templates and servers take it: `context`, then the query."""
        turns = [*self.context, Message("user", self.text)]
        return [{"role": turn.role, "content": turn.content} for turn in turns]


def prompt_json(prompt: Prompt) -> dict[str, Any]:
    """A prompt as a row of a file that `load_prompts` reads; `messages` only where there is a context."""
    row = {"prompt": prompt.text, "kind": prompt.kind, "set": prompt.set}
    return row | {"messages": prompt.messages()} if prompt.context else row


def prompt_of(row: Mapping[str, Any]) -> Prompt:
    """The prompt of a row that `prompt_json` made."""
    context = tuple(Message(turn["role"], turn["content"]) for turn in row.get("messages", [])[:-1])
    return Prompt(row["prompt"], row["kind"], row["set"], context)


def with_system_prompt(prompts: Iterable[Prompt], text: str) -> list[Prompt]:
    """`prompts` with `text` as the system prompt of each that has none of its own."""
    system = Message("system", text)
    return [
        prompt
        if prompt.context and prompt.context[0].role == "system"
        else replace(prompt, context=(system, *prompt.context))
        for prompt in prompts
    ]


def load_prompts(path: Path) -> list[Prompt]:
    """Read a csv, jsonl or parquet file with the columns `kind`, `prompt` or `messages`, and optionally `set`.

    `messages` is a conversation that ends with the user's query: a list of {"role", "content"}, in a csv as JSON.
    `set` defaults to the file's stem. A column `response` may be there (`load_responses`). Parquet needs the extra
    `parquet`.

    **Raises:** `UserError` when the file is missing, empty or of another format, when a column is missing or
    unknown, or when a row has no prompt or an unknown kind.
    """
    if path.suffix == ".txt":
        raise UserError(
            path, "a txt file has no column `kind`", "csv, jsonl or parquet", "or name the kind: --harmful FILE"
        )
    return [_prompt(row, row.text("kind")) for row in read_table(path, COLUMNS)]


def load_responses(path: Path) -> dict[Prompt, str]:
    """The prompts of a file as for `load_prompts`, with what its column `response` says; rows without are left out.

    **Raises:** `UserError` as `load_prompts`.
    """
    rows = read_table(path, COLUMNS)
    return {_prompt(row, row.text("kind")): row.text("response") for row in rows if row.cells.get("response")}


def load_prompts_of_kind(path: Path, kind: Kind) -> list[Prompt]:
    """Read a file whose prompts are all of one `kind`: txt (one prompt a line), or a table as for `load_prompts`.

    **Raises:** `UserError` as `load_prompts`; also when a column `kind` says something else.
    """
    if path.suffix == ".txt":
        return [Prompt(line, kind, path.stem) for line in read_lines(path)]
    rows = read_table(path, COLUMNS)
    for row in rows:
        said = row.cells.get("kind", kind)
        if said != kind:
            fix = "use --prompts for files of several kinds"
            raise UserError(row.where, f"kind {said!r}", f"{kind!r}, as the option says", fix)
    return [_prompt(row, kind) for row in rows]


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


def rows_of_kind(prompts: Sequence[Prompt], kind: Kind) -> list[int]:
    """Where in `prompts` those of `kind` are."""
    return [row for row, prompt in enumerate(prompts) if prompt.kind == kind]


def fingerprint(prompts: Iterable[Prompt]) -> str:
    """SHA-256 (hex) over texts, kinds and sets in order: two runs with the same value saw the same prompts."""
    digest = hashlib.sha256()
    for prompt in prompts:
        turns = [[turn.role, turn.content] for turn in prompt.context]
        digest.update(json.dumps([prompt.text, prompt.kind, prompt.set, *turns]).encode())
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
    kinds: dict[tuple[str, tuple[Message, ...]], Kind] = {}
    kept = []
    for prompt in prompts:
        key = (prompt.text, prompt.context)
        if key not in kinds:
            kinds[key] = prompt.kind
            kept.append(prompt)
        elif kinds[key] != prompt.kind:
            found = f"{prompt.text[:60]!r} is {kinds[key]} and {prompt.kind}"
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
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise UserError(row.where, f"`messages` is not JSON ({error.msg})", "a list of turns", fix) from None
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
