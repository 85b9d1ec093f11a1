"""Compare methods: each learns from the same prompts, is chosen by the same rule, and answers the same questions.

Nothing of a method is decided on the evaluation prompts: its strength is the one with the most compliance on the
validation part of the training prompts, whose safety falls by no more than the limits say. Every method and seed leaves
a file of its own, so that a comparison that was cut off goes on with what is missing.
"""

import json
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from math import inf
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from .chat import encode
from .damage import KL_PROMPTS
from .divergence import mean_kl
from .engines.local import local_engine
from .errors import UserError
from .files import write_json
from .fit import Settings, prepare, scan_candidates
from .inputs import BlockInputs, block_inputs
from .methods import Fitted, Method, Task
from .methods.known import DEFAULT, FINE_TUNING
from .methods.method import method_engine, method_logprobs, remembered
from .model import ChatModel, restore_precision
from .outcomes import Choice, Outcome, Seconds, Summary, compare_json, line, measured, outcome_of, summaries
from .placement import settle
from .prompts import Prompt, fingerprint, of_kind
from .respond import Response, respond
from .resume import open_request
from .strength import Limits, Trial, excess, first_token_logprobs, trials
from .tables import read_text
from .wiring import check_effect, check_reading

log = logging.getLogger(__name__)

COMPARE_FILE = "compare.json"

LIMITS = Limits(kl_harmless=inf)
"""Safety alone, as in `fit` but without its limit on KL: how a method spends its damage is for the table to show."""


@dataclass(frozen=True)
class Contest:
    """Everything that decides a comparison, besides the model.

    - `given`: prompts to learn from; `starter`: whether every method learns from the built-in ones too.
    - `evaluation`: prompts to be measured on, without those like any that were learned from.
    - `settings`: what answers depend on besides, such as the dtype and what SFT learns, for the record: a comparison
      goes on only where all is the same.
    """

    given: list[Prompt]
    evaluation: list[Prompt]
    seeds: int
    starter: bool
    max_new_tokens: int
    settings: Mapping[str, Any] = field(default_factory=dict)


def begin(model: str, contest: Contest, folder: Path) -> dict[str, Any]:
    """Begin a comparison in `folder`, or go on with it, with the same methods and seeds or others.

    Returns what was asked for.

    **Raises:** `UserError` when the folder holds anything else.
    """
    request = {
        "model": model,
        "train_sha256": fingerprint(contest.given),
        "evaluation_sha256": fingerprint(contest.evaluation),
        "starter": contest.starter,
        "max_new_tokens": contest.max_new_tokens,
        **contest.settings,
    }
    open_request(folder, request)
    return request


def run(
    chat_model: ChatModel, contest: Contest, methods: Mapping[str, Method], folder: Path, note: Mapping[str, Any]
) -> list[Summary]:
    """Run each of `methods` with every seed, and leave `compare.json` in `folder`, where the comparison was begun.

    **Arguments:**

    - `methods`: by name; the default, which learns nothing, is measured in any case.
    - `note`: what is to be recorded besides.
    """
    settle(chat_model.model)
    ground = _Ground(chat_model, contest, folder)
    outcomes = [_kept(folder / f"{DEFAULT}.json", lambda: _default(ground))]
    log.info("%s: %s", DEFAULT, line(outcomes[0]))
    for seed in range(contest.seeds):
        group = _Seed(ground, seed)
        for name, method in methods.items():
            outcomes.append(_kept(folder / f"{name}-{seed}.json", partial(_outcome, group, name, method)))
            log.info("%s, seed %d: %s", name, seed, line(outcomes[-1]))
    outcomes += _earlier(folder, methods, contest.seeds)
    found = summaries(outcomes)
    write_json(folder / COMPARE_FILE, compare_json(found, outcomes, note))
    return found


