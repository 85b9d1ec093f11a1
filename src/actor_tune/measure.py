"""Measure a model, and its baseline: what is asked, answers, damage, verdicts, results. Harmful prompts always too."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from .benchmarks import check_tasks, run_lm_eval
from .damage import KL_PROMPTS, AnswerLogprobs, answer_logprobs, divergence, perplexity
from .engines import Engine
from .errors import UserError
from .files import write_json, write_jsonl
from .gate import check_power
from .judges import Judge, Verdict
from .judges.agreement import agreement, disagreements
from .judges.choose import DEFAULT
from .judges.trained import ErrorCounts, known_errors
from .leakage import Leak, find_leaks, without
from .metrics import JudgeErrors
from .model import ChatModel, model_folder
from .prompts import Kind, Prompt, distinct, fingerprint, limit_per_set, of_kind, starter_prompts, with_system_prompt
from .respond import Response, respond, response_row, stored_responses
from .results import GUARD, SCHEMA, Results, exchanges, judged, responses_json, results, results_json
from .resume import RESULTS_FILE, open_request
from .tables import read_text

log = logging.getLogger(__name__)

RESPONSES_FILE = "responses.jsonl"
BASELINE_FILE = "baseline.jsonl"
DISAGREEMENTS_FILE = "disagreements.jsonl"


@dataclass(frozen=True)
class Plan:
    """What is going to be measured.

    - `prompts`: in order, without those in `leaks`.
    - `leaks`: prompts kept out, because the model was trained on something like them.
    - `margin`: how far refusal of harmful prompts may fall, 0..1; None where no gate was asked for.
    """

    prompts: list[Prompt]
    leaks: list[Leak]
    margin: float | None


def plan(
    prompts: Sequence[Prompt],
    training: Sequence[Prompt] = (),
    margin: float | None = None,
    limit: int | None = None,
    system_prompt: str | None = None,
) -> Plan:
    """Decide what is measured.

    The built-in held-out harmful prompts are added where none are given, because a compliance rate alone praises a
    model that answers everything; and for a gate always, because the given ones may be mislabelled or few.

    **Arguments:**

    - `training`: what the model was trained on, as far as known.
    - `limit`: at most so many prompts of each set; the gate's own are never cut.
    - `system_prompt`: for every prompt that has none of its own, the built-in ones too.

    **Raises:** `UserError` when nothing is left to measure, a prompt is given under two kinds, or there are too few
    harmful prompts for the margin.
    """
    if not prompts:
        raise UserError("prompts", "none", "at least one", "give --prompts FILE")
    if any(prompt.set == GUARD for prompt in prompts):
        raise UserError("prompts", f"a set named {GUARD}", "another name: that one is the gate's", "rename the set")
    built_in = of_kind(starter_prompts("held_out"), "harmful")
    wanted = distinct(prompts)
    if not of_kind(wanted, "harmful"):
        log.warning("no harmful prompts given: the built-in held-out ones are measured too")
        wanted = distinct([*wanted, *built_in])
    if limit:
        wanted = limit_per_set(wanted, limit)
    if margin is not None:
        # Those given in a conversation of their own are another question.
        given = {prompt.text for prompt in wanted if prompt.kind == "harmful" and not prompt.context}
        wanted += [replace(prompt, set=GUARD) for prompt in built_in if prompt.text not in given]
    if system_prompt:
        wanted = with_system_prompt(wanted, system_prompt)
    leaks = find_leaks(wanted, training)
    kept = without(wanted, leaks)
    if leaks:
        log.warning("%d prompts are like some that were trained on: kept out, listed in the results", len(leaks))
    if not kept:
        raise UserError("prompts", "all were trained on", "some that were not", "measure on other prompts")
    if margin is not None:
        check_power(len(of_kind(kept, "harmful")), margin)
    return Plan(kept, leaks, margin)


@dataclass(frozen=True)
class Subject:
    """A model to be measured.

    - `name`: as the user gave it.
    - `engine`: answers for it.
    - `chat_model`: where it is loaded in this process; None where a server or another engine answers, and then neither
      divergence nor perplexity can be had.
    """

    name: str
    engine: Engine
    chat_model: ChatModel | None


@dataclass(frozen=True)
class Answered:
    """A subject's answers, and what was read from its probabilities; None where that was not asked or cannot be had."""

    responses: list[Response]
    logprobs: AnswerLogprobs | None
    perplexity: float | None


