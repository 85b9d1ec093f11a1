"""Fit: from prompts to one trained block. Read top to bottom, this is the method; its equations are in `rules.py`.

prompts -> activations -> block and direction -> targets -> one trained block -> its strength
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch

from ..engines.engine import Subject, model_of
from ..engines.local import subject_of
from ..judges.trained.judge import judge_trained
from ..judges.verdict import Judge
from ..models.block_checks import check_effect, check_reading
from ..models.experts import experts_changed
from ..models.inputs import BlockInputs, block_inputs
from ..models.load import restore_precision
from ..models.model import ChatModel, check_layer
from ..models.placement import held, is_elsewhere, settle
from ..models.state import State, interpolate, loaded, state_of
from ..models.stored import StoredBlock, stored_block
from ..progress import Report, Stages, no_report
from ..prompts.prompt import MINIMUM_PROMPTS, Prompt, distinct, require, with_system_prompt
from ..prompts.split import Split, split_validation
from ..prompts.starter import with_missing_kinds, with_starter
from ..records.run import AppliedLimit, Epoch, PromptPath, Trial
from ..records.scan import Scan
from .coreset import check_fraction, select
from .cost import Cost, Phase
from .direction import RefusalDirection
from .kept import NOTHING_KEPT, Kept
from .learn import learn
from .opening import where_answers_begin
from .paths import paths
from .refusals import Refusals, how_it_refuses
from .rules import Rule, Schedule
from .scan import scan_layers, trainable_layers
from .settings import DEFAULTS, Settings
from .strength import Tried, answered, applied, choose, failure, rates_of, try_strengths
from .suited import Suited
from .train import block_outputs


@dataclass(frozen=True)
class FittedBlock:
    """A trained block, and how it came about.

    - `state`: the block's parameters to keep, in the checkpoint's dtype; `trained`: those at strength 1, in float32;
      `stored`: how they lie in the checkpoint.
    - `experts`: of each expert, whether training changed it; those that no last token went to are as they were. None
      where the block has none.
    - `scan`: None where the block was named.
    - `refusals`: how the model refuses, as it is.
    - `rule`: the one trained by; `suited` says why, where it was chosen by the model.
    - `trials`: the strengths tried, and `chosen`, the one kept; `limits`: as they were applied to it.
    - `failure`: why it should not be used, in a sentence; None when it is within the limits.
    - `before`, `after`: position of every prompt along the direction, 0 harmless mean, 1 harmful mean.
    - `opening`: what all answers begin with and is taken for a part of the prompt (`opening`).
    - `paths`: a prompt of each kind, block by block.
    - `seconds`: per stage.
    """

    layer: int
    direction: RefusalDirection
    scan: Scan | None
    refusals: Refusals
    rule: Rule
    suited: Suited | None
    schedule: Schedule
    epochs: list[Epoch]
    trials: list[Trial]
    chosen: Trial
    state: State
    stored: StoredBlock
    experts: list[bool] | None
    trained: State
    prompts: list[Prompt]
    validation: list[bool]
    before: list[float]
    after: list[float]
    warnings: list[str]
    opening: str
    paths: list[PromptPath]
    seconds: dict[str, float]
    failure: str | None
    limits: list[AppliedLimit]


def fit_block(
    chat_model: ChatModel,
    prompts: Sequence[Prompt],
    settings: Settings = DEFAULTS,
    judge: Judge = judge_trained,
    kept: Kept = NOTHING_KEPT,
    stages: Stages | None = None,
    report: Report = no_report,
) -> FittedBlock:
    """Train one block of `chat_model`, which is left as it was, on `prompts` and choose how much of it to keep.

    `judge` says which of the model's own answers, as it is and as trained, are refusals. What is `kept` of the same fit
    is not done again. `stages` times what is done, and `report` takes the losses by step and the strengths tried.

    **Raises:** `UserError` when there are too few prompts of a kind or the block cannot be trained.
    """
    prompts = completed(prompts, settings)
    stages, split = stages or Stages(), prepare(prompts, settings)
    if isinstance(settings.layer, int):
        check_layer(chat_model, settings.layer)
    with stages("own answers"):
        chat_model = where_answers_begin(chat_model, split.train)
        if settings.reads_odds and _above_wait(chat_model):
            settle(chat_model.model)
        own, seed, aims = kept.file("answers.jsonl"), settings.seed, settings.aims
        refusals = cache(partial(how_it_refuses, chat_model, split.validation, judge, seed, own, aims))
        if not _above_wait(chat_model):  # else it is asked when the blocks above are there
            refusals()
    with stages("choose block"):
        if isinstance(settings.layer, int):
            scanned, layer = None, check_layer(chat_model, settings.layer)
        else:
            first = trainable_layers(chat_model)[0]
            with held(chat_model.blocks[first]):
                stored_block(chat_model, first)  # what could not be written back is told now, and not after the scan
            tokens = refusals().start.tokens
            scanned = kept.value("scan.json", Scan, lambda: scan_candidates(chat_model, split, tokens, settings))
            layer = (scanned.best() if settings.layer == "auto" else scanned.best_silhouette()).layer
        restore_precision(chat_model, layer)
    with held(chat_model.blocks[layer]):
        return _fit_block(_Begun(chat_model, split, settings, judge, kept, refusals, layer, scanned, stages, report))


@dataclass(frozen=True)
class _Begun:
    """A fit whose block is chosen and in memory; `refusals` asks once."""

    chat_model: ChatModel
    split: Split
    settings: Settings
    judge: Judge
    kept: Kept
    refusals: Callable[[], Refusals]
    layer: int
    scanned: Scan | None
    stages: Stages
    report: Report


def _fit_block(begun: _Begun) -> FittedBlock:
    chat_model, split, settings, layer = begun.chat_model, begun.split, begun.settings, begun.layer
    stages = begun.stages
    block, stored = chat_model.blocks[layer], stored_block(chat_model, layer)
    with stages("run blocks below"):
        token_ids = chat_model.encode(split.train + split.validation)
        check_reading(chat_model, layer, token_ids)
        above_wait = _above_wait(chat_model)
        if not above_wait:
            check_effect(chat_model, layer, token_ids)
        inputs = block_inputs(chat_model, layer, token_ids)
        split, inputs = selected(split, inputs, settings)
    everything, count = split.train + split.validation, len(split.train)
    training, validation = inputs.select(range(count)), inputs.select(range(count, len(everything)))
    with stages("train"):
        refusals = begun.refusals() if settings.reads_odds else None
        learned = learn(chat_model, split.train, training, settings, refusals, begun.kept, begun.report)
    position, trained, rule = learned.direction.position, learned.trained, learned.rule
    before = position(torch.cat([learned.activations, block_outputs(chat_model, validation)]))

    with stages("choose strength"):
        if above_wait:
            settle(chat_model.model)  # the blocks above, which were not needed until now
            check_effect(chat_model, layer, token_ids)
        refusals = begun.refusals()
        given = Tried(validation, split.validation, trained.state, stored.dtypes, settings.aims)
        trials = begun.kept.value("trials.json", list[Trial], lambda: _trials(begun, given, rule, refusals))
        chosen = _chosen(begun, trials, rule)

    state = interpolate(state_of(block), trained.state, chosen.strength, stored.dtypes)
    with stages("look again"):
        with loaded(block, state):
            after = position(block_outputs(chat_model, inputs))
        shown = paths(chat_model, layer, state, refusals, dict(zip(everything, (after - before).tolist(), strict=True)))
    return FittedBlock(
        layer=layer,
        direction=learned.direction,
        scan=begun.scanned,
        refusals=refusals,
        rule=rule,
        suited=learned.suited,
        schedule=learned.schedule,
        epochs=trained.epochs,
        trials=trials,
        chosen=chosen,
        state=state,
        stored=stored,
        experts=experts_changed(state_of(block), trained.state),
        trained=trained.state,
        prompts=everything,
        validation=[row >= count for row in range(len(everything))],
        before=before.tolist(),
        after=after.tolist(),
        warnings=learned.warnings,
        opening=str(chat_model.tokenizer.decode([*chat_model.opening])),
        paths=shown,
        seconds=dict(stages.seconds),
        failure=failure(trials, chosen, settings.limits, settings.aims),
        limits=applied(chosen, settings.limits, settings.aims),
    )


def _trials(begun: _Begun, given: Tried, rule: Rule, refusals: Refusals) -> list[Trial]:
    chat_model, limits = begun.chat_model, begun.settings.limits
    trials = try_strengths(chat_model, given, limits, rule.strengths, refusals.start)
    return answered(chat_model, given, trials, limits, refusals, begun.judge, begun.kept) if rule.searched else trials


def _above_wait(chat_model: ChatModel) -> bool:
    """Whether the blocks above the trained one were left on disk for later, though there is room for all of them."""
    placement, elsewhere = chat_model.placement, any(map(is_elsewhere, chat_model.blocks))
    return elsewhere and placement.offload == "none" and placement.device_map is None


def _chosen(begun: _Begun, trials: list[Trial], rule: Rule) -> Trial:
    settings = begun.settings
    for step, trial in enumerate(trials):
        begun.report("strength", rates_of(trial), step)
    chosen = choose(trials, settings.limits, settings.aims) if rule.searched else trials[-1]
    if chosen.strength == 0 and settings.allow_unsafe:
        whole = settings.changes.strength or 1.0
        # Where refusal is strengthened, weaker ones alone are tried: the strongest of them.
        return next((trial for trial in trials if trial.strength == whole), trials[-1])
    return chosen


def selected(split: Split, inputs: BlockInputs, settings: Settings) -> tuple[Split, BlockInputs]:
    """The training prompts that `settings` keep, by what the block receives at their last tokens.

    **Raises:** `UserError` when too few are kept.
    """
    if settings.select != "none":
        check_fraction(split.train, settings.select_fraction)
    activations = inputs.select(range(len(split.train))).last()
    kept = select(activations, split.train, settings.select, settings.select_fraction, settings.seed)
    validation = range(len(split.train), len(inputs.token_ids))
    return Split([split.train[row] for row in kept], split.validation), inputs.select([*kept, *validation])


def completed(prompts: Sequence[Prompt], settings: Settings) -> list[Prompt]:
    """`prompts`, and starter prompts of the kinds that lack, unless those are not wanted beside given ones.

    **Raises:** `UserError` when there are too few of a kind, with the starter prompts where those are mixed in.
    """
    whole, rule = with_missing_kinds(prompts, settings.starter), settings.foreseen
    settings.aims.check(prompts, rule.name, rule.holds)
    require(with_starter(whole) if settings.mixes_starter else whole, MINIMUM_PROMPTS)
    return whole


def prepare(prompts: Sequence[Prompt], settings: Settings) -> Split:
    """Mix in the starter prompts where `settings` say so, and put a part of every set aside for validation.

    **Raises:** `UserError` when a prompt is given under two kinds, sets are too small to be divided, or the share to
    be selected is.
    """
    mixed = distinct(with_starter(prompts) if settings.mixes_starter else prompts)
    mixed = with_system_prompt(mixed, settings.system_prompt) if settings.system_prompt else mixed
    split = split_validation(mixed, 0.2, settings.seed, settings.aims.beside)
    settings.aims.check_split(split)
    if settings.select != "none":
        check_fraction(split.train, settings.select_fraction)
    return split


def scan(
    model: ChatModel | Subject,
    prompts: Sequence[Prompt],
    starter: bool = True,
    seed: int = 0,
    silhouettes: bool = True,
    judge: Judge = judge_trained,
) -> Scan:
    """What moving each block's output along the refusal direction does to refusal, and which block `fit` would take.

    ```python
    scan = at.scan(model, prompts)
    scan.layer, scan.reason
    ```

    **Arguments:**

    - `starter`: whether the built-in prompts are scanned with too, as `fit` does by default.
    - `silhouettes`: whether the paper's criterion is computed beside the effect.
    - `judge`: says which of the model's own answers are refusals.

    **Raises:** `UserError` when there are too few prompts of a kind, or harmful and harmless ones are answered alike.
    """
    settings = Settings(seed=seed, starter=starter)
    split = prepare(completed(prompts, settings), settings)
    chat_model = model_of(subject_of(model))
    chat_model = where_answers_begin(chat_model, split.train)
    tokens = how_it_refuses(chat_model, split.validation, judge, seed).start.tokens
    return scan_layers(chat_model, split.train, range(len(chat_model.blocks) - 1), silhouettes, seed, tokens)


def scan_candidates(chat_model: ChatModel, split: Split, tokens: torch.Tensor, settings: Settings) -> Scan:
    """Scan the blocks that may be chosen: by silhouette all, as in the paper, by effect the middle.

    `tokens` are ids (token) that refusals begin with.
    """
    by_silhouette = settings.layer == "silhouette"
    layers = range(len(chat_model.blocks) - 1) if by_silhouette else trainable_layers(chat_model)
    return scan_layers(chat_model, split.train, layers, by_silhouette, settings.seed, tokens)


def cost(need: Cost) -> Phase:
    """What running the blocks below the trained one needs."""
    below = range(need.layer)
    weights = need.weights(below, need.early, head=False, beside=True)
    tensors = weights + need.kept() + need.working_on_given()
    read = need.stored(below) if need.streamed else 0
    return need.phase("run blocks below", tensors, 0, need.computing(below, need.given.tokens, 0), read)
