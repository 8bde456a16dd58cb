"""Stop well on Ctrl-C, SIGTERM or the end of a time limit: asked about between steps, photos or frames."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

IMPATIENT_AFTER = 1.0  # seconds; torchrun repeats a Ctrl-C that the terminal has already sent to every process
EXIT_CODE = 130  # of a program that was stopped, as shells have it


class Stopped(Exception):
    """Ends one piece of work, such as a photo, that an Interrupt came before."""


class Interrupt:
    """SIGINT, SIGTERM and a time limit as one question: `wanted()`.

    The first signal is only noted, so that a job can finish the step or photo it is at. A second SIGINT raises
    KeyboardInterrupt, unless it follows within IMPATIENT_AFTER: then it is the same Ctrl-C, arriving twice.
    """

    def __init__(self, max_hours: float = 0.0) -> None:
        """max_hours: the time limit, counted from now; 0 for none."""
        self._deadline = time.monotonic() + 3600 * max_hours if max_hours else None
        self._first: float | None = None  # when the first signal came

    def wanted(self) -> bool:
        """Whether to stop; True from then on."""
        return self._first is not None or (self._deadline is not None and time.monotonic() > self._deadline)

    def check(self) -> None:
        """Raise Stopped if wanted()."""
        if self.wanted():
            raise Stopped

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take over both signals; give them back at the end. Only a main thread gets signals: no effect elsewhere."""
        numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
        before = {number: signal.signal(number, self._note) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = now
        elif number == signal.SIGINT and now - self._first > IMPATIENT_AFTER:
            raise KeyboardInterrupt
