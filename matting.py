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
from common.resize import Size, resize_alpha, resize_to_working_size
from models.octaves import climb, interpolate
from models.refiner import Borders, crop, uncertainty

AnyPhoto = Tensor | np.ndarray | Image.Image
GATE = 0.15  # attention of an alpha of .039 or .961: a cell with none between is sure (measured in docs/benchmarks.md)
CELL = 8  # pixels; the squares of which each is uncertain or not
TILE = 80  # rows of pixels that a window refines, a multiple of CELL; small tiles skip more, large ones share halos
GAP = 6  # sure cells that a tile bridges between two uncertain parts of a row
LONGEST = 4  # columns of the longest tile, as a multiple of its rows
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

    def working_alpha(self, image: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Mattes:
    """The mattes of one photo."""

    working_alpha: Tensor  # (1, 1, h, w), the student's at the working size
    refined_alpha: Tensor | None  # float32 (1, H, W) in [0, 1]; None without a refiner
    refined_share: float  # of the cells at native size, those that were refined
    size: Size  # (H, W)
    in_octaves: bool  # whether the coarse matte grows through octaves, as a refiner finds it, or in one step

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
    detail: int | None = None,
) -> Mattes:
    """Coarse and refined matte of one photo, as predict_alpha takes it, on the model's device.

    precision: autocast type, by default the fastest that the device has natively. max_memory: bytes for a batch of
    tiles, by default a share of what the device has free. The photo, its pyramid and the alphas of two octaves take
    14 bytes more per pixel of the photo. gated=False refines whole octaves at once, for comparison. detail: long side
    in pixels up to which a larger photo is refined; from there the matte is interpolated.
    """
    device = model.device
    precision = choose_precision("auto", device) if precision is None else precision
    image = as_pixels(image).to(device, non_blocking=True)  # (3, H, W)
    size = (image.shape[-2], image.shape[-1])
    share = 1.0

    def refine(photo: Tensor, alpha: Tensor) -> Tensor:
        if not gated:
            return model.refiner(photo[None].float() / 255, alpha)
        nonlocal share
        refined, share = refine_uncertain(model.refiner, photo, alpha[0], tile=tile, max_memory=max_memory)
        return refined[None]

    with autocast(device, precision):
        view = resize_to_working_size(image, model.image_size)  # (3, h, w)
        working = model.working_alpha(view[None].float() / 255)  # (1, 1, h, w)
        if model.refiner is None:
            return Mattes(working, None, 0.0, size, in_octaves=False)
        if detail is not None and detail < max(size):
            image = resize_to_working_size(image, detail)
        refined = climb(image, working, refine, model.refiner.use_octaves)[-1]  # (1, 1, H, W), or of the detail
        refined = resize_alpha(refined, size)
    return Mattes(working, refined[0], share, size, model.refiner.use_octaves)


def refine_uncertain(
    refiner: RefinerLike, image: Tensor, coarse: Tensor, *, tile: int = TILE, max_memory: int | None = None
) -> tuple[Tensor, float]:
    """Refine the alpha so far where it is uncertain; what is nearly 0 or 1 becomes that, as the refiner would do.

    image: uint8 (3, H, W); coarse: float32 (1, H, W), same device. Returns the refined alpha (1, H, W) and the share
    of cells that are uncertain. Tiles of `tile` rows cover these. Each is computed in a window that reaches a
    receptive field further; at the photo's border the window is moved inward, not cut: what a window returns is that
    of the whole photo. Windows of one size go in batches.
    """
    height, width = coarse.shape[-2:]
    refined = coarse.round()  # of the sure cells; tiles replace the others
    # without attention the refiner may change any pixel
    cells = _uncertain_cells(coarse, GATE if refiner.use_attention else 0.0)
    halo = refiner.receptive_radius
    groups: dict[tuple[int, int, Borders], list[tuple[int, int]]] = {}
    for row, column, columns in cover(cells, max(1, tile // CELL)):
        h, w = min(height, tile + 2 * halo), min(width, columns * CELL + 2 * halo)
        top, left = (max(0, min(at * CELL - halo, room)) for at, room in ((row, height - h), (column, width - w)))
        borders = (left == 0, left + w == width, top == 0, top + h == height)
        groups.setdefault((h, w, borders), []).append((top, left))
    for (h, w, borders), corners in groups.items():
        batch = _tiles_per_batch(refiner, (h, w), max_memory)
        for start in range(0, len(corners), batch):
            group = [(..., slice(y, y + h), slice(x, x + w)) for y, x in corners[start : start + batch]]
            photos, mattes = (torch.stack([whole[window] for window in group]) for whole in (image, coarse))
            results = refiner(photos.float() / 255, mattes, borders)  # (n, 1, h, w), less the halo
            for window, result in zip(group, results, strict=True):
                crop(refined[window], halo, borders).copy_(result)
    return refined, float(cells.mean())


def _uncertain_cells(coarse: Tensor, gate: float) -> np.ndarray:
    """Whether the largest attention in each cell reaches the gate, (rows, columns); one transfer from the device."""
    rows = []
    for strip in coarse.split(64 * CELL, dim=-2):  # no second map of the photo's size
        rows.append(torch.nn.functional.max_pool2d(uncertainty(strip), CELL, ceil_mode=True)[0])
    return (torch.cat(rows) >= gate).cpu().numpy()


def cover(cells: np.ndarray, span: int) -> Iterator[tuple[int, int, int]]:
    """Row, column and columns of tiles, `span` rows high, that together hold every cell that is True.

    Cells along a row share a tile, and its halo, up to LONGEST spans. Columns are even, so that fewer sizes occur: a
    CPU prepares each anew.
    """
    row = 0
    while row < len(cells):
        if cells[row].any():
            found = np.flatnonzero(cells[row : row + span].any(0)).tolist()
            for run in np.split(found, np.flatnonzero(np.diff(found) > GAP) + 1):
                for start in range(run[0], run[-1] + 1, LONGEST * span):
                    columns = min(LONGEST * span, run[-1] + 1 - start)
                    yield row, start, columns + columns % 2
        row += span if cells[row].any() else 1


def _tiles_per_batch(refiner: RefinerLike, window: tuple[int, int], max_memory: int | None) -> int:
    if max_memory is None:
        free = free_memory(refiner.device)
        if free is None:  # a CPU: a batch is no faster, and leaves its cache
            return 1
        max_memory = free // 4
    a_tile = window[0] * window[1] * refiner.channels * BYTES_PER_CHANNEL
    return max(1, min(max_memory // a_tile, 64))
