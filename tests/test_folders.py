import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from actor_tune.errors import UserError
from actor_tune.records.results import Results
from actor_tune.records.run import Run
from actor_tune.storage.files import replacing, storage_error, storing, write_json
from actor_tune.storage.folders import LOCK_FILE, SHOWN, alone_in, building, check_new, clear_left_overs, unfinished

HOLD = """
import sys, time
from pathlib import Path
from actor_tune.storage.folders import alone_in
with alone_in(Path(sys.argv[1])):
    print("in", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_and_the_folder_is_free_when_the_first_was_killed(tmp_path):
    first = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    assert first.stdout
    assert first.stdout.readline() == "in\n"
    with pytest.raises(UserError, match="another process is at work in it"), alone_in(tmp_path / "run"):
        pass
    first.kill()
    first.wait()
    with alone_in(tmp_path / "run"):
        pass
    first.stdout.close()


def test_what_a_process_that_died_was_writing_is_cleared_and_nothing_else(tmp_path):
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    number = int(dead.stdout)
    kept = {f".results.json.{os.getpid()}", "results.json", ".hidden", ".zcompdump-5.8", f"responses.jsonl.{number}"}
    for name in (f".results.json.{number}", *kept):
        (tmp_path / name).touch()
    with alone_in(tmp_path):
        assert (tmp_path / f".results.json.{number}").exists(), "the folder may be somebody else's"
        clear_left_overs(tmp_path)
    assert {entry.name for entry in tmp_path.iterdir()} == {LOCK_FILE, *kept}


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_where_nothing_can_be_locked_nobody_is_let_in(tmp_path, monkeypatch, number):
    def fails(_descriptor, _operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", fails)
    with pytest.raises(UserError, match=r"a file system without locks; .*; choose another place"), alone_in(tmp_path):
        pytest.fail("let in")


def test_a_folder_is_there_whole_or_not_at_all(tmp_path):
    with building(tmp_path / "run") as whole:
        (whole / "model").mkdir()
        write_json(whole / "model" / "config.json", {})
        assert not (tmp_path / "run").exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]

    def half_way():
        with building(tmp_path / "other") as whole:
            (whole / "a").touch()
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        half_way()
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


def test_what_was_half_built_by_a_process_that_died_is_not_in_the_next_ones_folder(tmp_path):
    (tmp_path / ".run.new" / "whole").mkdir(parents=True)
    (tmp_path / ".run.new" / "whole" / "old").touch()
    with building(tmp_path / "run") as whole:
        (whole / "new").touch()
    assert [entry.name for entry in (tmp_path / "run").iterdir()] == ["new"]


def test_an_empty_folder_is_taken_and_one_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "empty").mkdir()
    with building(tmp_path / "empty") as whole:
        (whole / "a").touch()
    assert (tmp_path / "empty" / "a").exists()
    for make in (building, unfinished):
        with pytest.raises(UserError, match="a folder that is not empty"), make(tmp_path / "empty"):
            pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["empty"]


def test_what_is_kept_for_a_folder_stays_until_that_is_there(tmp_path):
    def cut_off():
        with unfinished(tmp_path / "run") as work:
            (work / "part").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut_off()
    with unfinished(tmp_path / "run") as work:
        assert (work / "part").exists()
        with building(tmp_path / "run") as whole:
            (whole / "run.json").touch()
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


def test_a_name_that_is_a_file_or_where_another_file_system_begins_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for make in (alone_in, check_new, building, unfinished):
        with pytest.raises(UserError, match="a file"):
            with_or_call(make, tmp_path / "file")
    monkeypatch.setattr("pathlib.Path.is_mount", lambda path: path.name == "disk")
    with pytest.raises(UserError, match=r"another file system begins; .*/disk/run"):
        with_or_call(building, tmp_path / "disk")


def test_the_folder_that_one_is_in_is_refused_and_a_link_is_followed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="the folder that you are in"):
        with_or_call(building, Path("."))
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with building(Path("link")) as whole:
        (whole / "a").touch()
    assert (tmp_path / "run" / "a").exists()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for make in (alone_in, building):
        with pytest.raises(UserError, match="loop"):
            with_or_call(make, Path("loop"))


def test_what_a_report_can_be_made_of_is_named_as_its_records_name_it():
    assert set(SHOWN) == {Results.FILE, Run.FILE}


def test_what_was_kept_stays_where_the_folder_is_somebody_elses(tmp_path):
    with unfinished(tmp_path / "run") as work:
        (work / "part").touch()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "note").touch()
    for make in (unfinished, building):
        with pytest.raises(UserError, match="a folder that is not empty"):
            with_or_call(make, tmp_path / "run")
    assert sorted(entry.name for entry in tmp_path.rglob("*")) == [".lock", ".run.unfinished", "note", "part", "run"]


def test_a_mistake_of_ours_or_in_what_is_read_is_not_laid_on_the_folder(tmp_path):
    def reads_what_is_not_there():
        with building(tmp_path / "run") as whole:
            (whole / "a").write_text((tmp_path / "missing").read_text())

    with pytest.raises(FileNotFoundError, match="missing"):
        reads_what_is_not_there()


def with_or_call(make, path):
    found = make(path)
    if found is not None:
        with found:
            pass


@pytest.mark.parametrize(
    ("number", "found"),
    [
        (errno.ENOSPC, "no space left on the device"),
        (errno.EDQUOT, "no space left on the device"),
        (errno.EROFS, "a read-only file system"),
        (errno.EACCES, "permission is denied"),
        (errno.ENAMETOOLONG, "a name that is too long"),
    ],
)
def test_what_the_file_system_refuses_is_told_in_one_line_and_leaves_the_old_file(tmp_path, monkeypatch, number, found):
    write_json(tmp_path / "a.json", 1)

    def fails(_descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.fsync", fails)
    with pytest.raises(UserError, match=found):
        write_json(tmp_path / "a.json", 2)
    assert (tmp_path / "a.json").read_text() == "1\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_an_error_that_is_none_of_the_file_systems_passes_as_it_is():
    assert storage_error(ConnectionRefusedError(errno.ECONNREFUSED, "refused")) is None
    with pytest.raises(ConnectionRefusedError), storing("here"):
        raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")


def test_a_file_and_its_name_are_on_the_disk_before_the_next_step(tmp_path, monkeypatch):
    steps = []
    monkeypatch.setattr("os.fsync", lambda descriptor: steps.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    moved = os.replace

    def replace(source, target):
        steps.append("replace")
        moved(source, target)

    monkeypatch.setattr("os.replace", replace)
    with replacing(tmp_path / "a") as temporary:
        temporary.write_text("a")
    assert steps == [str(temporary), "replace", str(tmp_path)]
    steps.clear()
    with building(tmp_path / "run") as whole:
        (whole / "model").mkdir()
        (whole / "model" / "b").touch()
    assert set(steps) == {str(whole / "model" / "b"), str(whole / "model"), str(whole), str(tmp_path)}
    assert steps[-1] == str(tmp_path)
