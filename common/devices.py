"""What the machine can do: device, precision, memory, cores. Nothing else in the project asks."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import cv2
import torch

from common.errors import UserError
from common.processes import is_main, own_cores

PCI = Path("/sys/bus/pci/devices")

# The classes differ: torch raises a RuntimeError on CPU and MPS and its own class on CUDA, as does onnxruntime.
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "failed to allocate", "alloc_failed")
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "off": torch.float32}
NO_DRIVER = (
    "WARNING: this machine has an NVIDIA GPU, but PyTorch, built for CUDA {cuda}, cannot use it: the driver is "
    "missing, too old, or not passed into the container (docker run --gpus all). Continuing on the CPU, much slower."
)


class DeviceError(UserError):
    """The requested device or precision is not available; the message says what to choose."""

    is_of_process = True  # the fourth process of a host with three GPUs has it alone


def choose_device(name: str = "auto") -> torch.device:
    """The named device; for auto, CUDA (this process's GPU under torchrun), else Apple MPS, else CPU.

    It becomes torch's current one, and has run a kernel. This process then uses no more threads than its share of the
    cores. Raises DeviceError.
    """
    _set_up_allocator()
    limit_threads()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        if name == "cpu" and torch.version.cuda and has_nvidia_gpu() and is_main():
            print(NO_DRIVER.format(cuda=torch.version.cuda), file=sys.stderr, flush=True)
    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    try:
        device = torch.device(name)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        torch.zeros(1, device=device).add_(1).item()  # a wheel without kernels for this GPU fails only when one runs
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(_why_not(name, error)) from error
    return device


def _set_up_allocator() -> None:
    """Let CUDA's allocator grow its segments: views of two sizes would else leave holes. Read when CUDA starts."""
    names = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")  # the first since torch 2.9
    if sys.platform == "linux" and not any(name in os.environ for name in names):
        os.environ[names[tuple(map(int, torch.__version__.split(".")[:2])) < (2, 9)]] = "expandable_segments:True"


def limit_threads() -> None:
    """No more threads than cores that this process may use: a container's quota is not seen by OpenMP or OpenCV."""
    threads = own_cores()
    if torch.get_num_threads() > threads:
        torch.set_num_threads(threads)
    if cv2.getNumThreads() > threads:
        cv2.setNumThreads(threads)


def has_nvidia_gpu() -> bool:
    """Whether an NVIDIA GPU is on the PCI bus, whatever the driver says; elsewhere than on Linux nobody tells: True."""
    if sys.platform != "linux":
        return True
    with contextlib.suppress(OSError):
        displays = [file.parent for file in PCI.glob("*/class") if file.read_text().startswith("0x03")]
        return any((device / "vendor").read_text().strip() == "0x10de" for device in displays)
    return False


def _why_not(name: str, error: BaseException) -> str:
    """Why a device cannot be used, and what to do."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    if "no kernel image" in str(error):
        index = torch.device(name).index or 0
        capability, kernels = torch.cuda.get_device_capability(index), torch.cuda.get_arch_list()
        known = [(int(k[3:-1]), int(k[-1])) for k in kernels if k.startswith("sm_") and k[3:].isdigit()]
        is_old = capability < min(known)
        build = "built for CUDA 12.6 (cu126)" if is_old else "built for a newer CUDA"
        return (
            f"The GPU {torch.cuda.get_device_name(index)} has compute capability {capability[0]}.{capability[1]}, and "
            f"PyTorch {torch.__version__} has kernels only for {', '.join(kernels)}: install the torch and torchvision "
            f"{build}, see docs/install.md, or choose --device cpu."
        )
    return f"The device {name} cannot be used ({reason}): choose another with --device, or cpu."


def has_native_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is faster than float32 on this device, not merely possible."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)
    return False


def choose_precision(amp: str, device: torch.device) -> torch.dtype:
    """auto: bf16 where native, else fp16 on CUDA, else float32. Otherwise the named one (see DTYPES).

    Raises DeviceError for fp16 on a CPU, which has no fast half precision.
    """
    if amp == "auto":
        if has_native_bf16(device):
            return torch.bfloat16
        return torch.float16 if device.type == "cuda" else torch.float32
    if amp == "fp16" and device.type == "cpu":
        raise DeviceError("fp16 does not work on a CPU: choose auto, bf16 or off.")
    return DTYPES[amp]


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager:
    """Autocast to dtype; for float32 a disabled autocast."""
    is_half = dtype != torch.float32
    return torch.autocast(device.type, dtype=dtype if is_half else torch.bfloat16, enabled=is_half)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, from whichever library, means that a photo or a batch was too large."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in OUT_OF_MEMORY)


def free_memory(device: torch.device) -> int | None:
    """Bytes that this process can still get: the driver's free ones, and what torch's allocator holds unused.

    None where torch cannot tell: on a CPU, or on a GPU that it cannot use.
    """
    if device.type == "cuda" and torch.cuda.is_available():  # else it is onnxruntime's alone
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if device.type == "mps":
        return max(0, torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    return None


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished (only timing needs this)."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def describe(device: torch.device) -> str:
    """The device in words: the GPU's name and memory, or the number of CPU threads."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name} ({properties.total_memory / 2**30:.0f} GB)"
    return f"{device.type} ({torch.get_num_threads()} threads)" if device.type == "cpu" else device.type
