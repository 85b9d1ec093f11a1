"""Prompts: what they are, where they come from, how they are split. Knows nothing of models."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from ..errors import UserError
from ..storage.text import check_text, same_to_a_reader

Kind = Literal["harmful", "harmless", "pseudo_harmful"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = get_args(Role)

MINIMUM_PROMPTS = 8
"""Of each kind, to learn from: below this neither a direction nor a validation part can be had."""


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True)
class Prompt:
    """One user query: its text, what answering it would mean (`kind`), and the collection it belongs to (`set`).

    - `context`: what precedes the query: a system prompt, earlier turns; empty for a single turn.
    - `category`: what it is about, such as "medicine"; empty where that was not said. It has no part in equality: an
      answer is to the prompt, whatever that was filed under.
    """

    text: str
    kind: Kind
    set: str
    context: tuple[Message, ...] = ()
    category: str = field(default="", compare=False)

    def messages(self) -> list[dict[str, str]]:
        """The whole conversation as chat templates and servers take it: `context`, then the query."""
        turns = [*self.context, Message("user", self.text)]
        return [{"role": turn.role, "content": turn.content} for turn in turns]


def with_system_prompt(prompts: Iterable[Prompt], text: str) -> list[Prompt]:
    """`prompts` with `text` as the system prompt of each that has none of its own.

    **Raises:** `UserError` when `text` has NUL in it, or half of a surrogate pair.
    """
    check_text(text, "`system_prompt=`", "the text")
    system = Message("system", text)
    return [
        prompt
        if prompt.context and prompt.context[0].role == "system"
        else replace(prompt, context=(system, *prompt.context))
        for prompt in prompts
    ]


def require(prompts: Sequence[Prompt], minimum: int = MINIMUM_PROMPTS, kinds: Iterable[Kind] = KINDS) -> None:
    """Stop unless there are at least `minimum` prompts of each of `kinds`.

    **Raises:** `UserError` naming the kind with too few.
    """
    counts = Counter(prompt.kind for prompt in prompts)
    for kind in kinds:
        if counts[kind] < minimum:
            fix = f"add some with `{kind}=FILE`"
            raise UserError("prompts", f"{counts[kind]} of kind {kind}", f"at least {minimum}", fix)


def of_kind(prompts: Iterable[Prompt], kind: Kind) -> list[Prompt]:
    """Those of `kind`, in order."""
    return [prompt for prompt in prompts if prompt.kind == kind]


def rows_of_kind(prompts: Sequence[Prompt], kind: Kind) -> list[int]:
    """Where in `prompts` those of `kind` are."""
    return [row for row, prompt in enumerate(prompts) if prompt.kind == kind]


def fingerprint(prompts: Iterable[Prompt]) -> str:
    """SHA-256 (hex) over texts, kinds, sets and categories in order: two runs with the same value saw the same prompts.

    A prompt without a category counts as it did before there were any.
    """
    digest = hashlib.sha256()
    for prompt in prompts:
        turns = [[turn.role, turn.content] for turn in prompt.context]
        category = [{"category": prompt.category}] if prompt.category else []
        digest.update(json.dumps([prompt.text, prompt.kind, prompt.set, *turns, *category]).encode())
    return digest.hexdigest()


def without_categories(prompts: Iterable[Prompt]) -> list[Prompt]:
    """`prompts` as they are asked: what they are filed under changes no answer."""
    return [replace(prompt, category="") for prompt in prompts]


def distinct(prompts: Sequence[Prompt]) -> list[Prompt]:
    """`prompts` without repetitions, so that none is both trained and validated on; with the first category of each.

    **Raises:** `UserError` when a text is given under two kinds, whatever its case, spacing, Unicode form and unseen
    characters.
    """
    firsts: dict[tuple[str, ...], Prompt] = {}
    kept: dict[tuple[str, tuple[Message, ...]], Prompt] = {}
    for prompt in prompts:
        turns = [Message("user", prompt.text), *prompt.context]
        read = tuple(same_to_a_reader(part) for turn in turns for part in (turn.role, turn.content))
        first = firsts.setdefault(read, prompt)
        if first.kind != prompt.kind:
            like = "" if first.text == prompt.text else f", which reads like {first.text[:60]!r},"
            found = f"{prompt.text[:60]!r}{like} is {first.kind} and {prompt.kind}"
            raise UserError("prompts", found, "one kind for each prompt", "remove it from one of the files")
        same = kept.setdefault((prompt.text, prompt.context), prompt)
        if prompt.category and not same.category:
            kept[prompt.text, prompt.context] = replace(same, category=prompt.category)
    return list(kept.values())


def limit_per_set(prompts: Sequence[Prompt], limit: int) -> list[Prompt]:
    """The first `limit` prompts of every set."""
    seen: Counter[tuple[Kind, str]] = Counter()
    kept = []
    for prompt in prompts:
        seen[prompt.kind, prompt.set] += 1
        if seen[prompt.kind, prompt.set] <= limit:
            kept.append(prompt)
    return kept
