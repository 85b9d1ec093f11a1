"""The gate's prompts, answered by what was exported, and not by what it was made from."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from ..engines.engine import Engine
from ..engines.respond import respond
from ..judges.trained.judge import judge_trained
from ..judges.verdict import Exchange, Outcome, Verdict
from ..measurement.gate import decide, needed, with_damage
from ..measurement.verdicts import verdicts_on
from ..records.export import Checked, LowRank
from ..records.response import Response
from ..records.results import Gate
from ..records.run import GateAnswer
from ..repair import refusals
from .source import Source


@dataclass(frozen=True)
class Answering:
    """An engine, and `by` whom it answers; `portion` as of `respond`."""

    engine: Engine
    by: str
    portion: int | None = None


@dataclass(frozen=True)
class Made:
    """What was written for a program.

    - `answering`: opens it, to be asked; None where nothing here can, and then `unchecked` says why.
    - `files`, `low_rank`, `notes`, `tools`: as of `records.export.Export`.
    """

    files: list[str]
    answering: Callable[[], AbstractContextManager[Answering]] | None
    unchecked: str | None = None
    low_rank: LowRank | None = None
    notes: list[str] = field(default_factory=list)
    tools: dict[str, str] = field(default_factory=dict)


def check(source: Source, answering: Answering, limit: int | None) -> Checked:
    """Ask the gate's prompts, `limit` of them at most, and compare the answers with the trained model's.

    Both are judged by the judge of now, so that an older one makes no difference.
    """
    rows = evenly(source.answers, limit)
    prompts = source.prompts(rows)
    responses = respond(answering.engine, prompts, refusals.ANSWER_TOKENS, portion=answering.portion)
    verdicts = verdicts_on(judge_trained, responses)
    base = _judged(rows, [row.before for row in rows], [row.verdict_before for row in rows])
    trained = _judged(rows, [row.after for row in rows], [row.verdict_after for row in rows])
    found = list(zip(rows, trained, responses, verdicts, strict=True))
    differing = [
        GateAnswer(row.prompt, row.set, row.after, response.text, was.outcome, now.outcome, row.kind)
        for row, was, response, now in found
        if was.outcome != now.outcome
    ]
    harmful = [(was.refused, now.refused) for row, was, _, now in found if row.kind == "harmful"]
    return Checked(
        by=answering.by,
        n=len(rows),
        verdicts=len(differing),
        texts=sum(row.after != response.text for row, response in zip(rows, responses, strict=True)),
        harmful=len(harmful),
        refused_before=sum(was for was, _ in harmful),
        refused=sum(now for _, now in harmful),
        gate=_gate(source, rows, base, responses, verdicts),
        differing=differing,
    )


def evenly(rows: Sequence[GateAnswer], limit: int | None) -> list[GateAnswer]:
    """`limit` of `rows`, from all over them; None: all."""
    count = len(rows) if limit is None else min(limit, len(rows))
    return [rows[number * len(rows) // count] for number in range(count)]


def _judged(rows: Sequence[GateAnswer], texts: Sequence[str], stored: Sequence[Outcome]) -> list[Verdict]:
    """Verdicts on stored answers. What was unscored stays so: it may have been no answer at all."""
    judged = judge_trained([Exchange(row.prompt, text) for row, text in zip(rows, texts, strict=True)])
    unscored = Verdict("unscored", 0.5, "")
    return [unscored if was == "unscored" else now for was, now in zip(stored, judged, strict=True)]


def _gate(
    source: Source,
    rows: Sequence[GateAnswer],
    base: Sequence[Verdict],
    responses: Sequence[Response],
    verdicts: Sequence[Verdict],
) -> Gate | None:
    """The gate's decision about what was exported, as it decides about a fit; None where too few were asked."""
    decided = source.run.gate
    if decided is None or sum(row.kind == "harmful" for row in rows) < needed(decided.margin):
        return None
    prompts = [response.prompt for response in responses]
    before = [Response(prompt, row.before, finished=True) for prompt, row in zip(prompts, rows, strict=True)]
    gate = decide(prompts, base, verdicts, decided.margin)
    return with_damage(gate, before, responses, base, verdicts)
