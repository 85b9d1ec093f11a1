"""Verdicts on a model's answers. What it thought before it answered is never judged."""

import logging
from collections.abc import Sequence

from ..judges.verdict import Judge, Verdict
from ..records.response import Response

log = logging.getLogger(__name__)


def verdicts_on(judge: Judge, responses: Sequence[Response]) -> list[Verdict]:
    """What `judge` says of each answer, in order; it is not asked where the reasoning did not end."""
    answers = [response.exchange for response in responses if not response.only_thought]
    said = iter(judge(answers) if answers else [])
    thinking = Verdict("unscored", 0.5, "its reasoning did not end")
    if missing := len(responses) - len(answers):
        log.warning("%d of %d answers are unscored: their reasoning did not end", missing, len(responses))
    return [thinking if response.only_thought else next(said) for response in responses]
