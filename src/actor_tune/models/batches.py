"""Work through batches, smaller ones where memory is short."""

import logging
from collections.abc import Callable, Iterable

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from ..progress import progress_bar

log = logging.getLogger(__name__)


def run_batches(groups: Iterable[list[int]], run: Callable[[list[int]], None], what: str) -> None:
    """Call `run` with each group of rows, drawing a bar named `what`; out of memory halves that group and all after it.

    **Raises:** what `run` raises, out of memory too where a single row is too much.
    """
    waiting = list(groups)
    most = max(map(len, waiting), default=0)
    with progress_bar(sum(map(len, waiting)), what) as advance:
        while waiting:
            rows = waiting.pop(0)
            if len(rows) > most:
                waiting = [rows[start : start + most] for start in range(0, len(rows), most)] + waiting
            elif _fits(run, rows):
                advance(len(rows))
            else:
                most = len(rows) // 2
                log.warning("out of memory: going on with %d prompts at a time", most)
                waiting = [rows[:most], rows[most:], *waiting]


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether fewer rows at a time may help against `error`."""
    return isinstance(error, torch.OutOfMemoryError) or should_reduce_batch_size(error)


def _fits(run: Callable[[list[int]], None], rows: list[int]) -> bool:
    """Whether `run` had memory enough for `rows`; a single row that does not fit is an error."""
    try:
        run(rows)
    except RuntimeError as error:
        if len(rows) == 1 or not is_out_of_memory(error):
            raise
    else:
        return True
    clear_device_cache(garbage_collection=True)  # outside of `except`, where the traceback holds the tensors no more
    return False
