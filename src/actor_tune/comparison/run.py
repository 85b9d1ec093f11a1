"""Compare methods: each learns from the same prompts, is chosen by the same rule, and answers the same questions.

Where there is a folder to work in, every method and seed leaves a file of its own, so that a comparison that was cut
off goes on with what is missing, and methods and seeds can be added.
"""

import logging
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from ..engines.engine import Opened, Subject, model_of
from ..engines.local import local_engine, subject_of
from ..errors import UserError
from ..measurement.questions import questions
from ..models.model import ChatModel
from ..prompts.prompt import KINDS, MINIMUM_PROMPTS, Kind, Prompt, distinct, fingerprint, of_kind, without_categories
from ..prompts.starter import with_starter
from ..records.file import json_of, read, read_value
from ..records.outcome import Comparison, MethodOutcome
from ..records.request import CompareRequest, at_work
from ..records.response import Response
from ..repair.opening import where_answers_begin
from ..storage.files import sha256_of, write_json
from ..storage.versions import versions
from .contest import Contest, Key, Shared, run_missing
from .methods.known import DEFAULT, KNOWN, NamedMethod
from .outcomes import POINT, SCORES, line, summaries
from .training_answers import answers_of, asked, missing_answers, not_learned

log = logging.getLogger(__name__)

DAMAGED = "remove it, or choose another folder"  # what it says is computed again


def compare(
    model: ChatModel | Subject, contest: Contest, work: str | Path | None = None, command: str = ""
) -> Comparison:
    """Compare the contest's methods on `model`, which is left as it was.

    ```python
    contest = at.Contest(train=prompts, evaluation=at.starter("held_out")[:40], methods=["actor", "cae"], seeds=1)
    at.compare(model, contest).save("compared")
    ```

    **Arguments:**

    - `model`: opened after `contest.answers_from` was asked and let go, because two need not fit into memory.
    - `work`: where everything is kept as it comes, in a new folder or one begun with the same contest, whatever its
      methods and seeds; those that are there are not run again, and are part of the result. None: in memory alone.
    - `command`: as it was typed, for the record.

    **Raises:** `UserError` before anything is loaded when a method is unknown, prompts are too few, or fine-tuning has
    no answers to learn; when `work` holds anything else, or was computed in another dtype.
    """
    model, work = subject_of(model), Path(work) if work else None
    methods = _chosen(contest.methods)
    _require(f"`train={contest.train_source}`", contest.train, MINIMUM_PROMPTS, KINDS)
    learned = distinct(with_starter(contest.train) if contest.starter else contest.train)
    asked_for = questions(contest.evaluation, learned, limit=contest.limit)
    _require(f"`evaluation={contest.evaluation_source}`", asked_for.prompts, 1, ("harmful", "pseudo_harmful"))
    lesson = {
        name: [prompt for prompt in learned if prompt.kind in method.learns]
        for name, method in methods.items()
        if method.learns
    }
    missing = missing_answers(lesson, contest.answers, asks=contest.answers_from is not None)
    request = _request(model, contest, asked_for.prompts)
    with at_work(work, request):
        answers = {prompt: Response(prompt, text, finished=True) for prompt, text in contest.answers.items()}
        benign = [prompt for prompt in missing if prompt.kind != "harmful"]
        if benign and contest.answers_from:
            answers |= asked(contest.answers_from.open(), benign, contest.max_new_tokens, work)
        chat_model = where_answers_begin(model_of(model), contest.train)
        earlier = _earlier(work, chat_model.computed_in)
        own = Opened(local_engine(chat_model), chat_model)
        answers |= asked(own, of_kind(missing, "harmful"), contest.max_new_tokens, work)
        for name, prompts in lesson.items():
            answers_of(prompts, answers, name)  # before any method is run

        left_out = [leak.prompt.text for leak in asked_for.leaks]
        outcomes = _outcomes(Shared(chat_model, contest, methods, asked_for.prompts, answers, work))
        return Comparison(
            **json_of(request),
            limit=contest.limit,
            computed_in=chat_model.computed_in,
            not_learned=[*dict.fromkeys([*(earlier.not_learned if earlier else []), *not_learned(answers)])],
            commands=[*(earlier.commands if earlier else []), command],
            versions=versions(),
            leaked=len(left_out),
            left_out=left_out,
            methods=summaries(outcomes),
            outcomes=outcomes,
        )


def _chosen(methods: Sequence[str | NamedMethod]) -> dict[str, NamedMethod]:
    """Those asked for, without the default, in the order of tables; one that is unknown is an error."""
    own = {method.name: method for method in methods if not isinstance(method, str)}
    known = [DEFAULT, *KNOWN]
    for name in methods:
        if isinstance(name, str) and name not in known:
            raise UserError(f"`methods={name}`", "no such method", f"some of {', '.join(known)}", "correct the name")
    return {name: method for name, method in (KNOWN | own).items() if name in methods or name in own}


