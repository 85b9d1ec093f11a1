"""Several models, measured one after the other, each into a folder of its own, as a table names them."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from ..engines.choose import ENGINES
from ..engines.engine import Subject
from ..errors import UserError
from ..models.model import DEFAULT_PLACEMENT
from ..models.placement import DtypeName, Placement
from ..records import request
from ..records.file import shown
from ..records.results import Results
from ..storage.files import storage_error
from ..storage.tables import Row, read_table
from ..storage.text import json_of_text
from .earlier import EarlierMeasurement
from .questions import Questions
from .run import Measurement
from .trained_on import trained_on

CHOICES = {"engine": ENGINES, "dtype": get_args(DtypeName)}


@dataclass(frozen=True)
class ToMeasure:
    """A model to measure; None where it is asked as all others are (`Procedure`).

    - `model`: a folder or Hub id, or its name at a server; `name`: of the folder of its results.
    - `baseline`: the model that it is compared with, or the folder of an earlier measurement of that.
    - `engine`, `base_url`, `dtype`, `chat_template_kwargs`: as of `subject`.
    """

    model: str
    name: str
    baseline: str | None = None
    engine: str | None = None
    base_url: Sequence[str] | None = None
    dtype: Any = None
    chat_template_kwargs: Mapping[str, Any] | None = None

    @property
    def own(self) -> dict[str, Any]:
        """What it has of its own, by name."""
        return {name: value for name, value in vars(self).items() if name != "name" and value is not None}


@dataclass(frozen=True)
class Procedure:
    """How models are measured, one as the other.

    ```python
    how = at.Procedure(at.subject, partial(at.questions, prompts), at.measure)
    how.measured(at.ToMeasure("MODEL", "mine"), Path("mine")).save("mine")
    ```

    - `subject`, `questions`, `measure`: the functions of these names, with what is the same for all given.
    - `placement`: of models in this process; `trained_on`: sources, as of the function; `baseline`: as of `ToMeasure`.
    """

    subject: Callable[..., Subject]
    questions: Callable[..., Questions]
    measure: Callable[..., Measurement]
    placement: Placement = DEFAULT_PLACEMENT
    trained_on: Sequence[str] = ()
    baseline: str | None = None

    def measured(self, asked: ToMeasure, folder: Path, reuse: bool = False) -> Measurement:
        """The measurement of a model, which keeps its answers in `folder`; `reuse` as of `measure`.

        **Raises:** `UserError`, as `subject`, `questions` and `measure` do.
        """
        own = {name: value for name, value in asked.own.items() if name not in ("model", "baseline", "dtype")}
        placement = replace(self.placement, dtype=asked.dtype or self.placement.dtype)

        def subject(name: str) -> Subject:
            return self.subject(name, placement=placement, **own)

        model, before = subject(asked.model), asked.baseline or self.baseline
        questions = self.questions(trained_on=trained_on(model, self.trained_on))
        baseline: Subject | EarlierMeasurement | None = None
        if before is not None:
            earlier = EarlierMeasurement.is_in(before)
            baseline = EarlierMeasurement.read(before, subject) if earlier else subject(before)
        return self.measure(model, questions, baseline=baseline, work=folder, reuse=reuse)


@dataclass(frozen=True)
class MeasuredModel:
    """What became of a model of a table: what was `found`, or the `mistake` that stopped it.

    - `done`: it was whole in its `folder` already.
    """

    asked: ToMeasure
    folder: Path
    found: Measurement | None = None
    mistake: UserError | None = None
    done: bool = False


def measure_models(
    models: Sequence[ToMeasure], how: Procedure, folder: str | Path, again: bool = False
) -> Iterator[MeasuredModel]:
    """Measure `models` one after the other, when the next outcome is asked for. Save each before that.

    ```python
    how = at.Procedure(at.subject, partial(at.questions, prompts), partial(at.measure, max_new_tokens=24))
    for outcome in at.measure_models(at.read_models("models.csv"), how, "all"):
        if outcome.found and not outcome.done:
            outcome.found.save(outcome.folder)
    ```

    The same call goes on where it was cut off: what is whole is not measured again. What a user can mend in one model
    does not keep the others from being measured.

    **Arguments:**

    - `folder`: each model has a folder of its `name` in it.
    - `again`: measure also what is whole, as where people's labels are put into it.

    **Raises:** `UserError` when `folder` is that of a single measurement.
    """
    folder = Path(folder)
    for name in (request.FILE, *request.WHOLE):
        if (folder / name).is_file():
            found, fix = f"{name}, of a single measurement, in it", "choose another folder"
            raise UserError(f"`output_dir={folder}`", found, "a folder for one folder a model", fix)
    for asked in models:
        place = folder / asked.name
        done = not again and (place / Results.FILE).is_file()
        try:
            outcome = MeasuredModel(asked, place, how.measured(asked, place, reuse=done), done=done)
        except (UserError, OSError) as error:
            mistake = error if isinstance(error, UserError) else storage_error(error)
            if mistake is None:
                raise
            outcome = MeasuredModel(asked, place, mistake=mistake)
        yield outcome


def read_models(file: str | Path) -> list[ToMeasure]:
    """The models of a table: csv, tsv, json or jsonl with the column `model` and any of the others of `ToMeasure`.

    An empty cell says nothing. Several addresses in one cell are parted by blanks; what the chat template is told is
    JSON. Where no `name` is given, it is made of the model's, with a number where that is taken.

    ```python
    [asked.name for asked in at.read_models("models.csv")]
    ```

    **Raises:** `UserError` when the table is empty, has another column, or a value that cannot be, or names a model or
    a folder twice.
    """
    found: list[ToMeasure] = []
    for row in read_table(Path(file)):
        asked = _to_measure(row)
        if not asked.name and any(replace(other, name="") == asked for other in found):
            raise UserError(row.where, f"{asked.model!r} a second time", "each model once", "take one out")
        taken = {other.name.casefold() for other in found}
        if asked.name.casefold() in taken:
            fix = "give one of them another `name`"
            raise UserError(row.where, f"the name {asked.name!r} a second time", "a folder for each", fix)
        found.append(asked if asked.name else replace(asked, name=_free_name(asked.model, taken)))
    return found


def _to_measure(row: Row) -> ToMeasure:
    """What a row says; its name is empty where it gives none."""
    columns = [*ToMeasure.__dataclass_fields__]
    if unknown := [name for name in row.cells if name not in columns and name.strip()]:
        expected = f"some of {', '.join(columns)}"
        raise UserError(row.where, f"a column `{unknown[0]}`", expected, "rename it, or take it out")
    model, given = row.text("model"), {name: row.cells.get(name) for name in columns if name != "model"}
    given = {name: value for name, value in given.items() if value is not None and value != ""}
    name = row.text("name") if "name" in given else ""
    if name and not re.fullmatch(r"[^\s./\\][^/\\]*", name):
        raise UserError(row.where, f"`name` is {name!r}", "the name of a folder, without a path", "correct it")
    texts = {column: row.text(column) for column in ("baseline", *CHOICES) if column in given}
    for column, value in texts.items():
        if value not in CHOICES.get(column, (value,)):
            raise UserError(row.where, f"`{column}` is {value!r}", f"one of {', '.join(CHOICES[column])}", "correct it")
    urls = given.get("base_url")
    if urls is not None and not (isinstance(urls, list) and all(isinstance(url, str) for url in urls)):
        urls = row.text("base_url").split()
    return ToMeasure(
        model, name, **texts, base_url=urls, chat_template_kwargs=_object(row, given.get("chat_template_kwargs"))
    )


def _object(row: Row, value: Any) -> dict[str, Any] | None:
    """An object, or its JSON, as a table of text has it."""
    where, expected, fix = f"{row.where}, chat_template_kwargs", '{"NAME": VALUE, ...}', "correct it"
    found = json_of_text(value, where, expected, fix) if isinstance(value, str) else value
    if found is not None and not isinstance(found, dict):
        raise UserError(where, shown(found), expected, fix)
    return found


def _free_name(model: str, taken: set[str]) -> str:
    """A name for the folder of `model` that is not `taken`; the same as long as the rows before are the same."""
    last = re.split(r"[/\\]", model.rstrip("/\\"))[-1]
    name = re.sub(r"[^\w.-]+", "-", last).strip("-.") or "model"
    names = (name if number == 1 else f"{name}-{number}" for number in range(1, len(taken) + 2))
    return next(each for each in names if each.casefold() not in taken)
