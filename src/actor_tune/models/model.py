"""A loaded chat model, and its decoder blocks."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import UserError
from ..prompts.prompt import Prompt
from ..storage.loading import loading, reason_of
from .chat import TokenIds, check_template, encode
from .placement import Placement, device_of

DEFAULT_PLACEMENT = Placement()


@dataclass(frozen=True)
class ChatModel:
    """A loaded model, its tokenizer, and the list of its decoder blocks.

    - `name`: the path or Hub id that the user gave; `folder`: where its files are, None where it is in memory alone.
    - `blocks`: the decoder blocks in order; an entry is the module that turns block l's input into its output.
    - `returned`: how many values each block returns in a tuple, the hidden state first; 0: that alone, as a tensor.
    - `placement`: where it was asked to be.
    - `chat_template_kwargs`: what its chat template is told besides the conversation.
    - `opening`: tokens behind every prompt, before anything is answered.
    """

    name: str
    folder: Path | None
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    blocks: nn.ModuleList
    returned: tuple[int, ...]
    placement: Placement = DEFAULT_PLACEMENT
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    opening: tuple[int, ...] = ()

    def encode(self, prompts: Sequence[Prompt]) -> list[TokenIds]:
        """Token ids of each prompt in the chat template, generation prompt included.

        **Raises:** `UserError` when the template refuses a conversation, the model does not know a token, or a control
        token in a prompt cannot be text.
        """
        found = encode(self.tokenizer, prompts, self.chat_template_kwargs, self.known_tokens)
        return [[*ids, *self.opening] for ids in found]

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
        """The token used for padding; masked everywhere, so any that is known will do."""
        named = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id)
        return next((token for token in named if token is not None and token < self.known_tokens), 0)

    @property
    def known_tokens(self) -> int:
        """How many tokens have an embedding."""
        return known_tokens(self.model)


def wrap(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    name: str | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> ChatModel:
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
    return ready(name, None, model, tokenizer, placement, chat_template_kwargs)


def ready(
    name: str,
    folder: Path | None,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    placement: Placement,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> ChatModel:
    """`model`, ready for reading: eval mode, no gradients.

    **Raises:** `UserError` when a weight is not finite, or it has no list of decoder blocks.
    """
    model.eval().requires_grad_(False)
    for module in model.modules():
        # In inference, bitsandbytes packs such weights for the processor in a form that has no gradient.
        if type(module).__name__ == "Linear4bit":
            module.train()
    for tensor_name, tensor in model.state_dict().items():
        if not tensor.is_meta:  # else it is on disk
            check_tensor(name, tensor_name, tensor)
    blocks, returned = _run_through(name, model)
    return ChatModel(name, folder, model, tokenizer, blocks, returned, placement, chat_template_kwargs or {})


def known_tokens(model: PreTrainedModel) -> int:
    """How many tokens have an embedding in `model`, with or without its weights."""
    weight: torch.Tensor = model.get_input_embeddings().weight  # type: ignore[assignment]
    return weight.shape[0]


def check_tensor(name: str, tensor_name: str, tensor: torch.Tensor) -> None:
    """Stop with a `UserError` where `tensor` of the model `name` is not finite."""
    if tensor.is_floating_point() and not tensor.isfinite().all():
        raise UserError(name, f"NaN or infinity in {tensor_name}", "finite weights", "download or train it again")


def runs_own_code(chat_model: ChatModel) -> bool:
    """Whether Python files that came with the model are run."""
    return type(chat_model.model).__module__.startswith("transformers_modules")


def block_name(chat_model: ChatModel, layer: int) -> str:
    """The name of block `layer` in the model, with which the names of its tensors begin."""
    block = chat_model.blocks[layer]
    return next(name for name, module in chat_model.model.named_modules() if module is block)


def block_lists(model: PreTrainedModel) -> dict[str, nn.ModuleList]:
    """What may be the decoder blocks: every `ModuleList` as long as the text config says there are layers, by name.

    **Raises:** `UserError` when there is none.
    """
    layers = model.config.get_text_config().num_hidden_layers
    modules = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    if lists := {name: module for name, module in modules.items() if len(module) == layers}:
        return lists
    lengths = ", ".join(f"{name} of {len(module)}" for name, module in modules.items()) or "none"
    found = f"its lists of modules have other lengths than {layers} ({lengths})"
    raise UserError(type(model).__name__, found, "a list of decoder blocks", "choose a model with plain blocks")


class _Seen(BaseException):  # no error, and not to be taken for one
    """Leaves a forward pass in which enough was seen."""


@torch.no_grad()
def _run_through(name: str, model: PreTrainedModel) -> tuple[nn.ModuleList, tuple[int, ...]]:
    """The list of blocks that a text runs through (a wrapper's other parts do not), and what each returns.

    Blocks of one class return alike, so that the pass ends when each class was seen: weights may be on disk.
    """

    def blame(error: BaseException) -> tuple[object, str]:
        return name, f"a text alone cannot be run ({reason_of(error)})"

    lists = block_lists(model)
    seen: dict[str, dict[type, int]] = {where: {} for where in lists}

    def look(where: str, block: nn.Module, output: Any) -> None:
        seen[where][type(block)] = 0 if isinstance(output, torch.Tensor) else len(output)
        if seen[where].keys() == set(map(type, lists[where])):
            raise _Seen

    with ExitStack() as hooks:
        for where, blocks in lists.items():
            for block in blocks:
                hooks.enter_context(block.register_forward_hook(lambda b, _, output, at=where: look(at, b, output)))
        try:
            tokens = torch.zeros(1, 2, dtype=torch.int64, device=device_of(model.get_input_embeddings()))
            with loading(name, "a model that takes text", "choose a chat model of text, or download it again", blame):
                model(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False)
        except _Seen:
            pass
    for where, blocks in lists.items():
        if seen[where].keys() == set(map(type, blocks)):
            return blocks, tuple(seen[where][type(block)] for block in blocks)
    raise UserError(name, f"a text runs through none of {', '.join(lists)}", "decoder blocks", "choose another model")


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
