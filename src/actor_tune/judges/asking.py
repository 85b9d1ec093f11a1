"""Many questions at a time: of one server, or of several that take them from one queue."""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from ..errors import UserError

CONCURRENCY = 8
"""Requests under way at a time, at each server."""

Asked = TypeVar("Asked")
Item = TypeVar("Item")
Result = TypeVar("Result")


class DiedError(Exception):
    """A server fails time and again, whatever it is asked. `told` is what the user is told where no other lives."""

    def __init__(self, told: UserError) -> None:
        super().__init__(str(told))
        self.told = told


def ask_all(
    ask: Callable[[Item], Result], items: Sequence[Item], concurrency: int = CONCURRENCY
) -> Iterator[tuple[int, Result]]:
    """Each item's row with the result of asking about it, as they come, several under way at a time.

    After a failure the items that wait are not asked; those under way are, and the failure is raised last.
    """
    return ask_any([None], lambda _, item: ask(item), items, lambda *_: None, concurrency)


def ask_any(
    servers: Sequence[Asked],
    ask: Callable[[Asked, Item], Result],
    items: Sequence[Item],
    leave_out: Callable[[Asked, DiedError, int], None],
    concurrency: int = CONCURRENCY,
) -> Iterator[tuple[int, Result]]:
    """`ask_all` of several servers, each of which takes the next item when one of its `concurrency` requests ends.

    What a server that died (`DiedError` of `ask`) was asked goes to the others, before all that waits. That the last
    one died is a failure.

    **Arguments:**

    - `leave_out`: is told of a server that died, when nothing is under way there: why, and how many items were handed
      on.
    """
    waiting, living = deque(enumerate(items)), list(range(len(servers)))
    busy, handed = Counter[int](), Counter[int]()  # by server
    under_way: dict[Future[Result], tuple[int, int]] = {}  # server, row
    deaths: dict[int, DiedError] = {}
    failure: Exception | None = None
    pool = ThreadPoolExecutor(concurrency * len(servers))
    try:
        while True:
            while waiting and failure is None:
                server = min(living, key=lambda each: busy[each])
                if busy[server] == concurrency:
                    break
                row, item = waiting.popleft()
                under_way[pool.submit(ask, servers[server], item)] = server, row
                busy[server] += 1
            if not under_way:
                break
            results = []
            for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                server, row = under_way.pop(future)
                busy[server] -= 1
                try:
                    results.append((row, future.result()))
                except DiedError as died:
                    if living == [server]:
                        failure = failure or died.told
                        continue
                    living = [each for each in living if each != server]
                    deaths.setdefault(server, died)
                    handed[server] += 1
                    waiting.appendleft((row, items[row]))
                except Exception as error:
                    failure = failure or error
            for server in [each for each in deaths if not busy[each]]:
                leave_out(servers[server], deaths.pop(server), handed[server])
            yield from results
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    if failure:
        raise failure
