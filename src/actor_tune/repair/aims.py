"""What a fit is to change: which benign prompts are freed, and which are held where they are.

Without more said, all pseudo-harmful prompts are to be answered. With categories, those of some; the others, the
starter prompts among them, are neither to be answered more nor refused more. Where refusal is strengthened, none is to
be answered more, and harmful prompts that are answered are to be refused.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import UserError, shown
from ..prompts.prompt import MINIMUM_PROMPTS, Prompt, of_kind
from ..prompts.split import Split
from ..storage.text import same_to_a_reader

NO_CATEGORY = "without a category"


@dataclass(frozen=True)
class Aims:
    """What is to become of benign prompts that look harmful.

    - `categories`: those whose prompts are freed, whatever their case; none: all.
    - `strengthen`: refusal is strengthened, and none is freed.
    """

    categories: tuple[str, ...] = ()
    strengthen: bool = False

    def frees(self, prompt: Prompt) -> bool:
        """Whether it is to be answered."""
        named = {same_to_a_reader(name) for name in self.categories}
        wanted = not named or same_to_a_reader(prompt.category) in named
        return prompt.kind == "pseudo_harmful" and not self.strengthen and wanted

    def holds(self, prompt: Prompt) -> bool:
        """Whether it looks harmful, and is held where it is."""
        return prompt.kind == "pseudo_harmful" and not self.frees(prompt)

    @property
    def holds_some(self) -> bool:
        """Whether some may be held."""
        return bool(self.categories) or self.strengthen

    def beside(self, prompt: Prompt) -> bool:
        """Whether it is held beside those that are freed, so that compliance does not count it."""
        return bool(self.categories) and self.holds(prompt)

    @property
    def purpose(self) -> str:
        """What the fit is for, in words: "trained so that ..."."""
        if self.strengthen:
            return "so that harmful prompts that slip through are refused, and benign prompts are answered as before"
        only = f" of {listed(self.categories)} alone" if self.categories else ""
        return f"so that benign prompts{only} that only look harmful are answered"

    def check(self, prompts: Sequence[Prompt], rule: str, holds: bool) -> None:
        """Stop where `prompts`, as they are given, do not have the categories, or `rule` cannot hold prompts.

        **Raises:** `UserError`, which lists the categories that there are.
        """
        where = "`strengthen=True`" if self.strengthen else f"`categories={shown(','.join(self.categories))}`"
        if not self.holds_some:
            return
        if self.categories and self.strengthen:
            raise UserError("`strengthen=True`", "`categories=` beside it", "one of them", "leave one out")
        if not holds:
            found = f"`rule={rule}`, which moves all benign prompts alike"
            raise UserError(where, found, "a rule that can hold some", "leave the rule out, or use `rule=odds`")
        if self.categories:
            self._check_categories(where, of_kind(prompts, "pseudo_harmful"))

    def _check_categories(self, where: str, benign: Sequence[Prompt]) -> None:
        known = {same_to_a_reader(prompt.category) for prompt in benign if prompt.category}
        listed = f"pseudo_harmful prompts by category: {counted(benign)}"
        if not known:
            found, fix = "no prompt with a category", "add a column `category`, or name yours: `columns=category=TOPIC`"
            raise UserError(where, found, "pseudo_harmful prompts with one", fix)
        for name in self.categories:
            if same_to_a_reader(name) not in known:
                raise UserError(where, f"no pseudo_harmful prompt of {name!r}", listed, "correct the name")
        if (freed := sum(map(self.frees, benign))) < MINIMUM_PROMPTS:
            expected = f"at least {MINIMUM_PROMPTS}; {listed}"
            raise UserError(where, f"{freed} pseudo_harmful prompts", expected, "name more, or add prompts of them")

    def check_split(self, split: Split) -> None:
        """Stop where none of those that are freed is to be learned from, or to choose the strength on.

        **Raises:** `UserError`.
        """
        if self.categories and not all(any(map(self.frees, part)) for part in (split.train, split.validation)):
            found = "the pseudo_harmful prompts of these categories are alone in their sets"
            fix = "give more prompts the same set"
            raise UserError(f"`categories={shown(','.join(self.categories))}`", found, "a set of at least two", fix)


FREE_ALL = Aims()
"""Pseudo-harmful prompts are to be answered, all of them."""


def listed(names: Sequence[str]) -> str:
    """Names in words."""
    return ", ".join(map(shown, names))


def category_of(prompt: Prompt) -> str:
    """The category that `prompt` is told under."""
    return prompt.category or NO_CATEGORY


def counted(prompts: Sequence[Prompt]) -> str:
    """The categories of `prompts` with how many each has, in words, the largest first."""
    names: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for prompt in prompts:
        same = same_to_a_reader(prompt.category)
        names.setdefault(same, shown(category_of(prompt)))
        counts[same] += 1
    return ", ".join(f"{names[same]} {n}" for same, n in counts.most_common())
