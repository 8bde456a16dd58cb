"""Matte a photo with an exported TSR-Matte, without this repository: numpy and onnxruntime, and Pillow for the files.

    python export.py --output matte.onnx           in a clone, once; also writes matte.refiner.onnx
    python matte_onnx.py matte.onnx cat.jpg cut.png

matte() repeats predict.py's alpha to one grey level: the network sees the photo at its working size, then the refiner
climbs to the photo's own size by factors of two and sees only tiles that are uncertain. Copy what you need.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

GATE = 0.12  # attention, 4 alpha (1 - alpha), of an alpha of .03 or .97: a cell with none above is sure
CELL = 8  # pixels
TILE = 48  # rows of pixels that a window refines, with receptive_radius pixels more to each side
GAP, LONGEST = 3, 4  # cells between two parts of a row that share a tile; length of the longest tile in its heights


class Matting:
    """The two files that export.py writes, and what their metadata says about them."""

    def __init__(self, path: str | Path) -> None:
        self.network = onnxruntime.InferenceSession(str(path))
        facts = self.network.get_modelmeta().custom_metadata_map
        self.working_size: int = json.loads(facts["model"])["image_size"]  # pixels of the long side
        self.needs = json.loads(facts["refiner"])  # None: a model without a refiner
        if self.needs is not None:
            self.refiner = onnxruntime.InferenceSession(str(Path(path).with_suffix(".refiner.onnx")))

    def matte(self, photo: np.ndarray) -> np.ndarray:
        """RGB uint8 (H, W, 3), any size -> alpha float32 (H, W) in [0, 1]."""
        image = photo.transpose(2, 0, 1)
        scale = self.working_size / max(image.shape[1:])
        view = resize(image, tuple(max(1, round(length * scale)) for length in image.shape[1:]))
        alpha = self.network.run(["coarse_alpha"], {"image": as_float(view)})[0][0]  # (1, h, w)
        if self.needs is None:
            return resize(alpha, image.shape[1:])[0]
        for octave in pyramid(image, max(alpha.shape) if self.needs["use_octaves"] else sum(image.shape)):
            alpha = self.refine(octave, resize(alpha, octave.shape[1:]))
        return alpha[0]

    def refine(self, image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
        """One octave: image uint8 (3, H, W), alpha (1, H, W) -> refined alpha (1, H, W)."""
        halo, refined = self.needs["receptive_radius"], alpha.round()  # of the sure cells; windows replace the others
        for row, column, columns in cover(uncertain_cells(alpha[0])):
            # at the photo's border the window is moved inward, not cut: it ends where the photo ends
            rows, own_rows = window(row * CELL, TILE, halo, alpha.shape[1])
            across, own_across = window(column * CELL, columns * CELL, halo, alpha.shape[2])
            inputs = {"image": as_float(image[:, rows, across]), "coarse_alpha": alpha[None, :, rows, across]}
            result = self.refiner.run(["refined_alpha"], inputs)[0][0]
            refined[:, rows, across][:, own_rows, own_across] = result[:, own_rows, own_across]
        return refined


def uncertain_cells(alpha: np.ndarray) -> np.ndarray:
    """(H, W) -> whether each cell has a pixel to refine, bool (rows, columns)."""
    attention = np.pad(4 * alpha * (1 - alpha), [(0, -length % CELL) for length in alpha.shape])
    rows, columns = (length // CELL for length in attention.shape)
    return attention.reshape(rows, CELL, columns, CELL).max((1, 3)) >= GATE


def cover(cells: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Row, column and columns of tiles of TILE rows that hold every cell that is True."""
    span, row = TILE // CELL, 0
    while row < len(cells):
        if cells[row].any():
            found = np.flatnonzero(cells[row : row + span].any(0)).tolist()
            for run in np.split(found, np.flatnonzero(np.diff(found) > GAP) + 1):
                for start in range(run[0], run[-1] + 1, LONGEST * span):
                    columns = min(LONGEST * span, run[-1] + 1 - start)
                    yield row, start, columns + columns % 2
        row += span if cells[row].any() else 1


