"""`actor compare`."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UserError, require_package
from ..files import sha256_of
from ..presets import parse_prompts_option
from ..prompts import KINDS, Kind, Prompt, distinct, load_responses, of_kind
from ..tables import read_text
from .options import Device, Dtype, MaxNewTokens, Model, command_line, console, load, placement_of

if TYPE_CHECKING:
    from ..compare import Contest
    from ..measure import Plan
    from ..placement import Placement
    from ..respond import Response

log = logging.getLogger(__name__)

ANSWER_TOKENS = 24
"""Enough to tell a refusal from an answer; every method answers all evaluation prompts with every seed."""


def compare(
    model: Model,
    output_dir: Annotated[
        Path,
        typer.Option(
            help="Folder for the results: new, or one begun with the same command, whatever its methods.",
            metavar="DIR",
        ),
    ],
    train: Annotated[str, typer.Option(help="Prompts of all three kinds to learn from.", metavar="FILE|NAME")],
    evaluation: Annotated[
        str, typer.Option("--eval", help="Prompts to be measured on; nothing is chosen on them.", metavar="FILE|NAME")
    ],
    methods: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated; default: all but upcore, random-subset and crow.",
            metavar="NAMES",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many seeds, from 0 on.", min=1)] = 3,
    starter: Annotated[bool, typer.Option(help="Every method also learns from the built-in prompts.")] = False,
    answers_from: Annotated[
        str | None,
        typer.Option(
            help="For sft and crow: a model that answers benign prompts, such as the one before alignment; not "
            "needed where --train has a column `response`.",
            metavar="MODEL",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="At most this many evaluation prompts of each set.", min=1)] = None,
    max_new_tokens: MaxNewTokens = ANSWER_TOKENS,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Compare methods on the same prompts, with the same judge and the same rule for their strength."""
    given = parse_prompts_option(train, "--train")
    asked = parse_prompts_option(evaluation, "--eval")
    from ..compare import COMPARE_FILE, Contest, begin
    from ..compare import run as run_compare
    from ..fit import MINIMUM_PROMPTS, with_starter
    from ..frontier import compare_table, draw_frontier
    from ..measure import plan
    from ..methods.known import methods as all_methods

    names = _names(methods)
    require_package("actor compare", "matplotlib", "plot")
    _require(f"--train {train}", given, MINIMUM_PROMPTS, KINDS)
    learned = distinct(with_starter(given) if starter else given)
    planned = plan(asked, learned, limit=limit)
    _require(f"--eval {evaluation}", planned.prompts, 1, ("harmful", "pseudo_harmful"))
    lesson = _lesson(names, Path(train), learned, answers_from)
    # The file's hash stands for the responses in it.
    source = sha256_of(Path(train)) if Path(train).is_file() else train
    settings = {"dtype": dtype, "answers_from": answers_from, "train": source}
    contest = Contest(given, planned.prompts, seeds, starter, max_new_tokens, settings)
    placement = placement_of(device, dtype, None, "none", "none")
    request = begin(model, contest, output_dir)
    answers = _answers(lesson, model, answers_from, contest, placement, output_dir)
    chosen = {name: method for name, method in all_methods(answers).items() if name in names}
    chat_model = load(model, placement)
    before = _before(output_dir / COMPARE_FILE, chat_model.computed_in)
    note = request | {"limit": limit, "computed_in": chat_model.computed_in} | _note(answers, planned, before)
    results = run_compare(chat_model, contest, chosen, output_dir, note)
    console.print(compare_table(results))
    picture = output_dir / "frontier.png"
    draw_frontier(picture, results)
    console.print(f"Numbers in {output_dir / COMPARE_FILE}, picture in {picture}")


def _names(methods: str | None) -> list[str]:
    """The methods asked for, without the default, which is measured in any case."""
    from ..methods.known import DEFAULT, METHODS, SPECIAL

    known = [*METHODS, *SPECIAL]
    named = [name.strip() for name in methods.split(",")] if methods else list(METHODS)
    for name in named:
        if name not in known:
            raise UserError(f"--methods {name}", "no such method", f"some of {', '.join(known)}", "correct the name")
    return [name for name in named if name != DEFAULT]


def _require(where: str, prompts: list[Prompt], minimum: int, kinds: Sequence[Kind]) -> None:
    """Stop unless there are `minimum` prompts of each of `kinds`, those like training prompts not counted."""
    for kind in kinds:
        count = len(of_kind(prompts, kind))
        if count < minimum:
            raise UserError(where, f"{count} {kind} prompts", f"at least {minimum}", "add some, of another source")


