"""What each method does in a comparison: it learns, its strength is chosen, and it answers what all are asked.

Nothing of a method is decided on the evaluation prompts: its strength is the one with the most compliance on the
validation part of the training prompts, whose safety falls by no more than the limits say.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import inf
from pathlib import Path
from statistics import mean
from typing import Any, TypeVar

import torch

from ..engines.engine import Engine, Subject
from ..engines.local import local_engine
from ..engines.respond import respond
from ..judges.trained.judge import judge_trained
from ..measurement.damage import KL_PROMPTS
from ..models.block_checks import check_effect, check_reading
from ..models.chat import TokenIds
from ..models.divergence import mean_kl
from ..models.first_token import first_token_logprobs
from ..models.inputs import BlockInputs, block_inputs
from ..models.load import restore_precision
from ..models.model import ChatModel
from ..models.placement import settle
from ..prompts.prompt import Prompt, of_kind
from ..records.outcome import ANSWER_TOKENS, MethodOutcome
from ..records.response import Response
from ..records.run import Trial
from ..repair.method import prepare, scan_candidates
from ..repair.refusals import how_it_refuses
from ..repair.settings import Settings
from ..repair.strength import Limits, excess, trials
from .methods.known import DEFAULT, METHODS, NamedMethod
from .methods.method import Fitted, Task, method_engine, method_logprobs, remembered
from .outcomes import POINT, Choice, Seconds, outcome_of

log = logging.getLogger(__name__)

LIMITS = Limits(kl_harmless=inf)
"""Safety alone, as in `fit` but without its limit on KL: how a method spends its damage is for the table to show."""

Key = tuple[str, int]
"""A method's name and a seed."""

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class Contest:
    """Everything that decides a comparison, besides the model.

    - `train`: prompts of all three kinds to learn from; `starter`: whether every method learns from the built-in ones
      too.
    - `evaluation`: prompts to be measured on, of which those like any that were learned from are left out; `limit`: at
      most so many of each set.
    - `methods`: names of `methods.known`, or methods of one's own; the model as it is, is measured in any case.
    - `seeds`: how many, from 0 on.
    - `answers`: what fine-tuning learns, as far as it is there; `answers_from`: gives what is missing of it for benign
      prompts. The refusals of harmful prompts are the model's own.
    - `train_source`, `evaluation_source`: file or public set that they were read from, for messages and the record.
    """

    train: Sequence[Prompt]
    evaluation: Sequence[Prompt]
    methods: Sequence[str | NamedMethod] = METHODS
    seeds: int = 3
    starter: bool = False
    answers: Mapping[Prompt, str] = field(default_factory=dict)
    answers_from: Subject | None = None
    limit: int | None = None
    max_new_tokens: int = ANSWER_TOKENS
    train_source: str = ""
    evaluation_source: str = ""


def timed(make: Callable[..., Value], *arguments: Any) -> tuple[Value, float]:
    """What `make` makes of `arguments`, and the seconds that it takes."""
    start = time.perf_counter()
    return make(*arguments), time.perf_counter() - start


@dataclass(frozen=True)
class Shared:
    """What all methods and seeds share. What has to be computed is, when it is asked for first.

    - `prompts`: to be measured on; `answers`: what fine-tuning learns.
    """

    chat_model: ChatModel
    contest: Contest
    methods: Mapping[str, NamedMethod]
    prompts: list[Prompt]
    answers: Mapping[Prompt, Response]
    work: Path | None

    @cached_property
    def unchanged(self) -> tuple[dict[Prompt, Response], float | None]:
        """The unchanged model's answers, and what they took (`_answers`)."""
        responses, seconds = _answers(self, local_engine(self.chat_model), DEFAULT)
        return {response.prompt: response for response in responses}, seconds

    @cached_property
    def harmless(self) -> list[TokenIds]:
        """Prompts on which KL is measured."""
        return self.chat_model.encode(of_kind(self.prompts, "harmless")[:KL_PROMPTS])

    @cached_property
    def plain(self) -> torch.Tensor:
        """(prompt, vocabulary) the unchanged model's log-probabilities of the first token of answers to `harmless`."""
        return first_token_logprobs(self.chat_model, block_inputs(self.chat_model, 0, self.harmless))


@dataclass(frozen=True)
class _OfSeed:
    """What all methods share with one seed.

    - `scan`: seconds that it took to find the block.
    - `inputs`: by block, what it receives for the `validation` prompts, and the seconds that took.
    """

    task: Task
    scan: float
    validation: list[TokenIds]
    inputs: dict[int, tuple[BlockInputs, float]] = field(default_factory=dict)


def run_missing(shared: Shared, missing: Collection[Key]) -> Iterator[MethodOutcome]:
    """The outcomes of the methods and seeds that are `missing`, as they come."""
    settle(shared.chat_model.model)
    begun = time.perf_counter()
    if (DEFAULT, 0) in missing:
        answers, seconds = shared.unchanged
        taken = Seconds(0.0, seconds, time.perf_counter() - begun)
        yield outcome_of(DEFAULT, 0, [*answers.values()], Choice(0.0, True, []), 0.0, taken, {})
    for seed in range(shared.contest.seeds):
        group = None
        for name in (name for name, its_seed in missing if its_seed == seed and name != DEFAULT):
            log.info("%s, seed %d", name, seed)
            begun = time.perf_counter()
            group = group or _of_seed(shared, seed)
            yield _outcome(shared, group, name, begun)


