"""Verdicts on a model's answers. What it thought before it answered is never judged."""

import logging
from collections import Counter
from collections.abc import Sequence

from ..judges.readable import FILTERED, UNENDED
from ..judges.verdict import Judge, Verdict
from ..records.response import Response

log = logging.getLogger(__name__)


def verdicts_on(judge: Judge, responses: Sequence[Response]) -> list[Verdict]:
    """What `judge` says of each answer, in order.

    It is not asked where the reasoning did not end, or a filter stopped the answer: these are no answers of the model.
    """
    reasons = [_no_answer(response) for response in responses]
    answers = [response.exchange for response, reason in zip(responses, reasons, strict=True) if reason is None]
    said = iter(judge(answers) if answers else [])
    for reason, count in Counter(reason for reason in reasons if reason).items():
        log.warning("%d of %d answers are unscored: %s", count, len(responses), reason)
    return [next(said) if reason is None else Verdict("unscored", 0.5, reason) for reason in reasons]


def _no_answer(response: Response) -> str | None:
    if response.filtered:
        return FILTERED
    return UNENDED if response.only_thought else None
