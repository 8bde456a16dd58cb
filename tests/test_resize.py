"""common.resize: the resize that training, evaluation and prediction share."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms.v2 import functional as F

from common import resize as resizing
from common.resize import resize, resize_to_working_size


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(300, 400, (48, 64)), (401, 299, (64, 48)), (64, 64, (64, 64)), (20, 30, (43, 64)), (1, 900, (1, 64))],
)
def test_working_size(height: int, width: int, expected: tuple[int, int], dtype: torch.dtype) -> None:
    image = torch.full((3, height, width), 7).to(dtype)
    small = resize_to_working_size(image, 64)
    assert small.shape == (3, *expected) and small.dtype == dtype
    assert torch.allclose(small.float(), torch.tensor(7.0))  # no dark borders


def test_resize_averages_instead_of_skipping() -> None:
    stripes = (torch.arange(640) % 2 * 255).to(torch.uint8).expand(1, 640, 640)
    small = resize(stripes, (64, 64)).float()
    assert (small - 127.5).abs().max() < 4


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_resize_in_bands_equals_resize_at_once(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    image = torch.randint(0, 256, (2, 3, 131, 217), generator=torch.Generator().manual_seed(0)).to(dtype)
    whole = F.resize(image, [40, 66], antialias=True)
    monkeypatch.setattr(resizing, "BAND_ELEMENTS", 3 * 217 * 9)  # bands of a few rows, then of a few columns
    banded = resize(image, (40, 66))
    tolerance = 1 if dtype == torch.uint8 else 1e-3  # uint8 rounds between the passes where the kernel does not
    assert (banded.float() - whole.float()).abs().max() <= tolerance
    assert banded.shape == whole.shape and banded.dtype == dtype


def test_resize_of_a_large_photo_makes_no_float_copy() -> None:
    calls = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.dtype == torch.float32:
                calls.append(result.numel())
            return result

    with Watch():
        resize_to_working_size(torch.zeros((3, 4000, 3000), dtype=torch.uint8), 256)
    assert max(calls, default=0) <= resizing.BAND_ELEMENTS
