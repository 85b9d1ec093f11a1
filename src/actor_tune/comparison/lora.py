"""Fine-tuning on answers: LoRA (arXiv 2106.09685) through PEFT and transformers, on every linear layer."""

import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..errors import require_package
from ..models.activations import compact_head
from ..models.chat import TokenIds, encode, pad
from ..models.control_tokens import text_ids
from ..models.inputs import opening_is_exact
from ..models.kv_cache import Keys, KeyValue, attends_to_all, opening_length
from ..models.model import ChatModel
from ..progress import track
from ..records.response import Response
from ..repair.train import batches_of_like_length

EPOCHS = 3
BATCH_SIZE = 16
RANK = 16
LEARNING_RATE = 1e-3
"""That of the SFT which ACTOR's paper compares itself with."""

IGNORED = -100
"""The label of tokens that are not learned, as transformers has it."""

Batch = dict[str, torch.Tensor]

Loss = Callable[[Any, Batch, int], torch.Tensor]
"""(the model with adapters, a batch of `collator`, with how many tokens all its prompts begin alike) -> scalar."""


@dataclass(frozen=True)
class Adapter:
    """What LoRA adds to one linear layer (Eq. 3): scale * up(down(x)).

    - `down`: (rank, d_in); `up`: (d_out, rank), both float32.
    """

    down: torch.Tensor
    up: torch.Tensor
    scale: float


def answer_examples(
    tokenizer: Any, answers: Sequence[Response], chat_template_kwargs: Mapping[str, Any] | None = None
) -> list[dict[str, TokenIds]]:
    """Tokens of each prompt with its answer, ended where it is finished, and of the answer, which is learned.

    Prompts whose answer has no token are left out.
    """
    examples = []
    questions = encode(tokenizer, [answer.prompt for answer in answers], chat_template_kwargs)
    for prompt_ids, answer in zip(questions, answers, strict=True):
        end = [tokenizer.eos_token_id] if answer.finished else []
        answer_ids = [*text_ids(tokenizer, answer.text), *end]
        if answer_ids:
            examples.append({"input_ids": prompt_ids + answer_ids, "answer_ids": answer_ids})
    return examples


def collator(pad_id: int) -> Callable[[list[dict[str, TokenIds]]], Batch]:
    """Batches of `answer_examples` for a `Trainer`; everything but answers is masked in the labels."""

    def collate(chosen: list[dict[str, TokenIds]]) -> Batch:
        ids = [example["input_ids"] for example in chosen]
        batch = pad(ids, list(range(len(ids))), pad_id, torch.device("cpu"))
        labels = torch.full_like(batch.input_ids, IGNORED)
        for line, example in enumerate(chosen):
            labels[line, -len(example["answer_ids"]) :] = torch.tensor(example["answer_ids"])
        return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": labels}

    return collate


def answer_loss(model: Any, batch: Batch, opening: int = 0) -> torch.Tensor:
    """Mean cross-entropy of the answers' tokens, nats.

    The head is run on them alone, and the `opening` tokens with which all prompts begin once instead of for each.
    """
    ids, mask, labels = batch["input_ids"], batch["attention_mask"], batch["labels"]
    first = int((labels != IGNORED).any(dim=0).nonzero()[0])
    kept = labels.shape[1] - first + 1  # and the token before, which is followed by the first
    keys = None
    if opening:
        seen: dict[int, KeyValue] = {}
        shared = ids[mask.sum(dim=1).argmax(), :opening][None]  # of a prompt without padding
        model(input_ids=shared, past_key_values=Keys(seen=seen), use_cache=True, logits_to_keep=1)
        keys = Keys(opening, seen)
        mask = torch.cat([torch.ones_like(mask[:, :opening]), mask[:, :-opening]], dim=1)  # padding is behind it now
    return model(
        input_ids=ids[:, opening:],
        attention_mask=mask,
        position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0)[:, opening:],
        labels=labels[:, -kept:],
        past_key_values=keys,
        use_cache=opening > 0,
        logits_to_keep=kept,
    ).loss