def window(start: int, length: int, halo: int, end: int) -> tuple[slice, slice]:
    """Where a tile's window lies along one axis of a photo of `end` pixels, and which part of the window is valid."""
    length = min(end, length + 2 * halo)
    first = max(0, min(start - halo, end - length))
    return slice(first, first + length), slice(halo * (first > 0), length - halo * (first + length < end))


def pyramid(image: np.ndarray, smallest: int) -> list[np.ndarray]:
    """The photo halved while its long side stays at least `smallest`; ascending, the last is the photo itself."""
    octaves = [image]
    while max(size := tuple(-(-length // 2) for length in octaves[0].shape[1:])) >= smallest:
        octaves.insert(0, resize(octaves[0], size))
    return octaves


def as_float(image: np.ndarray) -> np.ndarray:
    """uint8 (3, H, W) -> float32 (1, 3, H, W) in [0, 1]."""
    return image[None].astype(np.float32) / 255


def resize(x: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Antialiased bilinear resize of (C, h, w), uint8 or float32, to (C, *size): what the network was trained with."""
    for axis, length in ((2, size[1]), (1, size[0])):
        old = x.shape[axis]
        if length == old:
            continue
        reach = max(old / length, 1.0)
        centres = (np.arange(length) + 0.5) * old / length
        index = np.maximum(centres - reach + 0.5, 0).astype(int)[:, None] + np.arange(int(2 * reach) + 2)  # (length, n)
        weights = np.maximum(1 - np.abs(index + 0.5 - centres[:, None]) / reach, 0) * (index < old)
        weights /= weights.sum(1, keepdims=True)
        bits = min(22, int(np.log2((2**15 - 0.5) / weights.max())))  # PyTorch resizes uint8 with 16-bit weights
        weights = np.floor(weights * 2**bits + 0.5).astype(np.int32) if x.dtype == np.uint8 else weights.astype(x.dtype)
        along = (-1, 1) if axis == 1 else (-1,)
        pairs = zip(np.minimum(index, old - 1).T, weights.T, strict=True)
        total = sum(x.take(places, axis) * weight.reshape(along) for places, weight in pairs)
        x = ((total + (1 << (bits - 1))) >> bits).astype(np.uint8) if x.dtype == np.uint8 else total
    return x


def cut_out(photo: np.ndarray, alpha: np.ndarray, radius: int = 45) -> np.ndarray:
    """RGBA uint8 (H, W, 4) without the old background's colours at the edge.

    Blur fusion (Forte and Pitie, "Approximate Fast Foreground Colour Estimation", ICIP 2021), one pass.
    """
    image, a = photo.astype(np.float32), alpha[..., None]
    near, far = blur(a, radius) + 1e-5, blur(1 - a, radius) + 1e-5
    foreground, background = blur(image * a, radius) / near, blur(image * (1 - a), radius) / far
    foreground = foreground + a * (image - a * foreground - (1 - a) * background)
    return np.rint(np.concatenate([foreground, 255 * a], axis=2).clip(0, 255)).astype(np.uint8)


def blur(x: np.ndarray, radius: int) -> np.ndarray:
    """Mean over a square window of 2 radius + 1 pixels; (H, W, C), same shape."""
    for axis in (0, 1):
        pads = [(radius + 1, radius) if i == axis else (0, 0) for i in range(3)]
        sums = np.pad(x, pads, mode="edge").cumsum(axis, dtype=np.float64)
        steps = np.split(sums, [2 * radius + 1], axis)[1], np.split(sums, [-(2 * radius + 1)], axis)[0]
        x = ((steps[0] - steps[1]) / (2 * radius + 1)).astype(np.float32)
    return x


if __name__ == "__main__":
    model_path, photo_path, output = sys.argv[1:]
    pixels = np.asarray(ImageOps.exif_transpose(Image.open(photo_path)).convert("RGB"))
    Image.fromarray(cut_out(pixels, Matting(model_path).matte(pixels))).save(output)
