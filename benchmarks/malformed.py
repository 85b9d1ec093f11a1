"""Malformed inputs: files that people may give, damaged at random. Each is read, or is told of in one line.

Bytes are flipped, cut and put in; values of JSON are put in the place of others. A process of its own reads one after
the other, so that one that hangs, or takes the memory, is noticed and named.
"""

import json
import os
import random
import resource
import shutil
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import actor_tune as at
from actor_tune.errors import UserError

from .common import GIB, Record, say
from .random_models import SHAPES, random_checkpoint, random_prompts

MOST_SECONDS = 5.0
SHOWN = 20
"""Findings of each sort in the figures."""

VALUES: Sequence[Any] = (
    *(None, True, 0, -1, 3, 10**12, 0.5, -1e308, "", "x", "x" * 20_000, "\x00", "\ud800", "\u200b", "../../etc"),
    *([], {}, [[]], [None], {"": {}}, ["x"] * 1000, "7b", "cuda", "float7", "<|end|>", "{{ 1 / 0 }}", "{%"),
)
RAW = ("1" + "0" * 400, "1e999", "NaN", "-Infinity", "[" * 3000 + "]" * 3000, '{"a":' * 2000 + "1" + "}" * 2000)
"""Values that Python's JSON does not write."""

PIECES = (
    b"\x00",
    b"\xff\xfe",
    b"\r",
    b"\n",
    b'"',
    b",",
    b"{",
    b"}",
    b"[",
    b"\xed\xa0\x80",
    b"9" * 5000,
    b"<|end|>",
    b"{%",
)


@dataclass(frozen=True)
class Target:
    """A file of `folder` that is damaged, and what then reads the folder."""

    kind: str
    folder: Path
    file: str
    read: Callable[[Path], object]


def attack(work: Path, inputs: int, seed: int) -> Record:
    """Read `inputs` damaged files, in turn of each kind."""
    targets, chooser = targets_in(work), random.Random(seed)
    jobs = [(targets[number % len(targets)], chooser.randrange(2**32)) for number in range(inputs)]
    counts: Counter[str] = Counter()
    tracebacks, hangs, slowest, peak, place = [], [], 0.0, 0, 0
    while place < len(jobs):
        for outcome in _read_in_a_process(jobs, place):
            target, job_seed = jobs[place]
            named = f"{target.kind} {target.file}, seed {job_seed}"
            place += 1
            counts[f"{target.kind}: {outcome['what']}"] += 1
            slowest, peak = max(slowest, outcome["seconds"]), max(peak, outcome["peak"])
            if outcome["what"] == "traceback":
                tracebacks.append(f"{named}: {outcome['said']}")
            if outcome["what"] == "hang" or outcome["seconds"] > MOST_SECONDS:
                hangs.append(f"{named}: {outcome['seconds']:.0f} s")
            if place % 500 == 0:
                say(f"{place} of {len(jobs)} malformed inputs")
    return {
        "inputs": len(jobs),
        "outcomes": dict(sorted(counts.items())),
        "tracebacks": len(tracebacks),
        "hangs": len(hangs),
        "slowest_seconds": round(slowest, 2),
        "peak_gib": round(peak / GIB, 2),
        "shown": [*tracebacks[:SHOWN], *hangs[:SHOWN]],
    }


def _read_in_a_process(jobs: Sequence[tuple[Target, int]], first: int) -> "list[Record]":
    """Outcomes of the jobs from `first` on, to the last or to one that ends its process or hangs, with it."""
    here, there = Pipe(duplex=False)
    process = os.fork()
    if process == 0:
        try:
            here.close()
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            for target, seed in jobs[first : first + 250]:
                there.send(outcome_of(target, seed))
        finally:
            os._exit(0)
    there.close()
    outcomes: list[Record] = []
    expected = len(jobs[first : first + 250])
    while len(outcomes) < expected:
        if not here.poll(4 * MOST_SECONDS):
            outcomes.append({"what": "hang", "seconds": 4 * MOST_SECONDS, "peak": 0, "said": ""})
            break
        try:
            outcomes.append(here.recv())
        except EOFError:
            outcomes.append({"what": "traceback", "seconds": 0.0, "peak": 0, "said": "the process ended"})
            break
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return outcomes


