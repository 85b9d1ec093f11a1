"""Load a judge that is a model on this machine. Imports torch and transformers inside its functions only."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ANSWER_CHARACTERS = 8000
"""Characters of an answer that a judge model reads, about 2000 tokens: what guard models were trained on, and an
answer of a megabyte fills no memory."""


def clipped(text: str, characters: int = ANSWER_CHARACTERS) -> str:
    """`text`, cut after `characters` with a mark that says so."""
    return text if len(text) <= characters else text[:characters] + " [...]"


def load_judge_model(
    auto_class: Any, option: str, name: str, device: str
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """A judge's model, ready for reading, and its tokenizer.

    **Arguments:**

    - `auto_class`: the class of transformers that loads it, as `AutoModelForCausalLM`.
    - `option`: how the user named the judge, for messages.
    - `name`: a local folder or Hub id.
    - `device`: a torch device, or "auto": GPUs where there are any, several if it takes several.

    **Raises:** `UserError` when there is no such model, it cannot be loaded, it lacks weights, or the device is none.
    """
    from transformers import AutoTokenizer
    from transformers.utils import logging as transformers_logging

    from ..storage.loading import loading, reason_of
    from ..storage.model_folder import model_folder

    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    folder: Path = model_folder(name)

    def blame(error: BaseException) -> tuple[object, str]:
        return option, f"cannot be loaded ({reason_of(error)})"

    fix = "check `judge=` and `device=`, or download the model again"
    with loading(option, f"a model for {auto_class.__name__}", fix, blame):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model, info = auto_class.from_pretrained(folder, dtype="auto", device_map=device, output_loading_info=True)
    if info["missing_keys"]:
        # transformers fills missing weights with chance: the verdicts would be chance too.
        found = f"no weights for {', '.join(sorted(info['missing_keys'])[:3])}"
        raise UserError(option, found, f"all weights of a {type(model).__name__}", "name a model trained as a judge")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model.eval().requires_grad_(False), tokenizer
