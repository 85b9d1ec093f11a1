"""Named public prompt sets: where each is published, at which commit, and what its rows are (`data/presets.json`).

Nothing is copied into this package. A preset is fetched with `datasets` at a pinned commit, or read from a file that
was downloaded by hand, in its publisher's own layout.
"""

import importlib.resources
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from ..errors import UserError
from ..storage.tables import Row, read_table
from .prompt import Kind, Prompt
from .read import NO_COLUMNS, Columns, category_of, load_prompts, load_prompts_of_kind


@dataclass(frozen=True)
class Place:
    """What a row's prompt is: its kind, and the set it is counted in."""

    kind: Kind
    set: str


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A public prompt set.

    - `repository`: on GitHub where there is a `file`, of which no Hub revision is known, else on the Hugging Face Hub.
    - `revision`: the commit, 40 hexadecimal digits.
    - `gated`: its terms must be accepted on the Hub, and `hf auth login` run, before it can be fetched.
    - `columns`: the names its prompts have in the layouts that are in use; the first that a row has is read.
    - `label`: the column that tells rows apart; `places` has one for each of its values, None for rows that are left
      out. Without, all rows are in one place.
    - `download`: the publisher's file to give by hand, as messages name it.
    """

    repository: str
    revision: str
    columns: list[str]
    places: dict[str, Place | None]
    licence: str
    download: str
    description: str
    label: str | None = None
    file: str | None = None
    splits: list[str] = field(default_factory=list)
    config: str | None = None
    gated: bool = False


_FILE = importlib.resources.files(__package__) / "data" / "presets.json"

PRESETS = msgspec.json.decode(_FILE.read_bytes(), type=dict[str, Preset])
"""Every preset by name."""


def load_preset(name: str, file: Path | None = None) -> list[Prompt]:
    """The prompts of the preset `name`: from `file` in its publisher's layout, else fetched at the pinned commit.

    **Raises:** `UserError` when there is no such preset, when `file` or a row of it cannot be read, or when the set
    cannot be fetched: no network, a gated set, or no package `datasets` (extra `hub`).
    """
    preset = PRESETS.get(name)
    if preset is None:
        raise UserError(f"preset {name}", "unknown", f"one of {', '.join(PRESETS)}", "correct the name")
    rows = read_table(file) if file else _fetch(name, preset)
    prompts = []
    for row in rows:
        if place := _place(name, preset, row):
            column = next((column for column in preset.columns if column in row.cells), preset.columns[0])
            prompts.append(Prompt(row.text(column), place.kind, place.set, category=category_of(row)))
    if not prompts:
        found = f"none of {len(rows)} rows is used by the preset {name}"
        raise UserError(file or name, found, "at least one", f"download {preset.download} again")
    return prompts


def read_source(value: str, setting: str = "prompts", columns: Columns = NO_COLUMNS) -> list[Prompt]:
    """What `value` of a `setting` names: a file ("mine.csv"), a preset ("xstest"), or a preset's file ("xstest=FILE").

    `columns` are for files: what ours are called there. A preset has a layout of its own.

    **Raises:** `UserError` as `load_prompts` and `load_preset`.
    """
    name, equals, file = value.partition("=")
    if name in PRESETS:
        if equals and not file:
            fix = f"name one, or leave out {equals}"
            raise UserError(f"`{setting}={value}`", "no file after =", f"{name}=FILE", fix)
        return load_preset(name, Path(file) if file else None)
    path = Path(value)
    if not path.suffix or (equals and not os.path.exists(path)):
        expected = f"a file or a preset ({', '.join(PRESETS)})"
        raise UserError(f"`{setting}={value}`", "neither a file nor a preset", expected, "correct the name")
    return load_prompts(path, columns)


def read(
    *sources: str | Path,
    harmful: Sequence[str | Path] = (),
    harmless: Sequence[str | Path] = (),
    pseudo_harmful: Sequence[str | Path] = (),
    columns: Mapping[str, str] | None = None,
) -> list[Prompt]:
    """Prompts from files and public sets.

    ```python
    prompts = at.read("mine.csv", harmful=["bad.txt"])
    ```

    **Arguments:**

    - `sources`: csv, json, jsonl or parquet files with the columns `prompt` (or `messages`, or `conversations`),
      `kind` and optionally `set` and `category`; or public sets by name, from a local file as NAME=FILE.
    - `harmful`, `harmless`, `pseudo_harmful`: files whose prompts are all of that kind; also txt, one a line, or a json
      list of strings.
    - `columns`: what they are called in the files, by these names: `{"prompt": "text", "kind": "label"}`.

    **Raises:** `UserError` that names file and row of a mistake.
    """
    named = columns or NO_COLUMNS
    prompts = [prompt for source in sources for prompt in read_source(str(source), columns=named)]
    by_kind: dict[Kind, Sequence[str | Path]] = {
        "harmful": harmful,
        "harmless": harmless,
        "pseudo_harmful": pseudo_harmful,
    }
    for kind, files in by_kind.items():
        prompts += [prompt for file in files for prompt in load_prompts_of_kind(Path(file), kind, named)]
    return prompts


def _place(name: str, preset: Preset, row: Row) -> Place | None:
    """Where `row` belongs; None where it is left out."""
    if preset.label is None:
        return preset.places[""]
    if preset.label not in row.cells:
        if name == "xstest":  # The first releases have no labels; their unsafe prompts are of the types contrast_...
            return preset.places["unsafe" if row.text("type").startswith("contrast") else "safe"]
        if name == "harmbench":
            return preset.places["standard"]
        if name == "jailbreakbench":  # Both of its files have the same columns; their names tell them apart.
            named = [place for label, place in preset.places.items() if label in row.path.stem.lower()]
            if len(named) != 1:
                expected = "`harmful` or `benign` in the name, or a column `split` that says so"
                fix = "rename it as its publisher has it"
                raise UserError(row.path, "harmful or benign behaviours?", expected, fix)
            return named[0]
    label = row.text(preset.label)
    if label not in preset.places:
        found, expected = f"{preset.label} {label!r}", f"one of {', '.join(preset.places)}"
        raise UserError(row.where, found, expected, "give the publisher's file")
    return preset.places[label]


def _fetch(name: str, preset: Preset) -> list[Row]:
    setting = f"`prompts={name}`"
    by_hand = f"download {preset.download} and give it as `prompts={name}=FILE`"
    try:
        import datasets
    except ImportError:
        fix = f"run: pip install 'actor-tune[hub]', or {by_hand}"
        raise UserError(setting, "presets cannot be fetched here", "the package datasets", fix) from None
    origin, revision = preset.repository, preset.revision
    try:
        if preset.file:
            url = f"https://raw.githubusercontent.com/{origin}/{revision}/{preset.file}"
            return _rows(origin, datasets.load_dataset("csv", data_files=url, split="train"))
        rows = []
        for split in preset.splits:
            table = datasets.load_dataset(origin, preset.config, split=split, revision=revision)
            rows += _rows(origin, table, {"split": split})
        return rows
    except (OSError, ValueError) as error:  # no network, no access, or (ValueError) only other parts in the cache
        reason = str(error).split("\n")[0]
        found = f"{origin} at {revision[:8]} cannot be fetched ({reason})"
        gated = "accept its terms on the Hub and run `hf auth login`, or " if preset.gated else ""
        raise UserError(setting, found, "a connection to its publisher", gated + by_hand) from error


def _rows(origin: str, table: Iterable[dict[str, Any]], more: dict[str, str] | None = None) -> list[Row]:
    return [Row(Path(origin), number, {**cells, **(more or {})}) for number, cells in enumerate(table, start=1)]
