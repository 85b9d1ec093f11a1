"""Make docs/limits.md: what does not hold, with figures taken from the pages that measured them.

python -m tools.make_limits_page --output docs/limits.md
"""

import argparse
import re
from pathlib import Path

from .pages import render

DOCS = Path(__file__).parents[1] / "docs"


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.parse_args().output.write_text(page(), encoding="utf-8")


def page() -> str:
    """The whole page."""
    natural = r"^## A model that refuses too much as its makers shipped it\n\n"
    lead = r"(ACTOR's trade-off score is .+?)\n"
    told = {
        "lead": passage(f"^{lead}", "comparison"),
        "lead_natural": passage(natural + lead, "comparison"),
        "worst_source": passage(r"^(\*\*On the source that it does worst.+?)\n\n", "judge"),
        "flips": passage(r"(Greedy answers of one program.+?\.)\n", "gate"),
    }
    return render("limits", told, models, worse, forms, rows)


def models() -> dict[str, str]:
    """What the page of results says of each model, by its title."""
    parts = re.split(r"^## (.+)$", _read("results"), flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def worse(section: str) -> list[str]:
    """What the default made worse of a model, seed by seed."""
    return passage(r"in %:\n(default, .+?)\.\n", section).split("; ")


def forms(section: str) -> list[list[str]]:
    """The forms in which harmful twins are refused less than before, or benign ones more."""
    return [
        line
        for line in _cells(section)
        if len(line) == 6
        and line[1].isdigit()
        and (_first(line[3]) < _first(line[2]) or _first(line[5]) > _first(line[4]))
    ]


def passage(pattern: str, text: str) -> str:
    """What the group of `pattern` matches in `text`, or in docs/TEXT.md, on one line.

    **Raises:** `LookupError` where nothing does: the page says it otherwise now, and this one has to follow.
    """
    match = re.search(pattern, text if "\n" in text else _read(text), re.MULTILINE | re.DOTALL)
    if match is None:
        raise LookupError(f"no page has anything like {pattern}")
    return " ".join(match[1].split())


def rows(name: str, column: str, at_most: float) -> list[dict[str, str]]:
    """Of the tables in docs/NAME.md that have `column`, the rows in which it is a number of `at_most` that."""
    found: list[dict[str, str]] = []
    header: list[str] = []
    for line in _read(name).splitlines():
        cells = [each.strip() for each in line.strip("|").split(" | ")] if line.startswith("|") else []
        if not cells or not header:
            header = cells
        elif column in header and cells[0] != "all" and not cells[0].startswith("--"):
            row = dict(zip(header, cells, strict=True))
            found += [row] if _first(row[column]) <= at_most else []
    return found


def _cells(text: str) -> list[list[str]]:
    return [
        [each.strip() for each in line.strip("|").split(" | ")] for line in text.splitlines() if line.startswith("|")
    ]


def _first(text: str) -> float:
    """The number that a cell begins with."""
    return float(text.split()[0]) if re.match(r"[-+]?\d", text) else float("inf")


def _read(name: str) -> str:
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


if __name__ == "__main__":
    main()
