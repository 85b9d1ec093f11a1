"""Fit: from prompts to one trained block. Read top to bottom, this is the method.

prompts -> activations -> block and direction -> targets -> one trained block -> its strength
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from .chat import encode
from .checkpoint import stored_dtype_of_block
from .coreset import FRACTION, Selection, check_fraction, select
from .direction import RefusalDirection, refusal_direction
from .errors import UserError
from .inputs import BlockInputs, block_inputs
from .model import ChatModel, check_layer, restore_precision
from .placement import held, is_elsewhere, settle
from .prompts import Prompt, Split, distinct, require, split_validation, starter_prompts, with_system_prompt
from .scan import Scan, candidate_layers, scan
from .strength import STRENGTHS, Limits, Trial, choose, failure, try_strengths
from .targets import (
    HARMFUL,
    HARMLESS,
    PSEUDO_HARMFUL,
    Shifts,
    boundary_targets,
    cosine_loss,
    distance_loss,
    kind_codes,
    paper_targets,
    uniform_targets,
)
from .train import (
    Epoch,
    LossFunction,
    Schedule,
    State,
    TrainedBlock,
    block_outputs,
    interpolate,
    loaded,
    state_of,
    train_block,
)
from .wiring import check_effect, check_reading

Rule = Literal["boundary", "paper", "uniform"]
LayerChoice = int | Literal["auto", "silhouette"]

MINIMUM_PROMPTS = 8
"""Of each kind: below this neither a direction nor a validation part can be had."""

VALIDATION_SHARE = 0.2

BOUNDARY_SHIFTS = Shifts(pseudo_harmful=2.0, harmful=1.0)
BOUNDARY_SCHEDULE = Schedule(epochs=11, batch_size=20, learning_rate=1.2e-3, decay=True, noise=0.1, recompute_every=0)

PAPER_ALPHA = 0.0015  # Appendix A: 0.0015 for Llama-2-7b-chat, 0.0004 for 13b, 0.003 for Gemma-7b-it
PAPER_SCHEDULE = Schedule(
    epochs=3,  # "3 epochs"
    batch_size=1,  # Algorithm 1 updates after each query
    learning_rate=1e-5,  # "1e-5"
    decay=False,  # not stated
    noise=0.0,
    recompute_every=64,  # K is not stated
)

UNIFORM_ALPHA = 0.1  # not stated; at the paper's 0.0015 the control does nothing here
UNIFORM_SCHEDULE = Schedule(epochs=3, batch_size=1, learning_rate=1e-4, decay=False, noise=0.0, recompute_every=64)


SCHEDULES: dict[Rule, Schedule] = {
    "boundary": BOUNDARY_SCHEDULE,
    "paper": PAPER_SCHEDULE,
    "uniform": UNIFORM_SCHEDULE,
}


@dataclass(frozen=True)
class Settings:
    """Everything that decides a fit, besides the model and the prompts.

    - `starter`: whether the built-in prompts are trained on too. They vary in form, and each benign one
      has a harmful twin: without them, refusal is lost where the given harmful prompts do not reach.
    - `select`: keep only a share, `select_fraction` (0..1), of the training prompts of each kind: those that lie least
      apart, or any.
    - `consistency`: weight of CROW's regulariser.
    - `system_prompt`: for every prompt that has none of its own, the starter prompts too.
    - `allow_unsafe`: where no strength is within the limits, keep the whole trained change instead of nothing.
    """

    rule: Rule = "boundary"
    layer: LayerChoice = "auto"
    seed: int = 0
    starter: bool = True
    allow_unsafe: bool = False
    system_prompt: str | None = None
    select: Selection = "none"
    select_fraction: float = FRACTION
    consistency: float = 0.0
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Fit:
    """What a fit found.

    - `state`: the block's parameters to keep, in the checkpoint's dtype; `trained`: those at strength 1, in float32.
    - `scan`: None where the block was named.
    - `trials`: the strengths tried, and `chosen`, the one kept; for the rules `paper` and `uniform`, which have no
      strength but their alpha, only 0 and 1 are measured and 1 is kept.
    - `failure`: why the fit should not be used, in a sentence; None when it is within the limits.
    - `before`, `after`: position of every prompt along the direction, 0 harmless mean, 1 harmful mean.
    - `seconds`: per stage.
    """

    layer: int
    direction: RefusalDirection
    scan: Scan | None
    schedule: Schedule
    epochs: list[Epoch]
    trials: list[Trial]
    chosen: Trial
    state: State
    trained: State
    prompts: list[Prompt]
    validation: list[bool]
    before: list[float]
    after: list[float]
    warnings: list[str]
    seconds: dict[str, float]
    failure: str | None


@dataclass(frozen=True)
class Learned:
    """What training made, before a strength is chosen.

    - `activations`: (training prompt, d_model) float32, the unedited block's at last tokens.
    """

    direction: RefusalDirection
    activations: torch.Tensor
    schedule: Schedule
    trained: TrainedBlock
    warnings: list[str]


@dataclass
class _Stopwatch:
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 2)


def fit(chat_model: ChatModel, prompts: Sequence[Prompt], settings: Settings) -> Fit:
    """Train one block of `chat_model`, which is left as it was, on `prompts` and choose how much of it to keep.

    **Raises:** `UserError` when there are too few prompts of a kind or the block cannot be trained.
    """
    require(prompts, MINIMUM_PROMPTS)
    watch = _Stopwatch()
    split = prepare(prompts, settings)
    with watch.stage("choose block"):
        found = None if isinstance(settings.layer, int) else scan_candidates(chat_model, split, settings)
        layer = choose_layer(chat_model, settings.layer, found)
        restore_precision(chat_model, layer)
        stored = stored_dtype_of_block(chat_model, layer)
    with held(chat_model.blocks[layer]):
        return _fit_block(chat_model, split, settings, layer, found, stored, watch)


def _fit_block(
    chat_model: ChatModel,
    split: Split,
    settings: Settings,
    layer: int,
    found: Scan | None,
    stored: dict[str, torch.dtype],
    watch: _Stopwatch,
) -> Fit:
    """`fit` of block `layer`, whose weights are in memory and have the dtypes `stored` in the checkpoint."""
    with watch.stage("run blocks below"):
        token_ids = encode(chat_model.tokenizer, split.train + split.validation)
        check_reading(chat_model, layer, token_ids)
        above_wait = waits(chat_model)
        if not above_wait:
            check_effect(chat_model, layer, token_ids)
        inputs = block_inputs(chat_model, layer, token_ids)
        split, inputs = selected(split, inputs, settings)
    everything = split.train + split.validation
    training = inputs.select(range(len(split.train)))
    validation = inputs.select(range(len(split.train), len(everything)))

    with watch.stage("train"):
        learned = learn(chat_model, split.train, training, settings)
        before = torch.cat([learned.activations, block_outputs(chat_model, validation)])
    direction, trained = learned.direction, learned.trained

    with watch.stage("choose strength"):
        if above_wait:
            settle(chat_model.model)  # the blocks above, which were not needed until now
            check_effect(chat_model, layer, token_ids)
        strengths = strengths_of(settings.rule)
        trials = try_strengths(
            chat_model, validation, split.validation, trained.state, stored, settings.limits, strengths
        )
        chosen = choose(trials, settings.limits) if settings.rule == "boundary" else trials[-1]
        if settings.rule == "boundary" and chosen.strength == 0 and settings.allow_unsafe:
            chosen = next(trial for trial in trials if trial.strength == 1)

    block = chat_model.blocks[layer]
    state = interpolate(state_of(block), trained.state, chosen.strength, stored)
    with loaded(block, state):
        after = direction.position(block_outputs(chat_model, inputs)).tolist()
    return Fit(
        layer=layer,
        direction=direction,
        scan=found,
        schedule=learned.schedule,
        epochs=trained.epochs,
        trials=trials,
        chosen=chosen,
        state=state,
        trained=trained.state,
        prompts=everything,
        validation=[False] * len(split.train) + [True] * len(split.validation),
        before=direction.position(before).tolist(),
        after=after,
        warnings=learned.warnings,
        seconds=watch.seconds,
        failure=failure(trials, chosen, settings.limits),
    )


def learn(chat_model: ChatModel, prompts: Sequence[Prompt], inputs: BlockInputs, settings: Settings) -> Learned:
    """Train block `inputs.layer`, which is left as it was, on `prompts`, of which `inputs` are what it receives.

    **Raises:** `UserError` when training diverges.
    """
    activations = block_outputs(chat_model, inputs)
    kinds = kind_codes([prompt.kind for prompt in prompts])
    direction = refusal_direction(activations[kinds == HARMFUL], activations[kinds == HARMLESS])
    warnings = sign_warnings(activations, kinds, direction) if settings.rule == "paper" else []
    loss = objective(settings.rule, activations, kinds, direction)
    schedule = replace(SCHEDULES[settings.rule], consistency=settings.consistency)
    trained = train_block(chat_model, inputs, kinds, direction, loss, schedule, settings.seed)
    if not all(tensor.isfinite().all() for tensor in trained.state.values()):
        raise UserError(chat_model.name, "training diverged", "finite weights", "report this model and these prompts")
    return Learned(direction, activations, schedule, trained, warnings)


def selected(split: Split, inputs: BlockInputs, settings: Settings) -> tuple[Split, BlockInputs]:
    """The training prompts that `settings` keep, by what the block receives at their last tokens.

    **Raises:** `UserError` when too few are kept.
    """
    if settings.select != "none":
        check_fraction(split.train, settings.select_fraction)
    last = [inputs.places(row)[-1] for row in range(len(split.train))]
    activations = inputs.take(last, torch.device("cpu")).float()
    kept = select(activations, split.train, settings.select, settings.select_fraction, settings.seed)
    validation = range(len(split.train), len(inputs.token_ids))
    return Split([split.train[row] for row in kept], split.validation), inputs.select([*kept, *validation])


def prepare(prompts: Sequence[Prompt], settings: Settings) -> Split:
    """Mix in the starter prompts where `settings` say so, and put a part of every set aside for validation.

    **Raises:** `UserError` when a prompt is given under two kinds, sets are too small to be divided, or the share to
    be selected is.
    """
    mixed = distinct(with_starter(prompts) if settings.starter else prompts)
    if settings.system_prompt:
        mixed = with_system_prompt(mixed, settings.system_prompt)
    split = split_validation(mixed, VALIDATION_SHARE, settings.seed)
    if settings.select != "none":
        check_fraction(split.train, settings.select_fraction)
    return split


def with_starter(prompts: Sequence[Prompt]) -> list[Prompt]:
    """`prompts`, and the starter prompts of the training part that are not among them."""
    given = {prompt.text for prompt in prompts}
    return [*prompts, *(prompt for prompt in starter_prompts("train") if prompt.text not in given)]


def scan_candidates(chat_model: ChatModel, split: Split, settings: Settings) -> Scan:
    """Scan the blocks that may be chosen: by silhouette all, as in the paper, by effect the middle."""
    by_silhouette = settings.layer == "silhouette"
    count = len(chat_model.blocks)
    layers = range(count - 1) if by_silhouette else candidate_layers(count)
    return scan(chat_model, split.train, layers, by_silhouette, settings.seed)


def choose_layer(chat_model: ChatModel, choice: LayerChoice, found: Scan | None) -> int:
    """The block to train."""
    if isinstance(choice, int) or found is None:
        return check_layer(chat_model, int(choice))
    return (found.best() if choice == "auto" else found.best_silhouette()).layer


def objective(rule: Rule, activations: torch.Tensor, kinds: torch.Tensor, direction: RefusalDirection) -> LossFunction:
    """The loss of `rule`, for training `activations` (prompt, d_model) of the unedited model."""
    if rule == "boundary":
        fixed = boundary_targets(activations, kinds, direction, BOUNDARY_SHIFTS)
        length = direction.length
        return lambda now, rows, _: distance_loss(now, fixed[rows], length)
    if rule == "paper":
        return lambda now, rows, current: cosine_loss(
            now, paper_targets(now.detach(), kinds[rows], current.vector, PAPER_ALPHA)
        )
    return lambda now, rows, current: cosine_loss(
        now, uniform_targets(now.detach(), kinds[rows], current.vector, UNIFORM_ALPHA)
    )


def strengths_of(rule: Rule) -> tuple[float, ...]:
    """The strengths to try; the paper's rules have none but their alpha, so only before and after are measured."""
    return STRENGTHS if rule == "boundary" else (0.0, 1.0)


def waits(chat_model: ChatModel) -> bool:
    """Whether some blocks were left on disk for later, though there is room for all of them."""
    placement = chat_model.placement
    elsewhere = any(is_elsewhere(block) for block in chat_model.blocks)
    return elsewhere and placement.offload == "none" and placement.device_map is None


def sign_warnings(activations: torch.Tensor, kinds: torch.Tensor, direction: RefusalDirection) -> list[str]:
    """What Eq. 9 will do the wrong way round, in sentences, given raw projections of the training prompts.

    A benign prompt with R.a < 0 is pushed towards refusal by "- alpha Proj"; a harmful one with R.a < 0 away from it.
    """
    raw = activations @ direction.unit
    warnings = []
    for code, name, harm in (
        (HARMFUL, "harmful", "away from refusal"),
        (HARMLESS, "harmless", "towards refusal"),
        (PSEUDO_HARMFUL, "pseudo-harmful", "towards refusal"),
    ):
        negative = int((raw[kinds == code] < 0).sum())
        total = int((kinds == code).sum())
        if 2 * negative > total:
            warnings.append(
                f"{negative} of {total} {name} prompts have a negative projection: "
                f"the paper's rule will push them {harm}. Use --rule boundary."
            )
    return warnings
