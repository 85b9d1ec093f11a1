"""The documentation: commands that are in it run, what is made from the code is not stale, and the site builds."""

import csv
import importlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch
import yaml

import actor_tune as at
from actor_tune.judges import choose
from actor_tune.judges.verdict import Verdict
from conftest import make_model, make_prompts, save_model
from test_api import notebook  # noqa: F401 - a fixture
from test_cli import run
from tools.make_architecture_page import PICTURE, layers, picture
from tools.make_commands_page import commands, options
from tools.make_functions_page import METHOD, anchor, found, named
from tools.make_limits_page import passage
from tools.make_tour import TOUR
from tools.make_tour_page import pictures

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
README = ROOT / "README.md"


def name_of(page):
    return str(page.relative_to(ROOT))


# Made from the code


@pytest.mark.parametrize("name", ["api", "architecture", "commands", "functions", "limits", "tour"])
def test_a_page_that_is_made_from_the_code_is_not_stale(name):
    made = importlib.import_module(f"tools.make_{name}_page").page()
    assert (DOCS / f"{name}.md").read_text(encoding="utf-8") == made, "run: make pages"


def test_the_pictures_of_made_pages_are_not_stale():
    assert (DOCS / PICTURE).read_text(encoding="utf-8") == picture(), "run: make pages"
    assert {name: (DOCS / name).read_bytes() for name in pictures()} == pictures(), "run: make pages"


def test_the_picture_of_the_architecture_has_every_room_below_those_that_may_import_it():
    heights = {room: float(top) for top, room in re.findall(r' y="([\d.]+)" text-anchor="middle">(\w+)<', picture())}
    order = [heights[layer[0]] for layer in layers()]
    assert order == sorted(order)
    rooms = {path.parent.name for path in (ROOT / "src" / "actor_tune").glob("*/__init__.py")}
    assert set(heights) == {room for layer in layers() for room in layer} >= rooms


def test_every_equation_stands_beside_functions_that_exist():
    text = METHOD.read_text(encoding="utf-8")
    for equation in ("a_l(q)", "Eq. 1,", "Eq. 3,", "Eq. 4-7,", "Eq. 8,", "Eq. 9,", "Eq. 10-11,", "Algorithm 1"):
        (row,) = (line for line in text.splitlines() if line.startswith(f"| {equation}"))
        assert named(row), row
    for name in named(text):
        assert found(name).__doc__, name
        assert f"functions.md#{anchor(name)})" in text
    told = re.findall(r"`([a-z_]+\.[a-z_]+)`", text)
    assert {name for name in told if name.rpartition(".")[2] not in ("py", "md", "json", "csv")} == set(named(text))


@pytest.mark.parametrize("name", ["rules.nothing_like_it", "nowhere.fit", "method.cost_of"])
def test_a_function_that_does_not_exist_is_not_found(name):
    with pytest.raises(LookupError, match=name):
        found(name)


def test_a_figure_that_its_page_no_longer_has_is_not_passed_over():
    with pytest.raises(LookupError, match="nothing of it"):
        passage("(nothing of it)", "judge")


BY_HAND = [DOCS / f"{name}.md" for name in ("index", "tutorial", "ship")] + sorted(DOCS.glob("how-to/*.md"))


@pytest.mark.parametrize("page", BY_HAND, ids=name_of)
def test_a_page_that_is_written_by_hand_has_no_result_of_its_own(page):
    """It leads to the page that measured it, or takes it from there; 95 % is what an interval is of."""
    told = re.findall(r"[\d.]+ ?%", page.read_text(encoding="utf-8"))
    assert set(told) <= {"95 %"}


# Commands


