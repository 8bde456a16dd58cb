"""devices.py and errors.py: what a GPU that cannot be used, a full memory or a missing compiler make us say."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from common import devices, distributed
from common.devices import DeviceError, choose_device, free_memory
from training.errors import sentence_of

ROOT = Path(__file__).resolve().parent.parent
NO_KERNELS = "CUDA error: no kernel image is available for execution on the device\nCUDA kernel errors might be ..."
BUS_ERROR = (
    "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are out of "
    "shared memory. Please try to raise your shared memory limit."
)


def pretend_gpu(monkeypatch: pytest.MonkeyPatch, name: str, capability: tuple[int, int], kernels: list[str]) -> None:
    """A CUDA device on which the first kernel fails."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(NO_KERNELS)

    for function, value in {
        "set_device": None, "get_device_name": name, "get_device_capability": capability, "get_arch_list": kernels,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, function, lambda *_, value=value: value)
    monkeypatch.setattr(torch, "zeros", fail)


@pytest.mark.parametrize(
    ("name", "capability", "wheel"),
    [("Tesla V100", (7, 0), "CUDA 12.6 (cu126)"), ("GTX 1080", (6, 1), "cu126"), ("RTX 9090", (13, 0), "newer CUDA")],
)
def test_a_gpu_without_kernels_names_the_wheel_to_take(monkeypatch, name, capability, wheel) -> None:
    pretend_gpu(monkeypatch, name, capability, ["sm_75", "sm_80", "sm_90", "sm_100", "sm_120", "compute_120"])
    with pytest.raises(DeviceError) as caught:
        choose_device("cuda")
    told = str(caught.value)
    assert name in told and wheel in told and "docs/install.md" in told and "\n" not in told


def pretend_pci(monkeypatch: pytest.MonkeyPatch, folder: Path, vendor: str) -> None:
    (folder / "0000:01:00.0").mkdir()
    (folder / "0000:01:00.0" / "vendor").write_text(vendor + "\n")
    (folder / "0000:01:00.0" / "class").write_text("0x030000\n")
    monkeypatch.setattr(devices, "PCI", folder)
    monkeypatch.setattr(devices.sys, "platform", "linux")


@pytest.mark.parametrize(
    ("vendor", "cuda", "said"), [("0x10de", "13.0", True), ("0x8086", "13.0", False), ("0x10de", None, False)]
)
def test_a_gpu_without_a_usable_driver_is_said_loudly(monkeypatch, tmp_path, capsys, vendor, cuda, said) -> None:
    pretend_pci(monkeypatch, tmp_path, vendor)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"
    told = capsys.readouterr().err
    assert ("WARNING" in told and "13.0" in told and "driver" in told) if said else told == ""
    choose_device("cpu")  # a person's choice needs no warning
    assert capsys.readouterr().err == ""


def test_a_named_gpu_becomes_the_current_one(monkeypatch) -> None:
    chosen, zeros = [], torch.zeros
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: chosen.append(str(device)))
    monkeypatch.setattr(torch, "zeros", lambda *size, device: zeros(*size))
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert [str(choose_device(name)) for name in ("cuda:1", "cuda")] == chosen == ["cuda:1", "cuda:3"]


def test_threads_follow_this_processs_share_of_the_cores(monkeypatch) -> None:
    monkeypatch.setattr(devices, "own_cores", lambda: 1)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        choose_device("cpu")
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the allocator has no such segments")
@pytest.mark.parametrize("own", [{}, {"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64"}], ids=["unset", "set"])
def test_segments_expand_unless_a_person_chose_otherwise(own: dict[str, str]) -> None:
    code = "import os; from common.devices import *; choose_device('cpu'); print({k: v for k, v in os.environ.items() "
    code += "if k.endswith('ALLOC_CONF')})"
    clean = {name: value for name, value in os.environ.items() if not name.endswith("ALLOC_CONF")}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=clean | own, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = ast.literal_eval(done.stdout)
    assert found == own if own else list(found.values()) == ["expandable_segments:True"]


def test_free_memory_counts_what_the_allocator_holds_unused(monkeypatch) -> None:
    for name, value in {
        "is_available": True, "memory_reserved": 30, "memory_allocated": 12, "mem_get_info": (7, 99),
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setattr(torch, "mps", SimpleNamespace(
        recommended_max_memory=lambda: 50, current_allocated_memory=lambda: 20
    ))  # fmt: skip
    assert [free_memory(torch.device(kind)) for kind in ("cuda", "mps", "cpu")] == [25, 30, None]


@pytest.mark.parametrize("error", [
    RuntimeError(BUS_ERROR),
    RuntimeError("unable to write to file </torch_123_456_0>: No space left on device (28)"),
    OSError("unable to open shared memory object </torch_7_8> in read-write mode"),
], ids=["bus error", "write", "open"])  # fmt: skip
def test_full_shared_memory_names_the_three_ways_out(error: Exception) -> None:
    told = sentence_of(error) or ""
    assert all(word in told for word in ("--shm-size", "--ipc=host", "--num-workers 0", "/dev/shm"))


@pytest.mark.parametrize("error", [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("MPS backend out of memory (MPS allocated: 17.00 GB)"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
], ids=["cuda", "mps", "cudnn", "cpu", "python"])  # fmt: skip
def test_memory_in_every_form_is_one_sentence(error: BaseException) -> None:
    assert "--batch-size" in (sentence_of(error) or "")


def test_compile_without_a_compiler_is_a_sentence() -> None:
    from torch._dynamo.exc import BackendCompilerFailed

    cause = RuntimeError("Cannot find a working triton installation. Either the package is not installed or ...")
    told = sentence_of(BackendCompilerFailed("inductor", cause, None)) or ""
    assert "Cannot find a working triton" in told and "leave --compile out" in told
    assert sentence_of(RuntimeError("a fault of the program")) is None


@pytest.mark.parametrize(("has_nccl", "backend"), [(True, "cpu:gloo,cuda:nccl"), (False, "gloo")])
def test_gloo_takes_the_place_of_a_missing_nccl(monkeypatch, has_nccl: bool, backend: str) -> None:
    joined = []
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed.dist, "is_nccl_available", lambda: has_nccl)
    monkeypatch.setattr(distributed.dist, "init_process_group", lambda backend, timeout: joined.append(backend))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    distributed.setup(torch.device("cuda:0"))
    assert joined == [backend]
