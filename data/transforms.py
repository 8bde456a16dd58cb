"""The augmentation of a photo with its alpha.

    pixels = cut(photo, alpha, scale, settings, rng)      # (S, S, 4): crop, scale, padding
    image, alpha = Augmenter(settings)(pixels, rng)       # (3, S, S) and (1, S, S), uint8

Photo and alpha travel as four channels of one array until the last geometric step, so nothing can move
one against the other, and alpha is resized as the photo is: antialiased, never nearest (which is what
torchvision does to a Mask).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from common.resize import resize
from data.pixel_transforms import ColourShift, JpegCoding, LensBlur, SensorNoise, SmallRotation, to_array, to_tensor


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a training sample. Shares are probabilities.

    At prediction the student sees the whole photo with its long side at image_size. In training the long
    side becomes image_size * u, u log-uniform in `scale`, and a square of image_size is cut from it: the
    subject is met at the size it has in prediction and at up to twice that, where hair has pixels.
    """

    image_size: int
    scale: tuple[float, float] = (1.0, 2.0)
    unknown_share: float = 0.7  # crops centred on a pixel where alpha is neither 0 nor 1
    flip_share: float = 0.5
    rotation_share: float = 0.25
    rotation_degrees: float = 8.0
    colour_share: float = 0.7
    blur_share: float = 0.1
    noise_share: float = 0.15
    jpeg_share: float = 0.2

    def __post_init__(self) -> None:
        if self.image_size < 1 or not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"image_size {self.image_size} and scale {self.scale} must be above 0, and scale ordered.")


def joint_transforms(settings: Augmentation) -> v2.Compose:
    """Geometry of photo and alpha together: takes and returns an Image of 4 channels."""
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(settings.flip_share),
            v2.RandomApply([SmallRotation(settings.rotation_degrees)], settings.rotation_share),
        ]
    )


def photo_transforms(settings: Augmentation) -> v2.Compose:
    """Colour, and then what optics, sensor and file do to a photo; alpha is fixed by now and not passed in."""
    return v2.Compose(
        [
            v2.RandomApply([ColourShift(0.25)], settings.colour_share),
            v2.RandomApply([LensBlur((0.4, 1.6))], settings.blur_share),
            v2.RandomApply([SensorNoise((1.0, 8.0))], settings.noise_share),
            v2.RandomApply([JpegCoding((50, 95))], settings.jpeg_share),
        ]
    )


def draw_scale(settings: Augmentation, rng: Generator) -> float:
    """The u of Augmentation: long side of the scaled photo in image sizes."""
    low, high = np.log(settings.scale)
    return float(np.exp(rng.uniform(low, high)))


def crop_box(alpha: np.ndarray, scale: float, settings: Augmentation, rng: Generator) -> tuple[int, int, int, int]:
    """(top, left, height, width) in alpha (H, W) of what fills a square of image_size after scaling.

    Centred on a random unknown pixel with unknown_share, as far as the borders allow; else anywhere.
    """
    side = max(1, round(settings.image_size / scale))
    height, width = min(side, alpha.shape[0]), min(side, alpha.shape[1])
    space = alpha.shape[0] - height, alpha.shape[1] - width
    top, left = (int(rng.integers(0, room + 1)) for room in space)
    wants_unknown, pick = rng.random() < settings.unknown_share, rng.random()
    if wants_unknown and max(space) > 0 and (centre := _unknown_pixel(alpha, pick)) is not None:
        top, left = (
            min(max(at - extent // 2, 0), room) for at, extent, room in zip(centre, (height, width), space, strict=True)
        )
    return top, left, height, width


def _unknown_pixel(alpha: np.ndarray, pick: float) -> tuple[int, int] | None:
    """The unknown pixel at `pick` in [0, 1) of their list, on a grid of at most 256 steps; None without one.

    Unknown: 0 < alpha < 1, or a neighbour on the grid differs, so that a binary truth has an edge too.
    """
    step = max(1, max(alpha.shape) // 256)
    coarse = np.ascontiguousarray(alpha[::step, ::step])
    kernel = np.ones((3, 3), np.uint8)
    rows, columns = np.nonzero(
        ((coarse > 0) & (coarse < 255)) | (cv2.dilate(coarse, kernel) != cv2.erode(coarse, kernel))
    )
    if len(rows) == 0:
        return None
    at = int(pick * len(rows))
    return int(rows[at]) * step, int(columns[at]) * step


def cut(photo: np.ndarray, alpha: np.ndarray, scale: float, settings: Augmentation, rng: Generator) -> np.ndarray:
    """Crop and scale photo uint8 (H, W, 3) and alpha uint8 (H, W) together: uint8 (S, S, 4), S = image_size.

    What the photo does not fill is padded by reflection, in random parts on either side.
    """
    top, left, height, width = crop_box(alpha, scale, settings, rng)
    here = slice(top, top + height), slice(left, left + width)
    pixels = cv2.merge([photo[here], alpha[here]])  # only the crop is copied
    size = settings.image_size
    scaled = [min(size, max(1, round(extent * scale))) for extent in (height, width)]
    return pad_to_square(to_array(resize(to_tensor(pixels), tuple(scaled))), size, rng)


def pad_to_square(pixels: np.ndarray, size: int, rng: Generator) -> np.ndarray:
    """Pad (H, W, C) by reflection to (size, size, C), in random parts on either side."""
    down, across = size - pixels.shape[0], size - pixels.shape[1]
    top, left = int(rng.integers(0, down + 1)), int(rng.integers(0, across + 1))
    if down == across == 0:
        return pixels
    # OpenCV reflects again and again where the padding is wider than the photo; torch's reflect refuses.
    return cv2.copyMakeBorder(pixels, top, down - top, left, across - left, cv2.BORDER_REFLECT_101)


class Augmenter:
    """The random part that needs no more cropping: turns (S, S, 4) pixels into an image and its alpha."""

    def __init__(self, settings: Augmentation) -> None:
        self.joint = joint_transforms(settings)
        self.photo_only = photo_transforms(settings)

    def __call__(self, pixels: np.ndarray, rng: Generator) -> tuple[Tensor, Tensor]:
        """uint8 (S, S, 4), alpha last -> image (3, S, S) and alpha (1, S, S), uint8.

        v2 draws from torch's global CPU generator, so that is seeded from rng and put back afterwards.
        torch.manual_seed would reseed CUDA too, and with it the training in the same process.
        """
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(rng.integers(2**63)))
            pixels = to_array(self.joint(tv_tensors.Image(to_tensor(pixels))))
            photo = cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB)  # drops the alpha
            image = self.photo_only(tv_tensors.Image(to_tensor(photo)))
        alpha = torch.from_numpy(cv2.extractChannel(pixels, 3))[None]
        return image.as_subclass(Tensor).contiguous(), alpha
