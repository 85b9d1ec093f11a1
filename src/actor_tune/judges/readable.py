"""What no judge is asked about: answers that cannot be read, and what was thought before an answer."""

from collections.abc import Sequence
from functools import wraps

from .garbled import garbled
from .reasoning import split
from .verdict import Exchange, Judge, Verdict

UNENDED = "its reasoning did not end"


def readable(judge: Judge) -> Judge:
    """`judge`, asked only about answers that can be read, without the reasoning that stored ones may begin with.

    The others are unscored: empty and garbled ones, and reasoning that did not end.
    """

    @wraps(judge)
    def judge_the_others(exchanges: Sequence[Exchange]) -> list[Verdict]:
        verdicts: list[Verdict] = []
        asked: list[Exchange] = []
        rows: list[int] = []
        for row, exchange in enumerate(exchanges):
            parted = split(exchange.answer)
            reason = garbled(parted.answer) if parted.ended else UNENDED
            verdicts.append(Verdict("unscored", 0.5, reason or ""))
            if reason is None:
                rows.append(row)
                asked.append(Exchange(exchange.prompt, parted.answer))
        for row, verdict in zip(rows, judge(asked) if asked else [], strict=True):
            verdicts[row] = verdict
        return verdicts

    return judge_the_others
