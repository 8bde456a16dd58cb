"""Communication between torchrun's processes, one per GPU on any number of hosts.

Without torchrun there is one process, and every function works for it too.
"""

from __future__ import annotations

import datetime
import os
from typing import Any

import torch
import torch.distributed as dist

# defined there, where torch is not imported
from common.processes import is_main as is_main
from common.processes import print_once as print_once
from common.processes import rank as rank
from common.processes import world_size

TIMEOUT_MINUTES = "TSR_TIMEOUT_MINUTES"  # environment variable: how long a rank waits for a slow one
PATIENCE_MINUTES = 30  # for ranks that meet at every step: one this late hangs
LONG_PATIENCE_MINUTES = 7 * 24 * 60  # for ranks that share a list and meet at its end: one may have long videos
LOST_PEER = ("gloo", "nccl", "closed by peer", "reset by peer", "process group", "broken pipe")


def setup(device: torch.device | None = None, patience_minutes: float = PATIENCE_MINUTES) -> None:
    """Join the process group that torchrun describes in the environment; does nothing without torchrun.

    Uses nccl between GPUs where torch has it, and gloo for all else. patience_minutes bounds how long a rank waits for
    a slow one, unless the environment variable TSR_TIMEOUT_MINUTES is set. It may be long: a rank that dies closes its
    connections, and the others notice at once. Only a host that loses power or its network is waited for.
    """
    if world_size() > 1 and not dist.is_initialized():
        on_gpu = device is not None and device.type == "cuda"
        if on_gpu:
            torch.cuda.set_device(device)
        timeout = datetime.timedelta(minutes=float(os.environ.get(TIMEOUT_MINUTES, patience_minutes)))
        with_nccl = on_gpu and dist.is_nccl_available()  # Windows has none: gloo carries the gradients there
        dist.init_process_group("cpu:gloo,cuda:nccl" if with_nccl else "gloo", timeout=timeout)


def shutdown() -> None:
    """Leave the process group; without this torch prints a warning at exit."""
    if dist.is_initialized():
        dist.destroy_process_group()


def is_lost_peer(error: Exception) -> bool:
    """Whether an error means that another process died or hangs (gloo raises plain RuntimeErrors: hence the words)."""
    if world_size() == 1:
        return False
    return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in LOST_PEER)


def all_gather_objects(items: list) -> list:
    """The lists of all ranks, joined in rank order, on every rank."""
    if world_size() == 1:
        return items
    gathered: list[list] = [[] for _ in range(world_size())]
    dist.all_gather_object(gathered, items)
    return [item for part in gathered for item in part]


def broadcast_object(value: Any) -> Any:
    """Rank 0's value, on every rank."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def any_rank(flags: list[bool]) -> list[bool]:
    """For each flag whether any rank has set it. Through main memory: called every step, it must not sync the GPU."""
    if world_size() == 1:
        return flags
    tensor = torch.tensor(flags, dtype=torch.int32)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return [bool(flag) for flag in tensor.tolist()]


def mean_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """Element-wise mean of a tensor over the ranks, in place."""
    if world_size() > 1:
        dist.all_reduce(values, op=dist.ReduceOp.SUM)
        values /= world_size()
    return values
