"""What a server of OpenAI's chat protocol sends back: a reply, or why there is none. Pure."""

import json
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import msgspec

MAX_TOKENS, TEMPERATURE = "max_tokens", "temperature"

OTHERWISE = {
    MAX_TOKENS: "with max_completion_tokens in place of max_tokens",
    TEMPERATURE: "without temperature 0, so that its answers are sampled and differ from run to run",
}
"""Parameters that some servers refuse -> how a server that does is asked instead."""

_REFUSED = re.compile(
    r"unsupported|not support|unrecogni[sz]ed|unknown|unexpected|deprecated|not permitted|extra_forbidden",
    re.IGNORECASE,
)
# Servers that divide by it want one above 0. Of max_tokens the like is said of its value, and that is no refusal.
_REFUSED_VALUE = re.compile(r"must be|should be|greater than|positive", re.IGNORECASE)

FILTERED_CODES = ("content_filter", "content_policy_violation", "invalid_prompt")
"""Codes of errors that say that a provider's filter stopped the prompt: Azure's and OpenAI's."""

Form = TypeVar("Form")


@dataclass(frozen=True)
class Reply:
    """What a model behind the server wrote; `finished` unless the limit of tokens cut it off.

    - `reasoning`: what it thought before, where the server says so apart; empty where it says only that it thought.
    - `filtered`: a filter of the provider's stopped it, and not the model.
    - `asked_otherwise`: how the server was asked otherwise than it should be, in words: of `OTHERWISE`.
    """

    text: str
    finished: bool
    reasoning: str | None = None
    filtered: bool = False
    asked_otherwise: tuple[str, ...] = ()


class ServerError(Exception):
    """Why no reply came.

    - `what`: nothing answers there; it took too long; an HTTP `status` that is no success; another form than expected.
    - `said`: what the server, or else the network, says of it, in a line.
    - `tries`: how often it was asked.
    - `refused`: the parameter, of `OTHERWISE`, that the server does not take.
    - `filtered`: a filter of the provider's stopped the prompt.
    """

    def __init__(
        self,
        what: Literal["unreachable", "timeout", "status", "form"],
        said: str,
        status: int = 0,
        tries: int = 1,
        refused: str | None = None,
        filtered: bool = False,
    ) -> None:
        super().__init__(said)
        self.what, self.said, self.status, self.tries = what, said, status, tries
        self.refused, self.filtered = refused, filtered


def refused_parameter(status: int, said: str, named: object) -> str | None:
    """The parameter of `OTHERWISE` that a server refuses; None where it objects to something else, as to a prompt.

    **Arguments:**

    - `said`: the whole body; `named`: the parameter that the body names in a place of its own, if any.
    """
    if status not in (400, 422):
        return None
    for parameter in OTHERWISE:
        if named != parameter if isinstance(named, str) and named else not re.search(rf"\b{parameter}\b", said):
            continue
        if _REFUSED.search(said) or (parameter == TEMPERATURE and _REFUSED_VALUE.search(said)):
            return parameter
    return None


@dataclass(frozen=True)
class _Message:
    content: str | None = None
    refusal: str | None = None
    # Not of OpenAI's own protocol: vLLM and others call it the one or the other.
    reasoning_content: Any = None
    reasoning: Any = None


@dataclass(frozen=True)
class _Choice:
    message: _Message
    finish_reason: str | None = None


@dataclass(frozen=True)
class _Completion:
    choices: Annotated[list[_Choice], msgspec.Meta(min_length=1)]
    usage: Any = None


@dataclass(frozen=True)
class _Model:
    id: str


@dataclass(frozen=True)
class _Models:
    data: list[_Model] | None


def read_completion(body: bytes) -> Reply:
    """The reply in the body of a chat completion.

    **Raises:** `ServerError` of another form, with its start.
    """
    found = _read(body, _Completion)
    message, why = found.choices[0].message, found.choices[0].finish_reason
    if why == "error":  # what some routers say where the model behind them failed half way
        raise _other_form(body)
    text, thought = whole(message.content or message.refusal or ""), message.reasoning_content or message.reasoning
    reasoning = whole(thought) if isinstance(thought, str) else "" if _thought_tokens(found.usage) else None
    return Reply(text, why != "length", reasoning, filtered=why == "content_filter")


def read_models(body: bytes) -> list[str]:
    """The names of the models in the body of a list; `ServerError` where it is none."""
    return [whole(model.id) for model in _read(body, _Models).data or []]


def whole(text: str) -> str:
    """`text` without halves of surrogate pairs, which JSON may hold, and neither files nor requests may."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _read(body: bytes, form: type[Form]) -> Form:
    try:
        return msgspec.convert(json.loads(body), form)
    except (ValueError, RecursionError):
        raise _other_form(body) from None


def _other_form(body: bytes) -> ServerError:
    return ServerError("form", body.decode("utf-8", "replace"))


def _thought_tokens(usage: Any) -> bool:
    """Whether the model thought, where the server counts that and does not show it."""
    details = usage.get("completion_tokens_details") if isinstance(usage, dict) else None
    return bool(isinstance(details, dict) and details.get("reasoning_tokens"))