def shared_opening(chat_model: ChatModel, examples: Sequence[dict[str, TokenIds]]) -> int:
    """With how many tokens all prompts begin alike; 0 where it is not worth it, or not exact, to run them once."""
    prompts = [example["input_ids"][: -len(example["answer_ids"])] for example in examples]
    opening = opening_length(prompts)
    longest = max(len(example["input_ids"]) for example in examples)
    possible = opening > 0 and attends_to_all(chat_model.model.config, longest)
    return opening if possible and opening_is_exact(chat_model, prompts, opening) else 0


def train_adapters(
    chat_model: ChatModel,
    examples: list[dict[str, TokenIds]],
    seed: int,
    loss: Loss = answer_loss,
    learning_rate: float = LEARNING_RATE,
    max_steps: int | None = None,
    look: Callable[[int], None] | None = None,
) -> dict[str, Adapter]:
    """Adapters by the name of the linear layer they belong to. The model itself is left as it was.

    **Arguments:**

    - `max_steps`: None: `EPOCHS` epochs.
    - `look`: called after each step with its number; the model then answers as trained.

    Batches are of like length, the rate of AdamW falls to 0: what `Trainer` of transformers does by default, which also
    changes the model's config and, with several GPUs, the size of the batches.

    **Raises:** `UserError` when PEFT is not installed.
    """
    require_package("fine-tuning", "peft", "testbed")
    torch.manual_seed(seed)
    collate, shuffler = collator(chat_model.pad_id), random.Random(seed)
    lengths = [len(example["input_ids"]) for example in examples]
    steps = max_steps or EPOCHS * -(-len(examples) // BATCH_SIZE)
    waiting: list[list[int]] = []
    with _with_lora(chat_model) as wrapped:
        parameters = [parameter for parameter in wrapped.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
        opening = shared_opening(chat_model, examples)
        wrapped.train()
        for step in track(range(1, steps + 1), "Fine-tuning"):
            if not waiting:
                waiting = batches_of_like_length(lengths, BATCH_SIZE, shuffler)
                shuffler.shuffle(waiting)
            batch = collate([examples[row] for row in waiting.pop()])
            on_device = {name: tensor.to(chat_model.device) for name, tensor in batch.items()}
            optimizer.param_groups[0]["lr"] = learning_rate * (1 - (step - 1) / steps)
            with compact_head(chat_model):
                loss(wrapped, on_device, opening).backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            if look:
                wrapped.eval()
                look(step)
                wrapped.train()
        modules = wrapped.base_model.model.named_modules()
        return {name: _adapter(module) for name, module in modules if hasattr(module, "lora_A")}


@contextmanager
def _with_lora(chat_model: ChatModel) -> Iterator[Any]:
    """The model as PEFT wraps it, with adapters on all linear layers; afterwards it is as it was."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    with warnings.catch_warnings():
        # PEFT asks transformers for a property that the latter has renamed.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        wrapped: Any = get_peft_model(chat_model.model, config)
        try:
            yield wrapped
        finally:
            wrapped.unload()
            chat_model.model.eval().requires_grad_(False)


def _adapter(layer: Any) -> Adapter:
    down, up = (part["default"].weight.detach().float().clone() for part in (layer.lora_A, layer.lora_B))
    return Adapter(down, up, float(layer.scaling["default"]))


@contextmanager
def adapted(chat_model: ChatModel, adapters: Mapping[str, Adapter], strength: float) -> Iterator[None]:
    """Within it, each linear layer adds what its adapter says, `strength` times."""

    def hook(adapter: Adapter) -> Callable[..., torch.Tensor]:
        def add(_module: nn.Module, arguments: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
            inside = nn.functional.linear(arguments[0], adapter.down.to(output))
            return output + strength * adapter.scale * nn.functional.linear(inside, adapter.up.to(output))

        return add

    with ExitStack() as undo:
        for name, adapter in adapters.items():
            undo.callback(chat_model.model.get_submodule(name).register_forward_hook(hook(adapter)).remove)
        yield
