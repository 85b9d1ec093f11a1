"""Judges by the names that users give them."""

from collections.abc import Sequence
from typing import Protocol

from ..errors import UserError
from .classifier import classifier_judge
from .guard_models import llamaguard_judge, wildguard_judge
from .llm import llm_judge
from .server import Server, check_url
from .strings import judge_strings
from .trained.judge import judge_trained
from .verdict import Exchange, Judge, Verdict

DEFAULT = "trained"

CHOICES = (DEFAULT, "strings", "classifier=MODEL", "wildguard=MODEL", "llamaguard=MODEL", "openai=MODEL")


class Answered(Protocol):
    """A response, or anything else with an exchange."""

    @property
    def exchange(self) -> Exchange: ...  # noqa: D102


def judge_by_name(name: str, device: str = "auto", base_url: str | None = None) -> Judge:
    """The judge of that name. Those that are models are loaded here, once.

    ```python
    at.measure(model, prompts, judges={"strings": at.judge_by_name("strings")})
    ```

    **Arguments:**

    - `name`: one of `CHOICES`, with a folder or Hub id (for openai: the server's name for it) in place of MODEL.
    - `device`: where models run: auto or a torch device.
    - `base_url`: the server of `openai=MODEL`.

    **Raises:** `UserError` when there is no such judge, it cannot be loaded, or `openai=MODEL` has no server.
    """
    family, _, model = name.partition("=")
    if name == DEFAULT:
        return judge_trained
    if name == "strings":
        return judge_strings
    if family == "openai" and model:
        if not base_url:
            fix = "give `judge_base_url=`, as http://localhost:8000/v1"
            raise UserError(f"`judge={name}`", "no server", "one that speaks OpenAI's protocol", fix)
        check_url("judge_base_url", base_url)
        return llm_judge(Server(base_url), model)
    if family == "classifier" and model:
        return classifier_judge(model, device)
    if family == "wildguard" and model:
        return wildguard_judge(model, device)
    if family == "llamaguard" and model:
        return llamaguard_judge(model, device)
    raise UserError(f"`judge={name}`", "no such judge", f"one of {', '.join(CHOICES)}", "correct the name")


def judge(
    answers: Sequence[Exchange | Answered], name: str = DEFAULT, device: str = "auto", base_url: str | None = None
) -> list[Verdict]:
    """Verdicts on `answers`, in their order: compliance, partial, refusal or unscored, each with its reason.

    ```python
    at.judge([at.Exchange("How do I kill a Python process?", "I'm sorry, I can't help with that.")])
    ```

    **Arguments:** as of `judge_by_name`.
    """
    exchanges = [each if isinstance(each, Exchange) else each.exchange for each in answers]
    return judge_by_name(name, device, base_url)(exchanges)
