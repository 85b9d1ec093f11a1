"""One self-contained HTML file from stored results. Needs neither torch nor a network."""

from collections.abc import Sequence
from pathlib import Path

from ...errors import UserError
from ...storage.files import replacing
from .load import load
from .page import page

__all__ = ["render", "write_report"]


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
    output, where = Path(output), f"`output={output}`"
    if output.is_dir() or (output.exists() and not force):
        raise UserError(where, "it exists", "a new name", "choose another, or give `force=True`")
    if not output.parent.is_dir():
        raise UserError(where, "no such folder", "a file in a folder that is there", "make the folder")
    text = render([Path(path) for path in paths])
    try:
        with replacing(output) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
    except PermissionError:
        raise UserError(where, "may not be written", "a folder of yours", "choose another") from None
    return output