def outcome_of(target: Target, seed: int) -> Record:
    """What reading a damaged copy of the target's folder comes to."""
    copy = target.folder.with_name("damaged")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(target.folder, copy)
    file, chooser = copy / target.file, random.Random(seed)
    file.write_bytes(damaged(file.read_bytes(), file.suffix, chooser))
    start, said = time.monotonic(), ""
    try:
        target.read(copy)
        what = "read"
    except UserError as error:
        what, said = "told", str(error)
    except BaseException as error:  # the libraries below may raise anything, and some of it is no Exception
        what = "traceback"
        frame = traceback.extract_tb(error.__traceback__)[-1]
        said = f"{type(error).__name__}: {str(error)[:150]} ({Path(frame.filename).name}:{frame.lineno})"
    if what == "told" and (len(said) > 2000 or "\n" in said):
        what = "traceback"
        said = f"no line, but {len(said)} characters"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"what": what, "seconds": time.monotonic() - start, "peak": peak, "said": said}


def damaged(content: bytes, suffix: str, chooser: random.Random) -> bytes:
    """`content` with one to three damages."""
    for _ in range(chooser.choice((1, 1, 1, 2, 3))):
        as_json = suffix in (".json", ".jsonl") and chooser.random() < 0.7
        changed = _json_damaged(content, chooser) if as_json else None
        content = _bytes_damaged(content, chooser) if changed is None else changed
    return content


def _bytes_damaged(content: bytes, chooser: random.Random) -> bytes:
    start = chooser.randrange(len(content) + 1)
    end = min(len(content), start + chooser.choice((1, 1, 4, 30, 400)))
    way = chooser.randrange(6)
    if way == 0:
        return content[:start]
    if way == 1:
        return content[:start] + content[end:]
    if way == 2:
        return content[:end] + content[start:]
    if way == 3:
        return content[:start] + chooser.choice(PIECES) + content[start:]
    if way == 4:
        return content[:start] + bytes(chooser.randrange(256) for _ in range(end - start)) + content[end:]
    return chooser.choice(
        (b"", b"\x00" * 64, b"[]", b"null", b"version https://git-lfs.github.com/spec/v1\n", content * 2)
    )


def _json_damaged(content: bytes, chooser: random.Random) -> bytes | None:
    """With one value of it replaced, taken out, or given twice; None where it is not JSON any more."""
    lines = content.splitlines() if content.count(b"\n{") else [content]
    row = chooser.randrange(len(lines)) if lines else 0
    try:
        value = json.loads(lines[row])
    except (ValueError, IndexError, RecursionError):
        return None
    places = [
        (value, key)
        for value in _containers(value)
        for key in (value if isinstance(value, dict) else range(len(value)))
    ]
    if not places:
        return None
    holder, key = chooser.choice(places)
    way = chooser.random()
    if way < 0.15:
        del holder[key]
    elif way < 0.75:
        holder[key] = chooser.choice(VALUES)
    else:
        holder[key] = "RAW VALUE"
    text = json.dumps(value).replace('"RAW VALUE"', chooser.choice(RAW))
    lines[row] = text.encode("utf-8", "surrogatepass")
    return b"\n".join(lines)


def _containers(value: Any, levels: int = 8) -> list[Any]:
    """The objects and lists in `value`; of long ones the first parts."""
    if not isinstance(value, dict | list) or not levels:
        return []
    parts = list(value.values() if isinstance(value, dict) else value)[:30]
    return [value, *(found for part in parts for found in _containers(part, levels - 1))]


