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
        super().__init__(f"{shown(where)}: {shown(found)}; expected {shown(expected)}; {shown(fix)}")

    def and_then(self, step: str) -> "UserError":
        """The same mistake, with one more `step`."""
        return UserError(self.where, self.found, self.expected, f"{self.fix}; {step}")


class UnsafeError(UserError):
    """Something that would give out a model that did not pass the safety gate; the command line exits with status 3."""


LONGEST = 300
"""Characters of each part of a message; what is longer loses its middle, for a row's number is at the end."""


def shown(part: object) -> str:
    """`part` of a message on one line, cut where it is long, with what cannot be seen or printed as escapes."""
    text = str(part)
    if len(text) > LONGEST:
        text = f"{text[: LONGEST - 100]} ... {text[-95:]}"
    text = " ".join(text.split())
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def require_package(what: str, package: str, extra: str) -> None:
    """Stop unless `package` is installed, which `what` needs: before any work, not at the end of it.

    **Raises:** `UserError` naming the extra that has it.
    """
    if importlib.util.find_spec(package) is None:
        fix = f"run: pip install 'actor-tune[{extra}]'"
        raise UserError(what, f"the package {package} is not installed", f"the extra `{extra}`", fix)
