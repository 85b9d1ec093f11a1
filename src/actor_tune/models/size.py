"""How large a model is, from its `config.json` alone: counted on an empty model, so no family has its own formula."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from .structure import empty_model, stored_dtype

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelSize:
    """What a model's structure says.

    - `blocks`, `linear`: parameters of each block, and how many of them are in linear layers, which quantization packs.
    - `other_parameters`: embeddings, head and norms; a head tied to the embeddings is counted once.
    - `largest_other`: parameters of the largest tensor among them.
    - `kv_values_per_token`: keys and values kept for one token, all blocks together.
    - `stored_bytes`: bytes a parameter on disk, by the dtype that the config names.
    """

    blocks: tuple[int, ...]
    linear: tuple[int, ...]
    other_parameters: int
    largest_other: int
    d_model: int
    vocabulary: int
    kv_values_per_token: int
    stored_bytes: int

    @property
    def parameters(self) -> int:
        """All of them."""
        return sum(self.blocks) + self.other_parameters

    def within(self, blocks: range) -> int:
        """Parameters of `blocks`."""
        return sum(self.blocks[index] for index in blocks)


def model_size(config: PreTrainedConfig, trust_remote_code: bool = False) -> ModelSize:
    """Count the parameters of the model that `config` describes. No file is opened.

    **Raises:** `UserError` when it has no list of blocks.
    """
    model, blocks = empty_model(config, trust_remote_code)
    inside = {id(parameter) for parameter in blocks.parameters()}
    outside = [parameter.numel() for parameter in model.parameters() if id(parameter) not in inside]
    vocabulary, d_model = model.get_output_embeddings().weight.shape
    return ModelSize(
        blocks=tuple(_count(block.parameters()) for block in blocks),
        linear=tuple(_count(m.weight for m in block.modules() if isinstance(m, nn.Linear)) for block in blocks),
        other_parameters=sum(outside),
        largest_other=max(outside),
        d_model=d_model,
        vocabulary=vocabulary,
        kv_values_per_token=_kv_values(model, 2 * d_model * len(blocks)),
        stored_bytes=stored_dtype(config).itemsize,
    )


def _count(parameters: Iterable[torch.Tensor]) -> int:
    return sum(parameter.numel() for parameter in parameters)


@torch.no_grad()
def _kv_values(model: PreTrainedModel, most: int) -> int:
    """Keys and values that the empty `model` keeps of a token; `most`, an upper bound, where it cannot be run."""
    tokens = torch.zeros(1, 2, dtype=torch.int64, device="meta")
    try:
        layers = model(input_ids=tokens, use_cache=True).past_key_values.layers
        return sum(layer.keys.numel() + layer.values.numel() for layer in layers) // tokens.numel()
    except (
        RuntimeError,
        ValueError,
        TypeError,
        AttributeError,
    ) as error:  # it needs data, or has another kind of cache
        log.info("the key/value cache is taken at its largest: the empty model does not run (%s)", error)
        return most
