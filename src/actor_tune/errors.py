"""The two kinds of error: what a user can fix (`UserError`), and bugs (everything else)."""

import importlib.util


class UserError(Exception):
    """Something the user can fix, in one line; any other exception is a bug and keeps its traceback.

    Settings are named as in Python, in backticks with their value: `layer=99`. The command line shows them as its
    options, prints the line without a traceback and exits with status 2.

    **Arguments:**

    - `where`: the file, setting or model that is wrong, as the user gave it.
    - `found`: what is there.
    - `expected`: what would have been right.
    - `fix`: the next step, in the imperative.
    """

    def __init__(self, where: object, found: str, expected: str, fix: str) -> None:
        self.where = str(where)
        self.found = found
        self.expected = expected
        self.fix = fix
        line = " ".join(f"{where}: {_cut(found)}; expected {_cut(expected)}; {fix}".split())
        # What stands in files may try to drive the terminal.
        super().__init__("".join(each if each.isprintable() else repr(each)[1:-1] for each in line))


LONGEST = 400
"""Characters of what was found or expected that are said."""


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def require_package(what: str, package: str, extra: str) -> None:
    """Stop unless `package` is installed, which `what` needs: before any work, not at the end of it.

    **Raises:** `UserError` naming the extra that has it.
    """
    if importlib.util.find_spec(package) is None:
        fix = f"run: pip install 'actor-tune[{extra}]'"
        raise UserError(what, f"the package {package} is not installed", f"the extra `{extra}`", fix)
