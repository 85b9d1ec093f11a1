"""Make docs/tour.md, and its pictures, of docs/tour.ipynb as it is stored; nothing is run.

python -m tools.make_tour_page --output docs/tour.md
"""

import argparse
import base64
from collections.abc import Iterator
from pathlib import Path

import nbformat

from .make_tour import TOUR

NOTE = "Made by `make pages` of [the notebook](tour.ipynb), where it can be run; do not edit."


def main() -> None:
    """Write the page, and the pictures beside it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    target = parser.parse_args().output
    target.write_text(page(), encoding="utf-8")
    for name, picture in pictures().items():
        target.with_name(name).write_bytes(picture)


def page() -> str:
    """The whole page: text, code, and what came out of it."""
    shown = iter(pictures())
    title, *parts = (part for cell in _cells() for part in _parts(cell, shown))
    heading, _, text = title.partition("\n")
    return "\n\n".join([heading, NOTE, text.strip(), *parts]) + "\n"


def pictures() -> dict[str, bytes]:
    """What was drawn, in its order, by the name of its file."""
    drawn = [data["image/png"] for cell in _cells() for data in _data(cell) if "image/png" in data]
    return {f"tour-{number}.png": base64.b64decode(picture) for number, picture in enumerate(drawn, 1)}


def _cells() -> list[nbformat.NotebookNode]:
    return list(nbformat.read(TOUR, as_version=4).cells)


def _data(cell: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output.get("data", {}) for output in cell.get("outputs", [])]


def _parts(cell: nbformat.NotebookNode, shown: Iterator[str]) -> Iterator[str]:
    if cell.cell_type == "markdown":
        yield cell.source
        return
    yield f"```python\n{cell.source}\n```"
    for output in cell.outputs:
        data = output.get("data", {})
        text = output.get("text", data.get("text/plain", "")).rstrip()
        yield f"![what was drawn]({next(shown)})" if "image/png" in data else f"```text\n{text}\n```"


if __name__ == "__main__":
    main()
