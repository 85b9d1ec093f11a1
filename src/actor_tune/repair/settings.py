"""Everything that decides a fit, besides the model and the prompts."""

from dataclasses import dataclass, field
from typing import Literal

from .aims import Aims
from .changes import UNCHANGED, Changes, rule_with
from .coreset import FRACTION, Selection
from .rules import Rule, RuleChoice, RuleName
from .strength import Limits
from .strengthening import strengthening

LayerChoice = int | Literal["auto", "silhouette"]


@dataclass(frozen=True)
class Settings:
    """Everything that decides a fit, besides the model and the prompts.

    - `rule`: "auto" takes the one that suits the model (`suited.py`); where some prompts are held, `odds`.
    - `starter`: whether the built-in prompts are trained on too, where the rule allows it. They vary in form,
      and each benign one has a harmful twin: without them, refusal is lost where given harmful prompts do not reach.
    - `select`: keep only a share, `select_fraction` (0..1), of the training prompts of each kind: those that lie least
      apart, or any.
    - `consistency`: weight of CROW's regulariser.
    - `system_prompt`: for every prompt that has none of its own, the starter prompts too.
    - `gate_prompts`: the safety gate asks at most so many harmful prompts, of each set as many as of the others, and as
      large a share of the harmless ones; None: all.
    - `changes`: numbers that take the place of the rule's own.
    - `categories`: the pseudo-harmful prompts of these are freed, and the others, the starter prompts' too, held where
      they are; none: all are freed.
    - `strengthen`: harmful prompts that slip through are to be refused, and pseudo-harmful ones held where they are.
    - `allow_unsafe`: where no strength is within the limits, keep the whole trained change instead of nothing.
    """

    rule: RuleChoice = "auto"
    layer: LayerChoice = "auto"
    seed: int = 0
    starter: bool = True
    allow_unsafe: bool = False
    system_prompt: str | None = None
    select: Selection = "none"
    select_fraction: float = FRACTION
    consistency: float = 0.0
    limits: Limits = field(default_factory=Limits)
    gate_prompts: int | None = None
    changes: Changes = UNCHANGED
    categories: tuple[str, ...] = ()
    strengthen: bool = False

    @property
    def aims(self) -> Aims:
        """Which pseudo-harmful prompts are freed, and which are held."""
        return Aims(tuple(self.categories), self.strengthen)

    @property
    def mixes_starter(self) -> bool:
        """Whether the built-in prompts are in fact trained on."""
        return self.starter and self.foreseen.starter

    @property
    def foreseen(self) -> Rule:
        """The rule; where it is chosen by the model, the one that needs more of the machine.

        Where prompts are held it is that one: it sees their odds, and holds them on both sides.
        """
        return self.rule_named("odds" if self.rule == "auto" else self.rule)

    def rule_named(self, name: RuleName) -> Rule:
        """The rule `name` with the changes to its numbers, and strengthened where refusal is to be.

        **Raises:** `UserError` when it takes no changes.
        """
        rule = rule_with(name, self.changes)
        return strengthening(rule) if self.strengthen and rule.holds else rule

    @property
    def reads_odds(self) -> bool:
        """Whether the unedited model's odds of refusal are needed to train."""
        return self.foreseen.odds_objective is not None or self.changes.direction == "behaviour"

    @property
    def last_block(self) -> int | None:
        """The last block that is needed until training has ended; None: all are."""
        return self.layer if isinstance(self.layer, int) and not self.reads_odds else None


DEFAULTS = Settings()
