"""The shape of the package: what a stranger may count on when they open it. The order of rooms is import-linter's."""

import ast
import re
from pathlib import Path

import pytest

import actor_tune

ROOT = Path(__file__).parents[1]
PACKAGE = Path(actor_tune.__file__).parent
MODULES = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "tools").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")])
ROOMS = sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))


def named(path):
    return str(path.relative_to(ROOT))


def test_the_top_level_has_at_most_twenty_entries():
    assert len([path for path in PACKAGE.iterdir() if path.name != "__pycache__"]) <= 20


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_each_room_says_in_two_or_three_sentences_what_is_in_it_and_what_is_not(room):
    said = ast.get_docstring(ast.parse((room / "__init__.py").read_text())) or ""
    sentences = re.split(r"(?<=[.:])\s+(?=[A-Z`])", said.strip())
    assert 2 <= len(sentences) <= 4, said
    assert re.search(r"\b(no|not|nothing|none|neither|nor|never)\b", said), "what must not be in it"


def test_no_module_has_over_400_lines_and_no_function_over_60():
    long = []
    for module in MODULES:
        text = module.read_text()
        long += [(named(module), len(text.splitlines()))] if len(text.splitlines()) > 400 else []
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno >= 60:
                long.append((f"{named(module)}: {node.name}", node.end_lineno - node.lineno + 1))
    assert long == []


def test_a_command_has_under_a_hundred_lines_on_average():
    files = [path.read_text().splitlines() for path in (PACKAGE / "commands").glob("*.py")]
    assert sum(map(len, files)) / len(files) < 100


def test_no_message_of_the_package_names_an_option_of_the_command_line():
    found = []
    for module in PACKAGE.rglob("*.py"):
        if module.parent.name == "commands":
            continue
        tree = ast.parse(module.read_text())
        documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
                found += [(named(module), text) for text in re.findall(r"(?<![\w-])--[a-z][\w-]*", node.value)]
    allowed = {"--quiet", "--no-deps", "--dest"}  # pip's, of the testbed
    allowed |= {"--outfile", "--outtype", "--model-name", "--host", "--port"}  # llama.cpp's
    assert [(where, text) for where, text in found if text not in allowed] == []
