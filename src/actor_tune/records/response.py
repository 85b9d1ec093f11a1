"""Answers to prompts, and the rows of `responses.jsonl` and `baseline.jsonl`."""

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import UserError
from ..judges.garbled import garbled
from ..judges.verdict import Exchange, Outcome, Verdict
from ..prompts.prompt import Kind, Message, Prompt
from .file import FIX, read_rows

RESPONSES_FILE = "responses.jsonl"
BASELINE_FILE = "baseline.jsonl"
DISAGREEMENTS_FILE = "disagreements.jsonl"


@dataclass(frozen=True)
class Response:
    """A prompt and the model's answer, without special tokens; not `finished` where the limit of tokens cut it off.

    - `reasoning`: what the model thought before it answered; None where it does not reason. Where there is some and no
      `text`, it did not come to an end.
    - `filtered`: a filter of the provider's stopped it, and not the model.
    - `asked_otherwise`: how a server had to be asked otherwise than greedily with a limit, in words.
    """

    prompt: Prompt
    text: str
    finished: bool
    reasoning: str | None = None
    filtered: bool = False
    asked_otherwise: tuple[str, ...] = ()

    def to(self, prompt: Prompt) -> "Response":
        """The same answer to an equal `prompt`, which may be of another category."""
        return replace(self, prompt=prompt)

    @property
    def only_thought(self) -> bool:
        """Whether its reasoning did not end."""
        return self.reasoning is not None and not self.finished and not self.text

    @property
    def is_garbled(self) -> bool:
        """Whether the model wrote nothing that can be read. What a filter stopped does not say so."""
        return not self.filtered and garbled(self.text) is not None

    @property
    def exchange(self) -> Exchange:
        """As judges take it."""
        return Exchange(self.prompt.text, self.text, self.filtered)


SetAndKind = tuple[str, Kind]
"""A set's name and its kind: what one name holds of two kinds are two sets."""


@dataclass(frozen=True, kw_only=True)
class PromptRow:
    """A prompt's columns, as in a file of prompts; `messages` is the whole conversation, where there is more to it.

    - `category`: None where it has none.
    """

    prompt: str
    kind: Kind
    set: str
    messages: list[Message] | None = None
    category: str | None = None

    @property
    def set_and_kind(self) -> SetAndKind:
        """Where it is counted."""
        return self.set, self.kind

    @property
    def context(self) -> tuple[Message, ...]:
        """What precedes the query."""
        return tuple((self.messages or [])[:-1])

    @property
    def asked(self) -> Prompt:
        """The prompt itself."""
        return Prompt(self.prompt, self.kind, self.set, self.context, self.category or "")


@dataclass(frozen=True, kw_only=True)
class ResponseRow(PromptRow):
    """An answer; with its verdict, once it is judged."""

    response: str
    finished: bool = True
    reasoning: str | None = None
    filtered: bool | None = None
    asked_otherwise: list[str] | None = None
    verdict: Outcome | None = None
    score: float | None = None
    reason: str | None = None

    @property
    def refused(self) -> bool | None:
        """Refused in whole or in part; None where it was not scored."""
        return None if self.verdict in (None, "unscored") else self.verdict != "compliance"


@dataclass(frozen=True)
class Pair:
    """An answer, and the one to the same prompt before; None where there is none."""

    before: ResponseRow | None
    after: ResponseRow

    @property
    def flipped(self) -> str:
        """`answered` or `refused`, where that is new; `unscored` where a refusal no longer could be scored; empty where
        it is as before, or is not known.
        """
        before, after = self.before and self.before.refused, self.after.refused
        if before and self.after.verdict == "unscored":
            return "unscored"
        if before is None or after is None or before == after:
            return ""
        return "refused" if after else "answered"


def paired(before: Sequence[ResponseRow], after: Sequence[ResponseRow]) -> list[Pair]:
    """The answers `after`, in order, each with one `before` to the same prompt."""
    left: dict[Prompt, deque[ResponseRow]] = defaultdict(deque)
    for row in before:
        left[row.asked].append(row)
    return [Pair(left[row.asked].popleft() if left[row.asked] else None, row) for row in after]


def read_judged(path: Path) -> list[ResponseRow]:
    """The answers in the file `path`, which must have verdicts.

    **Raises:** `UserError` when one has none, or the file is missing or damaged.
    """
    rows = read_rows(ResponseRow, path)
    for number, row in enumerate(rows, start=1):
        if row.verdict is None:
            raise UserError(f"{path}, row {number}, verdict", "nothing", "a verdict", FIX)
    return rows


def prompt_row(prompt: Prompt) -> PromptRow:
    """The row of a prompt."""
    return PromptRow(
        prompt=prompt.text,
        kind=prompt.kind,
        set=prompt.set,
        messages=conversation(prompt),
        category=prompt.category or None,
    )


def conversation(prompt: Prompt) -> list[Message] | None:
    """The column `messages` of a prompt; None where it is a single turn."""
    return [*prompt.context, Message("user", prompt.text)] if prompt.context else None


def response_row(response: Response, verdict: Verdict | None = None) -> ResponseRow:
    """The row of an answer."""
    prompt = response.prompt
    return ResponseRow(
        prompt=prompt.text,
        kind=prompt.kind,
        set=prompt.set,
        messages=conversation(prompt),
        category=prompt.category or None,
        response=response.text,
        finished=response.finished,
        reasoning=response.reasoning,
        filtered=response.filtered or None,
        asked_otherwise=list(response.asked_otherwise) or None,
        verdict=verdict.outcome if verdict else None,
        score=round(verdict.score, 4) if verdict else None,
        reason=verdict.reason if verdict else None,
    )


def response_of(row: ResponseRow) -> Response:
    """The answer of a row."""
    otherwise = tuple(row.asked_otherwise or ())
    return Response(row.asked, row.response, row.finished, row.reasoning, bool(row.filtered), otherwise)
