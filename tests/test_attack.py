"""A small part of `make attack`: commands that are killed, crowded or short of room, and malformed files."""

import json
import random
import subprocess
import sys

import pytest

from benchmarks import malformed

ATTACK = """
import json, os, random, sys
os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
from pathlib import Path
from benchmarks.attack import Found, commands, count_events, disturbed, little_room, run, two_at_once

work, name, kills, room = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
command = next(one for one in commands(work) if one.name == name)
whole, found = work / "whole", Found()
assert run(command, whole)[0] == 0
many = count_events(command, work / "counted")
for at in random.Random(0).sample(range(1, many + 1), kills):
    disturbed(command, whole, work / "disturbed", found, f"event {at} of {many}", at_event=at)
crowded, small = two_at_once(command, whole, work / "crowded"), little_room(command, whole, work / "small", [room])
print(json.dumps([vars(found), crowded, small]))
"""
"""In a process of its own, which forks before it has threads."""


@pytest.mark.parametrize(
    ("name", "kills", "room"), [pytest.param("fit", 2, 256, marks=pytest.mark.long), ("measure", 3, 8)]
)
def test_a_command_that_is_killed_crowded_or_short_of_room_loses_nothing_and_goes_on(tmp_path, name, kills, room):
    if sys.platform != "linux":
        pytest.skip("forks, and mounts small file systems")
    command = [sys.executable, "-c", ATTACK, str(tmp_path), name, str(kills), str(room)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found, crowded, small = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("attempts") == found.pop("killed") == kills
    assert found == {"lost": [], "half_finished": [], "unequal": [], "tracebacks": []}
    assert crowded == {"refused": True, "first": 0, "unequal": []}
    assert small in ({"full disks told of": 1, "wrong": []}, {"not tried": "file systems may not be mounted here"})


def test_malformed_files_are_read_or_told_in_a_line(tmp_path):
    chooser = random.Random(0)
    for target in malformed.targets_in(tmp_path):
        for _ in range(3):
            outcome = malformed.outcome_of(target, chooser.randrange(2**32))
            assert outcome["what"] in ("read", "told"), (target.file, outcome)
            assert outcome["seconds"] < malformed.MOST_SECONDS
