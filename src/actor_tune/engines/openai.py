"""Answers of any server that speaks OpenAI's chat protocol."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import UserError
from ..judges.completion import Reply, ServerError
from ..judges.reasoning import Split, split
from ..judges.server import CONCURRENCY, TIMEOUT_SECONDS, Server, ask_all, check_url
from ..prompts.prompt import Prompt
from .engine import REASONING_TOKENS, Answer, Engine

log = logging.getLogger(__name__)

URL_FIX = "correct the URL, which often ends in /v1"


def openai_engine(
    base_url: str,
    model: str | None = None,
    api_key: str | None = None,
    concurrency: int = CONCURRENCY,
    timeout: float = TIMEOUT_SECONDS,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    max_reasoning_tokens: int = REASONING_TOKENS,
) -> Engine:
    """An engine that asks the server at `base_url`, several prompts at a time. Needs the extra `openai`.

    **Arguments:**

    - `model`: the name that the server knows it by; None or "auto" takes the only one that the server lists.
    - `base_url`, `api_key`, `timeout`: as of `judges.server.Server`.
    - `chat_template_kwargs`: sent along, as vLLM takes it.
    - `max_reasoning_tokens`: a model that reasons is asked again with so many tokens more where the first limit cut it
      off. A server counts both together, so that an answer to that may be longer than `max_new_tokens`.
    - `concurrency`: prompts under way at a time.

    **Raises:** `UserError` when the extra is missing, nothing answers at `base_url`, or there is not one model to take;
    the engine, when the server refuses a request or fails it time and again.
    """
    check_url("base_url", base_url)
    server = Server(base_url, api_key, timeout)
    name = _first_contact(server, model)

    def answers(prompts: Sequence[Prompt], max_new_tokens: int) -> Iterator[Answer]:
        def ask(prompt: Prompt) -> Reply:
            try:
                reply = server.reply(name, prompt.messages(), max_new_tokens, chat_template_kwargs)
                if not reply.finished and _split(reply).reasoning is not None:
                    more = max_new_tokens + max_reasoning_tokens
                    reply = server.reply(name, prompt.messages(), more, chat_template_kwargs)
                return reply
            except ServerError as error:
                raise _mistake(server, error, name, prompt) from None

        for row, reply in ask_all(ask, prompts, concurrency):
            parted = _split(reply)
            finished = reply.finished and parted.ended
            yield Answer(row, parted.answer, finished, parted.reasoning, reply.filtered, reply.asked_otherwise)

    return answers


def _split(reply: Reply) -> Split:
    """Answer and reasoning, which some servers send apart and others as one text."""
    if reply.reasoning is None:
        return split(reply.text)
    return Split(reply.reasoning, reply.text.strip(), ended=bool(reply.text.strip()) or reply.finished)


def _first_contact(server: Server, model: str | None) -> str:
    """The model's name, after asking the server which it has: a wrong URL shows at once, and not after many retries."""
    named = None if model == "auto" else model
    where = f"`base_url={server.base_url}`"
    try:
        known = server.models()
    except ServerError as error:
        if error.what in ("unreachable", "timeout"):
            raise _unreachable(where, error) from None
        if named:  # It answers, and the list is not needed.
            return named
        fix = f"name the model instead of auto, or {URL_FIX}"
        raise UserError(where, f"no list of models ({error.said})", "one at /models", fix) from None
    if named:
        if known and named not in known:  # some list no model by its path, some answer to any name
            listed = ", ".join(known)
            log.warning("%s lists %s, not %s: it may answer with another model", server.base_url, listed, named)
        return named
    if len(known) != 1:
        found = f"{len(known)} models ({', '.join(known) or 'none'})"
        raise UserError(where, found, "one model", "name one instead of auto")
    return known[0]


def _mistake(server: Server, error: ServerError, model: str, prompt: Prompt) -> UserError:
    where = f"`base_url={server.base_url}`"
    if error.what == "form":
        found = f"no chat completion came back ({error.said or 'nothing at all'})"
        return UserError(where, found, "a server of OpenAI's chat protocol", URL_FIX)
    if error.what != "status":
        return _unreachable(where, error)
    if error.status == 429 or error.status >= 500:
        return UserError(where, f"status {error.status} {_after(error)} ({error.said})", "an answer", "try again later")
    found = f"status {error.status} to {prompt.text[:60]!r} ({error.said})"
    return UserError(where, found, f"an answer of the model {model}", "do what the server says")


def _unreachable(where: str, error: ServerError) -> UserError:
    found = f"no answer {_after(error)} ({error.said})" if error.tries > 1 else f"no answer ({error.said})"
    return UserError(where, found, "a running server", "start it, or correct the URL")


def _after(error: ServerError) -> str:
    return f"after {error.tries} tries" if error.tries > 1 else "after 1 try"
