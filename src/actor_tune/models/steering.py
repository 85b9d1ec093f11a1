"""Steer a model while it runs: hooks that change what blocks return, and always let go.

Prompts must be left-padded, as they are everywhere here and in `generate` of transformers, so that the last position of
a forward pass is the last token of a prompt, or the token of its answer that was said last.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial

import torch

from .activations import IN_OPENING, changed
from .model import ChatModel


@contextmanager
def steer(
    chat_model: ChatModel, shifts: Mapping[int, torch.Tensor], strength: float, sign: int | torch.Tensor = 1
) -> Iterator[None]:
    """Add strength * sign * shift to what blocks return, at the last position of every forward pass.

    A steered model has passed no gate: steering is here to be compared.

    ```python
    with at.steer(model, {fit.layer: fit.direction.vector}, 0.3):  # towards refusal
        at.answer(model, prompts[:4])
    ```

    Differs from the papers where they steer "every position after the prompt": the last token of the prompt is steered
    too, because the first token of the answer is read from it.

    **Arguments:**

    - `shifts`: block -> (d_model) float32.
    - `sign`: of all prompts, or (prompt) one for each row of the batches that are run within.
    """

    def add(shift: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        if IN_OPENING.get():
            return hidden
        signs = torch.as_tensor(sign, dtype=torch.float32).reshape(-1, 1)
        moved = hidden.clone()
        moved[:, -1] += (strength * signs * shift).to(hidden)
        return moved

    with _changing(chat_model, shifts, add):
        yield


@contextmanager
def ablate(chat_model: ChatModel, directions: Mapping[int, torch.Tensor], strength: float) -> Iterator[None]:
    """Take a direction out of what blocks return, at every position: a - strength (a . w) w; all of it at 1.

    `directions`: block -> (d_model) float32 of length 1.
    """

    def remove(direction: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        unit = direction.to(hidden)
        return hidden - strength * (hidden @ unit).unsqueeze(-1) * unit

    with _changing(chat_model, directions, remove):
        yield


@contextmanager
def _changing(
    chat_model: ChatModel,
    vectors: Mapping[int, torch.Tensor],
    change: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> Iterator[None]:
    """Put what each block of `vectors` returns through `change`, after its vector."""
    with ExitStack() as undo:
        for layer, vector in vectors.items():
            undo.enter_context(changed(chat_model.blocks[layer], partial(change, vector)))
        yield
