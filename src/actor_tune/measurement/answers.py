"""A model's answers, with what its probabilities say beside them: what a model is compared with."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import overload

from ..engines.engine import ANSWER_TOKENS, REASONING_TOKENS, Opened, Subject
from ..engines.local import subject_of
from ..engines.respond import respond
from ..errors import UserError
from ..models.model import ChatModel
from ..models.state import fingerprint
from ..prompts.prompt import Prompt
from ..records.response import Response
from .damage import KL_PROMPTS, AnswerLogprobs, answer_logprobs, perplexity


@dataclass(frozen=True, eq=False, repr=False)
class Answers(Sequence[Response]):
    """A model's answers, in the order of the prompts.

    - `subject`: the model, to be asked for more, as it was for these: in `max_new_tokens` tokens at most.
    - `compared`: harmless prompts with the answers over whose first tokens `logprobs` are; none and None where
      probabilities were not asked for, or cannot be had.
    - `perplexity`: on `text`; None likewise.
    - `state`: fingerprint of the weights that answered; None where they are not in this process.
    """

    subject: Subject
    max_new_tokens: int
    responses: list[Response]
    compared: list[Response] = field(default_factory=list)
    logprobs: AnswerLogprobs | None = None
    text: str | None = None
    perplexity: float | None = None
    state: str | None = None

    @property
    def model(self) -> str:
        """Its name."""
        return self.subject.name

    def __len__(self) -> int:
        return len(self.responses)

    @overload
    def __getitem__(self, index: int) -> Response: ...
    @overload
    def __getitem__(self, index: slice) -> list[Response]: ...
    def __getitem__(self, index: int | slice) -> Response | list[Response]:
        return self.responses[index]

    def __repr__(self) -> str:
        return f"<{len(self)} answers of {self.model}>"


def answer(
    model: ChatModel | Subject,
    prompts: Sequence[Prompt],
    max_new_tokens: int = ANSWER_TOKENS,
    store: Path | None = None,
    text: str | None = None,
    max_reasoning_tokens: int = REASONING_TOKENS,
) -> Answers:
    """Greedy answers to `prompts`, in their order: a sequence of `Response`, and a baseline for `measure`.

    ```python
    for response in at.answer(model, at.starter("held_out")[:3], max_new_tokens=24):
        response.prompt.text, response.text
    ```

    **Arguments:**

    - `store`: where answers are kept as they come (`respond`); None: in memory alone.
    - `text`: what to measure perplexity on.
    - `max_reasoning_tokens`: what a model that reasons may think before it answers; a `Subject` has a limit of its own.
    """
    subject = subject_of(model, max_reasoning_tokens=max_reasoning_tokens)
    opened = subject.open()
    answers = ask(subject, opened, prompts, max_new_tokens, store=store, text=text)
    return replace(answers, state=_state(opened.chat_model))


def ask(
    subject: Subject,
    opened: Opened,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    *,
    store: Path | None = None,
    known: Sequence[Response] = (),
    reference: Sequence[Response] | None = None,
    text: str | None = None,
) -> Answers:
    """Ask `subject`, which is `opened`, and read its probabilities.

    **Arguments:**

    - `store`, `known`: where answers are kept, and those that are there already (`respond`).
    - `reference`: the answers over whose tokens divergence is measured: the baseline's; None: the model's own.
    - `text`: what to measure perplexity on.
    """
    responses = respond(opened.engine, prompts, max_new_tokens, store, known, opened.portion)
    chat_model = opened.chat_model
    if chat_model is None:
        return Answers(subject, max_new_tokens, responses)
    harmless = [item for item in responses if item.prompt.kind == "harmless"][:KL_PROMPTS]
    compared = harmless if reference is None else list(reference)
    logprobs = None
    if compared:
        logprobs = answer_logprobs(chat_model, [item.prompt for item in compared], [item.text for item in compared])
    predicted = perplexity(chat_model, text) if text else None
    return Answers(subject, max_new_tokens, responses, compared, logprobs, text, predicted)


def answers_to(
    prompts: Sequence[Prompt], answers: Answers, text: str | None = None, store: Path | None = None
) -> Answers:
    """`answers` to exactly `prompts`; the model is asked for those that lack, if it is still the one that answered.

    **Arguments:**

    - `text`: what perplexity is wanted on; `store`: where answers that are asked for are kept.

    **Raises:** `UserError` when some lack and the model has changed.
    """
    there = {response.prompt: response for response in answers}
    missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in there]
    if missing or (text and text != answers.text and answers.state):
        opened = answers.subject.open()
        if _state(opened.chat_model) != answers.state:
            lacking = f"{len(missing)} answers" if missing else "the perplexity of this text"
            found = f"{answers.model} has changed since it answered, and {lacking} would have to be asked for"
            fix = "answer `questions(prompts, margin=...).prompts` before the model is changed"
            raise UserError("`baseline=answers`", found, "answers to all that is asked, the gate's prompts too", fix)
        known = answers.responses
        return ask(answers.subject, opened, prompts, answers.max_new_tokens, store=store, known=known, text=text)
    wanted = set(prompts)
    rows = [row for row, response in enumerate(answers.compared) if response.prompt in wanted]
    return replace(
        answers,
        responses=[there[prompt].to(prompt) for prompt in prompts],
        compared=[answers.compared[row] for row in rows],
        logprobs=answers.logprobs.of(rows) if answers.logprobs and rows else None,
        perplexity=answers.perplexity if text == answers.text else None,
    )


def _state(chat_model: ChatModel | None) -> str | None:
    return None if chat_model is None else fingerprint(chat_model)
