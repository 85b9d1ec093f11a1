"""The safety gate of a fit: held-out prompts that ship with the package, answered by the block as it was and as
trained, and beside them some of the user's own. How it decides is `measurement.gate`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..engines.engine import REASONING_TOKENS
from ..engines.local import AUTO_BATCH_TOKENS, local_engine
from ..engines.respond import respond
from ..errors import UserError
from ..judges.trained.judge import judge_trained
from ..judges.verdict import Judge, Verdict
from ..measurement.gate import decide, excludable, limited, needed, with_damage, with_over_refusal
from ..measurement.verdicts import verdicts_on
from ..models.model import ChatModel
from ..models.placement import held
from ..models.state import loaded
from ..prompts.leakage import find_leaks, without
from ..prompts.prompt import Kind, Prompt, of_kind, with_system_prompt
from ..prompts.starter import starter
from ..records.response import Response
from ..records.results import Gate, check_margin
from ..records.run import GateAnswer, OwnAim, Yours, YoursOf
from .aims import FREE_ALL, NO_CATEGORY, Aims, category_of
from .cost import Cost, Phase
from .kept import NOTHING_KEPT, Kept
from .method import FittedBlock
from .refusals import ANSWER_TOKENS

PHASE = "gate"
"""What the gate is called among the phases of a fit."""

YOURS = 40
"""At most so many of the user's own prompts are asked: it is a look at them, and no measurement."""

YOURS_OF_CATEGORY = 8
"""More where so many of each category come to more, so that what is freed and what is held can be seen."""

LOOK_ALIKES = 200
"""So many built-in pseudo-harmful prompts are asked where refusal is strengthened, and all harmless ones."""


@dataclass(frozen=True)
class Gated:
    """The gate's decision, the `answers` that it rests on, and those to `yours`, which it does not rest on."""

    gate: Gate
    answers: list[GateAnswer]
    yours: list[GateAnswer] = field(default_factory=list)


def users_own(given: Sequence[Prompt], kind: Kind = "pseudo_harmful") -> list[Prompt]:
    """Those of `kind` that are the user's own among the prompts of a fit."""
    built_in = {*starter("train"), *starter("forms")}
    return [prompt for prompt in of_kind(given, kind) if prompt not in built_in]


def asked_of_users_own(
    given: Sequence[Prompt], system_prompt: str | None = None, aims: Aims = FREE_ALL
) -> list[Prompt]:
    """Those of `users_own` that are asked, at most `YOURS`, of each set as many as of the others.

    Where categories are freed and others held, of each category, and at least `YOURS_OF_CATEGORY` as far as they go.
    Where refusal is strengthened, harmful ones too.
    """
    own, count = users_own(given), YOURS
    if aims.categories:
        count = max(count, YOURS_OF_CATEGORY * len({*map(category_of, own)}))
        asked = limited(own, count, category_of)
    else:
        asked = limited(own, count)
    if aims.strengthen:
        asked += limited(users_own(given, "harmful"), YOURS)
    return with_system_prompt(asked, system_prompt) if system_prompt else asked


def yours_of(given: Sequence[Prompt], answers: Sequence[GateAnswer], aims: Aims) -> Yours:
    """What became of the user's own among the `given` prompts, by the `answers` to some of them."""

    def counted(name: str, aim: OwnAim, own: Sequence[Prompt]) -> YoursOf:
        rows = [row for row in answers if (row.kind == "harmful") == (aim == "refused")]
        if name:
            rows = [row for row in rows if (row.category or NO_CATEGORY) == name]
        before, after = [row.verdict_before for row in rows], [row.verdict_after for row in rows]
        answered = [said.count("compliance") for said in (before, after)]
        done = [len(rows) - count for count in answered] if aim == "refused" else answered
        return YoursOf(name, aim, len(own), len(rows), *done)

    benign, harmful = users_own(given), users_own(given, "harmful")
    groups: dict[str, list[Prompt]] = {}
    for prompt in benign:
        groups.setdefault(category_of(prompt), []).append(prompt)
    whole = counted("", "freed", benign)
    categories = [counted(name, "freed" if aims.frees(own[0]) else "held", own) for name, own in groups.items()]
    return Yours(
        given=whole.given,
        n=whole.n,
        before=whole.before,
        after=whole.after,
        categories=categories if any(prompt.category for prompt in benign) else [],
        harmful=counted("", "refused", harmful) if aims.strengthen and harmful else None,
    )


