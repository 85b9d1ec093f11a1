"""Engines by the names that users give them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError, require_package
from ..judges.asking import CONCURRENCY
from ..judges.server import TIMEOUT_SECONDS, check_urls
from ..models.load import load
from ..models.model import DEFAULT_PLACEMENT
from ..models.origin import require_reader
from ..models.placement import Placement
from .engine import REASONING_TOKENS, Opened, Subject
from .local import local_engine
from .openai import openai_engine
from .vllm import check_engine_kwargs, vllm_engine

ENGINES = ("transformers", "vllm", "openai")


def subject(
    name: str,
    engine: str = "transformers",
    base_url: str | Sequence[str] | None = None,
    placement: Placement = DEFAULT_PLACEMENT,
    batch_size: int | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    max_reasoning_tokens: int = REASONING_TOKENS,
    engine_kwargs: Mapping[str, Any] | None = None,
) -> Subject:
    """A model to be asked, loaded or connected to when its turn comes, so that two need not fit into memory.

    ```python
    served = at.subject("my-model", engine="openai", base_url="http://127.0.0.1:8000/v1")
    ```

    **Arguments:**

    - `engine`: what answers: `transformers` (this process), `vllm`, or `openai` (a server at `base_url`).
    - `base_url`: the server's, or those of several with the same model: each takes the next prompt when it is free,
      and what one that dies was asked goes to the others.
    - `batch_size`: prompts at a time in this process; None finds it.
    - `chat_template_kwargs`: what the chat template is told besides, such as `{"enable_thinking": False}`.
    - `max_reasoning_tokens`: what a model that reasons may think before it answers, besides its answer.
    - `engine_kwargs`: what vLLM's `LLM` is told besides, for `engine=vllm`, such as `{"tensor_parallel_size": 8}`.

    **Raises:** `UserError` when there is no such engine, the address of a server is missing, or a value would be
    ignored (an address by all engines but `openai`, `engine_kwargs` by all but `vllm`, a placement but for its device
    by all but `transformers`, whose dtype vLLM takes too), or a package that this needs is not installed.
    """
    urls = check_urls("base_url", base_url)
    _check(engine, urls, placement, engine_kwargs or {})
    _require_packages(name, engine, placement)

    def opened() -> Opened:
        told = (chat_template_kwargs, max_reasoning_tokens)
        if urls:
            return Opened(openai_engine(urls, name, None, CONCURRENCY, TIMEOUT_SECONDS, *told))
        if engine == "vllm":
            return Opened(vllm_engine(name, None, placement.dtype, *told, placement.trust_remote_code, engine_kwargs))
        chat_model = load(name, placement, chat_template_kwargs=chat_template_kwargs)
        return Opened(local_engine(chat_model, batch_size, max_reasoning_tokens), chat_model)

    return Subject(
        name,
        opened,
        engine,
        tuple(urls) if len(urls) > 1 else urls[0] if urls else None,
        placement.dtype,
        placement.quantization,
        chat_template_kwargs=chat_template_kwargs or {},
        max_reasoning_tokens=max_reasoning_tokens,
        engine_kwargs=engine_kwargs or {},
    )


def _check(engine: str, urls: Sequence[str], placement: Placement, engine_kwargs: Mapping[str, Any]) -> None:
    """Stop where there is no such engine, or it lacks something or would ignore something."""
    if engine not in ENGINES:
        raise UserError(f"`engine={engine}`", "no such engine", f"one of {', '.join(ENGINES)}", "correct the name")
    if engine == "openai" and not urls:
        fix = "give `base_url=http://HOST:PORT/v1`"
        raise UserError("`engine=openai`", "no `base_url=`", "the address of a server", fix)
    if engine != "openai" and urls:
        found, fix = f"`engine={engine}`", "add it, or leave this out"
        raise UserError(f"`base_url={urls[0]}`", found, "`engine=openai`", fix)
    if engine_kwargs and engine != "vllm":
        raise UserError("`engine_kwargs=`", f"`engine={engine}`", "`engine=vllm`", "add it, or leave this out")
    check_engine_kwargs(engine_kwargs)
    if engine == "openai" and placement.trust_remote_code:
        raise UserError("`trust_remote_code=True`", "`engine=openai`", "a model in this process", "leave it out")
    for setting in ("dtype", "device_map", "offload", "quantization"):
        taken = ("transformers", "vllm") if setting == "dtype" else ("transformers",)
        if engine not in taken and getattr(placement, setting) != getattr(DEFAULT_PLACEMENT, setting):
            fix = f"leave `{setting}=` or `engine=` out"
            raise UserError(f"`{setting}=`", f"`engine={engine}`", "a model in this process", fix)


def _require_packages(name: str, engine: str, placement: Placement) -> None:
    """Stop for what is not installed now, and not when the model's turn comes, after another has answered."""
    if engine != "transformers":
        require_package(f"`engine={engine}`", engine, engine)
        return
    require_reader(name, Path(name))
    if placement.quantization == "bnb_4bit":
        require_package("`quantization=bnb_4bit`", "bitsandbytes", "bnb")
