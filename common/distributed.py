"""torchrun's processes: one a GPU, any number of hosts. Without torchrun every function is that of one process."""

from __future__ import annotations

import datetime
import os
from typing import Any

import torch
import torch.distributed as dist

TIMEOUT_MINUTES = "TSR_TIMEOUT_MINUTES"  # environment variable: how long a rank waits for one that is slow
PATIENCE_MINUTES = 30  # where ranks meet at every step: one that is this late hangs
LONG_PATIENCE_MINUTES = 7 * 24 * 60  # where they share a list and meet at its end: one may have the long videos
LOST_PEER = ("gloo", "nccl", "closed by peer", "reset by peer", "process group", "broken pipe")


def setup(device: torch.device | None = None, patience_minutes: float = PATIENCE_MINUTES) -> None:
    """Join the process group that torchrun describes in the environment; nothing to do without it.

    nccl between GPUs, with gloo beside it for what lies in main memory. patience_minutes bounds how long a rank waits
    for one that is slow, unless the environment's TSR_TIMEOUT_MINUTES says otherwise. It may be long: a rank that dies
    closes its connections, which those that wait for it notice at once. Only a host that goes without a word, its power
    cut, is waited for.
    """
    if world_size() > 1 and not dist.is_initialized():
        on_gpu = device is not None and device.type == "cuda"
        if on_gpu:
            torch.cuda.set_device(device)
        timeout = datetime.timedelta(minutes=float(os.environ.get(TIMEOUT_MINUTES, patience_minutes)))
        dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=timeout)


def shutdown() -> None:
    """Leave the process group, so that the end of a run prints no warning."""
    if dist.is_initialized():
        dist.destroy_process_group()


def is_lost_peer(error: Exception) -> bool:
    """Whether an error means that another process is gone or silent (gloo's are plain RuntimeErrors: hence words)."""
    if world_size() == 1:
        return False
    return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in LOST_PEER)


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process writes the files."""
    return rank() == 0


def tell(sentence: str) -> None:
    """Print once for all processes."""
    if is_main():
        print(sentence, flush=True)


def all_gather_objects(items: list) -> list:
    """The lists of all ranks, one after the other in rank order, on every rank."""
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
    """Each flag: whether any rank has it set. Asked every step: through main memory, the device goes on meanwhile."""
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
