"""Overlap reading, computing and writing over a list of items, few in memory, and end well when told to stop."""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Any, NamedTuple

from common.interrupt import IMPATIENT_AFTER


class Stages(NamedTuple):
    """load(item) -> a; compute(item, a) -> b; store(item, b) -> result. Compute runs in the calling thread."""

    load: Callable[[Any], Any]
    compute: Callable[[Any, Any], Any]
    store: Callable[[Any, Any], Any]


class _Whole:
    """`with` it for what must not be cut in two, such as writing a file and its row: the KeyboardInterrupt of
    stop_on_signals waits until the block has ended."""

    def __init__(self) -> None:
        self._inside = self._due = False

    def __enter__(self) -> None:
        self._inside = True

    def __exit__(self, *_: object) -> None:
        self._inside, due, self._due = False, self._due, False
        if due:
            raise KeyboardInterrupt

    def interrupt(self) -> None:
        if not self._inside:
            raise KeyboardInterrupt
        self._due = True


_whole = _Whole()  # of the main thread, which alone gets signals


def run_overlapped(items: Iterable[Any], stages: Stages, done: Callable[[Any, Any], None], ahead: int = 1) -> None:
    """Take every item through its stages; call done(item, result), or done(item, exception), in the calling thread.

    `ahead` items are loaded before their turn, in as many threads, and as many are stored after it: 2 * ahead + 1
    are in memory at most. 0: no threads. Items are loaded in their order, and with ahead = 1 stored in it too. After
    Ctrl-C what is being stored is still stored and reported; then KeyboardInterrupt goes on.
    """
    if ahead == 0:
        for item in items:
            computed = _outcome(lambda item=item: stages.compute(item, stages.load(item)))
            with _whole:
                failed = isinstance(computed, Exception)
                done(
                    item,
                    computed if failed else _outcome(lambda item=item, computed=computed: stages.store(item, computed)),
                )
        return
    items = iter(items)
    loading: deque[tuple[Any, Future]] = deque()
    storing: deque[tuple[Any, Future]] = deque()

    def finish(keep: int) -> None:
        while len(storing) > keep:
            item, future = storing[0]
            outcome = _outcome(future.result)
            with _whole:  # an interrupt while waiting must not lose it, nor one while it is reported
                storing.popleft()
                done(item, outcome)

    with ThreadPoolExecutor(ahead) as loaders, ThreadPoolExecutor(ahead) as storers:

        def fetch(count: int) -> None:
            loading.extend((item, loaders.submit(stages.load, item)) for item in islice(items, count))

        try:
            fetch(ahead)
            while loading:
                item, future = loading.popleft()
                loaded = _outcome(future.result)
                del future  # it holds what it loaded
                fetch(1)
                if not isinstance(loaded, Exception):
                    loaded = _outcome(lambda item=item, loaded=loaded: stages.compute(item, loaded))
                with _whole:
                    if isinstance(loaded, Exception):
                        done(item, loaded)
                        continue
                    storing.append((item, storers.submit(stages.store, item, loaded)))
                del loaded
                finish(keep=ahead)
        finally:
            for _, future in loading:
                future.cancel()
            finish(keep=0)


def _outcome(call: Callable[[], Any]) -> Any:
    """What it returns, or the exception: one item's failure, whatever it is, must not end the others'."""
    try:
        return call()
    except Exception as error:
        return error


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """SIGTERM, which torchrun and clusters send, raises KeyboardInterrupt as Ctrl-C does, and neither does so twice.

    Only a Ctrl-C that comes more than IMPATIENT_AFTER after the first raises again: torchrun passes on a Ctrl-C that
    the terminal has sent already, and what is being finished should be.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    first: float | None = None

    def stop(number: int, frame: object) -> None:
        nonlocal first
        now = time.monotonic()
        if first is not None and (number == signal.SIGTERM or now - first < IMPATIENT_AFTER):
            return
        first = now
        _whole.interrupt()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
