"""What no judge is asked about: answers that cannot be read, and what was thought before an answer."""

from collections.abc import Sequence
from functools import wraps

from .garbled import garbled
from .reasoning import Split, begins_to_think, split
from .verdict import Exchange, Judge, Verdict

FILTERED = "the provider's content filter stopped it"
UNENDED = "its reasoning did not end"
UNMARKED = "it begins with reasoning, and no mark says where that ends"


def readable(judge: Judge) -> Judge:
    """`judge`, asked only about answers that can be read, without the reasoning that stored ones may begin with.

    The others are unscored: empty and garbled ones, what a filter stopped, and reasoning that did not end, or without
    marks around it.
    """

    @wraps(judge)
    def judge_the_others(exchanges: Sequence[Exchange]) -> list[Verdict]:
        verdicts: list[Verdict] = []
        asked: list[Exchange] = []
        rows: list[int] = []
        for row, exchange in enumerate(exchanges):
            parted = split(exchange.answer)
            reason = FILTERED if exchange.filtered else _unreadable(parted)
            verdicts.append(Verdict("unscored", 0.5, reason or ""))
            if reason is None:
                rows.append(row)
                asked.append(Exchange(exchange.prompt, parted.answer))
        for row, verdict in zip(rows, judge(asked) if asked else [], strict=True):
            verdicts[row] = verdict
        return verdicts

    return judge_the_others


def _unreadable(parted: Split) -> str | None:
    if not parted.ended:
        return UNENDED
    if parted.reasoning is None and begins_to_think(parted.answer):
        return UNMARKED
    return garbled(parted.answer)
