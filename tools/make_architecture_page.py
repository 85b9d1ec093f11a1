"""Make docs/architecture.md and its picture, from the layers that import-linter checks and what rooms say they are.

python -m tools.make_architecture_page --output docs/architecture.md
"""

import argparse
import importlib
import inspect
from html import escape
from pathlib import Path

import grimp
from importlinter import api

from .pages import render, table

ROOT = Path(__file__).parents[1]
PICTURE = "architecture.svg"
WIDTH, HEIGHT, GAP, LEFT = 300, 34, 14, 60


def main() -> None:
    """Write the page, and the picture beside it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    target = parser.parse_args().output
    target.write_text(page(), encoding="utf-8")
    target.with_name(PICTURE).write_text(picture(), encoding="utf-8")


def layers() -> list[list[str]]:
    """The rooms, the highest first; those in one list stand side by side."""
    contracts = api.read_configuration(str(ROOT / "pyproject.toml"))["contracts_options"]
    (ordered,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [[room.strip().rpartition(".")[2] for room in str(layer).split("|")] for layer in ordered]


def page() -> str:
    """The whole page."""
    graph = grimp.build_graph("actor_tune", exclude_type_checking_imports=True)
    rooms = [room for layer in layers() for room in layer]
    rows = []
    for room in rooms:
        module = importlib.import_module(f"actor_tune.{room}")
        used = [
            other
            for other in rooms
            if other != room
            and graph.direct_import_exists(importer=module.__name__, imported=f"actor_tune.{other}", as_packages=True)
        ]
        said = " ".join(inspect.cleandoc(module.__doc__ or "").split())
        rows.append([f"`{room}`", said, ", ".join(reversed(used)) or "nothing"])
    order = " -> ".join(reversed([" and ".join(layer) for layer in layers()]))
    return render("architecture", {"rooms": table(["room", "what is in it", "imports"], rows), "order": order})


def picture() -> str:
    """The rooms on top of each other; light and dark readers see the same card."""
    boxes, stories = [], layers()
    for row, layer in enumerate(stories):
        width = (WIDTH - GAP * (len(layer) - 1)) / len(layer)
        for column, room in enumerate(layer):
            boxes.append(_box(LEFT + column * (width + GAP), GAP + row * (HEIGHT + GAP), width, room))
    bottom = GAP + len(stories) * (HEIGHT + GAP)
    words = escape(f"Rooms from top to bottom: {', '.join(room for layer in stories for room in layer)}.")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + GAP}" height="{bottom}" '
        f'viewBox="0 0 {LEFT + WIDTH + GAP} {bottom}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="17" fill="#1b1b2f">\n'
        f"<title>{words} Each imports only from those below it.</title>\n"
        f'<rect width="100%" height="100%" rx="10" fill="#ffffff"/>\n'
        f'<path d="M30 {GAP + 4}V{bottom - GAP - 8}m-7 -10l7 12l7 -12" fill="none" '
        f'stroke="#5c6bc0" stroke-width="3"/>\n'
        f'<text x="20" y="{bottom / 2}" font-size="14" text-anchor="middle" '
        f'transform="rotate(-90 20 {bottom / 2})">imports</text>\n' + "".join(boxes) + "</svg>\n"
    )


def _box(left: float, top: float, width: float, room: str) -> str:
    return (
        f'<rect x="{left:g}" y="{top}" width="{width:g}" height="{HEIGHT}" rx="6" fill="#e8eaf6" stroke="#5c6bc0"/>'
        f'<text x="{left + width / 2:g}" y="{top + 23}" text-anchor="middle">{escape(room)}</text>\n'
    )


if __name__ == "__main__":
    main()
