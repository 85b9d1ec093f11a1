"""Kill, crowd and starve the commands that write, and see that nothing is lost and nothing half-finished looks whole.

    python -m benchmarks.attack --work runs/attack

Each command runs in a forked process on a tiny model. It is killed at a random time, or at an event of the file system
below the folder of the attempt (a file opened to be written, a name given or taken away); then the same command is run
again, until it ends. What it leaves must be what an attempt that was not killed leaves, but for seconds.

Fork needs a system like Linux; small file systems need the right to mount them.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import malformed
from .common import Record, report, say
from .random_models import SHAPES, random_checkpoint, random_prompts

PROMPTS = 48
TOKENS = 4
KILLED = -signal.SIGKILL
SLACK = 120.0
"""Seconds after which a command hangs."""

ROOM = (8, 16, 32, 64, 128, 256, 512, 1024, 2048)
"""KiB of the small file systems."""

WRITING = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate")
"""Events of the interpreter (PEP 578) that change the file system; `open` where it is for writing."""

VARIES = {"seconds", "fit_seconds", "answer_seconds", "all_seconds", "command", "commands", "file_sha256"}
"""Keys of records that no two attempts have alike."""


@dataclass(frozen=True)
class Command:
    """A command of `actor` that writes into a folder: its arguments, without the folder."""

    name: str
    arguments: list[str]


@dataclass
class Found:
    """What came of the attempts with one command."""

    attempts: int = 0
    killed: int = 0
    lost: list[str] = field(default_factory=list)
    half_finished: list[str] = field(default_factory=list)
    unequal: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)


def main() -> None:
    """Attack, and write what was found as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=200, help="at random times, over all commands")
    parser.add_argument("--events", type=int, default=60, help="of the file system at which each command is killed")
    parser.add_argument("--inputs", type=int, default=10_000, help="malformed ones")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    report(attack, arguments.work, arguments.kills, arguments.events, arguments.inputs, arguments.seed)


