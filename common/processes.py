"""Which process this is under torchrun, and its share of the machine. No torch: scoring files has no use for it."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")  # where Linux says how much of the machine a container may use


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process writes the files."""
    return rank() == 0


def print_any_name() -> None:
    """Let stdout and stderr take names that their encoding cannot hold, as \\u732b: first line of every main.

    A log file on Windows holds 256 letters, and names from an old zip may be no text at all.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not where a notebook or a test has put its own
            stream.reconfigure(errors="backslashreplace")


def print_once(sentence: str) -> None:
    """Print in one of all processes."""
    if is_main():
        print(sentence, flush=True)


def usable_cores() -> int:
    """Cores that this process may use, at least 1: its affinity, limited by a container's quota.

    Under torchrun all processes of a host share them, see own_cores.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min(cores, _cgroup_quota())))


def own_cores() -> int:
    """This process's share of the usable cores, at least 1."""
    return max(1, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _cgroup_quota() -> float:
    """Cores' worth of time that a container's cgroup (version 2 or 1) allows; infinite without a limit."""
    for names in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):
        try:
            quota, period = " ".join((CGROUP / name).read_text(encoding="ascii") for name in names).split()
            return int(quota) / int(period) if int(quota) > 0 else math.inf  # version 1 says -1, version 2 "max"
        except (OSError, ValueError):
            continue
    return math.inf
