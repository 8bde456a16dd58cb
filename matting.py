"""predict_alpha(model, image): the single prediction path from a photo to its matte, at native resolution.

The student sees the photo at the model's working size. The matte then grows to native size in octaves
(models/octaves.py). At each, the refiner corrects it tile by tile, only where it can change anything. Prediction,
evaluation, validation, the web page and the benchmark all use this path, so reported numbers describe the mattes
that users get.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from common.devices import autocast, choose_precision, free_memory
from common.resize import Size, resize_to_working_size
from models.octaves import climb, interpolate
from models.refiner import Borders, crop, uncertainty

AnyPhoto = Tensor | np.ndarray | Image.Image
GATE = 1 / 510  # half a grey level: a correction below it changes an 8-bit matte by one grey level at most
CELL = 16  # pixels; the squares of which each is refined or not
TILE = 64  # pixels that a window refines, a multiple of CELL; smaller skips more, larger wastes less on halos
# Bytes of a batch of tiles on a CPU, all tensors together. The largest takes about a fifth of it, below the 32 MB up to
# which malloc keeps pages; larger tensors would get pages that are zeroed anew, 2x slower.
CPU_TILE_MEMORY = 64 * 2**20
BYTES_PER_CHANNEL = 28  # peak memory of the refiner per pixel and channel, in float32; checked by a test


class RefinerLike(Protocol):
    """What prediction asks of a refiner: models.Refiner, or that of an ONNX file."""

    channels: int  # width, for an estimate of its memory
    receptive_radius: int  # pixels to each side that can change a pixel
    use_attention: bool
    use_octaves: bool

    @property
    def device(self) -> torch.device: ...  # where it computes

    def __call__(self, image: Tensor, alpha: Tensor, borders: Borders, /) -> Tensor: ...


class MattingModel(Protocol):
    """What prediction asks of a model: models.MattingNetwork, or an ONNX file with the same interface."""

    image_size: int  # working size of the long side, in pixels

    @property
    def refiner(self) -> Any: ...  # RefinerLike | None; nn.Module's attributes have no narrower type

    @property
    def device(self) -> torch.device: ...

    def coarse_alpha(self, image: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Mattes:
    """The mattes of one photo."""

    working_alpha: Tensor  # (1, 1, h, w), the student's at the working size
    refined_alpha: Tensor | None  # float32 (1, H, W) in [0, 1]; None without a refiner
    refined_share: float  # of the tiles at native size, those that the refiner had to see
    size: Size  # (H, W)
    in_octaves: bool  # how a refiner finds the student's matte; without one it takes a single step to native size

    @property
    def coarse_alpha(self) -> Tensor:
        """The student's matte interpolated to native size, float32 (1, H, W) in [0, 1]."""
        return interpolate(self.working_alpha, self.size, self.in_octaves)[0]

    @property
    def alpha(self) -> Tensor:
        """The model's matte, float32 (1, H, W) in [0, 1]: refined if there is a refiner."""
        return self.coarse_alpha if self.refined_alpha is None else self.refined_alpha


def predict_alpha(model: MattingModel, image: AnyPhoto, **options: Any) -> Tensor:
    """Alpha matte of a photo, RGB, any size; returns float32 (1, H, W) in [0, 1], on the model's device.

    image: a tensor (3, H, W), an array (H, W, 3) or a PIL image; see as_pixels. Options are those of predict_mattes.
    Raises ValueError for what is no photo.
    """
    return predict_mattes(model, image, **options).alpha


def as_pixels(image: AnyPhoto) -> Tensor:
    """uint8 (3, H, W) of a tensor (3, H, W) or an array (H, W, 3), uint8 or float in [0, 1], or of a PIL image.

    A PIL image loses its transparency, and is not turned by its EXIF: common.photos.read_photo does both right.
    Raises ValueError with one sentence for anything else.
    """
    if isinstance(image, Image.Image):
        if image.mode[0] in "IF":
            raise ValueError(f"image has the PIL mode {image.mode}: read it with common.photos.read_photo.")
        image = np.array(image.convert("RGB"))
    is_array = isinstance(image, np.ndarray)
    shape, what = ("(H, W, 3)", "an array") if is_array else ("(3, H, W)", "a tensor")
    pixels = image
    if isinstance(image, np.ndarray) and (image.dtype == np.uint8 or image.dtype.kind == "f"):
        # torch takes no negative strides, no foreign byte order, and warns of what it may not write to, as Pillow gives
        array = np.ascontiguousarray(image) if image.dtype == np.uint8 else image.astype(np.float32)
        pixels = torch.from_numpy(array if array.flags.writeable else array.copy())
    if not isinstance(pixels, Tensor) or not (pixels.dtype == torch.uint8 or pixels.is_floating_point()):
        kind = getattr(image, "dtype", type(image).__name__)
        raise ValueError(f"image is {kind}: give uint8, float in [0, 1], or a PIL image.")
    if pixels.ndim != 3 or pixels.shape[2 if is_array else 0] != 3 or not pixels.numel():
        raise ValueError(f"image is {what} {tuple(pixels.shape)}: give one photo in RGB, {shape}.")
    if is_array:
        pixels = pixels.permute(2, 0, 1)
    if pixels.dtype == torch.uint8:
        return pixels
    if not (pixels.min() >= 0 and pixels.max() <= 1):  # also where a pixel is not a number
        raise ValueError(f"image has values from {pixels.min():g} to {pixels.max():g}: give float in [0, 1], or uint8.")
    return (pixels.float() * 255).round().to(torch.uint8)


