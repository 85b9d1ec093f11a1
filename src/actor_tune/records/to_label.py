"""Which answers of a measurement a person should label, and in which order."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import UserError
from ..judges.sampling import doubt, drawn, lot
from ..judges.verdict import Outcome
from ..prompts.prompt import Kind
from .file import json_of
from .labels import Label, Labels, Side
from .response import BASELINE_FILE, RESPONSES_FILE, Pair, ResponseRow, paired, read_judged

LABELLED_PROMPTS = 60
"""How many prompts are chosen for labels."""


@dataclass(frozen=True)
class Chosen:
    """An answer to label.

    - `sides`: whose answer it is: both, where model and baseline said the same, which is then asked once.
    - `probability`: with which its prompt was chosen, 0..1.
    """

    row: ResponseRow
    sides: tuple[Side, ...]
    probability: float

    def labels(self, outcome: Outcome) -> list[Label]:
        """The labels that one `outcome` gives."""
        row = self.row
        return [
            Label(
                which=side,
                set=row.set,
                kind=row.kind,
                prompt=row.prompt,
                response=row.response,
                label=outcome,
                probability=self.probability,
            )
            for side in self.sides
        ]


def choose(pairs: Sequence[Pair], n: int = LABELLED_PROMPTS) -> list[Chosen]:
    """The answers to `n` prompts of `pairs` (of all, where there are not more), in the order to label them in.

    Kinds get as many each, and so do the sets of a kind. Within a set, prompts are drawn by the judge's doubt
    (`judges.sampling`), the same for model and baseline, so that differences are paired. The same pairs give the same
    prompts; a larger `n` gives them and more. Answers that the judge could not score are in no rate, and left out.

    The order is random, so that whoever stops early has labelled a smaller sample of the same design.
    """
    groups: dict[Kind, dict[str, list[tuple[str, Pair]]]] = {}
    seen: dict[str, int] = {}
    for pair in pairs:
        if _scored(pair):
            row = pair.after
            text = json.dumps([row.set, row.kind, row.prompt, json_of(row.context)])
            seen[text] = seen.get(text, 0) + 1
            groups.setdefault(row.kind, {}).setdefault(row.set, []).append((f"{text} {seen[text]}", pair))
    kinds = _equal_parts([sum(map(len, sets.values())) for sets in groups.values()], n)
    found: list[tuple[str, Pair, float]] = []
    for sets, part in zip(groups.values(), kinds, strict=True):
        parts = _equal_parts([len(members) for members in sets.values()], part)
        for members, size in zip(sets.values(), parts, strict=True):
            doubts = [max(doubt(row.score or 0.0) for row, _ in _scored(pair)) for _, pair in members]
            for place, probability in drawn([key for key, _ in members], doubts, size).items():
                found.append((*members[place], probability))
    found.sort(key=lambda item: lot(f"order {item[0]}"))
    return [chosen for key, pair, probability in found for chosen in _answers(key, pair, probability)]


def read_pairs(folder: Path) -> list[Pair]:
    """The judged answers of a measurement in `folder`, each with its baseline's where there is one.

    **Raises:** `UserError` when they are missing or damaged, or were not judged yet.
    """
    before = read_judged(folder / BASELINE_FILE) if (folder / BASELINE_FILE).exists() else []
    return paired(before, read_judged(folder / RESPONSES_FILE))


def check_sample(labels: Sequence[Label], chosen: Sequence[Chosen], where: object) -> list[Label]:
    """`labels` as they were given, with the probabilities of the sample `chosen`, which may have grown since.

    **Raises:** `UserError` naming `where` when some are of answers that are not in it.
    """
    known = Labels([label for one in chosen for label in one.labels("unscored")])
    found = []
    for label in labels:
        now = known.find(label.which, label.prompt, label.response, label.set, label.kind)
        if now is None:
            what = "labels of answers that are not among those chosen now"
            fix = "ask for as many as before or more (`n=`), or move the file away"
            raise UserError(where, what, "labels of the same sample", fix)
        found.append(replace(label, probability=now.probability))
    return found


def _scored(pair: Pair) -> list[tuple[ResponseRow, Side]]:
    """The answers of `pair` that the judge could score."""
    both: list[tuple[ResponseRow | None, Side]] = [(pair.before, "baseline"), (pair.after, "responses")]
    return [(row, side) for row, side in both if row is not None and row.refused is not None]


def _answers(key: str, pair: Pair, probability: float) -> list[Chosen]:
    """The answers of one prompt, side by side and in random order, so that nothing tells which is the baseline's."""
    answers = _scored(pair)
    if len(answers) == 2 and answers[0][0].response == answers[1][0].response:
        return [Chosen(pair.after, ("responses", "baseline"), probability)]
    answers.sort(key=lambda item: lot(f"{item[1]} {key}"))
    return [Chosen(row, (side,), probability) for row, side in answers]


def _equal_parts(sizes: Sequence[int], n: int) -> list[int]:
    """`n` in parts as equal as may be, none larger than its size."""
    parts = [0] * len(sizes)
    left = min(n, sum(sizes))
    while left:
        open_ = [place for place, size in enumerate(sizes) if parts[place] < size]
        for place in open_[:left]:
            parts[place] += 1
        left -= min(left, len(open_))
    return parts
