"""Measure a model, and its baseline: answers, damage, verdicts, what they amount to."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..engines.engine import ANSWER_TOKENS, REASONING_TOKENS, Opened, Subject
from ..engines.local import subject_of
from ..engines.respond import GOES_ON
from ..errors import UserError
from ..judges.agreement import agreement
from ..judges.choose import DEFAULT, judge_by_name
from ..judges.rows import disagreement_rows
from ..judges.verdict import Judge, Verdict
from ..models.model import ChatModel
from ..progress import Stages
from ..prompts.prompt import Prompt, fingerprint, without_categories
from ..prompts.trace import Trace
from ..records.estimate import Estimate
from ..records.file import read, read_rows, write_rows
from ..records.labels import Label, check_some
from ..records.lineage import Lineage
from ..records.request import MeasureRequest, at_work
from ..records.response import (
    BASELINE_FILE,
    DISAGREEMENTS_FILE,
    RESPONSES_FILE,
    Response,
    ResponseRow,
    response_of,
    response_row,
)
from ..records.results import SCORES, Gate, LeakedPrompt, Results
from ..storage.files import write_jsonl
from ..storage.model_folder import is_local, model_folder
from ..storage.versions import today, versions
from .answers import Answers, answers_to, ask
from .by_label import with_labels
from .change import change
from .damage import divergence
from .forecast import tell_time
from .gate import decide, with_damage
from .lm_eval import check_tasks, run_lm_eval
from .metrics import measured
from .questions import Questions, questions
from .verdicts import verdicts_on

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EarlierMeasurement:
    """An earlier measurement, whose answers are not asked for again.

    - `subject`: the model that was measured, to be asked for what its `responses` lack.
    - `settings`: what they depend on.
    """

    folder: Path
    subject: Subject
    settings: Mapping[str, Any]
    responses: list[Response]

    @staticmethod
    def is_in(folder: str | Path) -> bool:
        """Whether `folder` has one, whole or not."""
        return (Path(folder) / RESPONSES_FILE).is_file()

    @classmethod
    def read(cls, folder: str | Path, subject: Callable[[str], Subject]) -> "EarlierMeasurement":
        """The measurement in `folder`.

        **Arguments:**

        - `subject`: gives the model of a name, to be asked in the same way as the model that is compared.

        **Raises:** `UserError` when it did not end, is damaged, or a newer version wrote it.
        """
        folder = Path(folder)
        file = folder / Results.FILE
        if not file.is_file():
            fix = "run that measurement again, and it goes on"
            raise UserError(f"`baseline={folder}`", "a measurement that did not end", file.name, fix)
        results = read(Results, folder)
        responses = [response_of(row) for row in read_rows(ResponseRow, folder / RESPONSES_FILE)]
        return cls(folder, subject(results.model), results.settings, responses)


@dataclass(frozen=True, repr=False)
class Measurement:
    """A measurement of a model, and of its baseline if there was one.

    - `results`: rates, scores, what changed, the gate.
    - `responses`, `baseline`: every answer of both with its verdict.
    - `disagreements`: answers that any two judges put in different classes, with the verdicts of all.
    """

    request: MeasureRequest
    results: Results
    responses: list[ResponseRow]
    baseline: list[ResponseRow]
    disagreements: list[dict[str, Any]]

    @property
    def gate(self) -> Gate | None:
        """The safety gate's decision; None where no margin was given."""
        return self.results.gate

    @property
    def passed(self) -> bool | None:
        """Whether the model passed the gate; None where there was none."""
        return self.gate.passed if self.gate else None

    @property
    def judges(self) -> list[str]:
        """The names of the judges, the one that decides first."""
        return [self.results.judge, *(pair.judge_b for pair in self.results.agreement)]

    def score(self, name: str) -> Estimate | None:
        """The score of this name (of `records.results.SCORES`) with its interval."""
        return self.results.score(name)

    def with_labels(self, labels: Sequence[Label]) -> "Measurement":
        """This measurement with people's labels of some of its answers: what they say stands beside the judge's rates.

        The gate does not pass where they show more than the margin; they never make it pass.
        """
        return replace(self, results=with_labels(self.results, self.responses, self.baseline, labels))

    def save(self, folder: str | Path) -> None:
        """Write `request.json`, `responses.jsonl`, `baseline.jsonl`, `disagreements.jsonl` and, last, `results.json`.

        **Raises:** `UserError` when `folder` holds anything but the answers of this measurement.
        """
        folder = Path(folder)
        with at_work(folder, self.request, again=self.results.labels is not None):
            write_rows(self.responses, folder / RESPONSES_FILE)
            if self.results.baseline:
                write_rows(self.baseline, folder / BASELINE_FILE)
            if self.results.agreement:
                write_jsonl(folder / DISAGREEMENTS_FILE, self.disagreements)
            self.results.save(folder)

    def __repr__(self) -> str:
        scores = [f"{name} {score.value:.3f}" for name in SCORES if (score := self.score(name))]
        return f"<measurement of {self.results.model}: {', '.join(scores) or 'no scores'}>"


