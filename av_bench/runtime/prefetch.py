"""Work on this machine: threads that prepare ahead while the caller computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetch_map(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, window: int
) -> Iterator[Result]:
    """``function(item)`` for each item, in order, computed by threads at most ``window`` items ahead.

    An exception of ``function`` is raised where its result would have come. Decoders and torch release the
    interpreter lock, so threads are enough and nothing is copied between processes.
    """
    with ThreadPoolExecutor(workers, thread_name_prefix="av-bench") as pool:
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= window:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
