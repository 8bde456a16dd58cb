"""When a run stops before its last epoch: a signal, or the end of its time. Asked between steps, never forced."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator

IMPATIENT_AFTER = 1.0  # seconds; torchrun passes on a Ctrl-C that the terminal has already sent to every process


class StopRequest:
    """SIGTERM, SIGINT and the time budget as one question: `wanted()`.

    The first signal only leaves a note, so that the run ends at a step's border with its state saved. A second SIGINT
    raises KeyboardInterrupt, unless it follows within IMPATIENT_AFTER and is the same Ctrl-C arriving twice.
    """

    def __init__(self, max_hours: float = 0.0) -> None:
        self.deadline = time.monotonic() + 3600 * max_hours if max_hours else None
        self._first: float | None = None

    def wanted(self) -> bool:
        return self._first is not None or (self.deadline is not None and time.monotonic() > self.deadline)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take the two signals over; give them back at the end."""
        before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = now
        elif number == signal.SIGINT and now - self._first > IMPATIENT_AFTER:
            raise KeyboardInterrupt
