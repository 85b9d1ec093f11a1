"""The rules that say where training moves a block's activations: the paper's, its control, and ours.

ACTOR (arXiv 2507.04250) trains one block l. For a query q, a(q) is what the block returns at the last token of the chat
template with its generation prompt. The paper's Algorithm 1, and where each of its lines is:

    l  = the block with the largest silhouette of a map of a(q)      scan.py (by effect; the paper's beside it)
    R  = mean of a(q), q harmful - mean of a(q), q harmless          Eq. 1     direction.refusal_direction
    freeze all parameters but those of block l                                 train.train_block
    repeat for N epochs, for each query q:                                     train.train_block
        target = a -+ alpha Proj_R(a),  Proj_R(a) = (R.a / |R|^2) R  Eq. 3, 9  paper_targets
        loss   = 1 - cos(a(q), target)                               Eq. 8     cosine_loss
        update block l with AdamW                                              train.train_block
        every K steps: R anew, from the block as it is               Eq. 1     train.train_block

The control of its Appendix B shifts all queries by alpha R (Eq. 10-11, `uniform_targets`). Its theory (Eq. 4-7) has a
boundary R.a = d, to which an over-refused query is brought by the least shift; d is not estimated there. Our rules take
that up: `boundary` along R from the harmless mean (`boundary_targets`, `distance_loss`); `odds` with a boundary and a
normal that are read off the model (`odds.py`, `odds_loss`). Which of the two suits a model, `suited.py` says. A rule is
one `Rule`; a new one is one more in `RULES`.

Everything is in float32; a target has the shape of its activation, (prompt, d_model).
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch.nn.functional import logsigmoid, softplus

from .direction import RefusalDirection, raw_projection
from .odds import Odds

RuleName = Literal["odds", "boundary", "paper", "uniform"]
RuleChoice = Literal["auto", "odds", "boundary", "paper", "uniform"]
"""A rule, or the one of `odds` and `boundary` that suits the model (`suited.py`)."""

HARMFUL, HARMLESS, PSEUDO_HARMFUL, HELD = 0, 1, 2, 3
KIND_CODES = {"harmful": HARMFUL, "harmless": HARMLESS, "pseudo_harmful": PSEUDO_HARMFUL}
"""Of kinds; `HELD` are pseudo-harmful prompts that are to stay where they are (`aims.py`)."""

MOST_WEIGHT = 4.0
"""Of a prompt that is freed where others are held: a few shall not outweigh all else."""

STRENGTHS = (0.0, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1)
WEAK_STRENGTHS = (0.05, 0.1, 0.25)

# (activations (prompt, d_model), row of each in the training prompts (prompt), current direction) -> losses (prompt)
LossFunction = Callable[[torch.Tensor, torch.Tensor, RefusalDirection], torch.Tensor]
# (training activations (prompt, d_model) of the unedited model, kinds (prompt) int64, direction) -> the loss
Objective = Callable[[torch.Tensor, torch.Tensor, RefusalDirection], LossFunction]
# (kinds (prompt), odds of the unedited model, odds as read last, log-odds of the boundary) -> the loss
OddsObjective = Callable[[torch.Tensor, Odds, Odds, float], LossFunction]
# (activations (prompt, d_model), kinds (prompt), R (d_model), alpha) -> targets (prompt, d_model)
Targets = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float], torch.Tensor]


@dataclass(frozen=True)
class Schedule:
    """How training proceeds.

    - `learning_rate`: of AdamW without weight decay; falls linearly to 0 if `decay`.
    - `noise`: Gaussian noise added to the block's inputs, in units of each token's standard deviation.
    - `recompute_every`: steps between recomputations of the direction from current activations (K); 0: never.
    - `consistency`: weight of `consistency_loss` in the loss (CROW's alpha); 0: none.
    - `relative`: whether `learning_rate` is in units of the root mean square of the block's matrices, which differs
      between models by a factor of ten and more.
    - `renew_after`: the epoch, from 1, after which odds are read anew; 0: never.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    decay: bool
    noise: float
    recompute_every: int
    consistency: float = 0.0
    relative: bool = False
    renew_after: int = 0


@dataclass(frozen=True)
class Rule:
    """All that a rule decides.

    - `parameters`: the numbers in its targets, as `run.json` names them.
    - `strengths`: tried by `fit`, from 0, the unedited block, to 1, the trained one, and beyond. Where they are not
      `searched`, the last is kept: the paper has no strength but alpha, so that only before and after are measured.
    - `compared`: tried where methods are compared. Differs from the paper: there every rule has a strength, so that all
      methods are chosen alike; weak ones too for those that cost safety early.
    - `starter`: whether the built-in prompts may be mixed in; the paper's rules see the given prompts alone.
    - `warnings`: from what an `Objective` takes: what the rule will do the wrong way round, in sentences.
    - `objective`, or else `odds_objective`, for which odds are read off the blocks above.
    - `holds`: whether pseudo-harmful prompts can be held where they are.
    """

    name: RuleName
    schedule: Schedule
    parameters: dict[str, Any]
    objective: Objective | None
    strengths: tuple[float, ...]
    searched: bool
    compared: tuple[float, ...]
    starter: bool
    warnings: Callable[[torch.Tensor, torch.Tensor, RefusalDirection], list[str]] | None = None
    odds_objective: OddsObjective | None = None
    holds: bool = True


@dataclass(frozen=True)
class Margins:
    """What the rule `odds` asks for.

    - `pseudo_harmful`, `harmful`: how far beyond the boundary prompts are to come, in log-odds: answered, refused.
    - `harmless`: how far below what they were the log-odds of harmless prompts are held, so that an unseen one does not
      rise over the boundary with harmful prompts of its form.
    - `hold`: weight of keeping activations where they are, and `hold_harmless`, the same for harmless prompts.
    - `harmless_odds`: weight of the log-odds of harmless prompts.
    - `refused`, `answered`: weights of harmful prompts that the unedited model refuses, and of those that it answers:
      what is refused must stay so before more is.
    - `held`: as `harmless`, of prompts that are `HELD`.
    """

    pseudo_harmful: float
    harmful: float
    harmless: float
    hold: float
    hold_harmless: float
    harmless_odds: float
    refused: float
    answered: float
    held: float = 0.0


@dataclass(frozen=True)
class Shifts:
    """How far the boundary rule moves a prompt, in units of its own distance s from the harmless mean.

    - `hold`: weight of harmless prompts, which stay where they are, in the loss.
    """

    pseudo_harmful: float
    harmful: float
    hold: float = 1.0


def kind_codes(kinds: list[str], held: Sequence[bool] = ()) -> torch.Tensor:
    """Kinds as integers, (prompt) int64, for masks; of prompts that are `held`, `HELD`."""
    codes = torch.tensor([KIND_CODES[kind] for kind in kinds])
    return torch.where(torch.tensor(held), HELD, codes) if held else codes


def paper_targets(activations: torch.Tensor, kinds: torch.Tensor, vector: torch.Tensor, alpha: float) -> torch.Tensor:
    """Eq. 9: a + alpha Proj_R(a) for harmful prompts, a - alpha Proj_R(a) for the others."""
    return activations + _away(kinds) * alpha * raw_projection(activations, vector)


def uniform_targets(activations: torch.Tensor, kinds: torch.Tensor, vector: torch.Tensor, alpha: float) -> torch.Tensor:
    """Eq. 10-11, the paper's control: a + alpha R for harmful prompts, a - alpha R for the others."""
    return activations + _away(kinds) * alpha * vector


def _away(kinds: torch.Tensor) -> torch.Tensor:
    """The sign (prompt, 1) by which a prompt is moved along R."""
    return torch.where(kinds == HARMFUL, 1.0, -1.0).unsqueeze(-1)


def boundary_targets(
    activations: torch.Tensor, kinds: torch.Tensor, direction: RefusalDirection, shifts: Shifts
) -> torch.Tensor:
    """Targets of the boundary rule, from the activations of the unedited model.

    With u = R / ||R|| and s = u.(a - o): a - p s u for pseudo-harmful, a + h s u for harmful, a for harmless. Each
    prompt moves along R by as much as it is from the harmless mean, so that one hardly refused hardly moves; one on
    the far side of that mean (s < 0) is held in place, whatever its kind. So is one that is `HELD`.

    Differs from the paper (Eq. 9): the projection is taken from the harmless mean o instead of from 0, so that its sign
    says which side a prompt is on; targets are fixed by the unedited model, so that training has an end; harmless
    prompts are held in place.
    """
    position = direction.position(activations).clamp(min=0)  # a prompt beyond the harmless mean stays where it is
    factor = torch.zeros_like(position)
    factor[kinds == PSEUDO_HARMFUL] = -shifts.pseudo_harmful
    factor[kinds == HARMFUL] = shifts.harmful
    return activations + (factor * position).unsqueeze(-1) * direction.vector


def cosine_loss(activations: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Eq. 8 of each prompt: 1 - cos(a, target), (prompt). Its mean is the paper's loss."""
    return 1 - torch.nn.functional.cosine_similarity(activations, targets, dim=-1)


def distance_loss(
    activations: torch.Tensor, targets: torch.Tensor, length: float, weights: torch.Tensor | float = 1.0
) -> torch.Tensor:
    """w ||a - target||^2 / ||R||^2 of each prompt, (prompt), with `weights` w (prompt), or one of all.

    Unlike Eq. 8 it also sees movement that keeps the angle.
    """
    return weights * (activations - targets).square().sum(dim=-1) / length**2


def freed_weights(kinds: torch.Tensor) -> torch.Tensor:
    """Weights (prompt) by which those that are freed count together as much as if none were held, as far as it goes.

    1 for all others, and for all where none is held.
    """
    freed, held = int((kinds == PSEUDO_HARMFUL).sum()), int((kinds == HELD).sum())
    weight = min(MOST_WEIGHT, (freed + held) / max(1, freed))
    return torch.where(kinds == PSEUDO_HARMFUL, weight, 1.0)


def sign_warnings(activations: torch.Tensor, kinds: torch.Tensor, direction: RefusalDirection) -> list[str]:
    """What Eq. 9 will do the wrong way round, in sentences, given raw projections of the training prompts.

    A benign prompt with R.a < 0 is pushed towards refusal by "- alpha Proj"; a harmful one with R.a < 0 away from it.
    """
    warnings, raw = [], activations @ direction.unit
    for kind, code in KIND_CODES.items():
        negative, total = int((raw[kinds == code] < 0).sum()), int((kinds == code).sum())
        harm = "away from" if code == HARMFUL else "towards"
        if 2 * negative > total:
            warnings.append(
                f"{negative} of {total} {kind.replace('_', '-')} prompts have a negative projection: "
                f"the paper's rule will push them {harm} refusal. Use the rule auto."
            )
    return warnings


def odds_loss(kinds: torch.Tensor, before: Odds, now: Odds, boundary: float, margins: Margins) -> LossFunction:
    """The loss of the rule `odds`: just enough movement for prompts to come to their side of the boundary.

    With z the log-odds of refusal minus the boundary's, to the first order from where they were read last, z0 what they
    were at first, a(q) the activation and G the mean squared length of the gradients of z0, of each prompt

        softplus(z + m) for pseudo-harmful, softplus(max(m, z0) - z) for harmful ones,
        KL(sigmoid(z0 - m) || sigmoid(z)) for harmless ones and for those that are `HELD`,
        + weight G ||a(q) - a_before(q)||^2.

    So one that is on its side already hardly pulls, and the last term keeps all others from moving more than they
    must. Its unit, G, is how much a movement may change log-odds: what a model says is not as sensitive in all models.

    Differs from the paper (Eq. 8, 9): the boundary and its normal are read off the model (Eq. 4-7 leave them open),
    no target is given beyond it, and harmful prompts that were answered are moved too.
    """
    sensitivity = before.slope.gradients.square().sum(dim=-1).mean()
    old = before.slope.values - boundary
    weights = torch.full_like(old, margins.hold)
    weights[(kinds == HARMLESS) | (kinds == HELD)] = margins.hold_harmless
    freed = freed_weights(kinds)
    of_harmful = torch.where(old > 0, margins.refused, margins.answered)
    refusal = old.clamp(min=margins.harmful)  # what is refused more clearly than that shall stay so

    def loss(activations: torch.Tensor, rows: torch.Tensor, _current: RefusalDirection) -> torch.Tensor:
        z, kind = now.near(activations, rows) - boundary, kinds[rows]
        aim = old[rows] - margins.harmless * (kind == HARMLESS) - margins.held * (kind == HELD)
        held = aim.sigmoid() * (logsigmoid(aim) - logsigmoid(z))
        held = held + (-aim).sigmoid() * (logsigmoid(-aim) - logsigmoid(-z))
        terms = margins.harmless_odds * held
        terms = torch.where(kind == PSEUDO_HARMFUL, freed[rows] * softplus(z + margins.pseudo_harmful), terms)
        terms = torch.where(kind == HARMFUL, of_harmful[rows] * softplus(refusal[rows] - z), terms)
        moved = (activations - before.at[rows]).square().sum(dim=-1)
        return terms + weights[rows] * sensitivity * moved

    return loss


def _boundary(shifts: Shifts) -> Objective:
    def objective(activations: torch.Tensor, kinds: torch.Tensor, direction: RefusalDirection) -> LossFunction:
        targets, length = boundary_targets(activations, kinds, direction, shifts), direction.length
        weights = torch.where(kinds == HARMLESS, shifts.hold, freed_weights(kinds))
        return lambda now, rows, _current: distance_loss(now, targets[rows], length, weights[rows])

    return objective


def _papers(targets: Targets, alpha: float) -> Objective:
    def objective(_activations: torch.Tensor, kinds: torch.Tensor, _direction: RefusalDirection) -> LossFunction:
        # From the activation before each update, and held fixed while that is made.
        return lambda now, rows, current: cosine_loss(now, targets(now.detach(), kinds[rows], current.vector, alpha))

    return objective


def _odds(margins: Margins) -> OddsObjective:
    return lambda kinds, before, now, boundary: odds_loss(kinds, before, now, boundary, margins)


ODDS_MARGINS = Margins(
    pseudo_harmful=3.0,
    harmful=1.2,
    harmless=0.5,
    hold=0.001,
    hold_harmless=0.1,
    harmless_odds=10.0,
    refused=3.0,
    answered=0.3,
)
BOUNDARY_SHIFTS = Shifts(pseudo_harmful=2.0, harmful=1.0)
PAPER_ALPHA = 0.0015  # Appendix A: 0.0015 for Llama-2-7b-chat, 0.0004 for 13b, 0.003 for Gemma-7b-it
UNIFORM_ALPHA = 0.1  # not stated; at the paper's 0.0015 the control does nothing here

ODDS_SCHEDULE = Schedule(
    epochs=12,
    batch_size=20,
    learning_rate=0.011,
    decay=True,
    noise=0.0,
    recompute_every=0,
    relative=True,
    renew_after=1,
)
BOUNDARY_SCHEDULE = Schedule(epochs=11, batch_size=20, learning_rate=1.2e-3, decay=True, noise=0.1, recompute_every=0)


def odds_rule(margins: Margins = ODDS_MARGINS, schedule: Schedule = ODDS_SCHEDULE) -> Rule:
    """The rule `odds` with these numbers."""
    return Rule(
        name="odds",
        schedule=schedule,
        parameters={"margins": asdict(margins)},
        objective=None,
        strengths=STRENGTHS,
        searched=True,
        compared=STRENGTHS[1:],
        starter=True,
        odds_objective=_odds(margins),
    )


def boundary_rule(shifts: Shifts = BOUNDARY_SHIFTS, schedule: Schedule = BOUNDARY_SCHEDULE) -> Rule:
    """The rule `boundary` with these numbers."""
    return Rule(
        name="boundary",
        schedule=schedule,
        parameters={"shifts": asdict(shifts)},
        objective=_boundary(shifts),
        strengths=STRENGTHS,
        searched=True,
        compared=STRENGTHS[1:],
        starter=True,
    )


ODDS, BOUNDARY = odds_rule(), boundary_rule()
PAPER = Rule(
    name="paper",
    # "3 epochs", "1e-5"; Algorithm 1 updates after each query; whether the rate falls, and K, are not stated.
    schedule=Schedule(epochs=3, batch_size=1, learning_rate=1e-5, decay=False, noise=0.0, recompute_every=64),
    parameters={"alpha": PAPER_ALPHA},
    objective=_papers(paper_targets, PAPER_ALPHA),
    strengths=(0.0, 1.0),
    searched=False,
    compared=(*WEAK_STRENGTHS, *STRENGTHS[1:]),
    starter=False,
    warnings=sign_warnings,
    holds=False,
)
UNIFORM = replace(
    PAPER,
    name="uniform",
    schedule=replace(PAPER.schedule, learning_rate=1e-4),
    parameters={"alpha": UNIFORM_ALPHA},
    objective=_papers(uniform_targets, UNIFORM_ALPHA),
    warnings=None,
)
RULES: dict[RuleName, Rule] = {rule.name: rule for rule in (ODDS, BOUNDARY, PAPER, UNIFORM)}
