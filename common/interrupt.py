"""Stop well on Ctrl-C, SIGTERM, a closed terminal or the end of a time limit: asked about between steps, photos or
frames, and obeyed at once while something is awaited."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import TypeVar

from common.processes import world_size

Item = TypeVar("Item")

IMPATIENT_AFTER = 1.0  # seconds; torchrun repeats a Ctrl-C that the terminal has already sent to every process
EXIT_CODE = 130  # of a program that was stopped, as shells have it


class Stopped(Exception):
    """Ends one piece of work, such as a photo, that an Interrupt came before."""


class Interrupt:
    """SIGINT, SIGTERM, SIGHUP (the terminal was closed) and a time limit as one question: `wanted()`.

    The first signal is only noted, so that a job can finish the step or photo it is at. A second SIGINT raises
    KeyboardInterrupt, unless it follows within IMPATIENT_AFTER: then it is the same Ctrl-C, arriving twice.
    """

    def __init__(self, max_hours: float = 0.0) -> None:
        """max_hours: the time limit, counted from now; 0 for none."""
        self._deadline = time.monotonic() + 3600 * max_hours if max_hours else None
        self._first: float | None = None  # when the first signal came
        self._awaits = False
        self._terminals: list[int] = []  # numbers of the open files that are one

    def wanted(self) -> bool:
        """Whether to stop; True from then on."""
        return self._first is not None or (self._deadline is not None and time.monotonic() > self._deadline)

    def check(self) -> None:
        """Raise Stopped if wanted()."""
        if self.wanted():
            raise Stopped

    def awaited(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items; the first signal while one is awaited, which may never come, raises Stopped.

        With several processes it is only noted: they must stop at the same step, and torchrun ends one that hangs.
        """
        iterator = iter(items)
        while True:
            self._awaits = world_size() == 1
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self._awaits = False
            yield item

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take over the signals; give them back at the end. Only a main thread gets signals: no effect elsewhere."""
        numbers = [signal.SIGINT, signal.SIGTERM]
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup sets it
            numbers.append(signal.SIGHUP)
            self._terminals = [number for number in (0, 1, 2) if os.isatty(number)]
        is_main = threading.current_thread() is threading.main_thread()
        before = {number: signal.signal(number, self._note) for number in numbers if is_main}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number not in (signal.SIGINT, signal.SIGTERM):
            for terminal in self._terminals:  # to write to one that is gone would be an error
                os.dup2(os.open(os.devnull, os.O_RDWR), terminal)
        now = time.monotonic()
        if self._first is None:
            self._first = now
            if self._awaits:
                raise Stopped
        elif number == signal.SIGINT and now - self._first > IMPATIENT_AFTER:
            raise KeyboardInterrupt
