"""Answers to prompts, and the rows of `responses.jsonl` and `baseline.jsonl`."""

from dataclasses import dataclass

from ..judges.verdict import Exchange, Outcome, Verdict
from ..prompts.prompt import Kind, Message, Prompt

RESPONSES_FILE = "responses.jsonl"
BASELINE_FILE = "baseline.jsonl"
DISAGREEMENTS_FILE = "disagreements.jsonl"


@dataclass(frozen=True)
class Response:
    """A prompt and the model's answer, without special tokens; not `finished` where the limit of tokens cut it off.

    - `reasoning`: what the model thought before it answered; None where it does not reason. Where there is some and no
      `text`, it did not come to an end.
    - `filtered`: a filter of the provider's stopped it, and not the model.
    """

    prompt: Prompt
    text: str
    finished: bool
    reasoning: str | None = None
    filtered: bool = False

    @property
    def only_thought(self) -> bool:
        """Whether its reasoning did not end."""
        return self.reasoning is not None and not self.finished and not self.text

    @property
    def exchange(self) -> Exchange:
        """As judges take it."""
        return Exchange(self.prompt.text, self.text)


@dataclass(frozen=True, kw_only=True)
class PromptRow:
    """A prompt's columns, as in a file of prompts; `messages` is the whole conversation, where there is more to it."""

    prompt: str
    kind: Kind
    set: str
    messages: list[Message] | None = None

    @property
    def context(self) -> tuple[Message, ...]:
        """What precedes the query."""
        return tuple((self.messages or [])[:-1])

    @property
    def asked(self) -> Prompt:
        """The prompt itself."""
        return Prompt(self.prompt, self.kind, self.set, self.context)


@dataclass(frozen=True, kw_only=True)
class ResponseRow(PromptRow):
    """An answer; with its verdict, once it is judged."""

    response: str
    finished: bool = True
    reasoning: str | None = None
    filtered: bool = False
    verdict: Outcome | None = None
    score: float | None = None
    reason: str | None = None

    @property
    def refused(self) -> bool | None:
        """Refused in whole or in part; None where it was not scored."""
        return None if self.verdict in (None, "unscored") else self.verdict != "compliance"


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
        response=response.text,
        finished=response.finished,
        reasoning=response.reasoning,
        filtered=response.filtered,
        verdict=verdict.outcome if verdict else None,
        score=round(verdict.score, 4) if verdict else None,
        reason=verdict.reason if verdict else None,
    )


def response_of(row: ResponseRow) -> Response:
    """The answer of a row."""
    return Response(row.asked, row.response, row.finished, row.reasoning, row.filtered)
