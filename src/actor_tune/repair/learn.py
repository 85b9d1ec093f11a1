"""Train a block by a rule: what the unedited model makes of the prompts, the direction, the loss, and the training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from ..errors import UserError
from ..models.above import Above, blocks_above
from ..models.first_token import first_token_logprobs
from ..models.inputs import BlockInputs
from ..models.model import ChatModel
from ..models.placement import device_of
from ..progress import Report, no_report
from ..prompts.prompt import Prompt
from ..prompts.starter import starter
from .direction import RefusalDirection, refusal_direction
from .kept import NOTHING_KEPT, Kept
from .odds import Odds, RefusalStart, log_odds, odds_reader
from .refusals import Refusals
from .rules import HARMFUL, HARMLESS, LossFunction, Rule, Schedule, kind_codes
from .settings import Settings
from .suited import Suited, suited_rule
from .train import OUTPUT_BATCH, TrainedBlock, block_outputs, train_block


@dataclass(frozen=True)
class Unedited:
    """What the unedited block, and those above it, make of the training prompts.

    - `activations`: what the block returns at last tokens, (prompt, d_model) float32.
    - `odds`: of refusal, around them; None where nothing was to be known of them.
    - `above`: gives what reads them; asked once, and only where it is needed, because it runs all blocks above.
    - `refused`: gives of each prompt, (prompt) bool, whether the first token of its answer is that of a refusal; asked
      only where it is needed.
    """

    activations: torch.Tensor
    odds: Odds | None = None
    above: Callable[[], Above] | None = None
    refused: Callable[[], torch.Tensor] | None = None


@dataclass(frozen=True)
class Learned:
    """What training by `rule` made; `activations`: the unedited block's at last tokens, (prompt, d_model) float32."""

    rule: Rule
    suited: Suited | None
    direction: RefusalDirection
    activations: torch.Tensor
    schedule: Schedule
    trained: TrainedBlock
    warnings: list[str]


def unedited(activations: torch.Tensor, above: Above, start: RefusalStart) -> Unedited:
    """What the blocks `above` make of `activations` (prompt, d_model), which the unedited block returns."""
    odds = odds_reader(above, start.tokens)(activations)
    return Unedited(activations, odds, lambda: above, lambda: odds.slope.values > start.boundary)


def begin_as_refusals(chat_model: ChatModel, inputs: BlockInputs, start: RefusalStart) -> torch.Tensor:
    """Of each prompt, (prompt) bool, whether the model, as it is, begins its answer as it begins refusals."""
    parts = [inputs.select(rows) for rows in torch.arange(len(inputs.token_ids)).split(OUTPUT_BATCH)]
    return (
        torch.cat([log_odds(first_token_logprobs(chat_model, part), start.tokens) for part in parts]) > start.boundary
    )


def learn(
    chat_model: ChatModel,
    prompts: Sequence[Prompt],
    inputs: BlockInputs,
    settings: Settings,
    refusals: Refusals | None,
    kept: Kept = NOTHING_KEPT,
    report: Report = no_report,
    known: Unedited | None = None,
) -> Learned:
    """Train block `inputs.layer`, which is left as it was, on `prompts`, of which `inputs` are what it receives.

    A trained block that was `kept` is taken instead. `report` takes the loss of each step. `known`: what the unedited
    model makes of the prompts, where that is known already.

    **Raises:** `UserError` when training diverges, or refused and answered prompts do not give a direction.
    """
    kinds = kind_codes([prompt.kind for prompt in prompts], [settings.aims.holds(prompt) for prompt in prompts])
    start = refusals.start if refusals else None
    activations = known.activations if known else block_outputs(chat_model, inputs)
    direction = refusal_direction(activations[kinds == HARMFUL], activations[kinds == HARMLESS])
    suited = None
    if settings.rule == "auto" and not settings.aims.holds_some:  # where some are held, the rule that sees their odds
        suited = suited_rule(chat_model, inputs, kinds, direction.position(activations), refusals)
    rule = settings.rule_named(suited.rule) if suited else settings.foreseen
    by_behaviour = settings.changes.direction == "behaviour"
    if by_behaviour:
        if start is None:
            raise ValueError("a direction by behaviour needs to know how the model refuses")
        told = known.refused if known else None
        direction = _by_behaviour(activations, told() if told else begin_as_refusals(chat_model, inputs, start))
    if rule.odds_objective and start and (known is None or known.odds is None):
        known = unedited(activations, blocks_above(chat_model, inputs), start)
    schedule, weights = replace(rule.schedule, consistency=settings.consistency), _weights(prompts, settings)

    def train() -> TrainedBlock:
        renewed: Callable[[torch.Tensor], LossFunction] | None = None
        if rule.objective:
            loss = _weighed(rule.objective(activations, kinds, direction), weights)
        else:
            loss, renewed = _loss_by_odds(known, kinds, rule, start, weights)
        return train_block(chat_model, inputs, kinds, direction, loss, schedule, settings.seed, renewed, report)

    trained = kept.training(device_of(chat_model.blocks[inputs.layer]), train)
    if not all(tensor.isfinite().all() for tensor in trained.state.values()):
        raise UserError(chat_model.name, "training diverged", "finite weights", "report this model and these prompts")
    warnings = rule.warnings(activations, kinds, direction) if rule.warnings else []
    return Learned(rule, suited, direction, activations, schedule, trained, warnings)


def _weights(prompts: Sequence[Prompt], settings: Settings) -> torch.Tensor | None:
    """How much each of `prompts` counts, (prompt) with mean 1; None where all count alike."""
    if settings.changes.given == 1.0:
        return None
    built_in = {prompt.text for prompt in starter("train")}
    weights = torch.tensor([1.0 if prompt.text in built_in else settings.changes.given for prompt in prompts])
    return weights / weights.mean()


def _weighed(loss: LossFunction, weights: torch.Tensor | None) -> LossFunction:
    """`loss` times the weight of each prompt."""
    return loss if weights is None else lambda now, rows, current: weights[rows] * loss(now, rows, current)


def _by_behaviour(activations: torch.Tensor, refused: torch.Tensor) -> RefusalDirection:
    """R from prompts that the unedited model refuses to those that it answers, by their first tokens."""
    if not 0 < int(refused.sum()) < len(refused):
        found = f"{int(refused.sum())} of {len(refused)} training prompts refused"
        raise UserError("`direction=behaviour`", found, "some refused, some answered", "take the direction of means")
    return refusal_direction(activations[refused], activations[~refused])


def _loss_by_odds(
    known: Unedited | None,
    kinds: torch.Tensor,
    rule: Rule,
    start: RefusalStart | None,
    weights: torch.Tensor | None,
) -> tuple[LossFunction, Callable[[torch.Tensor], LossFunction] | None]:
    """The loss of a rule by odds, and what makes it anew; None where the model cannot be asked while it is trained."""
    objective = rule.odds_objective
    if objective is None or start is None or known is None or known.odds is None or known.above is None:
        raise ValueError(f"the rule {rule.name} needs to know how the model refuses")
    before = known.odds

    def loss(now: Odds) -> LossFunction:
        return _weighed(objective(kinds, before, now, start.boundary), weights)

    if not rule.schedule.renew_after or not (above := known.above()).alone:
        return loss(before), None
    read = odds_reader(above, start.tokens)
    return loss(before), lambda now: loss(read(now))
