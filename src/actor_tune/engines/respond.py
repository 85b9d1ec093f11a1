"""Answers of an engine to prompts, kept in a file as they come, so that a killed run goes on where it stopped."""

import json
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from ..errors import UserError
from ..progress import progress_bar
from ..prompts.prompt import Prompt
from ..records.file import convert, parse, row_json
from ..records.response import Response, ResponseRow, response_of, response_row
from ..storage.files import storing, sync
from .engine import PORTION, Answer, Engine

log = logging.getLogger(__name__)

SYNC_SECONDS = 5.0
"""How often answers are forced to the disk. Until then they outlive this process, but not a power failure."""

GOES_ON = "and the same command goes on from there"


def respond(
    engine: Engine,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    store: Path | None = None,
    known: Sequence[Response] = (),
    portion: int | None = PORTION,
) -> list[Response]:
    """Greedy answers of at most `max_new_tokens` tokens, in the order of `prompts`; equal prompts are asked once.

    A run that goes on gives the answers of one that was not cut off: a portion of prompts of which some lack is asked
    as a whole, so that each prompt is in the same company; what is there of it stays.

    **Arguments:**

    - `store`: the jsonl file that each answer is added to as it comes; what it already has is not asked again. It may
      have further columns, such as verdicts. None keeps answers in memory alone.
    - `known`: answers that are there already, also to other prompts.
    - `portion`: so many prompts are answered in one go; None: those that are missing, where it does not matter.

    **Raises:** `UserError` when `store` has anything but answers to `prompts`; what the engine raises,
    with the number of answers that are kept.
    """
    distinct = dict.fromkeys(prompts)
    lines = _whole_lines(store) if store else b""
    stored = {response.prompt: response for response in _read(store, lines)}
    for prompt in stored.keys() - distinct.keys():
        found = f"an answer to {prompt.text[:60]!r} ({prompt.kind}, {prompt.set}), which is not among the prompts"
        raise UserError(store, found, "answers to the prompts given", "choose another `output_dir=`")
    answered = {response.prompt: response for response in known if response.prompt in distinct} | stored
    given = {response.prompt for response in known}
    unknown = [prompt for prompt in distinct if prompt not in given]
    if answered:
        log.info("%s%d of %d answers are there", "going on: " if stored else "", len(answered), len(distinct))
    with progress_bar(len(distinct), f"Answering {len(distinct)} prompts", done=len(answered)) as advance:
        asked = _portions(unknown, answered, portion)
        with _added_to(store if asked else None, len(lines)) as add:
            try:
                for prompt, answer in _answers(engine, asked, max_new_tokens):
                    if prompt not in answered:
                        add(response := _response(prompt, answer))
                        answered[prompt] = response
                        advance()
            except UserError as error:
                if store is None:
                    raise
                raise error.and_then(f"{len(answered)} of {len(distinct)} answers are kept, {GOES_ON}") from None
    if len(answered) < len(distinct):
        raise RuntimeError(f"the engine left {len(distinct) - len(answered)} prompts without an answer")
    return [answered[prompt].to(prompt) for prompt in prompts]


def _portions(prompts: Sequence[Prompt], answered: Collection[Prompt], size: int | None) -> list[list[Prompt]]:
    """Those of `prompts` to be asked: what is missing, or all of each portion of which some is missing.

    Portions are of like length, the longest first, since that is how they fit into batches.
    """
    if size is None:
        missing = [prompt for prompt in prompts if prompt not in answered]
        return [missing] if missing else []
    order = sorted(prompts, key=lambda prompt: -len(prompt.text) - sum(len(turn.content) for turn in prompt.context))
    portions = [order[start : start + size] for start in range(0, len(order), size)]
    return [portion for portion in portions if not all(prompt in answered for prompt in portion)]


def _answers(engine: Engine, portions: Sequence[Sequence[Prompt]], tokens: int) -> Iterator[tuple[Prompt, Answer]]:
    """Each prompt of `portions` with its answer, one portion after the other."""
    for portion in portions:
        for answer in engine(portion, tokens):
            yield portion[answer.row], answer


def _response(prompt: Prompt, answer: Answer) -> Response:
    fields = (answer.text, answer.finished, answer.reasoning, answer.filtered, answer.asked_otherwise)
    return Response(prompt, *fields)


@contextmanager
def _added_to(store: Path | None, keep: int) -> Iterator[Callable[[Response], None]]:
    """Yield what adds an answer to `store` after its first `keep` bytes."""
    if store is None:
        yield lambda response: None
        return
    with storing(store):
        stream = store.open("ab", buffering=0)  # what could not be written is not tried again when it is closed
        stream.truncate(keep)
        sync(store.parent)
    with closing(stream):
        synced = time.monotonic()

        def add(response: Response) -> None:
            nonlocal synced
            with storing(store):
                line = (json.dumps(row_json(response_row(response)), ensure_ascii=False) + "\n").encode()
                while line:
                    line = line[stream.write(line) :]
                if time.monotonic() - synced > SYNC_SECONDS:
                    os.fsync(stream.fileno())
                    synced = time.monotonic()

        yield add
        with storing(store):
            os.fsync(stream.fileno())


def _whole_lines(store: Path) -> bytes:
    """The bytes of `store` without a last line that lacks its end, as a killed run may leave it."""
    if not store.exists():
        return b""
    content = store.read_bytes()
    return content[: content.rfind(b"\n") + 1]


def _read(store: Path | None, lines: bytes) -> Iterator[Response]:
    for number, line in enumerate(lines.splitlines(), start=1):
        where = f"{store}, line {number}"
        try:
            row = convert(parse(line.decode(), where), ResponseRow, where)
        except (UserError, UnicodeDecodeError):
            fix = "remove the line, or choose another `output_dir=`"
            raise UserError(where, "no answer of a run", "a line as a run writes it", fix) from None
        yield response_of(row)
