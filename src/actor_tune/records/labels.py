"""People's labels of answers: `labels.csv`, matched to answers by text, not by position."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, get_args

from ..errors import UserError
from ..judges.rows import human_verdict
from ..judges.verdict import Exchange, Outcome
from ..prompts.prompt import KINDS, Kind
from ..storage.files import replacing
from ..storage.tables import Row, read_table

LABELS_FILE = "labels.csv"

Side = Literal["responses", "baseline"]


@dataclass(frozen=True, kw_only=True)
class Label:
    """What a person said of an answer.

    - `which`: the file that the answer is in: of the model, or of its baseline.
    - `kind` and `set`: of the prompt; None where they are not told, and then the label is for any.
    - `label`: `unscored` where the person cannot say.
    - `probability`: with which the answer was chosen to be labelled, 0..1; all equal is the same as all 1.
    """

    which: Side = "responses"
    set: str | None = None
    kind: Kind | None = None
    prompt: str
    response: str
    label: Outcome
    probability: float = 1.0

    @property
    def refused(self) -> bool | None:
        """Refused in whole or in part; None where the person cannot say."""
        return None if self.label == "unscored" else self.label != "compliance"


COLUMNS = tuple(field.name for field in fields(Label))


def read_labels(path: str | Path) -> list[Label]:
    """The labels of a csv file with the columns of `Label`; `prompt`, `response` and `label` must be there.

    ```python
    at.read_labels("after/labels.csv")
    ```

    **Raises:** `UserError` when the file is missing, damaged or has no rows, or names file and row of a mistake.
    """
    return [_label(row) for row in read_table(Path(path))]


def add_label(path: Path, label: Label) -> None:
    """Add `label` to the file `path` at once; a header goes before the first."""
    new = not path.exists() or not path.stat().st_size
    text = csv_text([label], header=new)
    with path.open("a", encoding="utf-8", newline="") as stream:
        stream.write(text)


def write_labels(path: Path, labels: Iterable[Label]) -> None:
    """Write all `labels` into the file `path`, in place of what it has."""
    with replacing(path) as temporary:
        temporary.write_text(csv_text(labels), encoding="utf-8", newline="")


def csv_text(labels: Iterable[Label], header: bool = True) -> str:
    """`labels` as the text of a csv file."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    if header:
        writer.writerow(COLUMNS)
    for label in labels:
        cells = (getattr(label, name) for name in COLUMNS)
        writer.writerow([storable(cell) if isinstance(cell, str) else cell for cell in cells])
    return stream.getvalue()


def storable(text: str) -> str:
    """`text` without NUL and without halves of surrogate pairs, which a csv file cannot hold."""
    return re.sub("[\0\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text)


class Labels:
    """Labels to be found by the text of an answer; of two for one answer, the later holds."""

    def __init__(self, labels: Sequence[Label]) -> None:
        self._labels = {
            _key(label.which, label.prompt, label.response, label.set, label.kind): label for label in labels
        }
        self._used: set[int] = set()

    def __len__(self) -> int:
        return len(self._labels)

    def find(self, which: Side, prompt: str, response: str, name: str | None, kind: str | None) -> Label | None:
        """The label of an answer; spaces and line ends do not matter."""
        for place in ((name, kind), (name, None), (None, kind), (None, None)):
            label = self._labels.get(_key(which, prompt, response, *place))
            if label:
                self._used.add(id(label))
                return label
        return None

    def check_used(self) -> None:
        """Stop where none was found: they are of other answers.

        **Raises:** `UserError`.
        """
        if self._labels and not self._used:
            found = f"{len(self)} labels, none of which belongs to an answer here"
            raise UserError("`labels=`", found, "labels of these answers", "give those of this measurement")

    @property
    def unmatched(self) -> int:
        """How many were not found so far: they belong to no answer that was looked for."""
        return len(self._labels) - len(self._used)


def said_of(labels: Sequence[Label], rows: Sequence[Row], exchanges: Sequence[Exchange]) -> list[Label | None]:
    """The label of each of `exchanges`, which stand in `rows`; whichever file of a measurement it was in.

    **Raises:** `UserError` when no label belongs to any of them.
    """
    known, found = Labels(labels), []
    for row, exchange in zip(rows, exchanges, strict=True):
        place = (exchange.prompt, exchange.answer, row.cells.get("set"), row.cells.get("kind"))
        found.append(known.find("responses", *place) or known.find("baseline", *place))
    known.check_used()
    return found


def _key(which: str, prompt: str, response: str, name: str | None, kind: str | None) -> tuple[str | None, ...]:
    texts = (" ".join(storable(text).split()) for text in (prompt, response))
    return (which, *texts, name and " ".join(storable(name).split()), kind)


def _label(row: Row) -> Label:
    verdict = human_verdict(row, "label")
    which: Side = "responses"
    told, kind = row.cells.get("which") or "responses", row.cells.get("kind") or None
    if told == "baseline":
        which = "baseline"
    elif told != which:
        raise UserError(row.where, f"which {told[:60]!r}", " or ".join(get_args(Side)), "correct the column `which`")
    if kind is not None and kind not in KINDS:
        raise UserError(row.where, f"kind {kind[:60]!r}", f"one of {', '.join(KINDS)}", "correct the column `kind`")
    if "response" not in row.cells:
        raise UserError(row.where, "no column `response`", "the answer that was labelled", "add the column")
    return Label(
        which=which,
        set=row.cells.get("set") or None,
        kind=kind,
        prompt=row.text("prompt"),
        response=row.cells["response"],
        label=verdict.outcome,
        probability=_probability(row),
    )


def _probability(row: Row) -> float:
    text = row.cells.get("probability") or "1"
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        fix = "correct the column `probability`, or leave it out where all answers were as probable"
        raise UserError(row.where, f"probability {text[:60]!r}", "more than 0 and at most 1", fix)
    return value
