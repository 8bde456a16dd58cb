"""The peak memory of a training step on a CUDA GPU, estimated on any machine: no GPU, no kernels, no real memory.

train.py's own steps run on fake tensors, which have shapes and types but no data, and every storage is counted from
its making to its end: weights, gradients, AdamW's moments, the average, the activations kept for the backward pass,
and whatever is there for a moment. What a GPU needs on top of it, the CUDA context, the libraries' workspaces and
fragmentation, is not in it: allow 1.5 to 3 GB.

The fake tensors are a CPU's, since autograd needs a driver for any that are on a GPU; the few operations in which
CUDA's autocast differs from a CPU's follow CUDA's.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from config import VARIANTS, Config, Variant
from train import train_step
from training import setup
from training.run import Run
from training.schedule import STUDENT, TEACHER

BLOCK = 512  # bytes; what CUDA's allocator rounds up to
# CUDA's autocast runs these in float32, the CPU's in whatever type comes in
IN_FLOAT32 = ("softmax", "layer_norm", "group_norm")
STAGES = (TEACHER, STUDENT)
CPU = torch.device("cpu")


@contextlib.contextmanager
def cuda_types() -> Iterator[None]:
    """Lets an autocast of the CPU choose the types that CUDA's would, also where checkpointing computes again."""

    def in_float32(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(x: Tensor, *arguments: Any, **options: Any) -> Tensor:
            return function(x.float() if torch.is_autocast_enabled("cpu") else x, *arguments, **options)

        return call

    with contextlib.ExitStack() as patches:
        for name in IN_FLOAT32:
            patches.enter_context(mock.patch.object(F, name, in_float32(getattr(F, name))))
        yield


class LiveBytes(TorchDispatchMode):
    """Follows the bytes of all storages that operations make, from their making to their end."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        size = -(-storage.nbytes() // BLOCK) * BLOCK
        self._known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


class FakeTensors(FakeTensorMode):
    """A copy of a fake tensor, such as the average's, belongs to the same mode."""

    def __deepcopy__(self, memo: dict) -> FakeTensors:
        return self


def memory_cases(variant: Variant, flags: argparse.Namespace) -> Iterator[tuple[dict, Callable[[], dict]]]:
    """The label of each row and what estimates it, for every size, batch and checkpointing."""
    batches = [flags.batch_size] if flags.batch_size else [1, 2, 4, 8]
    for size, checkpointing, batch in itertools.product(flags.sizes, (False, True), batches):
        config = bench_config(variant, size, batch, gradient_checkpointing=checkpointing)
        label = {"variant": variant.name, "size": size, "checkpointing": checkpointing, "batch": batch}
        yield label, partial(estimate_row, config, torch.float32 if flags.amp == "off" else torch.bfloat16)


def estimate_row(config: Config, precision: torch.dtype) -> dict[str, float]:
    """A row: the peak of a step of each stage in GB (2^30 bytes)."""
    return {f"{stage} GB": estimate_peak(config, stage, precision) / 2**30 for stage in STAGES}


def estimate_peak(config: Config, stage: str, precision: torch.dtype) -> int:
    """Bytes at the peak of the second step, when the optimizer has its moments; stage: of STAGES."""
    torch.manual_seed(0)
    networks = setup.build_networks(config)
    with FakeTensors(), LiveBytes() as memory, cuda_types():
        for part in filter(None, networks):
            make_fake(part)
        loader: Any = SimpleNamespace(sampler=SimpleNamespace(batches_per_epoch=1))
        run = start_stage(Run(config, CPU, precision, networks, loader, validation={}), stage)
        for _ in range(2):
            memory.peak = memory.live
            train_step(run, [fake_batch(config)])
        return memory.peak


def bench_config(variant: Variant, size: int, batch: int, **settings: Any) -> Config:
    """What is measured: random weights, the largest view of the student, and no step that is the last."""
    usual = dict(epochs=10**6, pretrained=False, max_student_downscale=1)
    return Config(model_idx=VARIANTS.index(variant), image_size=size, batch_size=batch, **(usual | settings))


def start_stage(run: Run, stage: str) -> Run:
    """A new run, at the first epoch of its teacher's or student's stage."""
    if stage == STUDENT:
        run.progress.epoch = run.config.first_stage_epochs
        run.enter_stage(STUDENT)
    run.start_epoch()
    return run


def make_fake(module: nn.Module, device: torch.device = CPU) -> None:
    """Replace weights and buffers by fake ones, in place, in channels_last as training has them."""
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                part._parameters[name] = nn.Parameter(_fake(weight, device), weight.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = _fake(buffer, device)


def _fake(value: Tensor, device: torch.device) -> Tensor:
    layout = torch.channels_last if value.ndim == 4 else torch.contiguous_format
    return torch.empty(value.shape, dtype=value.dtype, device=device, memory_format=layout)


def fake_batch(config: Config) -> dict[str, Any]:
    """As the loader gives it."""
    size, batch = config.training_size, config.batch_size
    channels = {"image": 3, "alpha": 1, "unknown": 1}
    pixels = {name: torch.zeros(batch, c, size, size, dtype=torch.uint8) for name, c in channels.items()}
    return pixels | {"name": [""] * batch}
