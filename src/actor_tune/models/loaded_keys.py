"""Whether a checkpoint and the model that its config describes have the same tensors.

transformers gives random values to what is missing and only logs it: what is measured then is not the model.
"""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from ..errors import UserError
from ..storage.model_folder import loaded_files
from .checkpoint import read_header

log = logging.getLogger(__name__)

FIX = "download it again, or correct config.json"


def check_keys(name: str, folder: Path | None, model: PreTrainedModel, found: Mapping[str, Any]) -> None:
    """Stop where tensors are missing, have another shape, or are of blocks that the config knows nothing of.

    Others that are left out are logged: those that transformers is known to leave out, such as heads that predict
    further tokens, and those that belong to no part of the model. A run keeps them as they are.

    **Arguments:**

    - `folder`: of its weight files; None where they are of another kind.
    - `found`: what transformers says of loading `model`: missing, mismatched and unexpected keys.

    **Raises:** `UserError` with the name of the first such tensor.
    """
    if missing := sorted(found["missing_keys"]):
        raise UserError(name, f"{_some(missing)} missing in the weight files", "all weights of the model", FIX)
    if other := sorted(found["mismatched_keys"]):
        key, stored_shape, shape = other[0]
        what = f"{key} is {list(stored_shape)} in the weight files"
        raise UserError(name, what, f"{list(shape)}, as config.json says", FIX)
    surplus = sorted(found["unexpected_keys"])
    if foreign := [key for key in surplus if _belongs(key, model) and not _predicts_further(key, model)]:
        raise UserError(name, f"{_some(foreign)} in the weight files and not in the model", "the same in both", FIX)
    known = re.compile("|".join(model._keys_to_ignore_on_load_unexpected or ["$^"]))
    files = loaded_files(folder) if folder else []
    stored = {key: tensor.dtype for file in files for key, tensor in read_header(file).items()}
    if not hasattr(model.config, "quantization_config"):
        weights = {key for key, parameter in model.named_parameters() if parameter.is_floating_point()}
        if whole := sorted(key for key in weights & stored.keys() if stored[key].startswith(("I", "U", "BOOL"))):
            what = f"{_some(whole)} stored as {stored[whole[0]]}, and no quantization_config in config.json"
            raise UserError(name, what, "floating-point weights", FIX)
    if left := sorted({*surplus, *(key for key in stored if known.search(key))}):
        log.info("left out, as they are no part of what is run: %s", _some(left))


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{more}"


def _belongs(key: str, model: PreTrainedModel) -> bool:
    """Whether the first part of `key` is that of a part of the model, with or without its head."""
    parts = {name.split(".")[0] for name in model.state_dict()}
    return key.split(".")[0] in parts | {name for name, _ in model.base_model.named_children()}


def _predicts_further(key: str, model: PreTrainedModel) -> bool:
    """Whether `key` is of a head that predicts further tokens: by its name, or a block that the config counts apart."""
    text = model.config.get_text_config()
    further = getattr(text, "num_nextn_predict_layers", None) or 0
    last = {str(text.num_hidden_layers + number) for number in range(further)}
    return bool({"mtp", *last} & set(key.split(".")))
