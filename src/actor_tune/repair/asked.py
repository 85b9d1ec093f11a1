"""What the safety gate asks within a fit: held-out prompts, answered by the block as it was and as trained."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..engines.engine import REASONING_TOKENS
from ..engines.local import AUTO_BATCH_TOKENS, local_engine
from ..engines.respond import respond
from ..judges.trained.judge import judge_trained
from ..judges.verdict import Judge
from ..measurement.gate import decide, with_damage
from ..measurement.verdicts import verdicts_on
from ..models.model import ChatModel
from ..models.placement import held
from ..models.state import loaded
from ..prompts.prompt import Prompt
from ..records.results import Gate
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
