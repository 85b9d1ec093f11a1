"""Answers of a model loaded here, by transformers.

Greedy, and nothing else: no sampling, penalty or banned word that the checkpoint's generation config may name; only its
ends are used. Where the model's attention allows it, an answered prompt makes room for the next one at once
(`continuous_batching`). Elsewhere `generate` of transformers answers them batch by batch.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from ..models.activations import compact_head, finite_logits
from ..models.batches import is_out_of_memory
from ..models.chat import Batch, TokenIds, pad, rows_by_length
from ..models.kv_cache import attends_to_all
from ..models.model import ChatModel
from ..models.trials import alike, holds, padding_is_exact, some_of_all_lengths
from ..prompts.prompt import Prompt
from .continuous_batching import SLOTS_OF_CHECK, Slots, shared_prefix, slots_agree
from .engine import REASONING_TOKENS, Answer, Engine, Opened, Subject
from .reading import Growth, Reader

log = logging.getLogger(__name__)

AUTO_BATCH_SIZE = 64
AUTO_BATCH_TOKENS = 32_768
"""A processor short of memory raises nothing: the system ends the process. So long prompts go in smaller batches."""
FEW = 8
"""Fewer prompts are not worth the check that slots need."""
SHARES = 8
"""One in so many of the slots is filled at a time: more prompts need more padding, fewer are slow to read."""


@dataclass(frozen=True)
class _Job:
    """Some prompts to be answered, `size` at a time at most.

    - `rows`: indices in `token_ids` of the prompts, longest first.
    - `reader`: of the answers.
    """

    token_ids: Sequence[TokenIds]
    rows: Sequence[int]
    size: int
    reader: Reader

    def prompts(self, rows: Sequence[int]) -> list[TokenIds]:
        """The token ids of `rows`."""
        return [self.token_ids[row] for row in rows]


def subject_of(
    model: ChatModel | Subject, batch_size: int | None = None, max_reasoning_tokens: int = REASONING_TOKENS
) -> Subject:
    """`model`, to be asked, where it is not a subject already, which has limits of its own; else as `local_engine`."""
    if isinstance(model, Subject):
        return model
    engine, placement = local_engine(model, batch_size, max_reasoning_tokens), model.placement
    return Subject(
        model.name,
        lambda: Opened(engine, model),
        dtype=placement.dtype,
        quantization=placement.quantization,
        in_memory=True,
        chat_template_kwargs=model.chat_template_kwargs,
        max_reasoning_tokens=max_reasoning_tokens,
    )


def local_engine(
    chat_model: ChatModel, batch_size: int | None = None, max_reasoning_tokens: int = REASONING_TOKENS
) -> Engine:
    """An engine that answers with `chat_model`, the longest prompts first.

    **Arguments:**

    - `batch_size`: prompts at a time; None finds it: 64, fewer where prompts are long. Out of memory halves it and goes
      on.
    - `max_reasoning_tokens`: what a model that reasons may think before it answers, besides its answer.
    """
    size = batch_size or AUTO_BATCH_SIZE

    def answer(prompts: Sequence[Prompt], max_new_tokens: int) -> Iterator[Answer]:
        nonlocal size
        reader = Reader(chat_model.tokenizer, _ends(chat_model), max_new_tokens, max_reasoning_tokens)
        token_ids = chat_model.encode(prompts)
        waiting = [row for rows in rows_by_length(token_ids, len(token_ids)) for row in rows]
        while waiting:
            job = _next_job(token_ids, waiting, size, reader, limited=batch_size is None)
            answered = set()
            out_of_memory = False
            try:
                for found in _answers(chat_model, job):
                    answered.add(found.row)
                    yield found
            except RuntimeError as error:
                if job.size == 1 or not is_out_of_memory(error):
                    raise
                out_of_memory = True
            waiting = [row for row in waiting if row not in answered]
            if out_of_memory:  # and not in `except`, where the traceback still holds the tensors
                clear_device_cache(garbage_collection=True)
                size = job.size // 2
                log.warning("out of memory: going on with %d prompts at a time", size)

    return answer


def _next_job(token_ids: Sequence[TokenIds], waiting: list[int], size: int, reader: Reader, limited: bool) -> _Job:
    """The longest prompts of `waiting`; where `limited`, as few at a time as AUTO_BATCH_TOKENS says."""
    longest = len(token_ids[waiting[0]]) + reader.most
    fitting = min(size, max(1, AUTO_BATCH_TOKENS // longest)) if limited else size
    rows = waiting
    if fitting < size:  # Prompts of less than half the length are for another job, with more at a time.
        rows = [row for row in waiting if 2 * (len(token_ids[row]) + reader.most) > longest]
    return _Job(token_ids, rows, min(fitting, len(rows)), reader)


@torch.inference_mode()
def _answers(chat_model: ChatModel, job: _Job) -> Iterator[Answer]:
    if job.size < SLOTS_OF_CHECK or len(job.rows) < FEW:
        return _generate(chat_model, job)
    prompts = job.prompts(job.rows)
    if not attends_to_all(chat_model.model.config, max(map(len, prompts)) + job.reader.most):
        log.info("some blocks do not attend to all earlier tokens: answering batch by batch")
        return _generate(chat_model, job)
    slots = Slots(chat_model, shared_prefix(prompts), job.size)
    if not slots_agree(slots, prompts):
        log.warning("with a shared prefix this model says something else: answering batch by batch")
        return _generate(chat_model, job)
    return _fill_slots(slots, job)


@dataclass
class _Growing:
    """A prompt's row, and the tokens of its answer so far."""

    row: int
    growth: Growth
    tokens: list[int] = field(default_factory=list)


