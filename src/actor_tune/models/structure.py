"""What a model's config says, and the model that it describes, without weights: checked before any are read."""

import copy
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    DynamicCache,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
)

from ..errors import UserError
from ..storage.loading import loading, reason_of
from ..storage.model_files import AGAIN, CONFIG, json_object
from .model import block_lists
from .origin import Origin

COUNTS = re.compile(r"^(num_labels|depth|n_layers?|num_(\w+_)?layers)$")
"""Entries of a config of which transformers makes as many things while it reads the config."""
MOST = 2048
SIZES = ("num_hidden_layers", "hidden_size", "vocab_size")
ALL_SIZES = (*SIZES, "intermediate_size", "head_dim", "num_attention_heads", "num_key_value_heads")
FIX = "correct it, or choose a model that this version of transformers knows"
PACKED = 16  # parameters in a byte, at most


def load_config(name: str, origin: Origin, trust_remote_code: bool = False) -> PreTrainedConfig:
    """The config of the model `name`.

    **Raises:** `UserError` when there is none, it is of no model that transformers knows, or it has impossible sizes.
    """
    file, said = name if origin.gguf else origin.folder / CONFIG, {}
    if not origin.gguf:
        said = json_object(origin.folder / CONFIG)
        _check_entries(file, said)
    fix = "download it again" if origin.gguf else FIX
    with loading(file, "the config of a chat model", fix, partial(_blame, file, said)):
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            origin.folder, gguf_file=origin.gguf, trust_remote_code=trust_remote_code
        )
        sizes = {size: getattr(config.get_text_config(), size, None) for size in SIZES}
    for size, value in sizes.items():
        if isinstance(value, int) and value < 1:
            raise UserError(file, f"{size} is {value}", "at least 1", AGAIN)
    return config


def _check_entries(file: object, said: Mapping[str, Any]) -> None:
    for entry, value in _entries(said):
        if COUNTS.match(entry.split(".")[-1]) and isinstance(value, int) and value > MOST:
            raise UserError(file, f"{entry} is {value}", f"at most {MOST}", AGAIN)
    packed = said.get("quantization_config")
    if packed is not None and not isinstance(packed, dict):
        raise UserError(file, f"quantization_config is {packed!r:.100}", "an object, or none", AGAIN)
    packed = packed or said.get("quantization")
    if isinstance(packed, dict) and "group_size" in packed and "quant_method" not in packed:
        raise UserError(file, "weights packed by MLX", "plain ones", "name the model that they were made from")


def _entries(said: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Name and value of all that is in the objects of `said`, such as `text_config.vocab_size`."""
    for key, value in said.items():
        yield f"{before}{key}", value
        if isinstance(value, dict):
            yield from _entries(value, f"{before}{key}.")


def _blame(file: object, said: Mapping[str, Any], error: BaseException) -> tuple[object, str] | None:
    """The entry of the config `said` that led to `error`, where it can be told."""
    reason = reason_of(error)
    for entry, value in _entries(said):
        size = entry.split(".")[-1] in ALL_SIZES and isinstance(value, int) and value < 1
        unknown = isinstance(error, KeyError | AttributeError) and isinstance(value, str)
        if size or (unknown and str(error).endswith(repr(value))):
            return file, f"it cannot be loaded: {entry} is {value!r} ({reason})"
    return None


def model_class(config: PreTrainedConfig) -> Any:
    """What loads a model of `config`: the whole of what was saved, where it has a language model inside; else that."""
    kinds = {
        AutoModelForCausalLM: MODEL_FOR_CAUSAL_LM_MAPPING,
        AutoModelForImageTextToText: MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    }
    able: dict[Any, Any] = {kind: classes[type(config)] for kind, classes in kinds.items() if type(config) in classes}
    saved = config.architectures or []
    return next((kind for kind, one in able.items() if one.__name__ in saved), next(iter(able), AutoModelForCausalLM))


def empty_model(config: PreTrainedConfig, trust_remote_code: bool = False) -> tuple[PreTrainedModel, nn.ModuleList]:
    """The model of `config` without weights, and its blocks, as far as its structure tells.

    **Raises:** `UserError` when no model can be made of it, or that has no list of blocks.
    """
    file = config_file(config)
    said = json_object(file) if isinstance(file, Path) else {}
    known = loading(
        file, "the config of a chat model", "choose another model, or correct it", partial(_blame, file, said)
    )
    with known, torch.device("meta"):  # accelerate's init_empty_weights allocates each tensor before it drops it
        config = copy.deepcopy(config)
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        # bfloat16, because some kernels for experts take nothing else; nothing that is read off it depends on that.
        made = model_class(config).from_config(config, dtype=torch.bfloat16, trust_remote_code=trust_remote_code)
        model: PreTrainedModel = made.eval()
        text = set(model.get_decoder().modules())
        DynamicCache(config=config)
    lists = block_lists(model)
    return model, next((blocks for blocks in lists.values() if blocks in text), next(iter(lists.values())))


def config_file(config: PreTrainedConfig) -> object:
    """The file that `config` was read from; where there is none, its name."""
    file = Path(str(config.name_or_path)) / CONFIG
    return file if file.is_file() else config.name_or_path or config.model_type


def stored_dtype(config: Any) -> torch.dtype:
    """The dtype that a config names for the weights; float32 where it names none, as transformers takes it.

    **Raises:** `UserError` when weights cannot be in it.
    """
    dtype = getattr(config.get_text_config(), "dtype", None) or getattr(config, "dtype", None) or torch.float32
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise UserError(config_file(config), f"dtype is {dtype!r:.100}", "a dtype of weights, such as bfloat16", AGAIN)
    return dtype


def check_count(config: PreTrainedConfig, count: int, stored: int, gguf: bool = False) -> None:
    """Stop where the model of `config` has more parameters, `count`, than weight files of `stored` bytes can have:
    before memory is asked for them.

    **Raises:** `UserError` that names the config.
    """
    if count > stored * (PACKED if gguf or hasattr(config, "quantization_config") else 1):
        found = f"a model of {count:,} parameters, and the weight files have {stored:,} bytes"
        raise UserError(config_file(config), found, "the config of these weights", AGAIN)
