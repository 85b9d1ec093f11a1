"""Read the folders that a report is on, and pair answers with those of the baseline."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import UserError
from ...records.file import read, read_rows, read_value
from ...records.response import BASELINE_FILE, RESPONSES_FILE, Pair, ResponseRow, paired, read_judged
from ...records.results import Results
from ...records.run import (
    GATE_ANSWERS_FILE,
    PATHS_FILE,
    POSITIONS_FILE,
    YOURS_FILE,
    GateAnswer,
    Position,
    PromptPath,
    Run,
)
from ...records.tune import Tuning


@dataclass(frozen=True)
class MeasureFolder:
    """A folder of `actor measure`; `unmatched` counts answers of the baseline that belong to no prompt here."""

    name: str
    results: Results
    answers: list[Pair]
    unmatched: int


@dataclass(frozen=True)
class FitFolder:
    """A folder of `actor fit`; `answers` are to the prompts of the safety gate, `yours` to some that the user gave.

    - `tuning`: the search that found its recipe, where there was one.
    """

    name: str
    run: Run
    positions: list[Position]
    paths: list[PromptPath]
    answers: list[Pair]
    yours: list[Pair] = field(default_factory=list)
    tuning: Tuning | None = None


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
    before = read_judged(folder / BASELINE_FILE) if (folder / BASELINE_FILE).exists() else []
    pairs = paired(before, read_judged(folder / RESPONSES_FILE))
    unmatched = len(before) - sum(pair.before is not None for pair in pairs)
    return MeasureFolder(name, results, pairs, unmatched)


def _fit_folder(folder: Path, name: str) -> FitFolder:
    positions, paths = folder / POSITIONS_FILE, folder / PATHS_FILE
    return FitFolder(
        name,
        read(Run, folder),
        read_value(list[Position], positions) if positions.exists() else [],
        read_value(list[PromptPath], paths) if paths.exists() else [],
        _asked_pairs(folder / GATE_ANSWERS_FILE),
        _asked_pairs(folder / YOURS_FILE),
        read(Tuning, folder) if (folder / Tuning.FILE).exists() else None,
    )


def _asked_pairs(file: Path) -> list[Pair]:
    return [_gate_pair(row) for row in read_rows(GateAnswer, file)] if file.exists() else []


def _gate_pair(row: GateAnswer) -> Pair:
    before, after = (
        ResponseRow(
            prompt=row.prompt, kind=row.kind, set=row.set, category=row.category, response=text, verdict=verdict
        )
        for text, verdict in ((row.before, row.verdict_before), (row.after, row.verdict_after))
    )
    return Pair(before, after)