def measure(
    model: ChatModel | Subject,
    prompts: Sequence[Prompt] | Questions,
    baseline: ChatModel | Subject | Answers | EarlierMeasurement | None = None,
    margin: float | None = None,
    trained_on: Sequence[Prompt | Trace] = (),
    *,
    max_new_tokens: int = ANSWER_TOKENS,
    max_reasoning_tokens: int = REASONING_TOKENS,
    judges: Mapping[str, Judge] | None = None,
    text: str | None = None,
    benchmarks: Sequence[str] = (),
    device: str = "auto",
    work: str | Path | None = None,
    labels: Sequence[Label] | None = None,
    command: str = "",
) -> Measurement:
    """Answer, judge and count, with 95 % intervals; with a baseline, what changed, prompt by prompt, and the gate.

    Harmful prompts are measured whenever benign ones are: where none are given, built-in held-out ones.

    ```python
    before = at.answer(model, prompts)
    found = at.measure(model, prompts, baseline=before, margin=0.05)
    found.score("compliance_rate"), found.gate
    found.save("after")
    ```

    **Arguments:**

    - `prompts`: or `questions(...)`, which says more about what is asked; `margin` and `trained_on` then stand there.
    - `margin`: how far refusal of harmful prompts may fall, 0..1, for the safety gate; None: no gate.
    - `max_reasoning_tokens`: as for `answer`; `text`: what to measure perplexity on.
    - `judges`: by name; the first decides, the others are compared with it. None: the default.
    - `benchmarks`: tasks of lm-eval, which loads each model anew by its name and runs it on `device`.
    - `work`: where answers are kept as they come, so that the same call goes on after a kill; None: in memory alone.
    - `labels`: people's (`read_labels`), to stand beside the judge's rates; what is whole in `work` is written anew.
    - `command`: as it was typed, for the record.

    **Raises:** `UserError` when there is a margin and no baseline, `work` holds something else, no label is of these
    answers, or the baseline was asked in another way, has another vocabulary, or lacks answers and has changed.
    """
    asked = _asked(prompts, trained_on, margin)
    model, folder = subject_of(model, None, max_reasoning_tokens), Path(work) if work else None
    baseline = subject_of(baseline, None, max_reasoning_tokens) if isinstance(baseline, ChatModel) else baseline
    _check_margin(asked, baseline)
    other = baseline if baseline is None or isinstance(baseline, Subject) else baseline.subject
    _warn_if_swapped(model, other)
    request = _request(model, other, asked, max_new_tokens)
    folders = _folders([model, *([other] if other else [])], benchmarks) if benchmarks else {}
    stages = Stages([*(["answers of the baseline"] if other else []), "answers", "verdicts"])
    with at_work(folder, request, again=labels is not None):
        before, after = _answered(model, baseline, asked, request, text, folder, stages)
    check_some(labels or [], {"responses": after, "baseline": before or []})
    with stages("verdicts"):
        found = _judged(request, asked, before, after, judges or {DEFAULT: judge_by_name(DEFAULT)}, kept=bool(folder))
    figures = {name: run_lm_eval(where, benchmarks, None, device) for name, where in folders.items()}
    found = replace(found, results=replace(found.results, command=command, benchmarks=figures))
    return found if labels is None else found.with_labels(labels)


