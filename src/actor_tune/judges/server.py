"""A server that speaks OpenAI's chat protocol, with a model or a judge behind it: vLLM, llama.cpp, a provider."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from ..errors import require_package

CONCURRENCY = 8
"""Requests under way at a time."""
TIMEOUT_SECONDS = 120.0
RETRIES = 6
NO_KEY = "none"
"""Servers of one's own ask for no key, but the client insists on one."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Reply:
    """What a model behind the server wrote; `finished` unless the limit of tokens cut it off.

    - `reasoning`: what it thought before, where the server says so apart.
    - `filtered`: a filter of the provider's stopped it, and not the model.
    """

    text: str
    finished: bool
    reasoning: str | None = None
    filtered: bool = False


class ServerError(Exception):
    """Why no reply came.

    - `what`: nothing answers there; it took too long; an HTTP `status` that is no success; another form than expected.
    - `said`: what the server, or else the network, says of it, in a line.
    """

    def __init__(self, what: Literal["unreachable", "timeout", "status", "form"], said: str, status: int = 0):
        super().__init__(said)
        self.what, self.said, self.status = what, said, status


class Server:
    """The server at `base_url`, such as http://127.0.0.1:8000/v1: what precedes `/chat/completions`.

    **Arguments:**

    - `api_key`: None takes the environment's OPENAI_API_KEY, if any.
    - `timeout`: seconds to wait for a reply before trying again.
    - `retries`: of requests that met 408, 409, 429, 5xx, a timeout or a broken connection: after 0.5 s, then twice as
      long each time, or when the server says.

    **Raises:** `UserError` when the extra is missing.
    """

    def __init__(
        self, base_url: str, api_key: str | None = None, timeout: float = TIMEOUT_SECONDS, retries: int = RETRIES
    ):
        require_package(base_url, "openai", "openai")
        from openai import OpenAI

        self.base_url, self.timeout, self.retries = base_url, timeout, retries
        key = api_key or os.environ.get("OPENAI_API_KEY") or NO_KEY
        self._client = OpenAI(base_url=base_url, api_key=key, timeout=timeout, max_retries=retries)

    def models(self) -> list[str]:
        """The models that the server lists, asked once.

        **Raises:** `ServerError` when there is no list.
        """
        with _translated():
            try:
                return [entry.id for entry in self._client.with_options(max_retries=0).models.list().data or []]
            except AttributeError:  # what the client makes of other bodies
                raise ServerError("form", "something else came back") from None

    def reply(
        self,
        model: str,
        messages: Sequence[Mapping[str, str]],
        max_tokens: int,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> Reply:
        """What `model` answers, greedily; `chat_template_kwargs` are sent along where there are any, as vLLM takes it.

        **Raises:** `ServerError` when that cannot be had.
        """
        from openai.types.chat import ChatCompletion

        turns: Any = messages
        extra = {"chat_template_kwargs": dict(chat_template_kwargs)} if chat_template_kwargs else None
        with _translated():
            completion = self._client.chat.completions.create(
                model=model, messages=turns, max_tokens=max_tokens, temperature=0, extra_body=extra
            )
        # What is no JSON at all comes back as a string, what has another form with fields missing.
        if not (isinstance(completion, ChatCompletion) and completion.choices and completion.choices[0].message):
            raise ServerError("form", " ".join(str(completion).split())[:100])
        choice = completion.choices[0]
        message: Any = choice.message
        # Not of OpenAI's own protocol: vLLM and others call it the one or the other.
        thought = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None)
        reasoning = _whole(thought) if isinstance(thought, str) else None
        text, why = _whole(message.content or message.refusal or ""), choice.finish_reason
        return Reply(text, why != "length", reasoning, filtered=why == "content_filter")


def _whole(text: str) -> str:
    """`text` without halves of surrogate pairs, which JSON may hold and files may not."""
    return text.encode("utf-8", "replace").decode("utf-8")


def ask_all(
    ask: Callable[[Item], Result], items: Sequence[Item], concurrency: int = CONCURRENCY
) -> Iterator[tuple[int, Result]]:
    """Each item's row with the result of asking about it, as they come, several under way at a time.

    After a failure the items that wait are not asked; those under way are, and the failure is raised last.
    """
    pool = ThreadPoolExecutor(concurrency)
    rows = {pool.submit(ask, item): row for row, item in enumerate(items)}
    failure = None
    try:
        for future in as_completed(rows):
            try:
                result = future.result()
            except CancelledError:  # by the failure of another
                continue
            except Exception as error:
                failure = failure or error
                for other in rows:
                    other.cancel()
            else:
                yield rows[future], result
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    if failure:
        raise failure


@contextmanager
def _translated() -> Iterator[None]:
    """Errors of the client as `ServerError`."""
    from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError

    try:
        yield
    except APITimeoutError as error:
        raise ServerError("timeout", str(error)) from None
    except APIConnectionError as error:
        raise ServerError("unreachable", str(error.__cause__ or error)) from None
    except APIStatusError as error:
        said = " ".join(error.response.text.split())[:300] or "without a word"
        raise ServerError("status", said, error.status_code) from None
    except (APIError, ValueError):  # the last where a body is not JSON
        raise ServerError("form", "something else came back") from None
