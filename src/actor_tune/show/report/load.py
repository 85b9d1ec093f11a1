"""Read the folders that a report is on, and pair answers with those of the baseline."""

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import UserError
from ...prompts.prompt import Prompt
from ...records.file import FIX, read, read_rows, read_value
from ...records.response import BASELINE_FILE, RESPONSES_FILE, ResponseRow
from ...records.results import Results
from ...records.run import GATE_ANSWERS_FILE, POSITIONS_FILE, GateAnswer, Position, Run


@dataclass(frozen=True)
class Pair:
    """An answer, and the one to the same prompt before; None where there is none."""

    before: ResponseRow | None
    after: ResponseRow

    @property
    def flipped(self) -> str:
        """`answered` or `refused`, where that is new; empty where it is as before, or is not known."""
        before, after = self.before and self.before.refused, self.after.refused
        if before is None or after is None or before == after:
            return ""
        return "refused" if after else "answered"


@dataclass(frozen=True)
class MeasureFolder:
    """A folder of `actor measure`; `unmatched` counts answers of the baseline that belong to no prompt here."""

    name: str
    results: Results
    answers: list[Pair]
    unmatched: int


@dataclass(frozen=True)
class FitFolder:
    """A folder of `actor fit`; `answers` are to the prompts of the safety gate."""

    name: str
    run: Run
    positions: list[Position]
    answers: list[Pair]


def load(paths: Sequence[Path]) -> tuple[list[MeasureFolder], list[FitFolder]]:
    """Read folders, in their order; one may hold the results of a measurement, the record of a fit, or both.

    **Raises:** `UserError` when there are none, one holds neither, or a file in it is missing or damaged.
    """
    if not paths:
        raise UserError("the report", "no folder", "at least one", "name a folder of `actor measure`")
    measured, fits = [], []
    for path, name in zip(paths, _names(paths), strict=True):
        if not path.is_dir():
            found = "a file" if path.exists() else "no such folder"
            raise UserError(path, found, f"a folder with {Results.FILE} or {Run.FILE}", "name the folder itself")
        whole = [file for file in (Results.FILE, Run.FILE) if (path / file).exists()]
        if not whole:
            fix = "name the folder of a `fit` or `measure` that came to its end"
            raise UserError(path, f"neither {Results.FILE} nor {Run.FILE} in it", "one of them", fix)
        if Results.FILE in whole:
            measured.append(_measure_folder(path, name))
        if Run.FILE in whole:
            fits.append(_fit_folder(path, name))
    return measured, fits


def _names(paths: Sequence[Path]) -> list[str]:
    """Short names of folders, numbered where two are alike."""
    short = [path.resolve().name or str(path) for path in paths]
    return [
        name if short.count(name) == 1 else f"{name} ({short[: place + 1].count(name)})"
        for place, name in enumerate(short)
    ]


def _measure_folder(folder: Path, name: str) -> MeasureFolder:
    results = read(Results, folder)
    before: dict[Prompt, deque[ResponseRow]] = defaultdict(deque)
    if (folder / BASELINE_FILE).exists():
        for row in _judged(folder / BASELINE_FILE):
            before[row.asked].append(row)
    pairs = []
    for row in _judged(folder / RESPONSES_FILE):
        same = before[row.asked]
        pairs.append(Pair(same.popleft() if same else None, row))
    return MeasureFolder(name, results, pairs, unmatched=sum(map(len, before.values())))


def _judged(path: Path) -> list[ResponseRow]:
    """Rows of answers, which must have verdicts."""
    rows = read_rows(ResponseRow, path)
    for number, row in enumerate(rows, start=1):
        if row.verdict is None:
            raise UserError(f"{path}, row {number}, verdict", "nothing", "a verdict", FIX)
    return rows


def _fit_folder(folder: Path, name: str) -> FitFolder:
    positions, answers = folder / POSITIONS_FILE, folder / GATE_ANSWERS_FILE
    return FitFolder(
        name,
        read(Run, folder),
        read_value(list[Position], positions) if positions.exists() else [],
        [_gate_pair(row) for row in read_rows(GateAnswer, answers)] if answers.exists() else [],
    )


def _gate_pair(row: GateAnswer) -> Pair:
    before, after = (
        ResponseRow(prompt=row.prompt, kind="harmful", set=row.set, response=text, verdict=verdict)
        for text, verdict in ((row.before, row.verdict_before), (row.after, row.verdict_after))
    )
    return Pair(before, after)