def _answered(
    model: Subject,
    baseline: Subject | Answers | EarlierMeasurement | None,
    asked: Questions,
    request: MeasureRequest,
    text: str | None,
    folder: Path | None,
    stages: Stages,
) -> tuple[Answers | None, Answers]:
    before = None
    if baseline is not None:
        with stages("answers of the baseline"):
            before = _before(baseline, asked, request, text, folder)
    reference, kept = before.compared if before and before.logprobs else (), folder and folder / RESPONSES_FILE
    with stages("answers"):
        tokens = request.max_new_tokens
        opened = _opened(model, asked, tokens)
        return before, ask(model, opened, asked.prompts, tokens, store=kept, reference=reference, text=text)


def _check_margin(asked: Questions, baseline: object) -> None:
    if asked.margin is not None and baseline is None:
        raise UserError("`margin=`", "no `baseline=`", "a model to compare with", "give `baseline=MODEL`")


def _warn_if_swapped(model: Subject, other: Subject | None) -> None:
    """Where the baseline was trained by a fit, and the model was not."""
    if other is None or not is_local(model.name):
        return
    here, there = ((Path(each.name) / Lineage.FILE).is_file() for each in (model, other))
    if there and not here:
        said = "the baseline %s was trained by a fit, and %s was not: if that is the wrong way round, swap them"
        log.warning(said, other.name, model.name)


def _asked(
    prompts: Sequence[Prompt] | Questions, trained_on: Sequence[Prompt | Trace], margin: float | None
) -> Questions:
    if not isinstance(prompts, Questions):
        return questions(prompts, trained_on, margin)
    if trained_on or (margin is not None and margin != prompts.margin):
        fix = "give them to `questions`"
        raise UserError("`margin=` and `trained_on=`", "beside questions that were made without them", "none", fix)
    return prompts


def _request(model: Subject, other: Subject | None, asked: Questions, max_new_tokens: int) -> MeasureRequest:
    return MeasureRequest(
        model=model.name,
        baseline=other.name if other else None,
        engine=model.engine,
        base_url=model.base_url,
        dtype=model.dtype,
        quantization=model.quantization,
        chat_template_kwargs=dict(model.chat_template_kwargs),
        max_reasoning_tokens=model.max_reasoning_tokens,
        system_prompt=asked.system_prompt,
        limit=asked.limit,
        max_safety_drop=asked.margin,
        gate_prompts=asked.gate_prompts,
        max_new_tokens=max_new_tokens,
        prompts_sha256=fingerprint(without_categories(asked.prompts)),
    )


def _folders(subjects: Sequence[Subject], benchmarks: Sequence[str]) -> dict[str, Path]:
    """Where lm-eval finds the models, by name; with all that can be wrong with `benchmarks`, before any is run."""
    check_tasks(benchmarks)
    for subject in subjects:
        if subject.in_memory:
            where, found = f"`lm_eval={','.join(benchmarks)}`", f"{subject.name}, in memory, where it may be changed"
            raise UserError(
                where, found, "a folder or Hub id, which lm-eval loads itself", "save it, and name the folder"
            )
    return {subject.name: model_folder(subject.name) for subject in subjects}


def _before(
    baseline: Subject | Answers | EarlierMeasurement,
    asked: Questions,
    request: MeasureRequest,
    text: str | None,
    folder: Path | None,
) -> Answers:
    """The baseline's answers; in a function of its own, because two opened models need not fit into memory."""
    store = folder and folder / BASELINE_FILE
    if isinstance(baseline, Answers):
        settings = vars(baseline.subject) | {"max_new_tokens": baseline.max_new_tokens}
        _check_alike("`baseline=answers`", settings, request, "answer again in the way that is asked now")
        return answers_to(asked.prompts, baseline, text, store)
    known: list[Response] = []
    if isinstance(baseline, EarlierMeasurement):
        fix = "name the model instead of the folder"
        _check_alike(f"`baseline={baseline.folder}`", baseline.settings, request, fix)
        known, baseline = baseline.responses, baseline.subject
    there = {response.prompt for response in known}
    left = replace(asked, prompts=[prompt for prompt in asked.prompts if prompt not in there])
    opened = _opened(baseline, left, request.max_new_tokens)
    return ask(baseline, opened, asked.prompts, request.max_new_tokens, store=store, known=known, text=text)


