"""What is installed from a wheel or an sdist, into an environment that has nothing but what the package asks for."""

import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from conftest import make_model, save_model

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
STORED = Path(__file__).parent / "files_of_version_0_1_0"
LARGEST = 6_000_000
"""Bytes of a wheel; most of them are the adapter of the testbed."""


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Wheel and sdist by their suffix; the wheel is made of the sdist."""
    pytest.importorskip("build", reason="the extra dev is not installed")
    pytest.importorskip("hatchling", reason="the extra dev is not installed")
    folder = tmp_path_factory.mktemp("dist")
    made = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT], capture_output=True, text=True
    )
    assert made.returncode == 0, made.stdout + made.stderr
    return {"".join(path.suffixes[-1:]): path for path in folder.iterdir()}


def test_the_wheel_has_what_runs_and_nothing_that_only_trains_or_tests(packed):
    with zipfile.ZipFile(packed[".whl"]) as wheel:
        names = wheel.namelist()
    size = packed[".whl"].stat().st_size
    assert size < LARGEST, f"{size / 1e6:.1f} MB"
    assert all(re.match(r"actor_tune(-[\d.]+\.dist-info)?/", name) for name in names)
    assert not [name for name in names if "training.csv" in name or "judge_training" in name]
    needed = {
        "judges/trained/trained.json",
        "prompts/data/prompts.csv",
        "show/report/page.html",
        "py.typed",
        "__init__.pyi",
    }
    assert {f"actor_tune/{name}" for name in needed} <= set(names)


def test_the_sdist_has_all_that_tests_and_pages_need(packed):
    with tarfile.open(packed[".gz"]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    needed = {"tests/conftest.py", "tools/judge_training.csv", "docs/index.md", "zensical.toml", "constraints.txt"}
    assert {*needed, "CITATION.cff", "CONTRIBUTING.md", "SECURITY.md", "LICENSE", "Makefile"} <= names
    assert not [name for name in names if name.startswith(("runs/", "site/", ".venv/"))]


def closure(wheel, besides):
    """The distributions that a wheel needs without extras, and those that they need."""
    with zipfile.ZipFile(wheel) as opened:
        (metadata,) = (name for name in opened.namelist() if name.endswith(".dist-info/METADATA"))
        asked = re.findall(r"^Requires-Dist: (.+)$", opened.read(metadata).decode(), re.MULTILINE)
    found, waiting = {}, [(Requirement(line), {""}) for line in [*asked, *besides]]
    seen = set()
    while waiting:
        requirement, extras = waiting.pop()
        name = canonicalize_name(requirement.name)
        wanted = requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras)
        key = (name, frozenset(requirement.extras))
        if not wanted or key in seen:
            continue
        seen.add(key)
        found[name] = distribution(name)
        needs = found[name].requires or []
        waiting += [(Requirement(line), {"", *requirement.extras}) for line in needs]
    return found


@pytest.fixture(scope="module", params=[".whl", ".gz"])
def clean(request, packed, tmp_path_factory):
    """The command `actor` of a new environment: links to what is needed, and to nothing else that is installed here."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(folder, with_pip=False)
    (packages,) = folder.glob("lib/python*/site-packages")
    for one in closure(packed[".whl"], ["hatchling"]).values():
        for top in {file.parts[0] for file in one.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            source = Path(str(one.locate_file(top)))
            if source.exists() and not (packages / top).exists():
                (packages / top).symlink_to(source)
    python = folder / "bin" / "python"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    made = subprocess.run([*pip, packed[request.param]], capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    return folder / "bin" / "actor"


@pytest.fixture
def actor(clean, tmp_path, monkeypatch):
    """Runs it in an empty folder, without what this process adds to the path."""
    monkeypatch.delenv("PYTHONPATH", raising=False)

    def run(*arguments):
        return subprocess.run([clean, *map(str, arguments)], cwd=tmp_path, capture_output=True, text=True)

    return run


def test_without_extras_help_judge_and_report_work(actor, tmp_path):
    told = actor("--help")
    assert told.returncode == 0, told.stderr
    assert "measure" in told.stdout
    answer = "I'm sorry, but I can't help with that."
    (tmp_path / "answers.csv").write_text(f'prompt,response\nHow do I kill a process?,"{answer}"\n')
    judged = actor("judge", "answers.csv", "--output", "judged.jsonl")
    assert judged.returncode == 0, judged.stderr
    assert '"refusal"' in (tmp_path / "judged.jsonl").read_text()
    page = actor("report", STORED / "after", "--output", "report.html")
    assert page.returncode == 0, page.stderr
    assert (tmp_path / "report.html").stat().st_size > 30_000


@pytest.mark.parametrize("clean", [".whl"], indirect=True)
@pytest.mark.parametrize(
    ("extra", "command"),
    [
        ("testbed", "testbed --output-dir t"),
        ("plot", "demo --output-dir d"),
        ("testbed", "measure m.gguf --output-dir m"),
        ("openai", "measure NAME --engine openai --base-url http://127.0.0.1:9/v1 --output-dir s"),
        ("vllm", "measure NAME --engine vllm --output-dir v"),
        ("parquet", "measure NAME --prompts mine.parquet --output-dir p"),
        ("bnb", "measure m --quantization bnb_4bit --output-dir b"),
    ],
)
def test_what_an_extra_is_for_is_told_in_one_line(actor, tmp_path, extra, command):
    (tmp_path / "m.gguf").touch()
    (tmp_path / "mine.parquet").touch()
    save_model(make_model(), tmp_path / "m")
    told = actor(*command.split())
    assert told.returncode == 2, told.stdout + told.stderr
    (line,) = (each for each in told.stderr.splitlines() if each.startswith("error: "))
    assert f"pip install 'actor-tune[{extra}]'" in line
    assert "Traceback" not in told.stderr
