"""A loaded chat model, and its decoder blocks."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import UserError
from .chat import check_template
from .placement import Placement, device_of

DEFAULT_PLACEMENT = Placement()


@dataclass(frozen=True)
class ChatModel:
    """A loaded model, its tokenizer, and the list of its decoder blocks.

    - `name`: the path or Hub id that the user gave; `folder`: where its files are, None where it is in memory alone.
    - `blocks`: the decoder blocks in order; an entry is the module that turns block l's input into its output.
    - `placement`: where it was asked to be.
    """

    name: str
    folder: Path | None
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


def wrap(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str | None = None) -> ChatModel:
    """A transformers model that is in memory, for all that a loaded one is for. What it was loaded from is not read.

    The model itself is taken, not a copy, and made ready for reading: eval mode, no gradients; both stay so. Its stored
    dtypes are those in memory, and what a fit of it is bound to are its weights as they are then.

    ```python
    model = at.wrap(hf_model, tokenizer)
    ```

    **Raises:** `UserError` when the tokenizer has no chat template, or a weight is not finite.
    """
    name = name or model.name_or_path or type(model).__name__
    check_template(tokenizer, name)
    devices = set(getattr(model, "hf_device_map", {}).values())
    placement = Placement(str(model.device), device_map="auto" if len(devices) > 1 else None)
    return ready(name, None, model, tokenizer, placement)


def ready(
    name: str, folder: Path | None, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, placement: Placement
) -> ChatModel:
    """`model`, ready for reading: eval mode, no gradients.

    **Raises:** `UserError` when a weight is not finite, or it has no list of decoder blocks.
    """
    model.eval().requires_grad_(False)
    for tensor_name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.is_meta and not tensor.isfinite().all():
            raise UserError(name, f"NaN or infinity in {tensor_name}", "finite weights", "download or train it again")
    return ChatModel(name, folder, model, tokenizer, find_blocks(model), placement)


def block_name(chat_model: ChatModel, layer: int) -> str:
    """The name of block `layer` in the model, with which the names of its tensors begin."""
    block = chat_model.blocks[layer]
    return next(name for name, module in chat_model.model.named_modules() if module is block)


def find_blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The decoder blocks, found by structure: the one `ModuleList` as long as the text config says there are layers.

    **Raises:** `UserError` when no list, or more than one, has that length.
    """
    layers = model.config.get_text_config().num_hidden_layers
    modules = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    lists = {name: module for name, module in modules.items() if len(module) == layers}
    lists = {name: module for name, module in lists.items() if "layer" in name.rsplit(".", 1)[-1]} or lists
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
        raise UserError(f"`layer={layer}`", f"{count} blocks", f"0 to {count - 2}", "choose a block in that range")
    return index
