"""Single keys of the terminal that is stdin, without Enter. No meaning is given to them here."""

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

END = "\x04"
"""Ctrl-D, and what is given at the end of stdin."""

_SEQUENCE = re.compile(r"\x1b(\[[0-9;]*[ -/]*[@-~]|O.|.)?")
"""What arrows and other keys without a letter send; letters in it were not typed."""


@contextmanager
def keys() -> Iterator[Callable[[], str]]:
    """Yield what waits for a key and gives its letter; Ctrl-C interrupts, as everywhere."""
    try:
        import termios
        import tty
    except ImportError:  # Windows
        yield _windows_key
        return
    stream = sys.stdin.fileno()
    before = termios.tcgetattr(stream)
    waiting: list[str] = []

    def read() -> str:
        while not waiting:
            typed = os.read(stream, 1024)
            if not typed:
                return END
            waiting.extend(_SEQUENCE.sub("", typed.decode(errors="ignore")))
        return waiting.pop(0)

    try:
        # Not its default, which throws away what was typed before.
        tty.setcbreak(stream, termios.TCSADRAIN)
        yield read
    finally:
        termios.tcsetattr(stream, termios.TCSADRAIN, before)


def _windows_key() -> str:
    import msvcrt

    while True:
        key: str = msvcrt.getwch()  # type: ignore[attr-defined, unused-ignore]
        if key == "\x03":
            raise KeyboardInterrupt
        if key not in "\x00\xe0":
            return key
        msvcrt.getwch()  # type: ignore[attr-defined, unused-ignore]
