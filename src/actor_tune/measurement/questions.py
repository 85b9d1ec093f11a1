"""What a measurement asks. Harmful prompts always too."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..errors import UserError
from ..prompts.leakage import Leak, find_leaks, without
from ..prompts.prompt import Prompt, distinct, limit_per_set, of_kind, with_system_prompt
from ..prompts.starter import starter
from ..prompts.trace import Trace
from ..records.results import GATE_SET, check_margin
from .gate import check_power, excludable, limited

log = logging.getLogger(__name__)

ADDED = 100
"""Built-in harmful prompts beside benign ones, where no gate asks for more: at most 10 points each way."""


@dataclass(frozen=True)
class Questions:
    """What is going to be measured.

    - `prompts`: in order, without those in `leaks`.
    - `leaks`: prompts kept out, because the model was trained on something like them.
    - `margin`: how far refusal of harmful prompts may fall, 0..1; None where no gate was asked for.
    - `limit`, `system_prompt`, `gate_prompts`: as they were given.
    """

    prompts: list[Prompt]
    leaks: list[Leak]
    margin: float | None = None
    limit: int | None = None
    system_prompt: str | None = None
    gate_prompts: int | None = None

    @property
    def of_the_gate(self) -> list[Prompt]:
        """Those that the safety gate added."""
        return [prompt for prompt in self.prompts if prompt.set == GATE_SET]


def questions(
    prompts: Sequence[Prompt],
    trained_on: Sequence[Prompt | Trace] = (),
    margin: float | None = None,
    limit: int | None = None,
    system_prompt: str | None = None,
    gate_prompts: int | None = None,
) -> Questions:
    """What a measurement asks.

    ```python
    before = at.answer(model, at.questions(prompts, margin=0.05).prompts)
    ```

    Built-in held-out harmful prompts are added where none are given, `ADDED` of them, because a compliance rate alone
    praises a model that answers everything; and for a gate always, all of them, because the given ones may be
    mislabelled or few.

    **Arguments:**

    - `trained_on`: what the model was trained on, as far as known.
    - `limit`: at most so many prompts of each set; the gate's own are never cut.
    - `system_prompt`: for every prompt that has none of its own, the built-in ones too.
    - `gate_prompts`: at most so many built-in prompts for the gate, of each set as many as of the others; fewer exclude
      only a larger drop, which is logged.

    **Raises:** `UserError` when nothing is left to measure, a prompt is given under two kinds, or there are too few
    harmful prompts for the margin.
    """
    _check(margin, gate_prompts)
    every = of_kind(starter("held_out"), "harmful")
    built_in = limited(every, gate_prompts)
    wanted = _wanted(prompts, limited(every, ADDED) if margin is None else built_in, limit)
    if margin is not None:
        # Those given in a conversation of their own are another question.
        given = {prompt.text for prompt in wanted if prompt.kind == "harmful" and not prompt.context}
        others = [prompt for prompt in (every if of_kind(prompts, "harmful") else built_in) if prompt.text not in given]
        wanted += [replace(prompt, set=GATE_SET) for prompt in limited(others, gate_prompts)]
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
        said = "%d prompts are like some that were trained on: kept out, listed in the results; ask others"
        log.warning(said, len(leaks))
    benign = sum(prompt.kind != "harmful" for prompt in wanted)
    if not kept or (benign and len(of_kind(kept, "harmful")) == len(kept)):
        found = f"all {benign} benign ones were trained on" if kept else "all were trained on"
        fix = "ask others; what became of these, the report on the fit shows (`actor report`)"
        raise UserError("prompts", found, "some that were not", fix)
    asked = Questions(kept, leaks, margin, limit, system_prompt, gate_prompts)
    if margin is not None:
        check_power(len(of_kind(kept, "harmful")), margin, gate_prompts)
        _tell(asked, every)
    return asked


def _wanted(prompts: Sequence[Prompt], built_in: Sequence[Prompt], limit: int | None) -> list[Prompt]:
    """The given `prompts`, and the `built_in` harmful ones where none are among them, up to `limit` of each set."""
    if not prompts:
        raise UserError("prompts", "none", "at least one", "give `prompts=FILE`")
    if any(prompt.set == GATE_SET for prompt in prompts):
        raise UserError("prompts", f"a set named {GATE_SET}", "another name: that one is the gate's", "rename the set")
    wanted = distinct(prompts)
    if of_kind(wanted, "harmful"):
        return limit_per_set(wanted, limit) if limit else wanted
    wanted = distinct([*wanted, *built_in])
    wanted = limit_per_set(wanted, limit) if limit else wanted
    added = len(of_kind(wanted, "harmful"))
    said = "no harmful prompts given: %d built-in held-out ones are measured too; give yours with `harmful=FILE`"
    log.warning(said, added)
    return wanted


def _check(margin: float | None, gate_prompts: int | None) -> None:
    """Stop at what is wrong whatever the prompts are."""
    if margin is not None:
        check_margin(margin)
    elif gate_prompts is not None:
        where, fix = f"`gate_prompts={gate_prompts}`", "add `margin=0.05`, or leave this out"
        raise UserError(where, "no `margin=`", "a safety gate that asks them", fix)


def _tell(asked: Questions, every: Sequence[Prompt]) -> None:
    """Say what the gate adds to the prompts, and where it may not ask `every` one that is built in, what that costs."""
    harmful, own, built_in = of_kind(asked.prompts, "harmful"), len(asked.of_the_gate), len(every)
    if own:
        log.info("the safety gate adds %d built-in harmful prompts to your %d prompts", own, len(asked.prompts) - own)
    texts = {prompt.text for prompt in every}
    used = own or sum(prompt.text in texts for prompt in harmful)  # where none are given, none are added
    if used < built_in and asked.gate_prompts is not None:
        alone = 100 * excludable(used)
        said = "%d of %d built-in harmful prompts: all %d harmful ones exclude a drop of %.1f points at best"
        said += ", the built-in ones alone one of %.1f points"
        log.warning(said, used, built_in, len(harmful), 100 * excludable(len(harmful)), alone)
