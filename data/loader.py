"""Which samples a process loads, in which order, and with how many workers.

    loader = build_training_loader(dataset, batch_size=8, num_workers=4, seed=0, rank=0, world_size=1)
    loader.sampler.set_epoch(epoch, start_batch=k)      # k > 0 when a run resumes within an epoch
    for batch in loader: ...                            # image, alpha, unknown uint8 (N, C, S, S), and names

Workers need no seeding: an item is a function of the dataset's seed and the key (epoch, index) alone, so
any number of workers and ranks sees the same samples.
"""

from __future__ import annotations

import atexit
import multiprocessing
import signal
import tempfile
from collections.abc import Iterator
from itertools import islice
from multiprocessing.connection import Listener
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler
from torch.utils.data.dataloader import _BaseDataLoaderIter

from common.errors import UserError

LONGEST_WAIT = 3600  # seconds for one batch, after which it is an error


class EpochSampler(Sampler[tuple[int, int]]):
    """Keys (epoch, index) of one rank, in an order drawn from (seed, epoch).

    The k-th batches of all ranks together are the k-th batch of a single process with world_size * batch_size.
    Every rank gets the same number of batches, all full: an incomplete last one is dropped, and a set
    smaller than one global batch is repeated to fill one.
    """

    def __init__(self, samples: int, *, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.samples, self.batch_size, self.seed = samples, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.epoch, self.start_batch = 0, 0

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Choose the epoch, and the first batch of it that is still to come."""
        if not 0 <= start_batch <= self.batches_per_epoch:
            raise UserError(f"start_batch {start_batch} is outside an epoch of {self.batches_per_epoch} batches.")
        self.epoch, self.start_batch = epoch, start_batch

    @property
    def batches_per_epoch(self) -> int:
        """Batches of a whole epoch, whatever start_batch says."""
        return max(1, self.samples // (self.batch_size * self.world_size))

    def __len__(self) -> int:
        return (self.batches_per_epoch - self.start_batch) * self.batch_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.samples)
        order = np.resize(order, (self.batches_per_epoch, self.world_size, self.batch_size))  # repeats a short one
        for index in order[self.start_batch :, self.rank].ravel():
            yield self.epoch, int(index)


class _ForkSafeLoader(DataLoader):
    """A DataLoader whose workers may be forked from a process that has used OpenCV.

    OpenCV keeps a pool of threads once it has run in parallel. A forked worker inherits the pool without its threads
    and waits for them forever, even in cv2.setNumThreads. So the pool is closed while the workers start, which happens
    inside __iter__.
    """

    def __iter__(self) -> _BaseDataLoaderIter:
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            return super().__iter__()
        finally:
            cv2.setNumThreads(threads)


def build_training_loader(
    dataset: Any,
    batch_size: int,
    num_workers: int,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> DataLoader:
    """DataLoader over an EpochSampler, with workers that live as long as it does, forked or spawned.

    Call loader.sampler.set_epoch before each epoch: the workers get the epoch with each key.
    """
    if num_workers:
        require_sockets()
        atexit.register(end_workers)
    sampler = EpochSampler(len(dataset), batch_size=batch_size, seed=seed, rank=rank, world_size=world_size)
    return _ForkSafeLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=num_workers,
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0,
        timeout=LONGEST_WAIT if num_workers and hasattr(signal, "SIGCHLD") else 0,  # which also tells of a dead worker
        worker_init_fn=start_worker,
        # DataLoader draws a seed for its workers each epoch. From the global generator it would change what a resumed
        # run, which starts one epoch more, draws next.
        generator=torch.Generator().manual_seed(seed),
    )


def require_sockets() -> None:
    """Raise UserError where torch's workers cannot hand over a batch: they would fail, and be waited for, for ever."""
    if torch.multiprocessing.get_sharing_strategy() != "file_descriptor":
        return
    try:
        Listener().close()  # as they make one, below the temporary folder
    except OSError as error:
        raise UserError(
            f"The loader's workers can make no socket in {tempfile.gettempdir()} ({error}): set TMPDIR to a short path "
            "on a local disk, or load in the training process with --num-workers 0."
        ) from error


def start_worker(worker: int) -> None:
    """Use one thread and ignore signals: Ctrl-C reaches every process, but the training process ends its workers."""
    single_thread(worker)
    for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(number, signal.SIG_IGN)


def end_workers() -> None:
    """Kill the workers at exit, or Python would wait forever for them, as they ignore SIGTERM. Nothing is lost."""
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # DataLoader's handler takes a worker's end for a fault
    for process in multiprocessing.active_children():
        process.kill()


def single_thread(worker: int) -> None:
    """Use one thread: there are as many workers as cores, so more threads would only take turns."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def groups(batches: Any, size: int) -> Iterator[list[dict[str, Any]]]:
    """Lists of `size` batches, one for each optimizer step; the last may be shorter."""
    rest = iter(batches)
    while group := list(islice(rest, size)):
        yield group