@torch.inference_mode()
def _fill_slots(slots: Slots, job: _Job) -> Iterator[Answer]:
    chat_model = slots.chat_model
    waiting = list(job.rows)
    share = max(1, job.size // SHARES)
    growing: list[_Growing] = []
    while waiting or growing:
        free = job.size - len(growing)
        if waiting and free >= share:
            new = [_Growing(row, job.reader.growth(job.token_ids[row])) for row in waiting[:share]]
            waiting = waiting[share:]
            logits = slots.admit(job.prompts([each.row for each in new]))
            growing += new
        else:
            new = growing
            logits = slots.advance(torch.tensor([each.tokens[-1] for each in growing], device=chat_model.device))
        for each, token in zip(new, logits.argmax(dim=-1).tolist(), strict=True):
            each.tokens.append(token)
        open_slots = []
        for slot, each in enumerate(growing):
            if each.growth.is_over(each.tokens):
                yield each.growth.answer(each.row, each.tokens)
            else:
                open_slots.append(slot)
        if len(open_slots) < len(growing):
            growing = [growing[slot] for slot in slots.keep(open_slots)]


@torch.inference_mode()
def _generate(chat_model: ChatModel, job: _Job) -> Iterator[Answer]:
    prompts = job.prompts(job.rows)
    equal = not (padding_is_exact(chat_model, prompts) and _padded_answers_are_exact(chat_model, prompts))
    for lines in rows_by_length(prompts, job.size, equal=equal):
        batch, growths = (
            pad(prompts, lines, chat_model.pad_id, chat_model.device),
            [job.reader.growth(prompts[line]) for line in lines],
        )
        width = batch.input_ids.shape[1]
        over = _Over(growths, width)
        found = _generated(chat_model, batch, job.reader.most, stopping_criteria=StoppingCriteriaList([over]))
        for line, growth, tokens in zip(lines, growths, found.sequences[:, width:].tolist(), strict=True):
            yield growth.answer(job.rows[line], tokens)


class _Over(StoppingCriteria):
    """Which answers of a batch are over, for `generate`: each is followed until it is."""

    def __init__(self, growths: Sequence[Growth], width: int) -> None:
        self.growths, self.width, self.over = growths, width, [False] * len(growths)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **_keywords: Any) -> torch.BoolTensor:
        for line, tokens in enumerate(input_ids[:, self.width :].tolist()):
            self.over[line] = self.over[line] or self.growths[line].is_over(tokens)
        return torch.tensor(self.over, device=input_ids.device)  # type: ignore[return-value]


@torch.inference_mode()
def first_tokens(chat_model: ChatModel, token_ids: Sequence[TokenIds], count: int) -> list[TokenIds]:
    """The first `count` tokens, or fewer, of the answer to each prompt, special ones among them."""
    found = []
    for prompt in token_ids:
        batch = pad([prompt], [0], chat_model.pad_id, chat_model.device)
        found.append(_generated(chat_model, batch, count).sequences[0, len(prompt) :].tolist())
    return found


def _padded_answers_are_exact(chat_model: ChatModel, prompts: Sequence[TokenIds]) -> bool:
    """Whether padding changes nothing after the first token either, where the model reads what it has kept."""
    rows = some_of_all_lengths(prompts)

    def second(rows: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """The first new token (prompt), and logits (prompt, vocabulary) of the second."""
        found = _generated(chat_model, pad(prompts, rows, chat_model.pad_id, chat_model.device), 2, logits=True)
        return found.sequences[:, -2], found.logits[1]

    def trial() -> bool:
        (first, together), alone = second(rows), [second([row]) for row in rows]
        # Where rounding makes the first token another, what follows is another question.
        same = first == torch.cat([token for token, _ in alone])
        apart = torch.cat([logits for _, logits in alone])
        return 2 * int(same.sum()) > len(rows) and alike(together[same], apart[same], chat_model.model.dtype)

    return len({*map(len, prompts)}) == 1 or holds(chat_model, "padding with what is kept", prompts, trial)


def _generated(
    chat_model: ChatModel,
    batch: Batch,
    new_tokens: int,
    logits: bool = False,
    stopping_criteria: StoppingCriteriaList | None = None,
) -> Any:
    """What `generate` of transformers returns; with `logits` of all, exactly so many `new_tokens`, else at most."""
    with compact_head(chat_model), finite_logits(chat_model, batch), _plain_decoding(chat_model):
        return chat_model.model.generate(  # type: ignore[operator]
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens if logits else None,
            return_dict_in_generate=True,
            output_logits=logits,
            stopping_criteria=stopping_criteria,
        )


def _ends(chat_model: ChatModel) -> set[int]:
    """The tokens that end an answer."""
    ends = chat_model.model.generation_config.eos_token_id
    return set() if ends is None else {ends} if isinstance(ends, int) else set(ends)


@contextmanager
def _plain_decoding(chat_model: ChatModel) -> Iterator[None]:
    model = chat_model.model
    own = model.generation_config
    model.generation_config = GenerationConfig(
        do_sample=False,
        bos_token_id=own.bos_token_id,
        eos_token_id=own.eos_token_id,
        pad_token_id=chat_model.pad_id,
    )
    try:
        yield
    finally:
        model.generation_config = own
