"""The one place where what loading a model raised becomes a line that says which file is at fault, and why."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import UserError

Blame = Callable[[BaseException], tuple[object, str] | None]
"""From what was raised to the file at fault and what is found there; None where that cannot be told."""


@contextmanager
def loading(where: object, expected: str, fix: str, blame: Blame | None = None) -> Iterator[None]:
    """Whatever the libraries raise inside about what they read, as a `UserError`: damaged files raise anything.

    Only calls of libraries belong inside, because a mistake of ours would look like one of the file. Lack of memory
    and what ends the process (KeyboardInterrupt) pass as they are.

    **Arguments:**

    - `where`: the file or model that is at fault, unless `blame` tells it better.
    - `expected`, `fix`: as in `UserError`.

    **Raises:** `UserError` with the cause as `__cause__`.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, UserError) or not _is_about_what_is_read(error):
            raise
        found = f"it cannot be loaded ({reason_of(error)})"
        if isinstance(error, ImportError):
            found, expected, fix = reason_of(error), "the packages that this model needs", "install them"
        elif "trust_remote_code" in str(error):
            found = f"it cannot be loaded ({CODE})"
            expected, fix = "none, or code that you trust", "read that code, and if you trust it, use " + TRUST
        elif blame and (told := blame(error)):
            where, found = told
        raise UserError(where, found, expected, fix) from error


CODE = "it needs Python code of its own"
TRUST = "`trust_remote_code=True`"


def reason_of(error: BaseException) -> str:
    """What `error` says, in a line: the kind of error too, where its message alone says little."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):
        lines = lines[1:]
    said = lines[0] if lines else ""
    if not said or isinstance(error, LookupError | TypeError | AttributeError | AssertionError | ArithmeticError):
        said = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return said


def _is_about_what_is_read(error: BaseException) -> bool:
    if not isinstance(error, Exception):
        return type(error).__name__ == "PanicException"  # of Rust libraries, which derive it from BaseException
    from accelerate.utils.memory import should_reduce_batch_size

    memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return not memory and not should_reduce_batch_size(error)
