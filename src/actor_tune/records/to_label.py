"""Which answers of a measurement a person should label, and in which order."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path

from ..errors import UserError
from ..judges.sampling import Drawn, doubt, drawn, lot
from ..judges.verdict import Outcome
from ..prompts.prompt import Kind
from .file import json_of
from .labels import Label, Labels, Side, digest
from .response import BASELINE_FILE, RESPONSES_FILE, Pair, ResponseRow, SetAndKind, paired, read_judged

LABELLED_PROMPTS = 60
"""How many prompts are chosen for labels."""


@dataclass(frozen=True)
class Chosen:
    """An answer to label.

    - `sides`: whose answer it is: both, where model and baseline said the same, which is then asked once.
    - `drawn`: how its prompt was chosen, of all of its set.
    """

    row: ResponseRow
    sides: tuple[Side, ...]
    drawn: Drawn


def choose(pairs: Sequence[Pair], n: int = LABELLED_PROMPTS) -> list[Chosen]:
    """The answers to `n` prompts of `pairs` (of all, where there are not more), in the order to label them in.

    Kinds get as many each, and so do the sets of a kind. Within a set, prompts are drawn by the judge's doubt
    (`judges.sampling`), the same for model and baseline, so that differences are paired. The same pairs give the same
    prompts; a larger `n` gives them and more. Answers that the judge could not score are in no rate, and left out.

    Within a set the order is that of ranks, and all sets go on alike, so that whoever stops early has labelled a
    smaller sample of the same design.
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
    found: list[tuple[float, float, list[Chosen]]] = []
    for sets, part in zip(groups.values(), kinds, strict=True):
        parts = _equal_parts([len(members) for members in sets.values()], part)
        for members, size in zip(sets.values(), parts, strict=True):
            found += _chosen(members, size)
    return [one for *_, answers in sorted(found, key=lambda item: item[:2]) for one in answers]


def _chosen(members: Sequence[tuple[str, Pair]], size: int) -> list[tuple[float, float, list[Chosen]]]:
    """Of one set, the answers to `size` prompts, each with how much of the set comes before it and a random number."""
    doubts = [max(doubt(row.score or 0.0) for row, _ in _scored(pair)) for _, pair in members]
    found = drawn([key for key, _ in members], doubts, size)
    return [
        (before / size, lot(f"order {members[number][0]}"), _answers(*members[number], found[number]))
        for before, number in enumerate(found)
    ]


def labels_of(chosen: Sequence[Chosen], said: Mapping[int, Outcome], earlier: Sequence[Label] = ()) -> list[Label]:
    """The labels that what is `said` so far gives, by number of `chosen`, with the probabilities of so small a sample.

    Of a set, the labelled answers are those of the smallest ranks up to the first without a label: the sample that
    would have been chosen, had so many been asked for. A label after that one, which is there where verdicts have
    changed since, keeps the probability that it had `earlier`.
    """
    known = Labels(earlier)
    first_open: dict[tuple[Side, SetAndKind], float] = {}
    for number, one in enumerate(chosen):
        for side in one.sides:
            rank, where = one.drawn.beyond if number in said else one.drawn.rank, (side, one.row.set_and_kind)
            first_open[where] = min(rank, first_open.get(where, inf))
    labels = []
    for number, outcome in sorted(said.items()):
        one, row = chosen[number], chosen[number].row
        for side in one.sides:
            beyond, before = first_open[side, row.set_and_kind], known.of(side, row)
            keeps = before is not None and one.drawn.rank > beyond
            labels.append(
                Label(
                    which=side,
                    set=row.set,
                    kind=row.kind,
                    context=digest(row.context),
                    prompt=row.prompt,
                    response=row.response,
                    label=outcome,
                    probability=before.probability if before and keeps else one.drawn.probability(beyond),
                )
            )
    return labels


def read_pairs(folder: Path) -> list[Pair]:
    """The judged answers of a measurement in `folder`, each with its baseline's where there is one.

    **Raises:** `UserError` when they are missing or damaged, or were not judged yet.
    """
    before = read_judged(folder / BASELINE_FILE) if (folder / BASELINE_FILE).exists() else []
    return paired(before, read_judged(folder / RESPONSES_FILE))


def said_before(labels: Sequence[Label], chosen: Sequence[Chosen], where: object) -> dict[int, Outcome]:
    """What `labels` say of the `chosen`, by their number.

    **Raises:** `UserError` naming `where` when some are of answers that are not among them.
    """
    known = Labels(labels)
    said = {}
    for number, one in enumerate(chosen):
        found = [label for side in one.sides if (label := known.of(side, one.row))]
        if len(found) == len(one.sides):
            said[number] = found[-1].label
    if known.unmatched:
        what = f"{known.unmatched} labels of answers that are not among those chosen now"
        fix = "ask for as many as before or more (`n=`), or move the file away"
        raise UserError(where, what, "labels of the same sample", fix)
    return said


def _scored(pair: Pair) -> list[tuple[ResponseRow, Side]]:
    """The answers of `pair` that the judge could score."""
    both: list[tuple[ResponseRow | None, Side]] = [(pair.before, "baseline"), (pair.after, "responses")]
    return [(row, side) for row, side in both if row is not None and row.refused is not None]


def _answers(key: str, pair: Pair, drawn: Drawn) -> list[Chosen]:
    """The answers of one prompt, side by side and in random order, so that nothing tells which is the baseline's."""
    answers = _scored(pair)
    if len(answers) == 2 and answers[0][0].response == answers[1][0].response:
        return [Chosen(pair.after, ("responses", "baseline"), drawn)]
    answers.sort(key=lambda item: lot(f"{item[1]} {key}"))
    return [Chosen(row, (side,), drawn) for row, side in answers]


def _equal_parts(sizes: Sequence[int], n: int) -> list[int]:
    """`n` in parts as equal as may be, none larger than its size."""
    parts = [0] * len(sizes)
    left = min(n, sum(sizes))
    while left:
        open_ = [part for part, size in enumerate(sizes) if parts[part] < size]
        for part in open_[:left]:
            parts[part] += 1
        left -= min(left, len(open_))
    return parts
