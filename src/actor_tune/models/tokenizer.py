"""The tokenizer of a model, and whether prompts go through its chat template and into the model."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ..errors import UserError
from ..prompts.prompt import Message, Prompt
from ..storage.loading import loading, reason_of
from ..storage.model_files import AGAIN
from .chat import check_template, encode, template_of
from .origin import Origin

TOKENIZER = "tokenizer.json"
SETTINGS = "tokenizer_config.json"
TRIALS = ("How are you?", "Name a fruit.")


def load_tokenizer(name: str, origin: Origin, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of the model `name`, with its chat template; an adapter's own where it has one.

    **Raises:** `UserError` when there is none.
    """
    own = origin.adapter if origin.adapter and (origin.adapter / SETTINGS).is_file() else None
    folder = own or origin.folder
    blame = None if origin.gguf else partial(_blame, name, folder)
    with loading(name, "the tokenizer of a chat model", "download it again, or save its tokenizer too", blame):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, gguf_file=origin.gguf, trust_remote_code=trust_remote_code
        )
    check_template(tokenizer, name)
    return tokenizer


def _blame(name: str, folder: Path, error: BaseException) -> tuple[object, str]:
    """Which file of the tokenizer in `folder` is at fault: `tokenizer.json`, where it cannot be read by itself."""
    file, settings = folder / TOKENIZER, folder / SETTINGS
    if not file.is_file():
        return name, f"no {TOKENIZER}, and no other tokenizer that can be read ({reason_of(error)})"
    try:
        with loading(file, "", ""):
            Tokenizer.from_file(str(file))
    except UserError as told:
        return file, told.found
    return settings if settings.is_file() else file, f"it cannot be loaded ({reason_of(error)})"


def check_chat(
    tokenizer: PreTrainedTokenizerBase, name: str, rows: int, chat_template_kwargs: Mapping[str, Any] | None = None
) -> None:
    """Prove on two prompts that the chat template and the tokenizer take them, and that the model has their tokens.

    **Arguments:**

    - `rows`: tokens that the model has an embedding of.

    **Raises:** `UserError` when they do not, or it has not.
    """
    with loading(name, "the tokenizer of a chat model", AGAIN):
        size = tokenizer.vocab_size
    if size > rows:
        found = f"a tokenizer of {size} tokens, and a model that knows {rows}"
        raise UserError(name, found, "the tokenizer of this model", "download it again")

    def trial(context: tuple[Message, ...]) -> list[list[int]]:
        prompts = [Prompt(text, "harmless", "trial", context) for text in TRIALS]
        return encode(tokenizer, prompts, chat_template_kwargs, rows)

    try:
        one, other = trial(())
    except UserError:
        try:
            # Some templates take no conversation without a system prompt.
            one, other = trial((Message("system", "You are a friendly assistant."),))
        except UserError:
            one, other = trial(())
    if one == other:
        fix = "correct the chat template, or the vocabulary in tokenizer.json"
        raise UserError(template_of(tokenizer), "two prompts become the same tokens", "what the prompt says", fix)