@torch.inference_mode()
def predict_mattes(
    model: MattingModel,
    image: AnyPhoto,
    *,
    precision: torch.dtype | None = None,
    max_memory: int | None = None,
    gated: bool = True,
    tile: int = TILE,
) -> Mattes:
    """Coarse and refined matte of one photo, as predict_alpha takes it, on the model's device.

    precision: autocast type, by default the fastest that the device has natively. max_memory: bytes for a batch of
    tiles, by default a share of what the device has free. The photo, its pyramid and the alphas of two octaves take
    14 bytes more per pixel of the photo. gated=False refines whole octaves at once, for comparison.
    """
    device = model.device
    precision = choose_precision("auto", device) if precision is None else precision
    image = as_pixels(image).to(device, non_blocking=True)  # (3, H, W)
    size = (image.shape[-2], image.shape[-1])
    shares = [0.0]

    def refine(photo: Tensor, alpha: Tensor) -> Tensor:
        if not gated:
            return model.refiner(photo[None].float() / 255, alpha)
        refined, share = refine_uncertain(model.refiner, photo, alpha[0], tile=tile, max_memory=max_memory)
        shares.append(share)
        return refined[None]

    with autocast(device, precision):
        view = resize_to_working_size(image, model.image_size)  # (3, h, w)
        working = model.coarse_alpha(view[None].float() / 255)  # (1, 1, h, w)
        if model.refiner is None:
            return Mattes(working, None, 0.0, size, in_octaves=False)
        refined = climb(image, working, refine, model.refiner.use_octaves)[-1]  # (1, 1, H, W)
    return Mattes(working, refined[0], shares[-1] if gated else 1.0, size, model.refiner.use_octaves)


def refine_uncertain(
    refiner: RefinerLike, image: Tensor, coarse: Tensor, *, tile: int = TILE, max_memory: int | None = None
) -> tuple[Tensor, float]:
    """Refine the alpha so far where it is uncertain enough to matter.

    image: uint8 (3, H, W); coarse: float32 (1, H, W), same device. Returns the refined alpha (1, H, W) and the share
    of cells that were refined. Square tiles cover the cells to refine. Each is computed in a window that reaches a
    receptive field further; at the photo's border the window is moved inward, not cut, so that all windows have one
    size and can go in batches. What a window returns is that of the whole photo.
    """
    height, width = coarse.shape[-2:]
    refined = coarse.clone()
    cells = _uncertain_cells(coarse) if refiner.use_attention else _all_cells(coarse)
    halo = refiner.receptive_radius
    window = (min(height, tile + 2 * halo), min(width, tile + 2 * halo))
    batch = _tiles_per_batch(refiner, window, max_memory)
    groups: dict[Borders, list[tuple[int, int]]] = {}
    for row, column in cover(cells, max(1, tile // CELL)):
        top, left = max(0, min(row * CELL - halo, height - window[0])), max(0, min(column * CELL - halo, width - window[1]))
        borders = (left == 0, left + window[1] == width, top == 0, top + window[0] == height)
        groups.setdefault(borders, []).append((top, left))
    for borders, corners in groups.items():
        for start in range(0, len(corners), batch):
            group = corners[start : start + batch]
            photos = torch.stack([image[:, y : y + window[0], x : x + window[1]] for y, x in group])
            mattes = torch.stack([coarse[:, y : y + window[0], x : x + window[1]] for y, x in group])
            results = refiner(photos.float() / 255, mattes, borders)  # (n, 1, h, w)
            for (y, x), result in zip(group, results, strict=True):
                crop(refined[:, y : y + window[0], x : x + window[1]], halo, borders).copy_(result)
    return refined, cells.mean()


def _uncertain_cells(coarse: Tensor) -> np.ndarray:
    """Whether the largest attention in each cell reaches the gate, (rows, columns); one transfer from the device."""
    rows = []
    for strip in coarse.split(64 * CELL, dim=-2):  # no second map of the photo's size
        rows.append(torch.nn.functional.max_pool2d(uncertainty(strip), CELL, ceil_mode=True)[0])
    return (torch.cat(rows) >= GATE).cpu().numpy()


def _all_cells(coarse: Tensor) -> np.ndarray:
    """Every cell: without attention the refiner may change any pixel."""
    return np.ones([-(-side // CELL) for side in coarse.shape[-2:]], bool)


def cover(cells: np.ndarray, span: int) -> Iterator[tuple[int, int]]:
    """Corners (row, column) of squares of span x span cells that together hold every cell that is True."""
    left = cells.copy()
    for row in range(0, len(cells)):
        for column in np.flatnonzero(left[row]):
            if left[row, column]:
                left[row : row + span, column : column + span] = False
                yield row, int(column)


def _tiles_per_batch(refiner: RefinerLike, window: tuple[int, int], max_memory: int | None) -> int:
    if max_memory is None:
        free = free_memory(refiner.device)
        max_memory = CPU_TILE_MEMORY if free is None else free // 4
    a_tile = window[0] * window[1] * refiner.channels * BYTES_PER_CHANNEL
    return max(1, min(max_memory // a_tile, 64))