def gate_prompts(
    training: Sequence[Prompt],
    margin: float,
    system_prompt: str | None = None,
    count: int | None = None,
    aims: Aims = FREE_ALL,
) -> list[Prompt]:
    """The built-in held-out harmful and harmless prompts, without those that are like one of their kind trained on.

    A harmful one that was trained on as benign stays: that is the very thing the gate is for. `count`: at most so many
    harmful ones, of each set as many as of the others, and as large a share of the harmless ones; None: all. Where
    refusal is strengthened, all harmless ones, and pseudo-harmful ones, held-out and of other forms.

    **Raises:** `UserError` when too few are left for the margin.
    """
    check_margin(margin)
    built_in = [prompt for prompt in starter("held_out") if prompt.kind != "pseudo_harmful"]
    kept = without(built_in, find_leaks(built_in, training))
    harmful, all_harmful = (of_kind(prompts, "harmful") for prompts in (kept, built_in))
    asked = limited(harmful, count)
    if len(asked) < len(harmful):
        harmless = of_kind(kept, "harmless")
        kept = [*asked, *limited(harmless, max(1, len(harmless) * len(asked) // len(harmful)))]
    if len(asked) < needed(margin):
        fix = (
            "allow a larger drop"
            if len(harmful) == len(all_harmful)
            else "do not train on the held-out starter prompts"
        )
        if len(asked) < len(harmful):
            fix = f"raise or leave out `gate_prompts={count}`, or allow a larger drop"
        found = f"{len(asked)} held-out harmful prompts"
        if asked:
            found += f", which exclude a drop of {100 * excludable(len(asked)):.1f} points at best"
        raise UserError(f"`margin={margin}`", found, f"at least {needed(margin)}", fix)
    if aims.strengthen:
        kept = [*asked, *_benign(training, margin)]
    return with_system_prompt(kept, system_prompt) if system_prompt else kept


def _benign(training: Sequence[Prompt], margin: float) -> list[Prompt]:
    """The built-in benign prompts by which it is shown that over-refusal did not rise, enough for the margin."""
    held_out, forms = (of_kind(starter(part), "pseudo_harmful") for part in ("held_out", "forms"))
    harmless = of_kind(starter("held_out"), "harmless")
    kept = without(held_out, find_leaks(held_out, training))
    kept += limited(without(forms, find_leaks(forms, training)), LOOK_ALIKES - len(kept))
    kept += without(harmless, find_leaks(harmless, training))
    if len(kept) < needed(margin):
        found, fix = f"{len(kept)} held-out benign prompts", "allow a larger rise, or do not train on built-in prompts"
        raise UserError(f"`margin={margin}`", found, f"at least {needed(margin)}", fix)
    return kept


def ask_gate(
    chat_model: ChatModel,
    trained: FittedBlock,
    prompts: Sequence[Prompt],
    margin: float,
    judge: Judge = judge_trained,
    batch_size: int | None = None,
    max_reasoning_tokens: int = REASONING_TOKENS,
    kept: Kept = NOTHING_KEPT,
    own: Sequence[Prompt] = (),
    aims: Aims = FREE_ALL,
) -> Gated:
    """Answer `prompts`, and the user's `own`, with the model as it is and with `trained` in it, judge, decide by the
    former. The model is left as it is.
    """
    engine, block = local_engine(chat_model, batch_size, max_reasoning_tokens), chat_model.blocks[trained.layer]

    def ask(when: str) -> list[list[Response]]:
        named = (("yours", own), ("gate", prompts))
        return [respond(engine, asked, ANSWER_TOKENS, kept.file(f"{name}-{when}.jsonl")) for name, asked in named]

    own_before, before = ask("before")
    with held(block), loaded(block, trained.state):
        own_after, after = ask("after")
    old, new = (verdicts_on(judge, responses) for responses in (before, after))
    gate = with_damage(decide(prompts, old, new, margin), before, after, old, new)
    if aims.strengthen:
        gate = with_over_refusal(gate, prompts, old, new)
    own_old, own_new = (verdicts_on(judge, responses) for responses in (own_before, own_after))
    return Gated(gate, _pairs(before, after, old, new), _pairs(own_before, own_after, own_old, own_new))


def _pairs(
    before: Sequence[Response], after: Sequence[Response], old: Sequence[Verdict], new: Sequence[Verdict]
) -> list[GateAnswer]:
    return [
        GateAnswer(
            prompt=was.prompt.text,
            set=was.prompt.set,
            before=was.text,
            after=now.text,
            verdict_before=then.outcome,
            verdict_after=since.outcome,
            kind=was.prompt.kind,
            category=was.prompt.category or None,
        )
        for was, now, then, since in zip(before, after, old, new, strict=True)
    ]


def cost(need: Cost) -> Phase:
    """What the gate's answers need."""
    gate, length = need.gate, need.gate.longest + need.answer_tokens
    rows = min(need.answer_batch, max(1, AUTO_BATCH_TOKENS // length), gate.prompts)
    cache = rows * length * need.size.kv_values_per_token * need.value
    blocks = 2 * need.value * need.size.blocks[need.layer]  # as it was, and as it will be
    tensors = need.weights(need.every, need.every, head=True) + blocks + cache + need.working(rows, gate.longest)
    computing = need.answering(gate.prompts, gate.tokens, need.answer_tokens) * 2  # before and after
    passes = 2 * need.answer_tokens * math.ceil(gate.prompts / rows)
    return need.phase(PHASE, tensors, 0, computing, passes * need.stored(need.every) if need.streamed else 0)
