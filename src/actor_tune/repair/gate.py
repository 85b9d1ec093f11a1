"""The safety gate of a fit: held-out prompts that ship with the package, answered by the block as it was and as
trained. How it decides is `measurement.gate`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..engines.engine import REASONING_TOKENS
from ..engines.local import AUTO_BATCH_TOKENS, local_engine
from ..engines.respond import respond
from ..errors import UserError
from ..judges.trained.judge import judge_trained
from ..judges.verdict import Judge
from ..measurement.gate import decide, excludable, limited, needed, with_damage
from ..measurement.verdicts import verdicts_on
from ..models.model import ChatModel
from ..models.placement import held
from ..models.state import loaded
from ..prompts.leakage import find_leaks, without
from ..prompts.prompt import Prompt, of_kind, with_system_prompt
from ..prompts.starter import starter
from ..records.results import Gate, check_margin
from ..records.run import GateAnswer
from .cost import Cost, Phase
from .kept import NOTHING_KEPT, Kept
from .method import FittedBlock
from .refusals import ANSWER_TOKENS

PHASE = "gate"
"""What the gate is called among the phases of a fit."""


@dataclass(frozen=True)
class Gated:
    """The gate's decision, and what it rests on."""

    gate: Gate
    answers: list[GateAnswer]


def gate_prompts(
    training: Sequence[Prompt], margin: float, system_prompt: str | None = None, count: int | None = None
) -> list[Prompt]:
    """The built-in held-out harmful and harmless prompts, without those that are like one of their kind trained on.

    A harmful one that was trained on as benign stays: that is the very thing the gate is for. `count`: at most so many
    harmful ones, of each set as many as of the others, and as large a share of the harmless ones; None: all.

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
    return with_system_prompt(kept, system_prompt) if system_prompt else kept


def ask_gate(
    chat_model: ChatModel,
    trained: FittedBlock,
    prompts: Sequence[Prompt],
    margin: float,
    judge: Judge = judge_trained,
    batch_size: int | None = None,
    max_reasoning_tokens: int = REASONING_TOKENS,
    kept: Kept = NOTHING_KEPT,
) -> Gated:
    """Answer `prompts` with the model as it is and with `trained` in it, judge, decide. The model is left as it is."""
    engine, block = local_engine(chat_model, batch_size, max_reasoning_tokens), chat_model.blocks[trained.layer]
    before = respond(engine, prompts, ANSWER_TOKENS, kept.file("gate-before.jsonl"))
    with held(block), loaded(block, trained.state):
        after = respond(engine, prompts, ANSWER_TOKENS, kept.file("gate-after.jsonl"))
    old, new = (verdicts_on(judge, responses) for responses in (before, after))
    answers = [
        GateAnswer(prompt.text, prompt.set, was.text, now.text, verdict_was.outcome, verdict_now.outcome, prompt.kind)
        for prompt, was, now, verdict_was, verdict_now in zip(prompts, before, after, old, new, strict=True)
    ]
    return Gated(with_damage(decide(prompts, old, new, margin), before, after, old, new), answers)


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
