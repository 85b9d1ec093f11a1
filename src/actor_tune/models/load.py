"""Load a chat model, find its decoder blocks, and prove that hooking a block does what the method assumes.

A block is named by the 0-based index of its output: block l's output is `hidden_states[l + 1]` of transformers, except
for the last block, whose entry there is taken after the final norm.
"""

import logging
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from ..errors import UserError, require_package
from ..progress import progress_is_shown
from ..storage.model_folder import WEIGHT_FILES, model_folder, weight_files
from .chat import check_template
from .model import DEFAULT_PLACEMENT, ChatModel, block_name, find_blocks, ready
from .placement import HALF, Placement, device_map_with_disk, device_of, resolve_dtype


def load(name: str, placement: Placement = DEFAULT_PLACEMENT, last_block: int | None = None) -> ChatModel:
    """Load a local folder or Hub id, ready for reading (no gradients, eval mode).

    ```python
    model = at.load("MODEL", at.Placement(dtype="float32"))
    ```

    **Arguments:**

    - `last_block`: blocks above this one stay on disk until `placement.settle` fetches them. Negative counts from the
      end. Without effect where `placement` spreads the weights or packs them: then all of them are placed at once.

    **Raises:** `UserError` when the folder or repository is missing, has no config, weights or chat template, when a
    weight is not finite, or when `placement` cannot be had.
    """
    quiet_libraries()
    placement = placement.checked()
    folder = model_folder(name)
    if not (folder / "config.json").is_file():
        raise UserError(name, "no config.json", "a transformers checkpoint", "check the path")
    if not weight_files(folder):
        raise UserError(name, "no weights", f"{WEIGHT_FILES} beside config.json", "save the model with save_pretrained")
    tokenizer = load_tokenizer(name, folder)
    device = placement.device
    options: dict[str, Any] = {}
    model = None
    try:
        config = AutoConfig.from_pretrained(folder)
        stored = stored_dtype(config)
        dtype = resolve_dtype(placement.dtype, stored, device)
        options["dtype"] = dtype
        options["device_map"] = placement.device_map or device
        in_one_place = placement.device_map is None and placement.quantization == "none"
        if placement.offload == "stream" or (in_one_place and last_block is not None):
            empty, blocks = empty_model(folder)
            first = 0 if placement.offload == "stream" or last_block is None else last_block % len(blocks) + 1
            if first < len(blocks):
                # Weights that transformers rearranges, such as fused experts, cannot stay in their files.
                options["offload_folder"] = tempfile.mkdtemp(prefix="actor-tune-")
                # Else transformers would read and convert every weight on disk, only to drop it again.
                options["dtype"] = stored
                options["device_map"] = device_map_with_disk(empty, blocks, device, range(first, len(blocks)))
        if placement.quantization == "bnb_4bit":
            options["quantization_config"] = _four_bits(dtype)
        model = AutoModelForCausalLM.from_pretrained(folder, **options)
        if options["dtype"] != dtype:
            cast(model, dtype)
    except (OSError, ValueError, SafetensorError) as error:
        found = f"a model that cannot be loaded ({_first_line(error)})"
        raise UserError(name, found, "a causal language model with all its weights", "download it again") from None
    finally:
        if "offload_folder" in options and model is None:
            shutil.rmtree(options["offload_folder"])
    if "offload_folder" in options:
        weakref.finalize(model, shutil.rmtree, options["offload_folder"])
    return ready(name, folder, model, tokenizer, placement)


def quiet_libraries() -> None:
    """Keep the bars of transformers out of logs and pipes, as ours are."""
    if not progress_is_shown():
        transformers_logging.disable_progress_bar()
    logging.getLogger("accelerate.big_modeling").setLevel(logging.ERROR)  # that weights are on disk is asked for


def cast(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Compute in `dtype`, whatever is stored: weights on disk are converted whenever they are fetched."""
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.dtype in HALF.values():
            tensor.data = tensor.data.to(dtype)


def load_tokenizer(name: str, folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in `folder`, with its chat template.

    **Raises:** `UserError` when there is none.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise UserError(
            name, f"no tokenizer ({_first_line(error)})", "a chat model", "save its tokenizer too"
        ) from None
    check_template(tokenizer, name)
    return tokenizer


def empty_model(folder: Path) -> tuple[PreTrainedModel, nn.ModuleList]:
    """The model of `folder` without weights, from its config alone, and its blocks."""
    config = AutoConfig.from_pretrained(folder)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):  # accelerate's init_empty_weights allocates each tensor before it drops it
        # bfloat16, because some kernels for experts take nothing else; nothing that is read off it depends on that.
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    return model, find_blocks(model)


def restore_precision(chat_model: ChatModel, layer: int) -> None:
    """Put the block as it is in the weight files in the place of a quantised one; any other block is left alone.

    **Raises:** `UserError` when a parameter of it is not in the files under its name.
    """
    if chat_model.placement.quantization == "none" or chat_model.folder is None:
        return
    _, blocks = empty_model(chat_model.folder)
    prefix = block_name(chat_model, layer)
    block = blocks[layer]
    for file in weight_files(chat_model.folder):
        with safe_open(file, framework="pt") as reader:
            names = [name for name in reader.keys() if name.startswith(f"{prefix}.")]  # noqa: SIM118 - no mapping
            tensors = {name.removeprefix(f"{prefix}."): reader.get_tensor(name) for name in names}
        block.load_state_dict(tensors, strict=False, assign=True)
    if missing := [name for name, parameter in block.named_parameters() if parameter.is_meta]:
        found = f"no {prefix}.{missing[0]} in the weight files"
        raise UserError(chat_model.name, found, "the block in full precision", "leave `quantization=` out")
    device = device_of(chat_model.blocks[layer])
    dtype = next(parameter for parameter in chat_model.model.parameters() if parameter.is_floating_point()).dtype
    chat_model.blocks[layer] = block.to(device, dtype).eval().requires_grad_(False)


def stored_dtype(config: Any) -> torch.dtype:
    """The dtype that a config names for the weights; float32 where it names none, as transformers takes it."""
    dtype = getattr(config.get_text_config(), "dtype", None) or getattr(config, "dtype", None)
    return dtype or torch.float32


def _four_bits(dtype: torch.dtype) -> Any:
    require_package("`quantization=bnb_4bit`", "bitsandbytes", "bnb")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