def _opened(subject: Subject, asked: Questions, max_new_tokens: int) -> Opened:
    """The model, ready to answer; what the gate adds to its time is said before it begins."""
    opened = subject.open()
    if asked.prompts:
        tell_time(asked, opened, subject.name, max_new_tokens, subject.max_reasoning_tokens)
    return opened


def _check_alike(where: str, earlier: Mapping[str, Any], request: MeasureRequest, fix: str) -> None:
    """Stop where earlier answers were asked for in another way."""
    defaults = {"chat_template_kwargs": {}, "max_reasoning_tokens": REASONING_TOKENS}  # of files that lack them
    for name in ("max_new_tokens", "engine", "base_url", "dtype", "quantization", *defaults):
        if earlier.get(name, defaults.get(name)) != (wanted := getattr(request, name)):
            raise UserError(where, f"answers with {name} {earlier.get(name)}", str(wanted), fix)


def _judged(
    request: MeasureRequest,
    asked: Questions,
    before: Answers | None,
    after: Answers,
    judges: Mapping[str, Judge],
    kept: bool,
) -> Measurement:
    verdicts = {name: _verdicts(judge, after, kept) for name, judge in judges.items()}
    (first, new), *others = verdicts.items()
    now = measured(after.model, after, new)
    old: list[Verdict] = []
    earlier = changed = gate = moved = None
    if before:
        old = _verdicts(judges[first], before, kept)
        earlier = measured(before.model, before, old)
        changed = change(asked.prompts, old, new)
        if asked.margin is not None:
            gate = with_damage(decide(asked.prompts, old, new, asked.margin), before, after, old, new)
        if before.logprobs and after.logprobs:
            moved = divergence(before.logprobs, after.logprobs)
    damage = {
        "kl_harmless_tokens": moved.tokens if moved else None,
        "perplexity": after.perplexity,
        "perplexity_baseline": before.perplexity if before else None,
    }
    results = Results(
        **vars(now) | {"damage": {name: value for name, value in damage.items() if value is not None} | now.damage},
        judge=first,
        engine=request.engine,
        versions=versions(),
        settings=asdict(request),
        agreement=[agreement(first, new, other, theirs) for other, theirs in others],
        kl_harmless=moved.first_token if moved else None,
        leaked=[
            LeakedPrompt(leak.prompt.text, leak.prompt.set, leak.like.text, round(leak.similarity, 3))
            for leak in asked.leaks
        ],
        baseline=earlier,
        comparison=changed,
        gate=gate,
        asked_otherwise=_asked_otherwise([*([before] if before else []), after], [*verdicts.items(), (first, old)]),
        date=today(),
    )
    exchanges = [response.exchange for response in after]
    differing = disagreement_rows(range(1, len(after) + 1), exchanges, verdicts) if others else []
    return Measurement(request, results, _rows(after, new), _rows(before or [], old), differing)


def _verdicts(judge: Judge, answers: Answers, kept: bool) -> list[Verdict]:
    """What `judge` says; where it cannot, as one behind a server, also whether the answers are `kept`."""
    try:
        return verdicts_on(judge, answers)
    except UserError as error:
        raise error.and_then(f"all answers are kept, {GOES_ON}") if kept else error from None


def _asked_otherwise(answers: Sequence[Answers], verdicts: Sequence[tuple[str, Sequence[Verdict]]]) -> list[str]:
    """How servers of models and of judges were asked otherwise than they should be, each way once."""
    told = [f"{side.model} was asked {note}" for side in answers for item in side for note in item.asked_otherwise]
    told += [
        f"judge {name} was asked {note}" for name, given in verdicts for item in given for note in item.asked_otherwise
    ]
    return list(dict.fromkeys(told))


def _rows(responses: Sequence[Response], verdicts: Sequence[Verdict]) -> list[ResponseRow]:
    return [response_row(response, verdict) for response, verdict in zip(responses, verdicts, strict=True)]