def attack(work: Path, kills: int, events: int, inputs: int, seed: int) -> Record:
    """All attacks; each finding is a sentence, so that what is empty held."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    chooser, found = random.Random(seed), Record()
    for command in commands(work):
        say(command.name)
        whole = work / f"{command.name}-whole"
        status, seconds = run(command, whole)
        if status:
            sys.exit(f"{command.name} does not work undisturbed: status {status}")
        here = Found()
        many = count_events(command, work / f"{command.name}-counted")
        for at in sorted(chooser.sample(range(1, many + 1), min(events, many))):
            disturbed(command, whole, work / "disturbed", here, f"event {at} of {many}", at_event=at)
        for _ in range(kills // len(commands(work))):
            after = chooser.uniform(0, seconds)
            disturbed(command, whole, work / "disturbed", here, f"after {after:.2f} s", after=after)
        found[command.name] = vars(here) | {"events": many, "seconds": round(seconds, 2)}
        found[f"{command.name}, two at once"] = two_at_once(command, whole, work / "crowded")
        found[f"{command.name}, little room"] = little_room(command, whole, work / "small")
    return found | {"inputs": malformed.attack(work / "malformed", inputs, seed)}


def commands(work: Path) -> list[Command]:
    """Those that write a folder, on a tiny model; `probe` looks at what the undisturbed `fit` wrote."""
    model = str(random_checkpoint(work / "models", SHAPES["tiny"]))
    train, evaluation = work / "train.jsonl", work / "evaluation.jsonl"
    for file, seed in ((train, 0), (evaluation, 1)):
        rows = [{"prompt": one.text, "kind": one.kind, "set": one.set} for one in random_prompts(PROMPTS, seed=seed)]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = ["--max-new-tokens", str(TOKENS)]
    methods = ["--methods", "cae,boundary", "--seeds", "1"]
    given = ["--train", str(train), "--eval", str(evaluation)]
    return [
        Command("fit", [model, "--prompts", str(train), "--no-starter", "--rule", "boundary", "--allow-unsafe"]),
        Command("probe", [str(work / "fit-whole"), "--steps", "2", "--every", "1"]),
        Command("measure", [model, "--prompts", str(evaluation), *asked, "--baseline", model]),
        Command("compare", [model, *given, *methods, *asked]),
    ]


def run(
    command: Command, folder: Path, at_event: int | None = None, after: float = SLACK, errors: Path | None = None
) -> tuple[int, float]:
    """Run it in a process of its own; its status, or -9 where it was killed, and the seconds it took.

    - `at_event`: it kills itself before this event of the file system in the folder's parent; `after`: it is killed
      after so many seconds.
    - `errors`: the file that its stderr goes to.
    """
    start = time.monotonic()
    process = os.fork()
    if process == 0:
        _be(command, folder, at_event, errors or Path(os.devnull))
    while time.monotonic() - start < after:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), time.monotonic() - start
        time.sleep(0.005)
    os.kill(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), time.monotonic() - start


def _be(command: Command, folder: Path, at_event: int | None, errors: Path) -> None:
    """In the forked process: be that command, and end with its status."""
    status = 1
    try:
        stream = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(stream, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if at_event:
            events = _counted(folder.parent, lambda count: os.kill(os.getpid(), 9) if count == at_event else None)
            sys.addaudithook(events)
        status = _actor(command, folder)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _actor(command: Command, folder: Path) -> int:
    """The status of `actor`."""
    from actor_tune.commands.cli import main as actor

    sys.argv = ["actor", command.name, *command.arguments, "--output-dir", str(folder)]
    try:
        actor()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    return 0


def _counted(below: Path, each: Callable[[int], None]) -> Callable[[str, Any], None]:
    """An audit hook that counts the events that change what is `below`, and calls `each` with their number."""
    count, place = 0, str(below)

    def hook(event: str, arguments: Any) -> None:
        nonlocal count
        if event not in WRITING or not str(arguments[0]).startswith(place):
            return
        if event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        count += 1
        each(count)

    return hook


def count_events(command: Command, folder: Path) -> int:
    """How many events of the file system an undisturbed attempt has."""
    said = folder.with_suffix(".count")
    process = os.fork()
    if process == 0:
        last = 0

        def each(count: int) -> None:
            nonlocal last
            last = count

        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        sys.addaudithook(_counted(folder.parent, each))
        _actor(command, folder)
        os.write(os.open(said.with_name(f"..{said.name}"), os.O_WRONLY | os.O_CREAT), str(last).encode())
        os._exit(0)
    os.waitpid(process, 0)
    return int(said.with_name(f"..{said.name}").read_text())


def disturbed(
    command: Command,
    whole: Path,
    place: Path,
    found: Found,
    when: str,
    at_event: int | None = None,
    after: float = SLACK,
) -> None:
    """Kill it once, look, and run it again until it ends."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    folder = place / "run"
    status, _ = run(command, folder, at_event, after)
    found.attempts += 1
    found.killed += status == KILLED
    look(command, whole, folder, found, when)
    done = is_whole(command, folder)
    status, _ = run(command, folder, errors=place / "errors")
    said = (place / "errors").read_text()
    if "Traceback" in said:
        found.tracebacks.append(f"{when}: {said.strip().splitlines()[-1][:200]}")
    # What is whole is not written over, but a comparison, which can be added to.
    if status != (2 if done and command.name != "compare" else 0):
        found.lost.append(f"{when}: status {status} when it was run again: {said.strip()[-200:]}")
    look(command, whole, folder, found, f"{when}, run again")
    if not is_whole(command, folder):
        found.lost.append(f"{when}: not whole when it was run again")
    if left := [entry.name for entry in place.iterdir() if entry.name.startswith(".") and not done]:
        found.half_finished.append(f"{when}: {left} left over")


RECORDS = {"fit": "run.json", "probe": "probe.json", "measure": "results.json", "compare": "compare.json"}
"""By command: the file that says that all is there."""


def is_whole(command: Command, folder: Path) -> bool:
    """Whether it says of itself that it is."""
    return (folder / RECORDS[command.name]).exists()


