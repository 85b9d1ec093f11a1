"""Engines by the names that users give them."""

from ..errors import UserError
from ..models.load import load
from ..models.placement import Placement
from .engine import Opened, Subject
from .local import local_engine
from .openai import openai_engine
from .vllm import vllm_engine

HERE = Placement()


def subject(
    name: str,
    engine: str = "transformers",
    base_url: str | None = None,
    placement: Placement = HERE,
    batch_size: int | None = None,
) -> Subject:
    """A model to be asked, loaded or connected to when its turn comes, so that two need not fit into memory.

    ```python
    served = at.subject("my-model", engine="openai", base_url="http://127.0.0.1:8000/v1")
    ```

    **Arguments:**

    - `engine`: what answers: `transformers` (this process), `vllm`, or `openai` (a server at `base_url`).
    - `batch_size`: prompts at a time in this process; None finds it.

    **Raises:** `UserError` when the address of a server is missing.
    """
    if engine == "openai" and base_url is None:
        fix = "give `base_url=http://HOST:PORT/v1`"
        raise UserError("`engine=openai`", "no `base_url=`", "the address of a server", fix)

    def opened() -> Opened:
        if engine == "vllm":
            return Opened(vllm_engine(name))
        if base_url is not None:
            return Opened(openai_engine(base_url, name))
        chat_model = load(name, placement)
        return Opened(local_engine(chat_model, batch_size), chat_model)

    return Subject(name, opened, engine, base_url, placement.dtype, placement.quantization)
