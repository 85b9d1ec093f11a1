"""Judges by the names that users give them."""

from ..errors import UserError
from .classifier import classifier_judge
from .guard_models import llamaguard_judge, wildguard_judge
from .llm import llm_judge
from .server import Server
from .strings import judge_strings
from .trained.judge import judge_trained
from .verdict import Judge

DEFAULT = "trained"

CHOICES = (DEFAULT, "strings", "classifier=MODEL", "wildguard=MODEL", "llamaguard=MODEL", "openai=MODEL")


def judge_by_name(name: str, device: str = "auto", base_url: str | None = None) -> Judge:
    """The judge of that name. Those that are models are loaded here, once.

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
        return llm_judge(Server(base_url), model)
    if family == "classifier" and model:
        return classifier_judge(model, device)
    if family == "wildguard" and model:
        return wildguard_judge(model, device)
    if family == "llamaguard" and model:
        return llamaguard_judge(model, device)
    raise UserError(f"`judge={name}`", "no such judge", f"one of {', '.join(CHOICES)}", "correct the name")