@dataclass(frozen=True)
class _Lesson:
    """What fine-tuning learns: which prompts by method, answers of the file, and of which they are to be asked for."""

    learned: dict[str, list[Prompt]]
    written: dict[Prompt, str]
    missing: list[Prompt]


def _lesson(names: Sequence[str], train: Path, learned: list[Prompt], answers_from: str | None) -> _Lesson:
    """What the methods `names` learn of the prompts `learned`; nothing where none of them fine-tunes.

    **Raises:** `UserError` when benign prompts have no answer and no model was named that gives them.
    """
    from ..methods.known import FINE_TUNING

    tuned = [name for name in names if name in FINE_TUNING]
    if not tuned:
        return _Lesson({}, {}, [])
    where = f"--methods {','.join(tuned)}"
    require_package(where, "peft", "testbed")
    written = load_responses(train) if train.is_file() else {}
    by_method = {name: learned if name == "sft" else of_kind(learned, "harmless") for name in tuned}
    wanted = dict.fromkeys(prompt for prompts in by_method.values() for prompt in prompts)
    missing = [prompt for prompt in wanted if prompt not in written]
    benign = [prompt for prompt in missing if prompt.kind != "harmful"]
    if benign and answers_from is None:
        found = f"no answers to {len(benign)} benign prompts"
        fix = "add it, add a column `response` to --train, or leave them out of --methods"
        raise UserError(where, found, "--answers-from MODEL", fix)
    return _Lesson(by_method, written, missing)


def _answers(
    lesson: _Lesson, model: str, answers_from: str | None, contest: "Contest", placement: "Placement", folder: Path
) -> "dict[Prompt, Response]":
    """All answers of `lesson`: those of the file, another model's to benign prompts, and `model`'s refusals.

    Each kind's in a file of its own, so that a method can be added that learns from other kinds.

    **Raises:** `UserError` when none of a kind is as it should be, before any method is run.
    """
    from ..engines.local import local_engine
    from ..methods.sft import answers_of, targets
    from ..respond import Response, respond

    answers = {prompt: Response(prompt, text, finished=True) for prompt, text in lesson.written.items()}
    benign: tuple[Kind, ...] = ("harmless", "pseudo_harmful")
    harmful: tuple[Kind, ...] = ("harmful",)
    for name, kinds in ((answers_from, benign), (model, harmful)):
        asked = {kind: prompts for kind in kinds if (prompts := of_kind(lesson.missing, kind))}
        if asked and name:
            engine = local_engine(load(name, placement), None)
            for kind, prompts in asked.items():
                answers |= targets(respond(engine, prompts, contest.max_new_tokens, folder / f"learned-{kind}.jsonl"))
            del engine  # it holds the model, and two need not fit into memory
    for name, prompts in lesson.learned.items():
        answers_of(prompts, answers, name)
    return answers


def _before(file: Path, computed_in: str) -> dict[str, Any]:
    """What an earlier comparison in the folder recorded; empty when this is the first.

    **Raises:** `UserError` when it cannot be read, or was computed in another dtype.
    """
    if not file.exists():
        return {}
    fix = "repeat it as it was, or choose another folder"
    try:
        found: dict[str, Any] = json.loads(read_text(file))
    except json.JSONDecodeError as error:
        raise UserError(file, f"not JSON ({error.msg})", "what an earlier comparison recorded", fix) from None
    if (then := found.get("computed_in", "a dtype that it does not name")) != computed_in:
        raise UserError(file, f"computed in {then}", f"{computed_in}, as now", fix)
    return found


def _note(answers: "Mapping[Prompt, Response]", planned: "Plan", before: Mapping[str, Any]) -> dict[str, Any]:
    """What `compare.json` records besides the request.

    With what methods could not learn in an earlier run in the folder, `before`, and its commands.
    """
    from ..runs import versions

    not_learned = [prompt.text for prompt, answer in answers.items() if not answer.text]
    if not_learned:
        found = "%d of %d answers to learn are not as they should be: left out, listed in the results"
        log.warning(found, len(not_learned), len(answers))
    left_out = [leak.prompt.text for leak in planned.leaks]
    return {
        "not_learned": [*dict.fromkeys([*before.get("not_learned", []), *not_learned])],
        "commands": [*before.get("commands", []), command_line()],
        "versions": versions(),
        "leaked": len(left_out),
        "left_out": left_out,
    }
