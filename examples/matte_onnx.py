"""Matte a photo with an exported TSR-Matte, without this repository: numpy and onnxruntime, and Pillow for the files.

    python export.py --output matte.onnx           in a clone, once; also writes matte.refiner.onnx
    python matte_onnx.py matte.onnx cat.jpg cut.png

matte() repeats predict.py's alpha to one grey level: the network sees the photo at its working size, then the refiner
climbs to the photo's own size by factors of two and sees only tiles that are uncertain. Copy what you need.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

GATE = 0.15  # attention, 4 alpha (1 - alpha), of an alpha of .04 or .96: a tile with none above is sure
TILE = 64  # pixels; a window has receptive_radius pixels more to each side


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
        octaves = [image]  # halved while the long side stays at least that of the coarse alpha
        while max(size := tuple(-(-n // 2) for n in octaves[0].shape[1:])) >= max(alpha.shape):
            octaves.insert(0, resize(octaves[0], size))
        for octave in octaves if self.needs["use_octaves"] else [image]:
            alpha = self.refine(octave, resize(alpha, octave.shape[1:]))
        return alpha[0]

    def refine(self, image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
        """One octave: image uint8 (3, H, W), alpha (1, H, W) -> refined alpha (1, H, W)."""
        halo, refined = self.needs["receptive_radius"], alpha.round()  # of the sure tiles; windows replace the others
        height, width = alpha.shape[1:]
        for top, left in np.ndindex(-(-height // TILE), -(-width // TILE)):
            # at the photo's border the window is moved inward, not cut: it ends where the photo ends
            tile, rows, own_rows = window(top * TILE, halo, height)
            across_tile, across, own_across = window(left * TILE, halo, width)
            unsure = alpha[:, tile, across_tile]
            if self.needs["use_attention"] and (4 * unsure * (1 - unsure)).max() < GATE:
                continue
            inputs = {"image": as_float(image[:, rows, across]), "coarse_alpha": alpha[None, :, rows, across]}
            result = self.refiner.run(["refined_alpha"], inputs)[0][0]
            refined[:, tile, across_tile] = result[:, own_rows, own_across]
        return refined


def window(start: int, halo: int, end: int) -> tuple[slice, slice, slice]:
    """Along one axis of `end` pixels: a tile, its window, and the tile within its window."""
    length = min(end, TILE + 2 * halo)
    first, stop = max(0, min(start - halo, end - length)), min(end, start + TILE)
    return slice(start, stop), slice(first, first + length), slice(start - first, stop - first)


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


def cut_out(photo: np.ndarray, alpha: np.ndarray, reach: int = 45) -> np.ndarray:
    """RGBA uint8 (H, W, 4) without the old background's colours at the edge, from means over `reach` pixels around.

    After blur fusion (Forte and Pitie, "Approximate Fast Foreground Colour Estimation", ICIP 2021), one pass.
    """
    image, a = photo.transpose(2, 0, 1).astype(np.float32), alpha[None]

    def blur(x: np.ndarray) -> np.ndarray:
        return resize(resize(x, tuple(-(-side // reach) for side in alpha.shape)), alpha.shape)

    foreground = blur(image * a) / (blur(a) + 1e-5)
    background = blur(image * (1 - a)) / (blur(1 - a) + 1e-5)
    foreground = foreground + a * (image - a * foreground - (1 - a) * background)
    return np.rint(np.concatenate([foreground, 255 * a]).clip(0, 255)).astype(np.uint8).transpose(1, 2, 0)


if __name__ == "__main__":
    model_path, photo_path, output = sys.argv[1:]
    pixels = np.asarray(ImageOps.exif_transpose(Image.open(photo_path)).convert("RGB"))
    Image.fromarray(cut_out(pixels, Matting(model_path).matte(pixels))).save(output)