class _Ground:
    """What all methods and seeds share: the unchanged model's answers and first tokens on evaluation prompts."""

    def __init__(self, chat_model: ChatModel, contest: Contest, folder: Path):
        self.chat_model, self.contest, self.folder = chat_model, contest, folder
        self.harmless = encode(chat_model.tokenizer, of_kind(contest.evaluation, "harmless")[:KL_PROMPTS])
        self._plain: torch.Tensor | None = None
        self._answers: dict[Prompt, Response] = {}

    def answers(self) -> dict[Prompt, Response]:
        """The unchanged model's, asked once."""
        if not self._answers:
            engine, store = local_engine(self.chat_model, None), self.folder / f"{DEFAULT}.jsonl"
            found = respond(engine, self.contest.evaluation, self.contest.max_new_tokens, store)
            self._answers = {response.prompt: response for response in found}
        return self._answers

    def kl(self, fitted: Fitted, strength: float) -> float | None:
        """KL(unchanged || changed), nats; None where there are no harmless prompts."""
        if not self.harmless:
            return None
        signs = fitted.signs(self.harmless)
        inputs = block_inputs(self.chat_model, fitted.layer, self.harmless)
        if self._plain is None:
            self._plain = first_token_logprobs(self.chat_model, inputs)
        changed = method_logprobs(self.chat_model, fitted, strength, inputs, signs, self._plain)
        return mean_kl(self._plain, changed)


class _Seed:
    """What all methods share with one seed: split, block, and what blocks receive for the validation prompts."""

    def __init__(self, ground: _Ground, seed: int):
        self.ground, self.seed = ground, seed
        contest = ground.contest
        self._settings = Settings(seed=seed, starter=contest.starter)
        self.split = prepare(contest.given, self._settings)
        self.token_ids = encode(ground.chat_model.tokenizer, self.split.validation)
        self._task: Task | None = None
        self._inputs: dict[int, BlockInputs] = {}
        self.scan_seconds = 0.0
        self.input_seconds: dict[int, float] = {}

    def task(self) -> Task:
        """Scans for the block when it is asked for first."""
        if self._task is None:
            start = time.perf_counter()
            found = scan_candidates(self.ground.chat_model, self.split, self._settings)
            layer = found.best().layer
            restore_precision(self.ground.chat_model, layer)
            token_ids = encode(self.ground.chat_model.tokenizer, self.split.train)
            check_reading(self.ground.chat_model, layer, token_ids)
            check_effect(self.ground.chat_model, layer, token_ids)
            self.scan_seconds = time.perf_counter() - start
            self._task = Task(self.split, layer, self.seed)
        return self._task

    def inputs(self, layer: int) -> BlockInputs:
        """What block `layer` receives for the validation prompts."""
        if layer not in self._inputs:
            start = time.perf_counter()
            self._inputs[layer] = block_inputs(self.ground.chat_model, layer, self.token_ids)
            self.input_seconds[layer] = time.perf_counter() - start
        return self._inputs[layer]


def _kept(file: Path, run: Callable[[], Outcome]) -> Outcome:
    """What `file` holds from an earlier run, else what `run` finds, which is then kept there."""
    if file.exists():
        return _stored(file)
    found = run()
    write_json(file, asdict(found))
    return found


def _stored(file: Path) -> Outcome:
    """What `file` holds.

    **Raises:** `UserError` when it was not written by this version.
    """
    try:
        return outcome_of(json.loads(read_text(file)))
    except (ValueError, TypeError, KeyError):
        raise UserError(
            file, "no outcome of this version", "one that it wrote", "remove it, or choose another folder"
        ) from None


def _earlier(folder: Path, methods: Collection[str], seeds: int) -> list[Outcome]:
    """The outcomes of methods that were compared here before and are not among `methods`, where all seeds are there."""
    found = []
    for name in sorted(file.name.removesuffix("-0.json") for file in folder.glob("*-0.json")):
        if name in methods:
            continue
        files = [folder / f"{name}-{seed}.json" for seed in range(seeds)]
        if all(file.exists() for file in files):
            found += [_stored(file) for file in files]
        else:
            message = "%s was compared here with fewer than %d seeds: it is not in the table until --methods names it"
            log.warning(message, name, seeds)
    return found


