"""Self-contained HTML files from stored results. Need neither torch nor a network."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ...errors import UserError
from ...storage.files import replacing
from .leaderboard import Group, board_page, leaderboard
from .load import load
from .page import page

__all__ = ["leaderboard", "render", "write_leaderboard", "write_report"]


def render(paths: Sequence[Path]) -> str:
    """The HTML page on the folders `paths` of `fit` and `measure`. The same folders give the same text.

    **Raises:** `UserError` when a folder's files are missing or damaged.
    """
    return page(*load(paths))


def write_report(paths: Sequence[str | Path], output: str | Path, force: bool = False) -> Path:
    """Write the page on the folders `paths` to the file `output`, which is new or `force`d, and return that.

    ```python
    at.write_report(["run", "after"], "report.html")
    ```

    **Raises:** `UserError` when `output` exists or cannot be written, or a folder's files are missing or damaged.
    """
    return _written(lambda: render([Path(path) for path in paths]), output, force)


def write_leaderboard(folders: Sequence[str | Path] | Sequence[Group], output: str | Path, force: bool = False) -> Path:
    """Write one page on the models measured into `folders` to the file `output`, new or `force`d, and return that.

    ```python
    at.write_leaderboard(["after"], "leaderboard.html")
    ```

    **Arguments:**

    - `folders`: as of `leaderboard`, or what that found.

    **Raises:** `UserError` when `output` exists or cannot be written, or as `leaderboard` does.
    """

    def made() -> str:
        groups = [item for item in folders if isinstance(item, Group)]
        return board_page(groups or leaderboard([item for item in folders if not isinstance(item, Group)]))

    return _written(made, output, force)


def _written(text_of: Callable[[], str], output: str | Path, force: bool) -> Path:
    """Write the page that `text_of` makes, after what can be wrong with `output`."""
    output, where = Path(output), f"`output={output}`"
    if output.is_dir() or (output.exists() and not force):
        raise UserError(where, "it exists", "a new name", "choose another, or give `force=True`")
    if not output.parent.is_dir():
        raise UserError(where, "no such folder", "a file in a folder that is there", "make the folder")
    text = text_of()
    try:
        with replacing(output) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
    except PermissionError:
        raise UserError(where, "may not be written", "a folder of yours", "choose another") from None
    return output
