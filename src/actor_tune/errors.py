"""The two kinds of error: what a user can fix (`UserError`), and bugs (everything else)."""


class UserError(Exception):
    """Something the user can fix.

    The command line prints it as one line without a traceback and exits with status 2; any other exception is a
    bug and keeps its traceback.

    **Arguments:**

    - `where`: the file, option or model that is wrong, as the user wrote it.
    - `found`: what is there.
    - `expected`: what would have been right.
    - `fix`: the next step, in the imperative.
    """

    def __init__(self, where: object, found: str, expected: str, fix: str) -> None:
        self.where = str(where)
        self.found = found
        self.expected = expected
        self.fix = fix
        super().__init__(" ".join(f"{where}: {found}; expected {expected}; {fix}".split()))
