"""People's labels of answers: `labels.csv`, matched to answers by text, not by position."""

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Literal, get_args

from ..errors import UserError
from ..judges.rows import human_verdict
from ..judges.verdict import Exchange, Outcome
from ..prompts.prompt import KINDS, Kind, Message
from ..storage.files import replacing
from ..storage.tables import Row, read_table
from .file import json_of
from .response import Response, ResponseRow, response_row
from .results import LabelCount

LABELS_FILE = "labels.csv"

Side = Literal["responses", "baseline"]


@dataclass(frozen=True, kw_only=True)
class Label:
    """What a person said of an answer.

    - `which`: the file that the answer is in: of the model, or of its baseline.
    - `kind` and `set`: of the prompt; `context`: `digest` of the turns before it. None where they are not told, and
      then the label is for any.
    - `label`: `unscored` where the person cannot say.
    - `probability`: with which the answer was chosen to be labelled, 0..1; all equal is the same as all 1.
    """

    which: Side = "responses"
    set: str | None = None
    kind: Kind | None = None
    context: str | None = None
    prompt: str
    response: str
    label: Outcome
    probability: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.probability <= 1:
            fix = "leave it out where all answers were as probable"
            raise UserError("`probability`", f"{self.probability}", "more than 0 and at most 1", fix)

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

    **Raises:** `UserError` when the file is missing, no csv, damaged or without rows; it names the row of a mistake.
    """
    return [_label(row) for row in _rows(Path(path))]


def read_own_labels(path: Path) -> list[Label]:
    """The labels of a file that is to be written anew; none where it is missing or empty.

    **Raises:** `UserError` as `read_labels`, and when it has columns that would be lost.
    """
    if not path.exists() or len(path.read_bytes().strip().splitlines()) < 2:  # a header at most
        return []
    rows = _rows(path)
    if others := [name for name in rows[0].cells if name not in COLUMNS]:
        raise UserError(path, f"columns {', '.join(others)}", "those of labels alone", "move the file away")
    return [_label(row) for row in rows]


def write_labels(path: Path, labels: Iterable[Label]) -> None:
    """Write all `labels` into the file `path`, in place of what it has."""
    with replacing(path) as temporary:
        temporary.write_text(csv_text(labels), encoding="utf-8", newline="")


def csv_text(labels: Iterable[Label]) -> str:
    """`labels` as the text of a csv file."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(COLUMNS)
    for label in labels:
        cells = (getattr(label, name) for name in COLUMNS)
        writer.writerow([storable(cell) if isinstance(cell, str) else cell for cell in cells])
    return stream.getvalue()


def storable(text: str) -> str:
    """`text` without NUL and without halves of surrogate pairs, which a csv file cannot hold."""
    return re.sub("[\0\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text)


def digest(context: Sequence[Message]) -> str | None:
    """What tells the turns before a prompt from others, 12 hexadecimal digits; None where there are none."""
    return hashlib.sha256(json.dumps(json_of(context)).encode()).hexdigest()[:12] if context else None


class Labels:
    """Labels to be found by the text of an answer; of two for one answer, the later holds."""

    def __init__(self, labels: Sequence[Label]) -> None:
        self._labels = {
            _key(label.which, label.prompt, label.response, label.set, label.kind, label.context): label
            for label in labels
        }
        self._used: set[int] = set()

    def __len__(self) -> int:
        return len(self._labels)

    def of(self, which: Side, row: ResponseRow) -> Label | None:
        """The label of the answer `row`, or None."""
        return self.find(which, row.prompt, row.response, row.set, row.kind, digest(row.context))

    def find(
        self,
        which: Side,
        prompt: str,
        response: str,
        name: str | None = None,
        kind: str | None = None,
        context: str | None = None,
    ) -> Label | None:
        """The label of an answer in the set `name`; spaces and line ends do not matter."""
        for place in product(*({told: None, None: None} for told in (name, kind, context))):
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
            found = f"{len(self)} label{'s' * (len(self) > 1)}, none of which belongs to an answer here"
            raise UserError("`labels=`", found, "labels of these answers", "give those of this measurement")

    @property
    def unmatched(self) -> int:
        """How many were not found so far: they belong to no answer that was looked for."""
        return len(self._labels) - len(self._used)


@dataclass(frozen=True)
class Found:
    """The label of each answer, None where it has none; `unmatched`: labels that belong to no answer."""

    labels: list[Label | None]
    unmatched: int

    @property
    def count(self) -> LabelCount:
        """What became of all labels."""
        used = [label for label in self.labels if label]
        return LabelCount(len(used), sum(label.refused is None for label in used), self.unmatched)


def said_of(labels: Sequence[Label], rows: Sequence[Row], exchanges: Sequence[Exchange]) -> Found:
    """The labels of `exchanges`, which stand in `rows`; whichever file of a measurement they were in.

    Sets and kinds are told apart only where the rows tell them, and the turns before a prompt are not.

    **Raises:** `UserError` when no label belongs to any of them.
    """
    sets, kinds = (any(row.cells.get(name) for row in rows) for name in ("set", "kind"))
    known = Labels(
        [
            replace(label, context=None, set=label.set if sets else None, kind=label.kind if kinds else None)
            for label in labels
        ]
    )
    found = []
    for row, exchange in zip(rows, exchanges, strict=True):
        name, kind = (str(row.cells.get(cell) or "") or None for cell in ("set", "kind"))
        told = [known.find(side, exchange.prompt, exchange.answer, name, kind) for side in get_args(Side)]
        found.append(next(filter(None, told), None))
    known.check_used()
    return Found(found, known.unmatched)


def check_some(labels: Sequence[Label], answers: Mapping[Side, Sequence[Response]]) -> None:
    """Stop where no label belongs to any of `answers`, before they are judged.

    **Raises:** `UserError`.
    """
    known = Labels(labels)
    for which, responses in answers.items():
        for response in responses:
            known.of(which, response_row(response))
    known.check_used()


def _key(
    which: str, prompt: str, response: str, name: str | None, kind: str | None, context: str | None
) -> tuple[str | None, ...]:
    texts = (" ".join(storable(text).split()) for text in (prompt, response))
    return (which, *texts, name and " ".join(storable(name).split()), kind, context)


def _rows(path: Path) -> list[Row]:
    if path.suffix != ".csv":
        raise UserError(path, "no csv file", "labels as csv", "convert it")
    return read_table(path)


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
        context=row.cells.get("context") or None,
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
