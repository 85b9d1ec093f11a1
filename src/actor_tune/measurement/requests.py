"""What a measurement asks, as it is recorded, and whether earlier answers were asked for in the same way."""

from collections.abc import Mapping
from typing import Any

from ..engines.engine import REASONING_TOKENS, Subject
from ..engines.vllm import RUNS_ALIKE
from ..errors import UserError
from ..prompts.prompt import fingerprint, without_categories
from ..records.request import MeasureRequest, same_servers
from .questions import Questions


def request_of(model: Subject, other: Subject | None, asked: Questions, max_new_tokens: int) -> MeasureRequest:
    """All that the answers of `model`, and of the `other` that it is compared with, depend on."""
    return MeasureRequest(
        model=model.name,
        baseline=other.name if other else None,
        engine=model.engine,
        base_url=model.base_url if isinstance(model.base_url, str | None) else sorted(model.base_url),
        dtype=model.dtype,
        quantization=model.quantization,
        chat_template_kwargs=dict(model.chat_template_kwargs),
        max_reasoning_tokens=model.max_reasoning_tokens,
        system_prompt=asked.system_prompt,
        limit=asked.limit,
        max_safety_drop=asked.margin,
        gate_prompts=asked.gate_prompts,
        max_new_tokens=max_new_tokens,
        prompts_sha256=fingerprint(without_categories(asked.prompts)),
        engine_kwargs=_deciding(model.engine_kwargs),
    )


def check_alike(where: str, earlier: Mapping[str, Any], request: MeasureRequest, fix: str) -> None:
    """Stop where earlier answers were asked for in another way.

    **Raises:** `UserError`, which says how.
    """
    # Of files that lack them.
    defaults = {"chat_template_kwargs": {}, "max_reasoning_tokens": REASONING_TOKENS, "engine_kwargs": {}}
    for name in ("max_new_tokens", "engine", "base_url", "dtype", "quantization", *defaults):
        was, wanted = earlier.get(name, defaults.get(name)), getattr(request, name)
        alike = same_servers(was, wanted) if name == "base_url" else was == wanted
        if not alike and not (name == "engine_kwargs" and _deciding(was) == wanted):
            raise UserError(where, f"answers with {name} {was}", str(wanted), fix)


def _deciding(engine_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in engine_kwargs.items() if name not in RUNS_ALIKE}