def targets_in(work: Path) -> list[Target]:
    """Every file that is damaged, as it is when it is whole, in folders of `work`."""
    work.mkdir(parents=True, exist_ok=True)
    prompts = random_prompts(12)
    found = []
    for name, write in PROMPT_FILES.items():
        folder = work / name
        folder.mkdir()
        file = folder / f"prompts.{name.rpartition('-')[2]}"
        write(file, prompts)
        found.append(Target("prompts", folder, file.name, _read_prompts))
    model = random_checkpoint(work, SHAPES["tiny"])
    names = ["config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "model-2.safetensors"]
    for name in [*names, "model.safetensors.index.json"]:
        found.append(Target("model", model, name, lambda folder: at.load(str(folder))))
    fit, after = work / "fit", work / "after"
    chat_model = at.load(str(model))
    settings = at.Settings("boundary", layer=1, starter=False, allow_unsafe=True)
    at.fit(chat_model, random_prompts(36), settings).save(fit)
    before = at.answer(chat_model, prompts, 3)
    at.measure(chat_model, prompts, before, max_new_tokens=3, work=after).save(after)
    found.append(Target("patch", fit, "patch.safetensors", lambda folder: at.Patch.load(folder / "patch.safetensors")))
    found.append(Target("lineage", fit / "model", "actor_tune.json", lambda folder: at.trained_on(str(folder))))
    for name in ("run.json", "positions.json", "paths.json", "guard.jsonl"):
        found.append(Target("results", fit, name, _report))
    for name in ("results.json", "responses.jsonl", "baseline.jsonl", "request.json"):
        found.append(Target("results", after, name, _report))
    return found


def _read_prompts(folder: Path) -> object:
    (file,) = folder.iterdir()
    if file.suffix == ".txt":
        return at.read(harmful=[file])
    return at.read(str(file))


def _report(folder: Path) -> object:
    page = folder.with_name("report.html")
    page.unlink(missing_ok=True)
    return at.write_report([folder], page)


def _parquet(file: Path, prompts: Sequence[at.Prompt]) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = [{"prompt": one.text, "kind": one.kind, "set": one.set} for one in prompts]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)


def _csv(file: Path, prompts: Sequence[at.Prompt]) -> None:
    rows = [f'"{one.text}",{one.kind},{one.set}' for one in prompts]
    file.write_text("\n".join(["prompt,kind,set", *rows]) + "\n")


def _jsonl(file: Path, prompts: Sequence[at.Prompt]) -> None:
    rows = [{"prompt": one.text, "kind": one.kind, "set": one.set} for one in prompts]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _semicolons(file: Path, prompts: Sequence[at.Prompt]) -> None:
    rows = [f'"{one.text}";{one.kind.replace("_", "-")};{one.set}' for one in prompts]
    file.write_text("\n".join(["prompt;kind;set", *rows]) + "\n")


def _json(file: Path, prompts: Sequence[at.Prompt]) -> None:
    file.write_text(json.dumps([{"prompt": one.text, "kind": one.kind, "set": one.set} for one in prompts], indent=1))


def _shared(file: Path, prompts: Sequence[at.Prompt]) -> None:
    said = [{"from": "system", "value": "Be brief."}, {"from": "gpt", "value": "Gladly."}]
    talks = [[said[0], {"from": "human", "value": one.text}, said[1]] for one in prompts]
    rows = [{"conversations": talk, "kind": one.kind} for talk, one in zip(talks, prompts, strict=True)]
    file.write_text(json.dumps(rows))


def _txt(file: Path, prompts: Sequence[at.Prompt]) -> None:
    file.write_text("\n".join(one.text for one in prompts))


PROMPT_FILES = {
    "csv": _csv,
    "semicolons-csv": _semicolons,
    "json": _json,
    "shared-json": _shared,
    "jsonl": _jsonl,
    "txt": _txt,
    "parquet": _parquet,
}
"""How each is written, by a name that ends in what the name of the file ends in."""
