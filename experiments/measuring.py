"""Time and peak memory of a call, on any device."""

from __future__ import annotations

import contextlib
import ctypes
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.benchmark import Timer

from common.devices import synchronize

CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


class Measured(NamedTuple):
    seconds: float  # mean
    megabytes: float | None  # peak above what was held before; None where the system does not say


Clock = Callable[[], float]


def clock_of(device: torch.device) -> Clock:
    """On a CPU the processor's seconds, all threads together: what else the machine does, does not count."""
    return time.process_time if device.type == "cpu" else time.perf_counter


def measure(
    call: Callable[[], object], device: torch.device, repeats: int, clock: Clock = time.perf_counter
) -> Measured:
    """Mean seconds of `repeats` calls after torch's two calls of warm-up, and the peak memory of all of them."""
    names = {"call": call, "wait": lambda: synchronize(device)}
    timer = Timer("call(); wait()", globals=names, num_threads=torch.get_num_threads(), timer=clock)
    with peak_memory(device) as peak:
        seconds = timer.timeit(repeats).mean
    used = peak()
    return Measured(seconds, None if used is None else used / 2**20)


@contextlib.contextmanager
def peak_memory(device: torch.device) -> Iterator[Callable[[], int | None]]:
    """Yield a function that returns, right after the block, the bytes used above those held at its start.

    On a CPU these are the process's, which only Linux tells: elsewhere the function returns None.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        held = torch.cuda.memory_allocated(device)
        yield lambda: torch.cuda.max_memory_allocated(device) - held
        return
    try:
        ctypes.CDLL(None).malloc_trim(0)  # else freed memory that malloc keeps would be used again, and not seen
        CLEAR.write_text("5")  # the kernel's peak starts again at what is held now
    except (OSError, AttributeError, TypeError):  # not Linux, or not its usual C library
        yield lambda: None
        return
    held = _status("VmRSS")
    yield lambda: max(0, _status("VmHWM") - held)


def _status(name: str) -> int:
    """Bytes of an entry in /proc/self/status."""
    found = re.search(rf"^{name}:\s+(\d+) kB", STATUS.read_text(), flags=re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def matrix_peak(device: torch.device, dtype: torch.dtype, clock: Clock = time.perf_counter) -> float:
    """FLOP/s of a large matrix product on this device: what "of peak" is a share of."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / measure(lambda: a @ b, device, 5, clock).seconds
