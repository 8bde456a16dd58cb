"""Resizing that training, evaluation and prediction share.

small = resize_to_working_size(image, 1024)           # what the student sees of a whole photo
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.v2 import functional as F

Size = tuple[int, int]  # (height, width) in pixels

# Elements resized at once: 64 MB as float32. The first pass works on bands of rows, so a float copy of the
# whole photo (800 MB at 8192 x 8192) never exists, wherever the kernel has no uint8 version (CUDA, ARM).
BAND_ELEMENTS = 1 << 24


def working_size(height: int, width: int, image_size: int) -> Size:
    """(height, width) with the long side image_size and the aspect kept, no side under 1."""
    scale = image_size / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def resize_to_working_size(image: Tensor, image_size: int) -> Tensor:
    """The photo as the student sees it: (..., C, H, W) -> long side image_size. See resize."""
    return resize(image, working_size(image.shape[-2], image.shape[-1], image_size))


def resize(image: Tensor, size: Size) -> Tensor:
    """Antialiased bilinear resize of (..., C, H, W), uint8 or float, to (height, width); the dtype is kept.

    A uint8 image is rounded after each of the two passes, as torchvision's own uint8 kernel does.
    Beyond the result it needs one band as float32 and an image of (H, width).
    """
    height, width = size
    if image.shape[-2:] == (height, width):
        return image
    if image.numel() <= BAND_ELEMENTS:
        return F.resize(image, [height, width], antialias=True)
    rows = max(1, BAND_ELEMENTS * image.shape[-2] // image.numel())
    narrow = [F.resize(band, [band.shape[-2], width], antialias=True) for band in image.split(rows, dim=-2)]
    image = torch.cat(narrow, dim=-2)  # (..., C, H, width)
    del narrow
    columns = max(1, BAND_ELEMENTS * width // image.numel())
    short = [F.resize(band, [height, band.shape[-1]], antialias=True) for band in image.split(columns, dim=-1)]
    return torch.cat(short, dim=-1)  # (..., C, height, width)


def resize_alpha(alpha: Tensor, size: Size) -> Tensor:
    """(N, 1, h, w) -> (N, 1, *size), bilinear, antialiased where it shrinks: never nearest, which drops thin strands.

    The same tensor where the size is its own.
    """
    if tuple(alpha.shape[-2:]) == tuple(size):
        return alpha
    shrinks = size[0] < alpha.shape[-2] or size[1] < alpha.shape[-1]
    return interpolate(alpha, size=size, mode="bilinear", align_corners=False, antialias=shrinks)
