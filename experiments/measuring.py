"""Time and peak memory of a call, on any device."""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from common.devices import synchronize

STATM = Path("/proc/self/statm")
PAGE = 4096


class Measured(NamedTuple):
    seconds: float  # median
    peak: int | None  # bytes above what was held before; None where the system cannot tell


def measure(call: Callable[[], object], device: torch.device, repeats: int) -> Measured:
    """Median seconds of a call over `repeats` runs after one warm-up, and the peak memory of the warm-up."""
    with peak_memory(device) as peak:
        call()
        synchronize(device)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return Measured(statistics.median(seconds), peak())


@contextlib.contextmanager
def peak_memory(device: torch.device) -> Iterator[Callable[[], int | None]]:
    """Yield a function that gives, after the block, the bytes that it took above what was held at its start."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield lambda: torch.cuda.max_memory_allocated(device) - before
        return
    if not STATM.exists():
        yield lambda: None
        return
    before, highest, done = _resident(), [0], threading.Event()

    def watch() -> None:  # the kernel's own high-water mark cannot be reset without privileges
        while not done.wait(0.002):
            highest[0] = max(highest[0], _resident())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield lambda: max(0, highest[0] - before)
    finally:
        highest[0] = max(highest[0], _resident())
        done.set()
        watcher.join()


def _resident() -> int:
    return int(STATM.read_text().split()[1]) * PAGE


def megabytes(count: int | None) -> str:
    return "-" if count is None else f"{count / 2**20:.0f}"


def matrix_peak(device: torch.device, dtype: torch.dtype, size: int | None = None) -> float:
    """FLOP/s of a large matrix product there and then: what a share of the peak is a share of."""
    size = size or (8192 if device.type == "cuda" else 2048)
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / measure(lambda: a @ b, device, repeats=5).seconds
