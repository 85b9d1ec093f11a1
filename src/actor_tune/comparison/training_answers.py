"""What fine-tuning learns: answers that help with benign prompts and refuse harmful ones, given or asked for."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..engines.engine import Opened
from ..engines.respond import respond
from ..errors import UserError, require_package
from ..judges.trained.judge import judge_trained
from ..judges.verdict import Verdict
from ..measurement.verdicts import verdicts_on
from ..prompts.prompt import KINDS, Prompt, of_kind
from ..records.response import Response

log = logging.getLogger(__name__)

REFUSAL = "I'm sorry, but I can't help with that."


def missing_answers(lesson: Mapping[str, Sequence[Prompt]], written: Mapping[Prompt, str], asks: bool) -> list[Prompt]:
    """The prompts of a `lesson`, by method that fine-tunes, to which no answer is `written`: models are to be asked.

    **Arguments:**

    - `asks`: whether there is a model that gives answers to benign prompts.

    **Raises:** `UserError` when benign prompts have no answer and nobody gives them, or PEFT is not installed.
    """
    where = f"`methods={','.join(lesson)}`"
    if lesson:
        require_package(where, "peft", "testbed")
    wanted = dict.fromkeys(prompt for prompts in lesson.values() for prompt in prompts)
    missing = [prompt for prompt in wanted if prompt not in written]
    benign = [prompt for prompt in missing if prompt.kind != "harmful"]
    if benign and not asks:
        found = f"no answers to {len(benign)} benign prompts"
        fix = "add it, add a column `response` to `train=`, or leave them out of `methods=`"
        raise UserError(where, found, "`answers_from=MODEL`", fix)
    return missing


def asked(opened: Opened, prompts: Sequence[Prompt], max_new_tokens: int, work: Path | None) -> dict[Prompt, Response]:
    """What is to be learned of the answers that `opened` gives to `prompts` (`targets`).

    Each kind's are kept in a file of its own in `work`, so that a method can be added that learns from other kinds.
    """
    answers: dict[Prompt, Response] = {}
    for kind in KINDS:
        if of_this := of_kind(prompts, kind):
            store = work / f"learned-{kind}.jsonl" if work else None
            answers |= targets(respond(opened.engine, of_this, max_new_tokens, store, portion=opened.portion))
    return answers


def not_learned(answers: Mapping[Prompt, Response]) -> list[str]:
    """The prompts whose answers are not as they should be, so that they are left out."""
    texts = [prompt.text for prompt, answer in answers.items() if not answer.text]
    if texts:
        told = "%d of %d answers to learn are not as they should be: left out, listed in the results"
        log.warning(told, len(texts), len(answers))
    return texts


def answers_of(prompts: Sequence[Prompt], answers: Mapping[Prompt, Response], name: str) -> list[Response]:
    """The answers to `prompts`, for the method `name`.

    **Raises:** `UserError` when there is none to some prompt, or none to be learned to any of a kind.
    """
    missing = [prompt for prompt in prompts if prompt not in answers]
    if missing:
        found = f"no answer to {missing[0].text[:60]!r} and {len(missing) - 1} more"
        raise UserError(name, found, "one for every training prompt", "add a column `response`, or `answers_from=`")
    for kind in KINDS:
        of_this = of_kind(prompts, kind)
        if of_this and not any(answers[prompt].text for prompt in of_this):
            found = f"none of {len(of_this)} {kind} prompts was answered as it should be"
            fix = "choose another model for `answers_from=`, or other responses in the file"
            raise UserError(name, found, "an answer to learn", fix)
    return [answers[prompt] for prompt in prompts]


def targets(responses: Sequence[Response]) -> dict[Prompt, Response]:
    """What to learn: `responses` that refuse harmful prompts and help with the others, as the trained judge sees it.

    Instead of all others, a plain refusal of harmful prompts, and nothing (an answer without a token) of benign ones.
    """
    verdicts = verdicts_on(judge_trained, responses)
    return {answer.prompt: _target(answer, verdict) for answer, verdict in zip(responses, verdicts, strict=True)}


def _target(answer: Response, verdict: Verdict) -> Response:
    harmful = answer.prompt.kind == "harmful"
    if verdict.outcome == ("refusal" if harmful else "compliance"):
        return answer
    return Response(answer.prompt, REFUSAL if harmful else "", finished=harmful)
