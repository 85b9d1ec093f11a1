"""What a method is: a function from prompts to a change of the model that is made within a `with` and then undone."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

import torch

from ...engines.engine import Answer, Engine
from ...engines.local import local_engine
from ...models.chat import TokenIds
from ...models.first_token import first_token_logprobs
from ...models.inputs import BlockInputs
from ...models.model import ChatModel
from ...models.steering import steer
from ...prompts.prompt import Prompt
from ...prompts.split import Split
from ...records.response import Response
from ...repair.refusals import Refusals


@dataclass(frozen=True)
class Task:
    """What a method learns from: the same for all.

    - `split`: the prompts, divided by `seed` into those to learn from and those for validation.
    - `layer`: the block with the largest effect on refusal, which every method takes that needs one.
    - `refusals`: how the model refuses, as it is.
    - `answers`: what fine-tuning learns (`training_answers`).
    """

    split: Split
    layer: int
    seed: int
    refusals: Refusals
    answers: Mapping[Prompt, Response] = field(default_factory=dict)


Signs = Callable[[Sequence[TokenIds]], list[int]]
"""Token ids of prompts -> which way each is to be treated; 0: as the unchanged model does."""


@dataclass(frozen=True)
class Detector:
    """What tells prompts apart, so that a method treats them differently.

    - `harmful_sign`: of those that it takes for harmful, which score above `threshold`.
    """

    signs: Signs
    harmful_sign: int
    threshold: float


@dataclass(frozen=True)
class Fitted:
    """What a method learned.

    - `layer`: the first block of which the output changes; what it receives does not.
    - `strengths`: to try, weakest first, each more than 0, where the model is unchanged.
    - `changed`: (strength, sign) -> a context manager, within which the model answers as the method has it.
    - `detector`: None for a method that treats all prompts alike.
    """

    layer: int
    strengths: tuple[float, ...]
    changed: Callable[[float, int], AbstractContextManager[None]]
    detector: Detector | None = None

    def signs(self, token_ids: Sequence[TokenIds]) -> list[int]:
        """Which way each prompt is to be treated, told by the unchanged model; 1 where there is no detector."""
        return self.detector.signs(token_ids) if self.detector else [1] * len(token_ids)


Method = Callable[[ChatModel, Task], Fitted]


def method_engine(
    chat_model: ChatModel, fitted: Fitted, strength: float, unchanged: Mapping[Prompt, Response]
) -> Engine:
    """An engine that answers as `fitted` has it at `strength`.

    **Arguments:**

    - `unchanged`: the answers of the unchanged model, which are taken for prompts that are left alone: other company in
      a batch could change their last bits.
    """

    def answer(prompts: Sequence[Prompt], max_new_tokens: int) -> Iterator[Answer]:
        for sign, rows in _by_sign(fitted.signs(chat_model.encode(prompts))).items():
            if sign == 0:
                for row in rows:
                    known = unchanged[prompts[row]]
                    yield Answer(row, known.text, known.finished)
                continue
            with fitted.changed(strength, sign):
                for found in local_engine(chat_model, None)([prompts[row] for row in rows], max_new_tokens):
                    yield replace(found, row=rows[found.row])

    return answer


def method_logprobs(
    chat_model: ChatModel,
    fitted: Fitted,
    strength: float,
    inputs: BlockInputs,
    signs: Sequence[int],
    unchanged: torch.Tensor,
) -> torch.Tensor:
    """Log-probabilities of the first answer token as `fitted` has it at `strength`: (prompt, vocabulary).

    **Arguments:**

    - `inputs`: what block `fitted.layer`, or one below it, receives for the prompts; `signs`: theirs.
    - `unchanged`: (prompt, vocabulary) those of the unchanged model.
    """
    found = unchanged.clone()
    for sign, rows in _by_sign(signs).items():
        if sign and strength:
            with fitted.changed(strength, sign):
                found[rows] = first_token_logprobs(chat_model, inputs.select(rows))
    return found


def steered(
    chat_model: ChatModel,
    shifts: Mapping[int, torch.Tensor],
    strengths: tuple[float, ...],
    detector: Detector | None = None,
) -> Fitted:
    """Adds `shifts`, block -> (d_model), while the model runs (`steering.steer`)."""

    def changed(strength: float, sign: int) -> AbstractContextManager[None]:
        return steer(chat_model, shifts, strength, sign)

    return Fitted(min(shifts), strengths, changed, detector)


def remembered(fitted: Fitted) -> Fitted:
    """`fitted`, its detector looking at each prompt once."""
    detector, known = fitted.detector, dict[tuple[int, ...], int]()
    if detector is None:
        return fitted

    def signs(token_ids: Sequence[TokenIds]) -> list[int]:
        keys = [tuple(ids) for ids in token_ids]
        new = [key for key in dict.fromkeys(keys) if key not in known]
        if new:
            known.update(zip(new, detector.signs([list(key) for key in new]), strict=True))
        return [known[key] for key in keys]

    return replace(fitted, detector=replace(detector, signs=signs))


def every_second(rows: Sequence[int]) -> tuple[list[int], list[int]]:
    """`rows` in two halves: a detector's direction is made from the first, its threshold fitted on the second."""
    return [*rows[::2]], [*rows[1::2]]


def _by_sign(signs: Sequence[int]) -> dict[int, list[int]]:
    return {sign: [row for row, other in enumerate(signs) if other == sign] for sign in sorted(set(signs))}


def best_threshold(harmful: torch.Tensor, benign: torch.Tensor) -> float:
    """Above which a score (prompt) is called harmful, so that sensitivity + specificity is largest (Youden 1950).

    Halfway between two scores; of several thresholds that are as good the lowest, so that more counts as harmful.
    """
    scores = torch.cat([harmful, benign]).sort().values
    cuts = torch.cat([scores[:1] - 1, (scores[1:] + scores[:-1]) / 2])
    gain = torch.stack([(harmful > cut).float().mean() + (benign <= cut).float().mean() for cut in cuts])
    return float(cuts[gain.argmax()])
