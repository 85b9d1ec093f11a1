"""A server that speaks OpenAI's chat protocol, with a model or a judge behind it: vLLM, llama.cpp, a provider."""

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

from ..errors import UserError, require_package
from .completion import (
    FILTERED_CODES,
    MAX_TOKENS,
    OTHERWISE,
    TEMPERATURE,
    Reply,
    ServerError,
    read_completion,
    read_models,
    refused_parameter,
    whole,
)

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 120.0
RETRIES = 6
FORM_WAITS = (0.5, 1.0)
"""Seconds before the server is asked again after what is no chat completion: less often, as a wrong URL stays wrong."""
NO_KEY = "none"
"""Servers of one's own ask for no key, but the client insists on one."""
SECRET_LENGTH = 6
"""Keys from so many characters on are taken out of what servers say; shorter ones are none, and parts of words."""


def check_url(setting: str, url: str) -> None:
    """Stop where `url`, the value of `setting`, is no server's, or holds what nobody should read in files of results.

    **Raises:** `UserError`.
    """
    fix = "give it as http://127.0.0.1:8000/v1"
    if "@" in url or "?" in url:
        found = "a name, a password or a query in the URL, which would be written into files"
        raise UserError(f"`{setting}=`", found, "the address alone", f"{fix}, and a key in OPENAI_API_KEY")
    if not url.lower().startswith(("http://", "https://")):
        raise UserError(f"`{setting}={url}`", "no http:// or https://", "the URL of a server", fix)
    try:
        named = urlsplit(url).hostname
        urlsplit(url).port  # noqa: B018 - it is read to be checked
    except ValueError:
        named = None
    if not named or not url.isprintable():
        raise UserError(f"`{setting}={url}`", "no URL", "the URL of a server", fix)


def check_urls(setting: str, given: str | Sequence[str] | None) -> list[str]:
    """The addresses of servers that are `given` as the value of `setting`: of none, one or several.

    **Raises:** `UserError` where one is none (`check_url`), or is given twice.
    """
    urls = [given] if isinstance(given, str) else list(given or [])
    for row, url in enumerate(urls):
        check_url(setting, url)
        if url.rstrip("/") in (other.rstrip("/") for other in urls[:row]):
            raise UserError(f"`{setting}={url}`", "given twice", "each server once", "leave one out")
    return urls


class Server:
    """The server at `base_url`, such as http://127.0.0.1:8000/v1: what precedes `/chat/completions`.

    What it says of a request that it refuses is shown without the key.

    **Arguments:**

    - `api_key`: None takes the environment's OPENAI_API_KEY, if any.
    - `timeout`: seconds to wait for a reply before trying again.
    - `retries`: of requests that met 408, 409, 429, 5xx, a timeout or a broken connection: after 0.5 s, then twice as
      long each time, or when the server says.

    **Raises:** `UserError` when the extra is missing, the key has characters that none has, or the URL is none.
    """

    def __init__(
        self, base_url: str, api_key: str | None = None, timeout: float = TIMEOUT_SECONDS, retries: int = RETRIES
    ):
        require_package(base_url, "openai", "openai")
        from openai import OpenAI

        self.base_url, self.timeout, self.retries = base_url, timeout, retries
        self._key = (api_key or os.environ.get("OPENAI_API_KEY") or "").strip() or NO_KEY
        if not (self._key.isascii() and self._key.isprintable()):
            found = "characters that no header may have"
            raise UserError("OPENAI_API_KEY", found, "the key as the provider shows it", "copy it again")
        # A connection for each request: on one that is kept, what a server sends too much is the next prompt's answer.
        headers = {"Connection": "close"}
        try:
            self._client = OpenAI(
                base_url=base_url, api_key=self._key, timeout=timeout, max_retries=retries, default_headers=headers
            )
        except Exception as error:  # of the HTTP library below the client, which depends on the client's version
            raise UserError(base_url, f"cannot be asked ({error})", "the URL of a server", "correct it") from None
        self._refused: dict[str, str] = {}  # parameter -> how it is asked instead; the same for all prompts
        self._lock = Lock()

    def models(self) -> list[str]:
        """The models that the server lists, asked once.

        **Raises:** `ServerError` when there is no list.
        """
        with self._translated():
            return read_models(self._client.with_options(max_retries=0).models.with_raw_response.list().content)

    def reply(
        self,
        model: str,
        messages: Sequence[Mapping[str, str]],
        max_tokens: int,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> Reply:
        """What `model` answers, greedily; `chat_template_kwargs` are sent along where there are any, as vLLM takes it.

        A parameter that the server does not take is put otherwise (`OTHERWISE`) from then on, which the reply says.

        **Raises:** `ServerError` when that cannot be had.
        """
        turns = [{name: whole(text) for name, text in turn.items()} for turn in messages]
        extra = {"chat_template_kwargs": dict(chat_template_kwargs)} if chat_template_kwargs else {}
        waits = list(FORM_WAITS)
        while True:
            refused = dict(self._refused)
            told = tuple(refused.values())
            limit = "max_completion_tokens" if MAX_TOKENS in refused else MAX_TOKENS
            body = extra | {limit: max_tokens} | ({} if TEMPERATURE in refused else {TEMPERATURE: 0})
            try:
                return replace(self._completion(model, turns, body), asked_otherwise=told)
            except ServerError as error:
                if error.filtered:
                    return Reply("", finished=True, filtered=True, asked_otherwise=told)
                if error.refused and error.refused not in refused:
                    self._ask_otherwise(model, error.refused)
                elif error.what == "form" and waits:
                    time.sleep(waits.pop(0))
                else:
                    raise

    def _completion(self, model: str, messages: Any, body: Mapping[str, Any]) -> Reply:
        with self._translated():
            return read_completion(
                self._client.chat.completions.with_raw_response.create(
                    model=model, messages=messages, extra_body=body
                ).content
            )

    def _ask_otherwise(self, model: str, parameter: str) -> None:
        """Remember that the server refuses `parameter`, and say so once."""
        with self._lock:
            if parameter not in self._refused:
                self._refused = self._refused | {parameter: OTHERWISE[parameter]}
                log.warning(
                    "%s does not take %s: %s is asked %s", self.base_url, parameter, model, OTHERWISE[parameter]
                )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Errors of the client as `ServerError`, and what they say as a line without the key."""
        from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError

        try:
            yield
        except ServerError as error:
            raise ServerError(error.what, self._line(error.said)[:100]) from None
        except APITimeoutError as error:
            raise ServerError("timeout", f"no reply within {self.timeout:g} s", tries=_tries(error)) from None
        except APIConnectionError as error:
            said = self._line(str(error.__cause__ or error))
            raise ServerError("unreachable", said, tries=_tries(error)) from None
        except APIStatusError as error:
            status, text = error.status_code, error.response.text
            said = self._line(text)[:300] or "without a word"
            refused = refused_parameter(status, text, error.param)
            filtered = status < 500 and error.code in FILTERED_CODES
            raise ServerError("status", said, status, _tries(error), refused, filtered) from None
        except (APIError, ValueError) as error:  # the last where a host has no name that can be looked up
            raise ServerError("unreachable", self._line(str(error))) from None

    def _line(self, text: str) -> str:
        if len(self._key) >= SECRET_LENGTH:
            text = text.replace(self._key, "(the key)")
        return " ".join(text.split())


def _tries(error: Any) -> int:
    """How often the request was sent: the client counts that in a header."""
    return int(error.request.headers.get("x-stainless-retry-count") or 0) + 1
