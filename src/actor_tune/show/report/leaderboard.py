"""Several measured models on one page, ranked where that means something."""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ...errors import UserError
from ...prompts.prompt import Kind
from ...records import request
from ...records.estimate import Estimate, wilson
from ...records.file import json_of
from ...records.labels import digest
from ...records.results import GATE_SET, SCORES, Measured, Results
from .charts import SERIES, Frontier, frontier
from .load import MeasureFolder, load
from .page import asset, environment, sha256_of
from .sets import WISHES

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """A measured model and its `rank`, from 1, by its trade-off score; None where it has none."""

    rank: int | None
    name: str
    results: Results

    @property
    def gate_change(self) -> Estimate | None:
        """How refusal changed since the baseline, as the safety gate saw it; None where that was not asked."""
        gate = self.results.gate
        return Estimate(-gate.drop, -gate.high, -gate.low) if gate else None

    def json(self) -> dict[str, Any]:
        """As `actor leaderboard --json` prints it."""
        results = self.results
        row = {"rank": self.rank, "name": self.name} | _figures(results)
        row["baseline"] = _figures(results.baseline) if results.baseline else None
        row["gate"] = None if results.gate is None else {"passed": results.gate.passed, "said": results.gate.sentence}
        return row | {"engine": results.engine, "date": results.date}


@dataclass(frozen=True)
class Group:
    """Models whose scores may be compared: asked the same prompts, with the same limits, judged by the same judge.

    - `tokens`: of an answer at most, and of what is thought before.
    - `sets`: name, kind and number of prompts of each; the gate's own, which are in no score, are not among them.
    """

    judge: str
    tokens: tuple[Any, Any]
    sets: list[tuple[str, Kind, int]]
    places: list[Place]

    @cached_property
    def chart(self) -> Frontier | None:
        """Compliance against safety, in the order of the places; None where no model has both."""
        return frontier([(place.name, place.results) for place in self.places], least=1)

    def json(self) -> dict[str, Any]:
        """As `actor leaderboard --json` prints it."""
        answer, thought = self.tokens
        sets = [{"name": name, "kind": kind, "n": n} for name, kind, n in self.sets]
        about = {"judge": self.judge, "max_new_tokens": answer, "max_reasoning_tokens": thought, "sets": sets}
        return about | {"models": [place.json() for place in self.places]}


def leaderboard(folders: Sequence[str | Path]) -> list[Group]:
    """The models that were measured into `folders`, ranked, in a group for each way of asking, the largest first.

    ```python
    [place.name for group in at.leaderboard(["after"]) for place in group.places]
    ```

    **Arguments:**

    - `folders`: of `Measurement.save` and `actor measure`, or folders of such folders.

    **Raises:** `UserError` when one is neither, or its files are damaged.
    """
    measured, _ = load(_results_folders([Path(folder) for folder in folders]))
    groups: dict[str, list[MeasureFolder]] = {}
    for item in measured:
        groups.setdefault(_way_of_asking(item), []).append(item)
    return [_group(groups[way]) for way in sorted(groups, key=lambda way: (-len(groups[way]), way))]


def garbled(measured: Measured) -> Estimate | None:
    """The share of garbled answers over all sets but the gate's, with Wilson's interval; None where there are none."""
    sets = [item for item in measured.sets if not item.guard]
    n = sum(item.n + item.unscored for item in sets)
    return wilson(sum(item.garbled for item in sets), n) if n else None


def board_page(groups: Sequence[Group]) -> str:
    """The page on `groups`, a function of them alone; what they hold is hostile, and goes the way of `page.page`."""
    style = asset("page.css")
    template = environment().get_template("leaderboard.html")
    return template.render(
        groups=groups, garbled=garbled, wishes=WISHES, colours=SERIES, style=Markup(style), style_hash=sha256_of(style)
    )


def _results_folders(paths: Sequence[Path]) -> list[Path]:
    """Those of `paths` that have results, and those in the others, each once."""
    if not paths:
        raise UserError("the leaderboard", "no folder", "at least one", "name a folder of `actor measure`")
    found: dict[Path, Path] = {}
    for path in paths:
        if not path.is_dir():
            what = "a file" if path.exists() else "no such folder"
            raise UserError(path, what, f"a folder with {Results.FILE}", "name the folder itself")
        inner = sorted(entry for entry in path.iterdir() if entry.is_dir()) if not _whole(path) else []
        for entry in inner:
            if not _whole(entry) and (entry / request.FILE).is_file():
                log.warning("%s is left out: its measurement did not end", entry)
        whole = [path] if _whole(path) else [entry for entry in inner if _whole(entry)]
        if not whole:
            expected, fix = f"{Results.FILE} in it, or in folders in it", "name a folder of `actor measure` that ended"
            raise UserError(path, "no results", expected, fix)
        for folder in whole:
            found.setdefault(folder.resolve(), folder)
    return [*found.values()]


def _whole(folder: Path) -> bool:
    return (folder / Results.FILE).is_file()


def _way_of_asking(item: MeasureFolder) -> str:
    """What scores hang on besides the model, as a hash: the prompts that they are made of, the limits, the judge.

    Not the hash that was stored, which is also of prompts that a gate added: whether one was asked changes no score.
    """
    asked = sorted(
        [row.after.set, row.after.kind, row.after.prompt, digest(row.after.context) or ""]
        for row in item.answers
        if row.after.set != GATE_SET
    )
    way = [item.results.judge, _tokens(item.results), asked]
    return hashlib.sha256(json.dumps(way).encode()).hexdigest()


def _tokens(results: Results) -> tuple[Any, Any]:
    settings = results.settings
    default = request.MeasureRequest.max_reasoning_tokens
    return settings.get("max_new_tokens"), settings.get("max_reasoning_tokens", default)


def _group(members: Sequence[MeasureFolder]) -> Group:
    def worse(item: MeasureFolder) -> tuple[float, str]:
        score = item.results.score("tradeoff_score")
        return (-score.value if score else 1.0), item.name

    ordered, first = sorted(members, key=worse), members[0].results
    places = [
        Place(rank if item.results.score("tradeoff_score") else None, item.name, item.results)
        for rank, item in enumerate(ordered, start=1)
    ]
    sets = [(item.name, item.kind, item.n + item.unscored) for item in first.sets if not item.guard]
    return Group(first.judge, _tokens(first), sets, places)


def _figures(measured: Measured) -> dict[str, Any]:
    found = {score: measured.score(score) for score in SCORES} | {"garbled": garbled(measured)}
    return {"model": measured.model} | {name: json_of(value) if value else None for name, value in found.items()}