def answers_of(
    subject: Subject,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    store: Path,
    reference: Sequence[Response] | Literal["own"] | None,
    text: str | None,
) -> Answered:
    """Ask `subject` and read its probabilities.

    **Arguments:**

    - `store`: where answers are kept as they come (`respond`).
    - `reference`: the baseline's answers, whose tokens divergence is measured on; "own" for the baseline itself; None
      where there is nothing to compare with.
    - `text`: what to measure perplexity on.
    """
    responses = respond(subject.engine, prompts, max_new_tokens, store)
    if subject.chat_model is None:
        return Answered(responses, None, None)
    answers = responses if reference == "own" else reference or []
    harmless = [item for item in answers if item.prompt.kind == "harmless"][:KL_PROMPTS]
    logprobs = None
    if harmless:
        logprobs = answer_logprobs(
            subject.chat_model, [item.prompt for item in harmless], [item.text for item in harmless]
        )
    predicted = perplexity(subject.chat_model, text) if text else None
    return Answered(responses, logprobs, predicted)


@dataclass(frozen=True)
class Baseline:
    """What a model is compared with: its name, and the answers of an earlier measurement of it, if there are any."""

    name: str
    answers: Path | None

    @classmethod
    def of(cls, value: str) -> "Baseline":
        """From what the user gave: a model, or the folder of a measurement.

        **Raises:** `UserError` when the folder's measurement did not end.
        """
        folder = Path(value)
        if not (folder / RESPONSES_FILE).is_file():
            return cls(value, None)
        if not (folder / RESULTS_FILE).is_file():
            fix = "run that measurement again, and it goes on"
            raise UserError(f"--baseline {value}", "a measurement that did not end", RESULTS_FILE, fix)
        return cls(_earlier(folder)["model"], folder / RESPONSES_FILE)


@dataclass(frozen=True)
class Job:
    """Everything that decides a measurement.

    - `settings`: what answers depend on besides model and prompts: a measurement that was cut off goes on only where
      they are the same.
    - `judges`: by name; the first decides, the others are compared with it.
    - `text`: file to measure perplexity on; `benchmarks`: tasks of lm-eval to run on `device`.
    - `record`: what else is to be noted in the results.
    """

    model: str
    baseline: Baseline | None
    open_subject: Callable[[str], Subject]
    plan: Plan
    max_new_tokens: int
    settings: Mapping[str, Any]
    judges: Mapping[str, Judge]
    text: Path | None
    benchmarks: Sequence[str]
    device: str
    record: Mapping[str, Any]


def run(job: Job, folder: Path) -> Results:
    """Measure, and leave `responses.jsonl`, `baseline.jsonl` and, last, `results.json` in `folder`.

    Killed on the way, the same job goes on with the answers that are there.

    **Raises:** `UserError` when the folder holds something else, or the baseline has another vocabulary.
    """
    prompts = job.plan.prompts
    text = read_text(job.text) if job.text else None
    if job.benchmarks:
        check_tasks(job.benchmarks)
    request = {"model": job.model, "baseline": job.baseline and job.baseline.name, **job.settings}
    request |= {"max_new_tokens": job.max_new_tokens, "prompts_sha256": fingerprint(prompts)}
    open_request(folder, request)

    before = None
    if job.baseline:
        store = folder / BASELINE_FILE
        if job.baseline.answers and not store.exists():
            _take_over(job.baseline.answers, prompts, request, store)
        subject = job.open_subject(job.baseline.name)
        before = answers_of(subject, prompts, job.max_new_tokens, store, "own", text)
        del subject  # two models need not fit into memory
    reference = before.responses if before else None
    store = folder / RESPONSES_FILE
    after = answers_of(job.open_subject(job.model), prompts, job.max_new_tokens, store, reference, text)

    verdicts = {name: judge(exchanges(after.responses)) for name, judge in job.judges.items()}
    name, judge = next(iter(job.judges.items()))
    errors = _known_errors() if name == DEFAULT else None
    earlier = None
    if job.baseline and before:
        earlier = judged(job.baseline.name, before.responses, judge(exchanges(before.responses)), errors)
    measurement = judged(job.model, after.responses, verdicts[name], errors)
    found = results(measurement, earlier, job.plan.margin, _damage(after, before))
    record = {
        "judge": name,
        **job.record,
        "settings": request,
        "benchmarks": _benchmarks(job),
        "agreement": _agreements(after.responses, verdicts, folder),
    }
    write_jsonl(folder / RESPONSES_FILE, responses_json(found.after))
    if found.before:
        write_jsonl(folder / BASELINE_FILE, responses_json(found.before))
    write_json(folder / RESULTS_FILE, results_json(found, job.plan.leaks, record))
    return found


