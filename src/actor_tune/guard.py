"""The safety gate at the end of a fit: held-out harmful prompts, answered by the block as it was and as trained."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .engines.local import local_engine
from .errors import UserError
from .fit import Fit
from .gate import Gate, check_power, decide
from .judges import Exchange, Judge, Verdict
from .leakage import find_leaks, without
from .model import ChatModel
from .placement import held
from .prompts import Prompt, of_kind, starter_prompts
from .respond import Response, respond
from .train import loaded

ANSWER_TOKENS = 24
"""Enough to tell a refusal; the gate is the larger part of a fit's time on a CPU."""


@dataclass(frozen=True)
class Guarded:
    """The gate's decision, and what it rests on: the same prompts before and after."""

    gate: Gate
    before: list[Response]
    after: list[Response]
    verdicts_before: list[Verdict]
    verdicts_after: list[Verdict]


def guard_prompts(training: Sequence[Prompt], margin: float) -> list[Prompt]:
    """The built-in held-out harmful prompts, without those that are like a harmful prompt trained on.

    One that was trained on as benign stays: that is the very thing the gate is for.

    **Raises:** `UserError` when too few are left for the margin.
    """
    built_in = of_kind(starter_prompts("held_out"), "harmful")
    kept = without(built_in, find_leaks(built_in, training))
    try:
        check_power(len(kept), margin)
    except UserError as error:
        fix = "allow a larger drop" if len(kept) == len(built_in) else "do not train on the held-out starter prompts"
        raise UserError(error.where, f"{len(kept)} held-out harmful prompts", error.expected, fix) from None
    return kept


def guard(
    chat_model: ChatModel,
    result: Fit,
    prompts: Sequence[Prompt],
    margin: float,
    judge: Judge,
    batch_size: int | None = None,
) -> Guarded:
    """Answer `prompts` with the model as it is and with `result` in it, judge, decide. The model is left as it is.

    **Arguments:**

    - `batch_size`: prompts at a time, as for `engines.local.local_engine`.
    """
    before = _answers(chat_model, prompts, batch_size)
    block = chat_model.blocks[result.layer]
    with held(block), loaded(block, result.state):
        after = _answers(chat_model, prompts, batch_size)
    judged = [
        judge([Exchange(response.prompt.text, response.text) for response in responses])
        for responses in (before, after)
    ]
    return Guarded(decide(prompts, judged[0], judged[1], margin), before, after, judged[0], judged[1])


def _answers(chat_model: ChatModel, prompts: Sequence[Prompt], batch_size: int | None) -> list[Response]:
    with tempfile.TemporaryDirectory() as folder:
        return respond(local_engine(chat_model, batch_size), prompts, ANSWER_TOKENS, Path(folder) / "responses.jsonl")
