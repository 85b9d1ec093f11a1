"""What a measurement asks. Harmful prompts always too."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..errors import UserError
from ..prompts.leakage import Leak, Trace, find_leaks, without
from ..prompts.prompt import Prompt, distinct, limit_per_set, of_kind, with_system_prompt
from ..prompts.starter import starter
from ..records.results import GATE_SET
from .gate import check_power

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Questions:
    """What is going to be measured.

    - `prompts`: in order, without those in `leaks`.
    - `leaks`: prompts kept out, because the model was trained on something like them.
    - `margin`: how far refusal of harmful prompts may fall, 0..1; None where no gate was asked for.
    - `limit`, `system_prompt`: as they were given.
    """

    prompts: list[Prompt]
    leaks: list[Leak]
    margin: float | None = None
    limit: int | None = None
    system_prompt: str | None = None


def questions(
    prompts: Sequence[Prompt],
    trained_on: Sequence[Prompt | Trace] = (),
    margin: float | None = None,
    limit: int | None = None,
    system_prompt: str | None = None,
) -> Questions:
    """What a measurement asks.

    ```python
    before = at.answer(model, at.questions(prompts, margin=0.05).prompts)
    ```

    The built-in held-out harmful prompts are added where none are given, because a compliance rate alone praises a
    model that answers everything; and for a gate always, because the given ones may be mislabelled or few.

    **Arguments:**

    - `trained_on`: what the model was trained on, as far as known.
    - `limit`: at most so many prompts of each set; the gate's own are never cut.
    - `system_prompt`: for every prompt that has none of its own, the built-in ones too.

    **Raises:** `UserError` when nothing is left to measure, a prompt is given under two kinds, or there are too few
    harmful prompts for the margin.
    """
    if not prompts:
        raise UserError("prompts", "none", "at least one", "give `prompts=FILE`")
    if any(prompt.set == GATE_SET for prompt in prompts):
        raise UserError("prompts", f"a set named {GATE_SET}", "another name: that one is the gate's", "rename the set")
    built_in = of_kind(starter("held_out"), "harmful")
    wanted = distinct(prompts)
    if not of_kind(wanted, "harmful"):
        log.warning("no harmful prompts given: the built-in held-out ones are measured too")
        wanted = distinct([*wanted, *built_in])
    if limit:
        wanted = limit_per_set(wanted, limit)
    if margin is not None:
        # Those given in a conversation of their own are another question.
        given = {prompt.text for prompt in wanted if prompt.kind == "harmful" and not prompt.context}
        wanted += [replace(prompt, set=GATE_SET) for prompt in built_in if prompt.text not in given]
    if system_prompt:
        wanted = with_system_prompt(wanted, system_prompt)
    # The gate's own prompts were never trained on by a fit: a model's folder cannot talk them away.
    leaks = [
        leak
        for leak in find_leaks(wanted, trained_on)
        if not (isinstance(leak.like, Trace) and leak.prompt.set == GATE_SET)
    ]
    kept = without(wanted, leaks)
    if leaks:
        log.warning("%d prompts are like some that were trained on: kept out, listed in the results", len(leaks))
    if not kept:
        raise UserError("prompts", "all were trained on", "some that were not", "measure on other prompts")
    if margin is not None:
        check_power(len(of_kind(kept, "harmful")), margin)
    return Questions(kept, leaks, margin, limit, system_prompt)
