"""One bounded, ordered pool, for predict.py and the scoring of mattes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from itertools import islice
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def bounded_map(
    executor: Executor | None, function: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[tuple[Item, Result | Exception]]:
    """Yield (item, function(item)) in the order of items; an exception takes the place of a result.

    At most `ahead` items (at least 1) are taken before their turn, so that large ones do not pile up in memory.
    Without an executor each item is done here, when it is asked for. Where the caller stops early, or a
    KeyboardInterrupt ends the wait, items that no worker has begun are dropped.
    """
    if executor is None:
        for item in items:
            yield item, _outcome(function, item)
        return
    items = iter(items)
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    try:
        while True:
            for item in islice(items, max(1, ahead) - len(waiting)):
                waiting.append((item, executor.submit(function, item)))
            if not waiting:
                return
            item, future = waiting.popleft()
            yield item, _outcome(future.result)
            del item, future  # both may hold a photo
    finally:
        for _, future in waiting:
            future.cancel()


def _outcome(call: Callable[..., Result], *arguments: Any) -> Result | Exception:
    try:
        return call(*arguments)
    except Exception as error:
        return error
