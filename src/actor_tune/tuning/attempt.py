"""One trial: train a block, read first tokens, and give up or ask for answers."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from ..errors import UserError
from ..measurement.damage import answer_logprobs, divergence
from ..measurement.verdicts import verdicts_on
from ..models.first_token import first_token_logprobs
from ..models.placement import held
from ..models.stored import stored_block
from ..prompts.prompt import rows_of_kind
from ..records.run import AnsweredRate, Trial
from ..records.tune import trade_off
from ..repair.coreset import select
from ..repair.learn import learn
from ..repair.refusals import own_answers
from ..repair.settings import Settings
from ..repair.strength import Tried, answered_rates, excess, trials
from .bench import Bench
from .shared import some_of


@dataclass(frozen=True)
class Attempt:
    """What one recipe did to the search prompts.

    - `first`: by first tokens, and with judged answers where it was asked for some.
    - `kl_tokens`: over the first tokens of answers to harmless prompts, nats.
    - `refused`: of each prompt that was asked, whether the answer is a refusal.
    - `pruned`: why it was given up, in words.
    """

    first: Trial | None
    broken: list[str]
    seconds: float
    kl_tokens: float | None = None
    refused: list[bool] | None = None
    pruned: str | None = None

    @property
    def answers(self) -> list[AnsweredRate] | None:
        """What judged answers say."""
        return self.first.answers if self.first else None


GiveUp = Callable[[Trial], str | None]
"""From what first tokens show: why no answers are worth asking for, in words; None where they are."""


def attempt(bench: Bench, settings: Settings, give_up: GiveUp) -> Attempt:
    """Train by `settings` on the training prompts, and see what that does to the search prompts.

    The model is left as it was; the trained block is dropped.
    """
    began = time.perf_counter()
    chat_model, layer, strength = bench.chat_model, settings.layer, settings.changes.strength
    if not isinstance(layer, int) or strength is None:
        raise ValueError("a trial has a block and a strength")
    shared = bench.block(layer)
    rows = select(shared.train.last(), bench.parts.train, settings.select, settings.select_fraction, settings.seed)
    with held(chat_model.blocks[layer]):
        stored = stored_block(chat_model, layer)
        try:
            prompts, known = [bench.parts.train[row] for row in rows], some_of(shared.known, rows)
            learned = learn(chat_model, prompts, shared.train.select(rows), settings, bench.refusals, known=known)
        except UserError as error:  # such as training that diverges: of this recipe, and not of the study
            return Attempt(None, [], time.perf_counter() - began, pruned=str(error))
        tried = Tried(shared.search, bench.parts.search, learned.trained.state, stored.dtypes)

        def read(strength: float) -> torch.Tensor:
            if not strength:
                return bench.plain
            with tried.at(chat_model, strength):
                return first_token_logprobs(chat_model, shared.search)

        limits = settings.limits
        first = trials(read, bench.parts.search, (0.0, strength), None, bench.refusals.start)[-1]
        broken = excess(first, limits)
        if why := give_up(first):
            return Attempt(first, broken, time.perf_counter() - began, pruned=why)
        with tried.at(chat_model, strength):
            first, kl_tokens, refused = _asked(bench, first)
    return Attempt(first, excess(first, limits), time.perf_counter() - began, kl_tokens, refused)


def _asked(bench: Bench, first: Trial) -> tuple[Trial, float, list[bool]]:
    """`first` with judged answers of the model as it is now, its KL over several tokens, and what it refused."""
    refusals = bench.refusals
    responses = own_answers(bench.chat_model, refusals.asked)
    verdicts = verdicts_on(bench.judge, responses)
    harmless = [refusals.responses[row] for row in rows_of_kind(refusals.asked, "harmless")]
    now = answer_logprobs(bench.chat_model, [each.prompt for each in harmless], [each.text for each in harmless])
    rates = answered_rates(refusals, responses, verdicts)
    kl_tokens = divergence(bench.harmless, now).tokens
    return replace(first, answers=rates), kl_tokens, [verdict.refused for verdict in verdicts]


def damage(found: Attempt, settings: Settings) -> float:
    """What it cost harmless prompts and the language: KL over several tokens, harmless refusals and garbled answers.

    Each in units of what is allowed of it, and added up; a fall counts nothing.
    """
    if found.answers is None or found.kl_tokens is None:
        raise ValueError("a trial that was given up has no damage")
    limits, rises = settings.limits, {rate.name: max(0.0, rate.rise) for rate in found.answers}
    return (
        found.kl_tokens / limits.kl_harmless
        + rises["harmless refused"] / limits.harmless_rise
        + rises["garbled"] / limits.garbled_rise
    )


def by_rank(first: Trial, others: Sequence[float], share: float) -> bool:
    """Whether the trade-off score by first tokens is among the best `share` of it and `others`."""
    better = sum(other > trade_off(first.compliance, first.safety) for other in others)
    return better < share * (len(others) + 1)