def _require(where: str, prompts: Sequence[Prompt], minimum: int, kinds: Sequence[Kind]) -> None:
    """Stop unless there are `minimum` prompts of each of `kinds`, those like training prompts not counted."""
    for kind in kinds:
        count = len(of_kind(prompts, kind))
        if count < minimum:
            raise UserError(where, f"{count} {kind} prompts", f"at least {minimum}", "add some, of another source")


def _request(model: Subject, contest: Contest, prompts: Sequence[Prompt]) -> CompareRequest:
    file = Path(contest.train_source)
    source = sha256_of(file) if file.is_file() else contest.train_source  # a hash stands for the answers in it too
    learnt = (replace(prompt, text=text, category="") for prompt, text in contest.answers.items())
    return CompareRequest(
        model=model.name,
        train_sha256=fingerprint(without_categories(contest.train)),
        evaluation_sha256=fingerprint(without_categories(prompts)),
        starter=contest.starter,
        max_new_tokens=contest.max_new_tokens,
        dtype=model.dtype,
        answers_from=contest.answers_from.name if contest.answers_from else None,
        train=source or fingerprint(learnt),
        chat_template_kwargs={**model.chat_template_kwargs},
    )


def _earlier(work: Path | None, computed_in: str) -> Comparison | None:
    """What an earlier comparison in `work` recorded; it is an error if that was computed in another dtype."""
    if work is None or not (work / Comparison.FILE).exists():
        return None
    earlier = read(Comparison, work, DAMAGED)
    if earlier.computed_in != computed_in:
        found = f"computed in {earlier.computed_in or 'a dtype that it does not name'}"
        fix = "repeat it as it was, or choose another folder"
        raise UserError(work / Comparison.FILE, found, f"{computed_in}, as now", fix)
    return earlier


def _outcomes(shared: Shared) -> list[MethodOutcome]:
    """The default's, of each method with every seed, and of those that were compared in the same folder before.

    What is there is not run again; where all is there, nothing is asked of the model.
    """
    seeds, kept = range(shared.contest.seeds), _kept(shared.work)
    wanted = [(DEFAULT, 0), *((name, seed) for seed in seeds for name in shared.methods)]
    missing = [key for key in wanted if key not in kept]
    for outcome in run_missing(shared, missing):
        kept[outcome.method, outcome.seed] = outcome
        if shared.work:
            name = DEFAULT if outcome.method == DEFAULT else f"{outcome.method}-{outcome.seed}"
            write_json(shared.work / f"{name}.json", json_of(outcome))
        log.info("%s, seed %d: %s", outcome.method, outcome.seed, line(outcome))
    wanted += [(name, seed) for name in _complete(kept, shared.methods, len(seeds)) for seed in seeds]
    return [kept[key] for key in wanted]


def _kept(work: Path | None) -> dict[Key, MethodOutcome]:
    """The outcomes that earlier runs left in `work`; one that is damaged is an error."""
    kept: dict[Key, MethodOutcome] = {}
    shapes: dict[str, object] = {}
    for file in [*work.glob(f"{DEFAULT}.json"), *work.glob("*-[0-9]*.json")] if work else []:
        outcome = read_value(MethodOutcome, file, DAMAGED)
        shape = (len(outcome.curve), outcome.figures.keys())
        alike = shapes.setdefault(outcome.method, shape) == shape
        whole = outcome.scores.keys() == {*SCORES} and all(point.keys() == {*POINT} for point in outcome.curve)
        if not (alike and whole):
            raise UserError(file, "scores, a curve or figures unlike other seeds'", "an outcome as written", DAMAGED)
        kept[outcome.method, outcome.seed] = outcome
    return kept


def _complete(kept: Collection[Key], names: Collection[str], seeds: int) -> list[str]:
    """The methods in `kept` beside `names` of which all seeds are there; what is left out is told in the log."""
    complete = []
    for name in sorted({name for name, _ in kept} - {DEFAULT, *names}):
        if all((name, seed) in kept for seed in range(seeds)):
            complete.append(name)
        else:
            told = "%s was compared here with fewer than %d seeds: it is not in the table until `methods=` names it"
            log.warning(told, name, seeds)
    more = {seed for name, seed in kept if seed >= seeds and name in (*names, *complete)}
    if more:
        told = "what was compared here before with seeds from %d on is not in the table: `seeds=%d` has it too"
        log.warning(told, seeds, max(more) + 1)
    return complete
