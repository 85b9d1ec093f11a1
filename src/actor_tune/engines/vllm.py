"""Answers of a model that vLLM loads here: many at a time, on a GPU."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import UserError, require_package
from ..models.chat import encode
from ..prompts.prompt import Prompt
from .engine import REASONING_TOKENS, Answer, Engine
from .reading import Reader

CHUNK = 256
"""Prompts handed over at a time: enough to keep vLLM busy, few enough that a killed run has kept most answers."""


def vllm_engine(
    model: str,
    max_model_len: int | None = None,
    dtype: str = "auto",
    chat_template_kwargs: Mapping[str, Any] | None = None,
    max_reasoning_tokens: int = REASONING_TOKENS,
    trust_remote_code: bool = False,
) -> Engine:
    """An engine that answers with the model folder or Hub id `model`. Needs the extra `vllm`.

    **Arguments:**

    - `max_model_len`: longest conversation in tokens, answer included; None takes the model's own, which may need more
      memory than there is.
    - `dtype`: of the weights, as vLLM names it; "auto" takes the checkpoint's.
    - `chat_template_kwargs`, `max_reasoning_tokens`: as of `subject`. vLLM stops at the sum of both limits; what it
      answers beyond its own is cut off here.
    - `trust_remote_code`: run Python code that comes with the model.

    **Raises:** `UserError` when the extra is missing or vLLM cannot load the model; the engine, when a prompt is too
    long or of roles that the chat template does not take.
    """
    require_package("`engine=vllm`", "vllm", "vllm")
    from vllm import LLM, SamplingParams
    from vllm.exceptions import VLLMClientError

    try:
        llm = LLM(model=model, max_model_len=max_model_len, dtype=dtype, trust_remote_code=trust_remote_code)
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


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
