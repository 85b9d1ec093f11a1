"""Load a chat model, whole or with some of its weights left on disk, and make sure that it is the one on disk."""

import logging
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    modeling_gguf_pytorch_utils,
)
from transformers.utils import logging as transformers_logging

from ..errors import UserError, require_package
from ..progress import progress_is_shown
from ..storage.loading import loading
from ..storage.model_files import AGAIN, GENERATION_CONFIG, check_folder, check_pointer
from ..storage.model_folder import loaded_files
from .checkpoint import check_files
from .loaded_keys import check_keys
from .model import DEFAULT_PLACEMENT, ChatModel, known_tokens, ready
from .origin import Origin, origin_of
from .placement import HALF, Placement, device_map_with_disk, device_of, resolve_dtype
from .stored import block_from_files
from .structure import check_count, config_file, empty_model, load_config, model_class, stored_dtype
from .tokenizer import check_chat, load_tokenizer


def load(
    name: str,
    placement: Placement = DEFAULT_PLACEMENT,
    last_block: int | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> ChatModel:
    """Load a local folder or Hub id, ready for reading (no gradients, eval mode).

    ```python
    model = at.load("MODEL", at.Placement(dtype="float32"))
    ```

    **Arguments:**

    - `last_block`: blocks above this one stay on disk until `placement.settle` fetches them. Negative counts from the
      end. Without effect where `placement` spreads the weights or packs them: then all of them are placed at once.
    - `chat_template_kwargs`: what the chat template is told besides, such as `{"enable_thinking": False}`.

    **Raises:** `UserError` when the folder or repository is missing, has no config, weights or chat template, lacks a
    weight or has another than its config says, when a weight is not finite, or when `placement` cannot be had.
    """
    quiet_libraries()
    placement = placement.checked()
    trust_remote_code = placement.trust_remote_code
    origin = origin_of(name, code=trust_remote_code)
    config, tokenizer = described(name, origin, trust_remote_code)
    empty, blocks = empty_model(config, trust_remote_code)
    check_chat(tokenizer, name, known_tokens(empty), chat_template_kwargs)
    packed = dequantised(config)
    count = sum(parameter.numel() for parameter in empty.parameters())
    check_count(config, count, weights_size(origin), origin.gguf is not None)
    stored = stored_dtype(config)
    dtype = resolve_dtype(placement.dtype, stored, placement.device)
    options: dict[str, Any] = {"dtype": dtype, "device_map": placement.device_map or placement.device}
    if placement.quantization == "bnb_4bit":
        options["quantization_config"] = _four_bits(dtype)
    if packed:
        options["quantization_config"] = packed
    places = _places(empty, blocks, placement, last_block)
    if places is None or origin.in_memory_alone or packed:
        _check_in_memory(name, placement, origin.in_memory_alone or packed is not None)
        model = _from_files(name, origin, config, options, trust_remote_code)
        model = as_plain(model, dtype) if origin.gguf or packed else model
    else:
        model = _partly_on_disk(name, origin, config, options | {"device_map": places, "dtype": stored}, placement)
        cast(model, dtype)
    if origin.adapter:
        model = with_adapter(name, origin.adapter, model)
    folder = None if origin.in_memory_alone or packed else origin.folder
    return ready(name, folder, model, tokenizer, placement, chat_template_kwargs)


def described(
    name: str, origin: Origin, trust_remote_code: bool = False, weights: bool = True
) -> tuple[PreTrainedConfig, PreTrainedTokenizerBase]:
    """Config and tokenizer of the model `name`, after a look at its files: a broken config is told first.

    **Arguments:**

    - `weights`: False where the weight files need not be there.

    **Raises:** `UserError` that names the file at fault.
    """
    if origin.gguf:
        check_pointer(origin.folder / origin.gguf)
    else:
        check_folder(origin.base or name, origin.folder, weights)
        generation = origin.folder / GENERATION_CONFIG
        if generation.is_file():
            with loading(generation, "how to generate", AGAIN):
                GenerationConfig.from_pretrained(origin.folder)
    return load_config(name, origin, trust_remote_code), load_tokenizer(name, origin, trust_remote_code)


def weights_size(origin: Origin) -> int:
    """Bytes of the weight files; 0 where they were not fetched."""
    files = [origin.folder / origin.gguf] if origin.gguf else loaded_files(origin.folder)
    return sum(file.stat().st_size for file in files)


def _check_in_memory(name: str, placement: Placement, made: bool) -> None:
    """Stop where a model that is `made` in memory, and is in no file as it is, shall not be there as a whole."""
    for setting in ("offload", "quantization"):
        if made and (value := getattr(placement, setting)) != "none":
            found, fix = "a model that is dequantised or merged when it is loaded", "save it as a checkpoint first"
            raise UserError(f"`{setting}={value}`", f"{name}, {found}", "a plain checkpoint", fix)


def _partly_on_disk(
    name: str, origin: Origin, config: PreTrainedConfig, options: dict[str, Any], placement: Placement
) -> PreTrainedModel:
    """In the dtype of the files: else transformers would read and convert every weight on disk, only to drop it."""
    check_files(name, origin.folder)
    # Weights that transformers rearranges, such as fused experts, cannot stay in their files.
    offloaded = tempfile.mkdtemp(prefix="actor-tune-")
    try:
        options = options | {"offload_folder": offloaded}
        model = _from_files(name, origin, config, options, placement.trust_remote_code)
    except BaseException:
        shutil.rmtree(offloaded)
        raise
    weakref.finalize(model, shutil.rmtree, offloaded)
    return model


def with_adapter(name: str, adapter: Path, model: PreTrainedModel) -> PreTrainedModel:
    """`model` with the PEFT adapter in the folder `adapter`, called `name`, merged into it.

    **Raises:** `UserError` when it is not one for this model.
    """
    merged: PreTrainedModel = put_adapter(name, adapter, model).merge_and_unload()
    return merged


def put_adapter(name: str, adapter: Path, model: PreTrainedModel) -> Any:
    """The `PeftModel` of `model`, which is changed in place: the adapter in the folder `adapter` is beside its weights.

    **Raises:** `UserError` when it is not one for this model.
    """
    from peft import PeftModel

    with loading(name, f"an adapter for {type(model).__name__}", "train it for this base"), warnings.catch_warnings():
        # What the file lacks is left at chance or at zero.
        warnings.filterwarnings("error", "Found missing adapter keys", UserWarning)
        # PEFT asks transformers for a property that the latter has renamed.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        return PeftModel.from_pretrained(model, adapter)


def dequantised(config: PreTrainedConfig) -> Any | None:
    """How to load weights that are packed on disk, unpacked; None where they are not, or stay as they are."""
    packed = getattr(config, "quantization_config", None)
    if packed is None:
        return None
    from transformers.quantizers.auto import AutoQuantizationConfig

    with loading(config_file(config), "weights packed in a way that transformers knows", AGAIN):
        wanted = AutoQuantizationConfig.from_dict(packed) if isinstance(packed, dict) else packed
    if not hasattr(wanted, "dequantize"):
        return None
    wanted.dequantize = True
    return wanted


def _places(
    empty: PreTrainedModel, blocks: nn.ModuleList, placement: Placement, last_block: int | None
) -> dict[str, str] | None:
    """Module -> where it is to be, where some blocks are left on disk; else None."""
    in_one_place = placement.device_map is None and placement.quantization == "none"
    if placement.offload != "stream" and (last_block is None or not in_one_place):
        return None
    first = 0 if placement.offload == "stream" or last_block is None else last_block % len(blocks) + 1
    if first == len(blocks):
        return None
    return device_map_with_disk(empty, blocks, placement.device, range(first, len(blocks)))


def _from_files(
    name: str, origin: Origin, config: PreTrainedConfig, options: dict[str, Any], trust_remote_code: bool
) -> PreTrainedModel:
    files = [] if origin.gguf else loaded_files(origin.folder)
    where = files[0] if len(files) == 1 and not hasattr(config, "quantization_config") else name
    with loading(where, "a causal language model with all its weights", "download it again"):
        model, found = model_class(config).from_pretrained(
            origin.folder,
            config=None if origin.gguf else config,
            gguf_file=origin.gguf,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # `check_keys` tells
            **options,
        )
    check_keys(name, None if origin.gguf else origin.folder, model, found)
    loaded: PreTrainedModel = model
    return loaded


def as_plain(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """`model`, whose weights were unpacked when it was loaded, as one that never was packed, which can be saved."""
    for left in ("hf_quantizer", "quantization_method", "_weight_conversions"):
        model.__dict__.pop(left, None)
    setattr(model, "is_quantized", False)  # noqa: B010 - transformers sets it so, and nn.Module is typed otherwise
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    nn.Module.to(model, dtype)
    return model


def quiet_libraries() -> None:
    """Keep out of logs and pipes: the bars of transformers, as ours are, and its tables of tensors."""
    if not progress_is_shown():
        transformers_logging.disable_progress_bar()
        # The bar that unpacks GGUF files knows no switch.
        bar = vars(modeling_gguf_pytorch_utils)["tqdm"]
        setattr(modeling_gguf_pytorch_utils, "tqdm", partial(bar, disable=True))  # noqa: B010 - it is not exported
    logging.getLogger("transformers.modeling_utils").addFilter(_is_no_table)
    logging.getLogger("accelerate.big_modeling").setLevel(logging.ERROR)  # that weights are on disk is asked for
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)  # of a kernel that it does without


def _is_no_table(record: logging.LogRecord) -> bool:
    """False for the table that `check_keys` says in a line; that of failed conversions is in no error."""
    said = record.getMessage()
    return "LOAD REPORT" not in said or "CONVERSION" in said


def cast(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Compute in `dtype`, whatever is stored: weights on disk are converted whenever they are fetched."""
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.dtype in HALF.values():
            tensor.data = tensor.data.to(dtype)


def restore_precision(chat_model: ChatModel, layer: int) -> None:
    """Put the block as it is in the weight files in the place of a quantised one; any other block is left alone.

    **Raises:** `UserError` when a parameter of it is not in the files under its name.
    """
    if chat_model.placement.quantization == "none" or chat_model.folder is None:
        return
    _, blocks = empty_model(chat_model.model.config)
    block = blocks[layer]
    block.load_state_dict(block_from_files(chat_model, layer, block), strict=False, assign=True)
    device = device_of(chat_model.blocks[layer])
    dtype = next(parameter for parameter in chat_model.model.parameters() if parameter.is_floating_point()).dtype
    chat_model.blocks[layer] = block.to(device, dtype).eval().requires_grad_(False)


def _four_bits(dtype: torch.dtype) -> Any:
    require_package("`quantization=bnb_4bit`", "bitsandbytes", "bnb")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