def _default(ground: _Ground) -> Outcome:
    whole = not (ground.folder / f"{DEFAULT}.jsonl").exists()
    start = time.perf_counter()
    responses = list(ground.answers().values())
    seconds = time.perf_counter() - start
    taken = Seconds(0.0, seconds if whole else None, seconds)
    return measured(DEFAULT, 0, responses, Choice(0.0, True, []), 0.0, taken, {})


def _outcome(group: _Seed, name: str, method: Method) -> Outcome:
    ground, chat_model = group.ground, group.ground.chat_model
    contest = ground.contest
    log.info("%s, seed %d", name, group.seed)
    begun = time.perf_counter()
    task = group.task()
    start = time.perf_counter()
    fitted = remembered(method(chat_model, task))
    learned = time.perf_counter() - start
    # The first method at a block would pay for the others.
    inputs = group.inputs(fitted.layer)
    learned += group.input_seconds[fitted.layer] + (0.0 if name in FINE_TUNING else group.scan_seconds)
    start = time.perf_counter()
    signs = fitted.signs(group.token_ids)
    plain = first_token_logprobs(chat_model, inputs)
    found = trials(
        lambda strength: method_logprobs(chat_model, fitted, strength, inputs, signs, plain) if strength else plain,
        group.split.validation,
        (0.0, *fitted.strengths),
        None,
        chat_model.name,
    )
    choice = choice_of(found)
    learned += time.perf_counter() - start
    start = time.perf_counter()
    engine = method_engine(chat_model, fitted, choice.strength, ground.answers())
    # Named by the strength, so that a run that is repeated never goes on with answers at another one.
    store = ground.folder / f"{name}-{group.seed}-at-{choice.strength:g}.jsonl"
    whole = not store.exists()
    responses = respond(engine, contest.evaluation, contest.max_new_tokens, store)
    answered = time.perf_counter() - start if whole else None
    figures = gate_figures(chat_model, fitted, contest.evaluation)
    kl = ground.kl(fitted, choice.strength)
    seconds = Seconds(learned, answered, time.perf_counter() - begun)
    return measured(name, group.seed, responses, choice, kl, seconds, figures)


def choice_of(found: Sequence[Trial], limits: Limits = LIMITS) -> Choice:
    """The strength with the most compliance within `limits`; where only doing nothing is, the safest of all others.

    Doing nothing is no choice, though it complied more: it is in the table, as the default.
    """
    curve = [
        {name: getattr(trial, name) for name in ("strength", "compliance", "safety", "kl_harmless")} for trial in found
    ]
    safe = [trial for trial in found[1:] if not excess(trial, limits)]
    if safe:
        return Choice(max(safe, key=lambda trial: trial.compliance).strength, True, curve)
    return Choice(max(found[1:], key=lambda trial: trial.safety).strength, False, curve)


def gate_figures(chat_model: ChatModel, fitted: Fitted, prompts: Sequence[Prompt]) -> dict[str, float]:
    """A gate's threshold, and the share of each kind's and each set's prompts that it takes for harmful, 0..1.

    Empty without a gate. On pseudo-harmful prompts those are its false positives. Of how many prompts a share is, is
    told beside it.
    """
    if fitted.gate is None:
        return {}
    groups: dict[str, list[bool]] = {}
    for prompt, sign in zip(prompts, fitted.signs(encode(chat_model.tokenizer, prompts)), strict=True):
        for group in (prompt.kind, f"{prompt.kind}/{prompt.set}"):
            groups.setdefault(group, []).append(sign == fitted.gate.harmful_sign)
    found = {"threshold": fitted.gate.threshold}
    for group, taken in groups.items():
        found |= {f"{group} taken for harmful": mean(taken), f"{group} prompts": len(taken)}
    return found
