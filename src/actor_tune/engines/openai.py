"""Answers of any server that speaks OpenAI's chat protocol, or of several with the same model."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from ..errors import UserError
from ..judges.asking import CONCURRENCY, DiedError, ask_any
from ..judges.completion import Reply, ServerError
from ..judges.reasoning import Split, split
from ..judges.server import TIMEOUT_SECONDS, Server, check_urls
from ..prompts.prompt import Prompt
from .engine import REASONING_TOKENS, Answer, Engine

log = logging.getLogger(__name__)

URL_FIX = "correct the URL, which often ends in /v1"


def openai_engine(
    base_url: str | Sequence[str],
    model: str | None = None,
    api_key: str | None = None,
    concurrency: int = CONCURRENCY,
    timeout: float = TIMEOUT_SECONDS,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    max_reasoning_tokens: int = REASONING_TOKENS,
) -> Engine:
    """An engine that asks the server at `base_url`, several prompts at a time. Needs the extra `openai`.

    Several servers take prompts from one queue, each the next when it is free. One that dies, or fails time and again,
    is left out from then on, and what it was asked goes to the others.

    **Arguments:**

    - `model`: the name that servers know it by; None or "auto" takes the only one that they list.
    - `base_url`: of one server, or of several with the same models; `api_key`, `timeout`: as of `judges.server.Server`.
    - `chat_template_kwargs`: sent along, as vLLM takes it.
    - `max_reasoning_tokens`: a model that reasons is asked again with so many tokens more where the first limit cut it
      off. A server counts both together, so that an answer to that may be longer than `max_new_tokens`.
    - `concurrency`: prompts under way at a time, at each server.

    **Raises:** `UserError` when the extra is missing, nothing answers at any `base_url`, servers list other models, or
    there is not one model to take; the engine, when a server refuses a request, or the last one fails time and again.
    """
    living, name = _first_contacts([Server(url, api_key, timeout) for url in check_urls("base_url", base_url)], model)

    def ask(server: Server, prompt: Prompt, max_new_tokens: int) -> Reply:
        try:
            reply = server.reply(name, prompt.messages(), max_new_tokens, chat_template_kwargs)
            if not reply.finished and _split(reply).reasoning is not None:
                more = max_new_tokens + max_reasoning_tokens
                reply = server.reply(name, prompt.messages(), more, chat_template_kwargs)
            return reply
        except ServerError as error:
            mistake = _mistake(server, error, name, prompt)
            raise (mistake if _refuses(error) else DiedError(mistake)) from None

    def leave_out(server: Server, died: DiedError, count: int) -> None:
        living.remove(server)
        said = "%s is left out (%s); what it was asked, %d prompt%s, goes to the other servers"
        log.warning(said, server.base_url, died.told.found, count, "" if count == 1 else "s")

    def answers(prompts: Sequence[Prompt], max_new_tokens: int) -> Iterator[Answer]:
        asked = partial(ask, max_new_tokens=max_new_tokens)
        for row, reply in ask_any(list(living), asked, prompts, leave_out, concurrency):
            parted = _split(reply)
            finished = reply.finished and parted.ended
            yield Answer(row, parted.answer, finished, parted.reasoning, reply.filtered, reply.asked_otherwise)

    return answers


def _split(reply: Reply) -> Split:
    """Answer and reasoning, which some servers send apart and others as one text."""
    if reply.reasoning is None:
        return split(reply.text)
    return Split(reply.reasoning, reply.text.strip(), ended=bool(reply.text.strip()) or reply.finished)


def _first_contacts(servers: Sequence[Server], model: str | None) -> tuple[list[Server], str]:
    """The servers that answer, and the model's name, after asking each which it has: a wrong URL shows at once, and not
    after many retries. One that does not answer is left out where another does.
    """
    named = None if model == "auto" else model
    lists: dict[Server, list[str] | None] = {}
    silent: dict[Server, UserError] = {}
    for server in servers:
        try:
            lists[server] = _listed(server, named)
        except DiedError as died:
            silent[server] = died.told
    if not lists:
        raise [*silent.values()][-1]
    for server, mistake in silent.items():
        log.warning("%s is left out (%s)", server.base_url, mistake.found)
    (first, known), *others = lists.items()
    for server, theirs in others:
        if sorted(theirs or []) != sorted(known or []):
            found, expected = (", ".join(each or []) or "no model" for each in (theirs, known))
            fix = "serve the same model on all, or leave one out"
            raise UserError(_where(server), f"lists {found}", f"{expected}, as {first.base_url} does", fix)
    return list(lists), named or _only(first, known or [])


def _listed(server: Server, named: str | None) -> list[str] | None:
    """The models that the server lists; None where it has no list, and none is needed because one is `named`.

    **Raises:** `DiedError` where nothing answers; `UserError` where the list lacks.
    """
    try:
        known = server.models()
    except ServerError as error:
        if error.what in ("unreachable", "timeout"):
            raise DiedError(_unreachable(server, error)) from None
        if named:
            return None
        fix = f"name the model instead of auto, or {URL_FIX}"
        raise UserError(_where(server), f"no list of models ({error.said})", "one at /models", fix) from None
    if named and known and named not in known:  # some list no model by its path, some answer to any name
        listed = ", ".join(known)
        log.warning("%s lists %s, not %s: it may answer with another model", server.base_url, listed, named)
    return known


def _only(server: Server, known: Sequence[str]) -> str:
    """The one model of those that the server lists."""
    if len(known) == 1:
        return known[0]
    found = f"{len(known)} models ({', '.join(known) or 'none'})"
    raise UserError(_where(server), found, "one model", "name one instead of auto")


def _refuses(error: ServerError) -> bool:
    """Whether the server refuses this request alone; otherwise it fails whatever it is asked."""
    return error.what == "status" and error.status != 429 and error.status < 500


def _where(server: Server) -> str:
    return f"`base_url={server.base_url}`"


def _mistake(server: Server, error: ServerError, model: str, prompt: Prompt) -> UserError:
    where = _where(server)
    if error.what == "form":
        found = f"no chat completion came back ({error.said or 'nothing at all'})"
        return UserError(where, found, "a server of OpenAI's chat protocol", URL_FIX)
    if error.what != "status":
        return _unreachable(server, error)
    if _refuses(error):
        found = f"status {error.status} to {prompt.text[:60]!r} ({error.said})"
        return UserError(where, found, f"an answer of the model {model}", "do what the server says")
    return UserError(where, f"status {error.status} {_after(error)} ({error.said})", "an answer", "try again later")


def _unreachable(server: Server, error: ServerError) -> UserError:
    found = f"no answer {_after(error)} ({error.said})" if error.tries > 1 else f"no answer ({error.said})"
    return UserError(_where(server), found, "a running server", "start it, or correct the URL")


def _after(error: ServerError) -> str:
    return f"after {error.tries} tries" if error.tries > 1 else "after 1 try"
