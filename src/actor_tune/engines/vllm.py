"""Answers of a model that vLLM loads here: many at a time, on a GPU."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import UserError, require_package
from ..models.chat import encode
from ..prompts.prompt import Prompt
from .engine import REASONING_TOKENS, Answer, Engine
from .reading import Reader

RUNS_ALIKE = frozenset(
    {
        "cpu_offload_gb",
        "data_parallel_size",
        "disable_custom_all_reduce",
        "disable_log_stats",
        "distributed_executor_backend",
        "download_dir",
        "enable_chunked_prefill",
        "enable_expert_parallel",
        "enable_prefix_caching",
        "enforce_eager",
        "gpu_memory_utilization",
        "max_model_len",
        "max_num_batched_tokens",
        "max_num_seqs",
        "max_parallel_loading_workers",
        "pipeline_parallel_size",
        "swap_space",
        "tensor_parallel_size",
    }
)
"""Options of vLLM's that say where and how fast it runs. They change the last bits of what it computes, as another GPU
does, but not what is computed: a run that was cut off may go on with others, on another machine. Whatever is not among
them, such as a quantization, may decide answers."""

OURS = {
    "model": "name the model itself",
    "dtype": "give `dtype=`",
    "trust_remote_code": "give `trust_remote_code=True`",
}
"""Options of vLLM's that we set, and what sets them."""

CHUNK = 256
"""Prompts handed over at a time: enough to keep vLLM busy, few enough that a killed run has kept most answers."""


def vllm_engine(
    model: str,
    max_model_len: int | None = None,
    dtype: str = "auto",
    chat_template_kwargs: Mapping[str, Any] | None = None,
    max_reasoning_tokens: int = REASONING_TOKENS,
    trust_remote_code: bool = False,
    engine_kwargs: Mapping[str, Any] | None = None,
) -> Engine:
    """An engine that answers with the model folder or Hub id `model`. Needs the extra `vllm`.

    **Arguments:**

    - `max_model_len`: longest conversation in tokens, answer included; None takes the model's own, which may need more
      memory than there is.
    - `dtype`: of the weights, as vLLM names it; "auto" takes the checkpoint's.
    - `chat_template_kwargs`, `max_reasoning_tokens`: as of `subject`. vLLM stops at the sum of both limits; what it
      answers beyond its own is cut off here.
    - `trust_remote_code`: run Python code that comes with the model.
    - `engine_kwargs`: what vLLM's `LLM` is told besides (`check_engine_kwargs`).

    **Raises:** `UserError` when the extra is missing, vLLM cannot load the model or knows no such option; the engine,
    when a prompt is too long or of roles that the chat template does not take.
    """
    told = {"max_model_len": max_model_len} | dict(engine_kwargs or {})
    check_engine_kwargs(told)
    require_package("`engine=vllm`", "vllm", "vllm")
    from vllm import LLM, SamplingParams
    from vllm.exceptions import VLLMClientError

    try:
        llm = LLM(model=model, dtype=dtype, trust_remote_code=trust_remote_code, **told)
    except TypeError as error:  # an option that it does not know
        if not engine_kwargs:
            raise
        where, expected = _where(engine_kwargs), "options of the `LLM` of this version of vLLM"
        raise UserError(where, f"vLLM says: {_first_line(error)}", expected, "correct it") from None
    except (OSError, ValueError, RuntimeError) as error:  # the last when its process dies, as without memory
        fix = "use `engine=transformers`, or vLLM's own server and `engine=openai`"
        raise UserError(model, f"vLLM says: {_first_line(error)}", "a model that it can load", fix) from None

    def answer(prompts: Sequence[Prompt], max_new_tokens: int) -> Iterator[Answer]:
        tokenizer = llm.get_tokenizer()
        reader = Reader(tokenizer, set(), max_new_tokens, max_reasoning_tokens)
        settings = SamplingParams(temperature=0, max_tokens=reader.most)
        # Tokens, because in text vLLM would take for control tokens whatever a prompt says of them.
        asked = [{"prompt_token_ids": ids} for ids in encode(tokenizer, prompts, chat_template_kwargs)]
        for start in range(0, len(asked), CHUNK):
            try:
                outputs = llm.generate(asked[start : start + CHUNK], settings, use_tqdm=False)
            except (ValueError, VLLMClientError) as error:
                fix = "leave out the prompts that it does not take"
                raise UserError(model, f"vLLM says: {_first_line(error)}", "prompts that it takes", fix) from None
            for row, output in enumerate(outputs, start=start):
                best = output.outputs[0]
                yield reader.whole(
                    row, list(output.prompt_token_ids), list(best.token_ids), best.finish_reason != "length"
                )

    return answer


def check_engine_kwargs(engine_kwargs: Mapping[str, Any]) -> None:
    """Stop at an option that we set.

    **Raises:** `UserError`, which says what sets it.
    """
    for name, fix in OURS.items():
        if name in engine_kwargs:
            raise UserError(_where(engine_kwargs), f"{name!r}, which has a setting of its own", "other options", fix)


def _where(engine_kwargs: Mapping[str, Any]) -> str:
    return f"`engine_kwargs={json.dumps(dict(engine_kwargs), default=str)[:100]}`"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
