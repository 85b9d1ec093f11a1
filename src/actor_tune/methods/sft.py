"""Supervised fine-tuning (SFT) on answers, by LoRA: what a user would do instead."""

from collections.abc import Mapping, Sequence

from ..errors import UserError
from ..judges import Outcome
from ..judges.trained import judge_trained
from ..lora import adapted, answer_examples, train_adapters
from ..model import ChatModel
from ..prompts import KINDS, Prompt, of_kind
from ..respond import Response
from ..results import exchanges
from .method import Fitted, Method, Task

STRENGTHS = (0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
"""Share of what the adapters add; beyond 1 it goes on in the same direction, as ACTOR's strengths do."""

REFUSAL = "I'm sorry, but I can't help with that."


def sft(answers: Mapping[Prompt, Response]) -> Method:
    """Fine-tune all linear layers by LoRA on prompts with `answers`: refusals of harmful ones, help for all others.

    The loss is the cross-entropy of the answers' tokens. The rate is that of the SFT which ACTOR's paper (arXiv
    2507.04250) compares itself with; differs from it: adapters instead of all weights, and the share of what they add
    is chosen as strengths are.
    """

    def method(chat_model: ChatModel, task: Task) -> Fitted:
        examples = answer_examples(chat_model.tokenizer, answers_of(task.split.train, answers, "sft"))
        adapters = train_adapters(chat_model, examples, task.seed)
        return Fitted(0, STRENGTHS, lambda strength, _sign: adapted(chat_model, adapters, strength))

    return method


def answers_of(prompts: Sequence[Prompt], answers: Mapping[Prompt, Response], name: str) -> list[Response]:
    """The answers to `prompts`, for the method `name`.

    **Raises:** `UserError` when there is none to some prompt, or none to be learned to any of a kind.
    """
    missing = [prompt for prompt in prompts if prompt not in answers]
    if missing:
        found = f"no answer to {missing[0].text[:60]!r} and {len(missing) - 1} more"
        raise UserError(name, found, "one for every training prompt", "add a column `response`, or --answers-from")
    for kind in KINDS:
        of_this = of_kind(prompts, kind)
        if of_this and not any(answers[prompt].text for prompt in of_this):
            found = f"none of {len(of_this)} {kind} prompts was answered as it should be"
            fix = "choose another model for --answers-from, or other responses in the file"
            raise UserError(name, found, "an answer to learn", fix)
    return [answers[prompt] for prompt in prompts]


def targets(responses: Sequence[Response]) -> dict[Prompt, Response]:
    """What to learn: `responses` that refuse harmful prompts and help with the others, as the trained judge sees it.

    Instead of all others, a plain refusal of harmful prompts, and nothing (an answer without a token) of benign ones.
    """
    verdicts = judge_trained(exchanges(responses))
    return {
        answer.prompt: answer if verdict.outcome == _wanted(answer.prompt) else _instead(answer.prompt)
        for answer, verdict in zip(responses, verdicts, strict=True)
    }


def _wanted(prompt: Prompt) -> Outcome:
    return "refusal" if prompt.kind == "harmful" else "compliance"


def _instead(prompt: Prompt) -> Response:
    harmful = prompt.kind == "harmful"
    return Response(prompt, REFUSAL if harmful else "", finished=harmful)