def look(command: Command, whole: Path, folder: Path, found: Found, when: str) -> None:
    """Note what looks finished and is not, and what is whole and not as it should be."""
    if is_whole(command, folder):
        if different := differences(whole, folder):
            found.unequal.append(f"{when}: {different[:3]}")
    elif command.name == "fit" and folder.exists() and any(folder.iterdir()):
        found.half_finished.append(f"{when}: {sorted(entry.name for entry in folder.iterdir())}")
    for card in folder.parent.rglob("config.json"):
        hidden = any(part.startswith(".") for part in card.relative_to(folder.parent).parts)
        if not hidden and not (card.parent.parent / "run.json").exists():
            found.half_finished.append(f"{when}: {card.relative_to(folder.parent)} without run.json")


def differences(whole: Path, folder: Path) -> list[str]:
    """The files of which one folder has none, or others than the other."""
    names = {str(path.relative_to(top)) for top in (whole, folder) for path in top.rglob("*") if path.is_file()}
    return sorted(name for name in names if name != ".lock" and _content(whole / name) != _content(folder / name))


def _content(file: Path) -> Any:
    """Of a record what does not vary; rows in any order, since answers come in any."""
    if not file.is_file():
        return None
    if file.suffix == ".json":
        return _steady(json.loads(file.read_text()))
    if file.suffix == ".jsonl":
        return sorted(file.read_text().splitlines())
    return file.read_bytes()


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _steady(part) for key, part in value.items() if key not in VARIES}
    return [_steady(part) for part in value] if isinstance(value, list) else value


def two_at_once(command: Command, whole: Path, place: Path) -> Record:
    """A second process is refused in one line while a first is at work, which ends as if it were alone."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    folder, errors = place / "run", place / "errors"
    first = os.fork()
    if first == 0:
        _be(command, folder, None, Path(os.devnull))
    until = time.monotonic() + SLACK
    while not [*place.rglob(".lock")] and time.monotonic() < until:
        time.sleep(0.002)
    status, _ = run(command, folder, errors=errors)
    said = errors.read_text().strip().splitlines()
    ended = os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
    refused = status == 2 and any("another process is at work" in line for line in said)
    return {"refused": refused, "first": ended, "unequal": differences(whole, folder)}


def little_room(command: Command, whole: Path, place: Path, rooms: Sequence[int] = ROOM) -> Record:
    """On file systems that are too small, or read-only: one line, status 2; with room, the same command goes on."""
    told, wrong = 0, []
    for kibibytes in rooms:
        with small_disk(place, f"size={kibibytes}k") as mounted:
            if not mounted:
                return {"not tried": "file systems may not be mounted here"}
            folder, errors = place / "run", place.with_name("errors")
            status, _ = run(command, folder, errors=errors)
            said = errors.read_text()
            full = status == 2 and said.count("error: ") == 1 and "no space left on the device" in said
            told += full
            if status and (not full or "Traceback" in said):
                wrong.append(f"{kibibytes} KiB: status {status}: {said.strip()[-200:]}")
            subprocess.run(["mount", "-o", "remount,size=512m", str(place)], check=True)
            if status and (again := run(command, folder, errors=errors)[0]):
                wrong.append(f"{kibibytes} KiB, then room: status {again}: {errors.read_text().strip()[-200:]}")
            if different := differences(whole, folder):
                wrong.append(f"{kibibytes} KiB, then room: {different[:3]}")
    with small_disk(place, "ro"):
        status, _ = run(command, place / "run", errors=errors)
        if status != 2 or not re.search("error: .*read-only", " ".join(errors.read_text().split())):
            wrong.append(f"read-only: status {status}: {errors.read_text().strip()[-200:]}")
    return {"full disks told of": told, "wrong": wrong}


@contextmanager
def small_disk(place: Path, options: str) -> Iterator[bool]:
    """A file system in memory at `place`; False where none may be mounted."""
    place.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    mounted = subprocess.run(command, check=False, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(place)], check=True)


if __name__ == "__main__":
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    main()
