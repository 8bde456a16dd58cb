"""What the machine can do: device, precision, memory, cores. Nothing else in the project asks."""

from __future__ import annotations

import contextlib
import os

import torch

from common.processes import usable_cores as usable_cores  # defined there, where torch is not imported

# The classes differ: torch raises a RuntimeError on CPU and MPS and its own class on CUDA, as does onnxruntime.
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "failed to allocate", "alloc_failed")
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "off": torch.float32}


class DeviceError(RuntimeError):
    """The requested device or precision is not available; the message says what to choose."""


def choose_device(name: str = "auto") -> torch.device:
    """The named device; for auto, CUDA (this process's GPU under torchrun), else Apple MPS, else CPU."""
    if name == "auto":
        accelerators = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
        name = next(kind for kind, available in accelerators.items() if available)
    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(
            f"The device {name} cannot be used ({str(error).splitlines()[0]}): choose another with --device, or cpu."
        ) from error
    return device


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
    return torch.autocast(
        device.type, dtype=dtype if dtype != torch.float32 else torch.bfloat16, enabled=dtype != torch.float32
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, from whichever library, means that a photo or a batch was too large."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in OUT_OF_MEMORY)


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished (only timing needs this)."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def describe(device: torch.device) -> str:
    """The device in words: the GPU's name, or the number of CPU threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({torch.get_num_threads()} threads)" if device.type == "cpu" else device.type