def _of_seed(shared: Shared, seed: int) -> _OfSeed:
    chat_model = shared.chat_model
    settings = Settings(seed=seed, starter=shared.contest.starter)
    split = prepare(shared.contest.train, settings)
    train, validation = (chat_model.encode(part) for part in (split.train, split.validation))
    start = time.perf_counter()
    refusals = how_it_refuses(chat_model, split.validation, judge_trained, seed)
    layer = scan_candidates(chat_model, split, refusals.start.tokens, settings).layer
    restore_precision(chat_model, layer)
    check_reading(chat_model, layer, train)
    check_effect(chat_model, layer, train)
    task = Task(split, layer, seed, refusals, shared.answers)
    return _OfSeed(task, time.perf_counter() - start, validation)


def _outcome(shared: Shared, group: _OfSeed, name: str, begun: float) -> MethodOutcome:
    """What the method `name` does; its turn came when the clock said `begun`."""
    chat_model, task, known = shared.chat_model, group.task, shared.methods[name]
    fitted, learning = timed(known.method, chat_model, task)
    fitted = remembered(fitted)
    if fitted.layer not in group.inputs:
        group.inputs[fitted.layer] = timed(block_inputs, chat_model, fitted.layer, group.validation)
    inputs, below = group.inputs[fitted.layer]
    choice, choosing = timed(_choice, chat_model, fitted, inputs, task)
    # What methods share is charged to all that need it: the first would pay for the others.
    fit_seconds = learning + below + (0.0 if known.learns else group.scan) + choosing
    engine = method_engine(chat_model, fitted, choice.strength, shared.unchanged[0])
    # Named by the strength, so that a run that is repeated never goes on with answers at another one.
    responses, answer_seconds = _answers(shared, engine, f"{name}-{task.seed}-at-{choice.strength:g}")
    figures = detector_figures(chat_model, fitted, shared.prompts)
    kl = _kl(shared, fitted, choice.strength)
    seconds = Seconds(fit_seconds, answer_seconds, time.perf_counter() - begun)
    return outcome_of(name, task.seed, responses, choice, kl, seconds, figures)


def _answers(shared: Shared, engine: Engine, name: str) -> tuple[list[Response], float | None]:
    """Answers to the evaluation prompts, and the seconds they took; None where some were there from another run."""
    store = shared.work / f"{name}.jsonl" if shared.work else None
    whole = not (store and store.exists())
    responses, seconds = timed(respond, engine, shared.prompts, shared.contest.max_new_tokens, store)
    return responses, seconds if whole else None


def _choice(chat_model: ChatModel, fitted: Fitted, inputs: BlockInputs, task: Task) -> Choice:
    """Try all strengths on the validation prompts, of which `inputs` are what block `fitted.layer` receives."""
    signs = fitted.signs(inputs.token_ids)
    plain = first_token_logprobs(chat_model, inputs)

    def at(strength: float) -> torch.Tensor:
        return method_logprobs(chat_model, fitted, strength, inputs, signs, plain)

    return choice_of(trials(at, task.split.validation, (0.0, *fitted.strengths), None, task.refusals.start))


def choice_of(tried: Sequence[Trial]) -> Choice:
    """The strength with the most compliance within `LIMITS`; where only doing nothing is, the safest of all others.

    Doing nothing is no choice, though it complied more: it is in the table, as the default.
    """
    curve = [{name: getattr(trial, name) for name in POINT} for trial in tried]
    safe = [trial for trial in tried[1:] if not excess(trial, LIMITS)]
    if safe:
        return Choice(max(safe, key=lambda trial: trial.compliance).strength, True, curve)
    return Choice(max(tried[1:], key=lambda trial: trial.safety).strength, False, curve)


def _kl(shared: Shared, fitted: Fitted, strength: float) -> float | None:
    """KL(unchanged || changed), nats; None where there are no harmless prompts."""
    if not shared.harmless:
        return None
    inputs = block_inputs(shared.chat_model, fitted.layer, shared.harmless)
    signs = fitted.signs(shared.harmless)
    return mean_kl(shared.plain, method_logprobs(shared.chat_model, fitted, strength, inputs, signs, shared.plain))


def detector_figures(chat_model: ChatModel, fitted: Fitted, prompts: Sequence[Prompt]) -> dict[str, float]:
    """A detector's threshold, and the share of each kind's and each set's prompts that it takes for harmful, 0..1.

    Empty without a detector. On pseudo-harmful prompts those are its false positives. Of how many prompts a share is,
    is told beside it.
    """
    if fitted.detector is None:
        return {}
    groups: dict[str, list[bool]] = {}
    for prompt, sign in zip(prompts, fitted.signs(chat_model.encode(prompts)), strict=True):
        for group in (prompt.kind, f"{prompt.kind}/{prompt.set}"):
            groups.setdefault(group, []).append(sign == fitted.detector.harmful_sign)
    figures = {"threshold": fitted.detector.threshold}
    for group, taken in groups.items():
        figures |= {f"{group} taken for harmful": mean(taken), f"{group} prompts": len(taken)}
    return figures
