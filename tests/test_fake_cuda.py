"""Forward pass and losses on fake CUDA tensors: real autocast, no kernels, no GPU. Nothing may wait for the device.

Fake tensors follow shapes, types and devices, so a tensor left on the CPU is an error here as it is on a GPU, and
every copy to the device and every read of it passes a dispatch mode that knows which of them wait.
"""

from __future__ import annotations

import dataclasses
import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import train
from config import Config
from experiments.benchmark_memory import (
    STAGES,
    FakeTensors,
    LiveBytes,
    cuda_types,
    estimate_peak,
    fake_batch,
    make_fake,
    start_stage,
)
from tests.tiny import Batches
from training import setup
from training.optimization import load_optimizer_state
from training.run import Run
from training.schedule import STUDENT, TEACHER

ROOT = Path(__file__).resolve().parent.parent
CUDA = torch.device("cuda:0")
READS = ("_local_scalar_dense", "item", "is_nonzero", "nonzero", "masked_select", "equal", "unique")
CONFIG = Config(pretrained=False, image_size=64, batch_size=2, epochs=2)


class Waits(TorchDispatchMode):
    """Collects the operations for which the process would wait for the device, with the line that asks for them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        devices = {t.device.type for t in tensors} | {torch.device(d).type for d in [kwargs.get("device")] if d}
        if name in ("_to_copy", "copy_"):
            quick = kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])
            waits = devices == {"cpu", "cuda"} and not quick
        elif name == "index":
            waits = any(t is not None and t.dtype in (torch.bool, torch.uint8) for t in args[1])
        else:
            waits = name in READS and any(t.device.type == "cuda" for t in tensors)
        if waits:
            stack = traceback.extract_stack()
            own = [f for f in stack if ROOT in Path(f.filename).parents and ".venv" not in f.filename]
            self.found.append(f"{name} in {own[-2].name}: {own[-2].line}")
        return func(*args, **kwargs)


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets fake tensors be on cuda on a machine that has none."""
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    monkeypatch.setattr("torch._subclasses.fake_tensor.init_gpu_context", lambda *_: None)


def fake_run(stage: str, precision: torch.dtype, networks: Any, device: torch.device = CUDA) -> Run:
    """A run of Tiny on fake CUDA tensors, in one of its stages."""
    for part in filter(None, networks):
        make_fake(part, device)
    return start_stage(Run(CONFIG, device, precision, networks, Batches(4), validation={}), stage)


@pytest.mark.parametrize(("stage", "precision"), [(TEACHER, torch.bfloat16), (STUDENT, torch.float16)], ids=STAGES)
def test_a_step_waits_for_nothing(
    fake_cuda, monkeypatch: pytest.MonkeyPatch, stage: str, precision: torch.dtype
) -> None:
    networks = setup.build_networks(CONFIG)  # reads numbers from tensors, which fake ones do not have
    with FakeTensors():
        run = fake_run(stage, precision, networks)
        batch = fake_batch(CONFIG)

        def backward(loss: Tensor) -> None:  # autograd itself needs a driver
            assert loss.device == CUDA and loss.dtype == torch.float32
            for parameter in run.model.parameters():
                parameter.grad = torch.zeros_like(parameter)

        monkeypatch.setattr(torch.Tensor, "backward", backward)
        for scale in (1, 2):  # of the student's view
            monkeypatch.setattr(train, "student_scale", lambda run, scale=scale: scale)
            with Waits() as waits:
                train.train_step(run, [batch])
            assert not waits.found
    terms = {"teacher_bce"} if stage == TEACHER else {"refined_edge", "lower_octaves_edge", "alignment"}
    assert run.meter.sums.keys() >= terms and run.progress.step == 2


def test_state_of_an_optimizer_travels_between_devices(fake_cuda) -> None:
    """A fused AdamW wants its step counts on the GPU, another one in main memory."""
    weight = nn.Parameter(torch.zeros(3))
    saved = torch.optim.AdamW([weight], fused=False)
    weight.grad = torch.ones(3)
    saved.step()
    with FakeTensors() as mode:
        state = saved.state_dict()
        state["state"] = {0: {name: mode.from_tensor(value) for name, value in state["state"][0].items()}}
        for fused, device in ((True, "cuda"), (False, "cpu")):
            there = torch.optim.AdamW([nn.Parameter(torch.zeros(3, device=CUDA))], fused=fused, foreach=False)
            groups = [group | {"fused": not fused} for group in state["param_groups"]]
            load_optimizer_state(there, state | {"param_groups": groups})
            (loaded,) = there.state.values()
            assert loaded["step"].device.type == device and loaded["exp_avg"].device == CUDA
            assert there.param_groups[0]["fused"] is fused


def test_a_wait_is_noticed(fake_cuda) -> None:
    with FakeTensors():
        x = torch.zeros(3, device=CUDA)
        with Waits() as waits:
            torch.ones(3).to(CUDA, non_blocking=True)
            torch.ones(3).to(CUDA)
            x + torch.ones(3).to(CUDA)
            torch.tensor([1.0, 2.0, 3.0], device=CUDA)
            with pytest.raises(DataDependentOutputException):
                x.sum().item()
            with pytest.raises(DynamicOutputShapeException):
                x[x > 0]
    assert [wait.split(" ")[0] for wait in waits.found] == ["_to_copy"] * 3 + ["_local_scalar_dense", "index"]


@pytest.mark.parametrize("stage", STAGES)
def test_the_estimate_on_a_cpu_keeps_what_cuda_keeps(fake_cuda, stage: str) -> None:
    """The backward pass needs a driver, so the memory of a step is estimated on the CPU, in the types of CUDA."""
    kept = []
    for device in (torch.device("cpu"), CUDA):
        networks = setup.build_networks(CONFIG)
        with FakeTensors(), LiveBytes() as memory, cuda_types():
            run = fake_run(stage, torch.bfloat16, networks, device)
            before, batch = memory.live, fake_batch(CONFIG)
            with torch.autocast(device.type, torch.bfloat16):
                terms = run.batch_losses(batch, scale=1)
            kept.append(memory.live - before)
    assert terms and kept[1] > 30 * 2**20
    assert kept[0] == pytest.approx(kept[1], rel=0.01)


def test_the_estimate_counts_all_that_stays() -> None:
    """A peak is more than weights, gradients, both moments, the average, and the teacher."""
    network, teacher = (sum(p.numel() * 4 for p in part.parameters()) for part in setup.build_networks(CONFIG)[:2])
    configs = [dataclasses.replace(CONFIG, batch_size=batch) for batch in (2, 4)]
    peak, larger = (estimate_peak(config, "student", torch.float32) for config in configs)
    assert 5 * network + teacher < peak < larger < 10 * network
    assert estimate_peak(CONFIG, "teacher", torch.float32) > 2 * network + 4 * teacher