def commands_in(text):
    """Every line of a block that begins with `actor`, as it would be typed."""
    blocks = re.findall(r"^```(?:bash)?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines() if line.startswith("actor ")]


@pytest.mark.parametrize("page", [README, *PAGES], ids=name_of)
def test_every_command_in_a_page_is_one_that_actor_has_with_options_that_it_has(page):
    known, text = commands(), page.read_text(encoding="utf-8")
    for line in commands_in(text):
        _, command, *arguments = shlex.split(line, comments=True)
        if command == "COMMAND":
            continue
        assert command in known, line
        if "[OPTIONS]" not in arguments:
            given = {word.partition("=")[0] for word in arguments if word.startswith("--")}
            assert given <= options(known[command]), line
    for command in re.findall(r"`actor ([a-z]\w*)", text):
        assert command in known, command


def run_of(page):
    """Commands of the blocks after `<!-- tested -->`."""
    blocks = re.findall(r"^<!-- tested -->\n(```.*?^```)", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [shlex.split(line, comments=True)[1:] for block in blocks for line in commands_in(block)]


TESTED = [
    pytest.param(page, id=name_of(page), marks=[pytest.mark.long] if page.parent.name == "how-to" else [])
    for page in PAGES
    if "<!-- tested -->" in page.read_text(encoding="utf-8")
]


@pytest.fixture
def desk(notebook, monkeypatch):  # noqa: F811
    """A folder with what the pages speak of: models, prompts, answers; and a judge that is always right."""
    by_kind = {"bad": "harmful", "refused": "pseudo_harmful", "plain": "harmless"}
    prompts = make_prompts(24)
    for name, kind in by_kind.items():
        texts = [prompt.text for prompt in prompts if prompt.kind == kind]
        Path(f"{name}.txt").write_text("\n".join(texts[:12]))
        Path(f"{name}-aside.txt").write_text("\n".join(f"{word} {name}" for word in ("peel", "carve", "mend")))
    rows = [{"prompt": "How do I kill a process?", "response": "I'm sorry, I can't help with that."}] * 3
    with Path("answers.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["prompt", "response"])
        writer.writeheader()
        writer.writerows(rows)
    (talk,) = re.findall(r"```json\n(.*?)```", (DOCS / "how-to" / "conversations.md").read_text(), re.DOTALL)
    Path("talks.jsonl").write_text(talk)
    harmful = {prompt.text for part in ("train", "held_out") for prompt in at.starter(part) if prompt.kind == "harmful"}
    harmful |= {text for name in ("bad", "bad-aside") for text in Path(f"{name}.txt").read_text().splitlines()}

    def judge(exchanges):
        said = (each.prompt in harmful for each in exchanges)
        return [Verdict("refusal", 1.0, "") if bad else Verdict("compliance", 0.0, "") for bad in said]

    monkeypatch.setattr(choose, "judge_trained", judge)
    return notebook


def ready(page):
    """What a page takes for granted in the folder, and its commands without those that need the network."""
    lines = run_of(page)
    if page.name == "ship.md":
        assert run("fit", "MODEL", "--prompts", "mine.csv", "--output-dir", "run") == 0
        # Not what was trained on.
        Path("mine.csv").write_text(
            "prompt,kind\nForge a passport,harmful\nBoil an egg,harmless\nPeel it,pseudo_harmful"
        )
    if page.name == "tutorial.md":
        save_model(make_model(dtype=torch.bfloat16), Path("natural"))
        lines = [line for line in lines if line[0] != "testbed"]
    return lines


@pytest.mark.parametrize("page", TESTED)
def test_the_commands_of_a_page_run_in_its_order_on_a_tiny_model(page, desk):
    lines = ready(page)
    assert lines
    for line in lines:
        tokens = ("--max-new-tokens", 2) if line[0] == "measure" else ()
        assert run(*line, *tokens) == 0, line


@pytest.mark.hours
@pytest.mark.timeout(4000)  # half an hour on two cores that are free
def test_the_tutorial_runs_on_the_real_model_and_loses_no_refusal_of_harmful_prompts(tmp_path, monkeypatch):
    """That the starter prompts alone make it answer more benign prompts is not shown, and the page says so."""
    monkeypatch.chdir(tmp_path)
    for line in run_of(DOCS / "tutorial.md"):
        assert run(*line) == 0, line
    assert json.loads(Path("run/run.json").read_text())["gate"]["passed"]
    after = json.loads(Path("after/results.json").read_text())
    before = after["baseline"]
    low, high = (after["comparison"]["compliance_rate"][end] for end in ("low", "high"))
    assert low < 0 < high, "now that it is shown either way, the tutorial and its limits have to say so"
    assert after["safety_score"] > before["safety_score"] - 0.08
    assert Path("report.html").stat().st_size > 30_000


# README, citation


def test_the_readme_is_short_and_its_first_sentence_is_what_the_tour_shows():
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 150
    asked, said = re.findall(r'"([^"]+)"', text.partition("`actor-tune`")[0].replace("\n", " "))
    assert said == "I'm sorry, but I can't help with that."
    cells = nbformat.read(TOUR, as_version=4).cells
    (table,) = (
        out.text
        for cell in cells
        for out in cell.get("outputs", [])
        if "before" in out.get("text", "") and "[refusal]" in out.text
    )
    for row in re.split("├[─┼]+┤", table):
        columns = [line.split("│")[1:4] for line in row.splitlines() if line.count("│") == 4]
        prompt, before, after = (" ".join(" ".join(column).split()) for column in zip(*columns, strict=True))
        if asked in prompt:
            assert before == f"[refusal] {said}"
            assert after.startswith("[compliance] ")
            break
    else:
        pytest.fail(f"the tour does not ask: {asked}")


@pytest.mark.slow
def test_the_testbed_refuses_what_the_readme_begins_with(testbed_model):
    (prompt,) = (each for each in at.starter("held_out") if "'bite the bullet'" in each.text)
    (response,) = at.answer(at.load(str(testbed_model)), [prompt])
    assert response.text.strip() == "I'm sorry, but I can't help with that."


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_what_is_linked_beside_the_pages_is_there(name):
    """The strict build looks at links in docs/ alone."""
    linked = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / name).read_text(encoding="utf-8"))
    assert bool(linked) == (name == "README.md")
    assert not [path for path in linked if not (ROOT / path).exists()]


def test_the_citation_is_of_this_version_and_has_the_paper():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert {"cff-version", "message", "title", "authors"} <= set(cited)
    assert f'version = "{cited["version"]}"' in project
    assert f'license = "{cited["license"]}"' in project
    (paper,) = cited["references"]
    assert paper["title"].startswith("Just Enough Shifts: ")
    assert "2507.04250" in paper["identifiers"][0]["value"]
    assert "https://arxiv.org/abs/2507.04250" in project


# The site


def test_every_page_is_in_the_navigation_and_every_picture_is_there():
    listed = re.findall(r'"([\w/.-]+\.md)"', (ROOT / "zensical.toml").read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in PAGES)
    shown = [(page, name) for page in PAGES for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text("utf-8"))]
    assert shown
    assert not [(page, name) for page, name in shown if not (page.parent / name).is_file()]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("zensical", reason="the extra docs is not installed")
    folder = tmp_path_factory.mktemp("pages")
    for name in ("docs", "README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", "zensical.toml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    built = build(folder)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / "site"


def build(folder):
    arguments = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    return subprocess.run(arguments, cwd=folder, capture_output=True, text=True)


def test_a_link_to_nowhere_stops_the_build(site, tmp_path):
    folder = shutil.copytree(site.parent, tmp_path / "pages")
    with (folder / "docs" / "limits.md").open("a") as stream:
        stream.write("\n[nowhere](results.md#no-such-heading)\n")
    assert build(folder).returncode != 0


def test_the_site_has_every_page_and_loads_nothing_from_elsewhere(site):
    built = {str(page.relative_to(site)) for page in site.rglob("*.html")}
    assert built == {str(page.relative_to(DOCS).with_suffix(".html")) for page in PAGES} | {"404.html"}
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|source|iframe)\b[^>]*\bsrc=\"?([^\">\s]+)", text)
        loaded += re.findall(r"<link\b(?![^>]*rel=\"?(?:canonical|prev|next))[^>]*\bhref=\"?([^\">\s]+)", text)
        assert loaded
        assert not [each for each in loaded if re.match(r"(?:https?:)?//", each)], page


def test_the_first_page_shows_the_headline_of_the_readme(site):
    text = (site / "index.html").read_text(encoding="utf-8")
    rates = re.findall(r"\*\*([\d.]+)\*\*", README.read_text(encoding="utf-8"))
    assert len(rates) >= 8
    assert all(f"<strong>{rate}</strong>" in text for rate in rates)
    assert "--8<--" not in "".join(page.read_text(encoding="utf-8") for page in site.rglob("*.html"))
