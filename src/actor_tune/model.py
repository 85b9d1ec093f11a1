"""Load a chat model, find its decoder blocks, and prove that hooking a block does what the method assumes.

A block is named by the 0-based index of its output: block l's output is `hidden_states[l + 1]` of transformers, except
for the last block, whose entry there is taken after the final norm.
"""

import hashlib
import shutil
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from .errors import UserError
from .files import sha256_of
from .placement import Placement, device_map_with_disk, device_of, resolve_device, resolve_dtype

DEFAULT_PLACEMENT = Placement()
WEIGHT_FILES = "*.safetensors"
OTHER_FILES = ("*.json", "*.jinja", "*.model", "*.txt", "*.md", "LICENSE*")


@dataclass(frozen=True)
class ChatModel:
    """A loaded model, its tokenizer, and the list of its decoder blocks.

    - `name`: the path or Hub id that the user gave; `folder`: where its files are.
    - `blocks`: the decoder blocks in order; an entry is the module that turns block l's input into its output.
    - `placement`: where it was asked to be.
    """

    name: str
    folder: Path
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    blocks: nn.ModuleList
    placement: Placement = DEFAULT_PLACEMENT

    @property
    def device(self) -> torch.device:
        """Where inputs go."""
        return device_of(self.model.get_input_embeddings())

    @property
    def computed_in(self) -> str:
        """The dtype it computes in, such as `bfloat16`."""
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def pad_id(self) -> int:
        """The token used for padding; masked everywhere, so any will do where the tokenizer names none."""
        pad = self.tokenizer.pad_token_id
        return self.tokenizer.eos_token_id if pad is None else pad


def load_model(name: str, placement: Placement = DEFAULT_PLACEMENT, last_block: int | None = None) -> ChatModel:
    """Load a local folder or Hub id, ready for reading (no gradients, eval mode).

    **Arguments:**

    - `last_block`: blocks above this one stay on disk until `placement.settle` fetches them. Negative counts from the
      end. Without effect where `placement` spreads the weights or packs them: then all of them are placed at once.

    **Raises:** `UserError` when the folder or repository is missing, has no config, weights or chat template, when a
    weight is not finite, or when `placement` cannot be had.
    """
    folder = model_folder(name)
    if not (folder / "config.json").is_file():
        raise UserError(name, "no config.json", "a transformers checkpoint", "check the path")
    if not weight_files(folder):
        raise UserError(name, "no weights", f"{WEIGHT_FILES} beside config.json", "save the model with save_pretrained")
    tokenizer = load_tokenizer(name, folder)
    device = resolve_device(placement.device)
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
    model.eval().requires_grad_(False)
    for tensor_name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.is_meta and not tensor.isfinite().all():
            raise UserError(name, f"NaN or infinity in {tensor_name}", "finite weights", "download or train it again")
    return ChatModel(name, folder, model, tokenizer, find_blocks(model), placement)


def cast(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Compute in `dtype`, whatever is stored: weights on disk are converted whenever they are fetched."""
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.dtype in (torch.bfloat16, torch.float16):
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
    if not tokenizer.chat_template:
        fix = "choose a chat model, or add chat_template.jinja to its folder"
        raise UserError(name, "the tokenizer has no chat template", "a chat model", fix)
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
    if chat_model.placement.quantization == "none":
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
        raise UserError(chat_model.name, found, "the block in full precision", "leave --quantization out")
    device = device_of(chat_model.blocks[layer])
    dtype = next(parameter for parameter in chat_model.model.parameters() if parameter.is_floating_point()).dtype
    chat_model.blocks[layer] = block.to(device, dtype).eval().requires_grad_(False)


def block_name(chat_model: ChatModel, layer: int) -> str:
    """The name of block `layer` in the model, with which the names of its tensors begin."""
    block = chat_model.blocks[layer]
    return next(name for name, module in chat_model.model.named_modules() if module is block)


def stored_dtype(config: Any) -> torch.dtype:
    """The dtype that a config names for the weights; float32 where it names none, as transformers takes it."""
    dtype = getattr(config.get_text_config(), "dtype", None) or getattr(config, "dtype", None)
    return dtype or torch.float32


def _four_bits(dtype: torch.dtype) -> Any:
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        fix = "run: pip install 'actor-tune[bnb]'"
        raise UserError("--quantization bnb_4bit", "bitsandbytes is not installed", "the extra `bnb`", fix) from None
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def model_folder(name: str, weights: bool = True) -> Path:
    """The folder of `name`: itself when it is a local folder, else the downloaded snapshot of a Hub repository.

    **Arguments:**

    - `weights`: False leaves the weights on the Hub.

    **Raises:** `UserError` when it is neither.
    """
    if Path(name).is_dir():
        return Path(name)
    if Path(name).exists():
        raise UserError(name, "a file", "a model folder or a Hub id", "name the folder it is in")
    try:
        return Path(snapshot_download(name, allow_patterns=[*OTHER_FILES, *([WEIGHT_FILES] if weights else [])]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        reason = str(error).splitlines()[0]
        fix = "check the spelling and the network"
        raise UserError(
            name, f"no such folder, and the Hub says: {reason}", "a model folder or a Hub id", fix
        ) from None


def weight_files(folder: Path) -> list[Path]:
    """The checkpoint's weight files, sorted by name."""
    return sorted(folder.glob(WEIGHT_FILES))


def weights_hash(folder: Path) -> str:
    """SHA-256 (hex) over the names and SHA-256 of the weight files: what a patch is bound to."""
    digest = hashlib.sha256()
    for file in weight_files(folder):
        digest.update(f"{file.name} {sha256_of(file)}\n".encode())
    return digest.hexdigest()


def find_blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The decoder blocks, found by structure: the one `ModuleList` as long as the text config says there are layers.

    **Raises:** `UserError` when no list, or more than one, has that length.
    """
    layers = model.config.get_text_config().num_hidden_layers
    lists = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == layers and "layer" in name.rsplit(".", 1)[-1]
    } or {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == layers
    }
    if len(lists) != 1:
        found = f"{len(lists)} lists of {layers} modules ({', '.join(lists) or 'none'})"
        raise UserError(type(model).__name__, found, "one list of decoder blocks", "report this architecture")
    return next(iter(lists.values()))


def check_layer(chat_model: ChatModel, layer: int) -> int:
    """`layer` as a block index that can be trained; negative counts from the end.

    The last block is excluded: `hidden_states` has its output only after the final norm, so that reading and editing it
    would not be the same thing.

    **Raises:** `UserError` when out of range.
    """
    count = len(chat_model.blocks)
    index = layer + count if layer < 0 else layer
    if not 0 <= index < count - 1:
        raise UserError(f"--layer {layer}", f"{count} blocks", f"0 to {count - 2}", "choose a block in that range")
    return index