def _take_over(source: Path, prompts: Sequence[Prompt], request: Mapping[str, Any], store: Path) -> None:
    """Begin `store` with those answers of an earlier measurement that are wanted again."""
    earlier = _earlier(source.parent)["settings"]
    for name in ("max_new_tokens", "engine", "base_url", "dtype", "quantization"):
        if earlier.get(name) != request.get(name):
            found, fix = f"answers with {name} {earlier.get(name)}", "name the model instead of the folder"
            raise UserError(f"--baseline {source.parent}", found, str(request.get(name)), fix)
    wanted = set(prompts)
    kept = [response for response in stored_responses(source) if response.prompt in wanted]
    write_jsonl(store, [response_row(response) for response in kept])


def _earlier(folder: Path) -> dict[str, Any]:
    """`results.json` of an earlier measurement."""
    try:
        results_of = json.loads(read_text(folder / RESULTS_FILE))
        if results_of["schema"] == SCHEMA:
            return dict(results_of)
    except (ValueError, KeyError, TypeError):
        pass  # said below
    fix = "measure that model again"
    raise UserError(folder / RESULTS_FILE, "not written by this version", f"results of schema {SCHEMA}", fix)


def _damage(after: Answered, before: Answered | None) -> dict[str, float]:
    damage: dict[str, float] = {}
    if before and before.logprobs and after.logprobs:
        moved = divergence(before.logprobs, after.logprobs)
        damage |= {"kl_harmless": moved.first_token, "kl_harmless_tokens": moved.tokens}
    if after.perplexity is not None:
        damage["perplexity"] = after.perplexity
    if before and before.perplexity is not None:
        damage["perplexity_baseline"] = before.perplexity
    return damage


def _known_errors() -> dict[Kind, JudgeErrors]:
    """Of the default judge. It was tried on benign prompts as one kind."""
    known = known_errors()

    def of(counts: ErrorCounts) -> JudgeErrors:
        return JudgeErrors(counts.refused.count, counts.refused.n, counts.answered.count, counts.answered.n)

    benign = of(known.benign)
    return {"harmful": of(known.harmful), "pseudo_harmful": benign, "harmless": benign}


def _benchmarks(job: Job) -> dict[str, dict[str, dict[str, float]]]:
    """Model -> task -> metric -> value."""
    if not job.benchmarks:
        return {}
    names = [job.model, *([job.baseline.name] if job.baseline else [])]
    return {name: run_lm_eval(model_folder(name), job.benchmarks, None, job.device) for name in names}


def _agreements(
    responses: Sequence[Response], verdicts: Mapping[str, Sequence[Verdict]], folder: Path
) -> list[dict[str, Any]]:
    """How the first judge agrees with each of the others; where they differ is written to a file of its own."""
    (first, chosen), *others = verdicts.items()
    rows = [
        {
            "prompt": item.exchange.prompt,
            "response": item.exchange.answer,
            first: asdict(item.verdict_a),
            other: asdict(item.verdict_b),
        }
        for other, theirs in others
        for item in disagreements(exchanges(responses), chosen, theirs)
    ]
    if others:
        write_jsonl(folder / DISAGREEMENTS_FILE, rows)
    return [asdict(agreement(first, chosen, other, theirs)) for other, theirs in others]
