"""The augmentation of a photo with its alpha: plain functions of (pixels, rng).

    planes = crop_and_scale([photo, alpha], scale, settings, rng)  # (S, S, 4): photo and alpha
    planes = flip_and_rotate(planes, settings, rng)
    photo = degrade(planes[0][..., :3], settings, rng)             # colour, blur, noise, JPEG

Planes are the uint8 arrays of one sample. The first is pixels (H, W, 4): photo and alpha in one array, which takes half
the time of two to resize and rotate. If part of the alpha is unknown, the second is unknown (H, W), 255 there. Every
geometric step treats all planes alike, so they stay aligned. Alpha is resized like the photo, antialiased, not nearest.

A new geometric step goes into flip_and_rotate, a new change of the photo alone into degrade. The drawn set
(data/synthetic/) has its own degrade and uses nothing in this file; of the settings only image_size applies to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.random import Generator

from common.resize import Size, resize
from common.truth import NEARLY

Pixels = np.ndarray  # uint8

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
COLOUR_STRENGTH = 0.25  # of brightness, contrast and saturation; a quarter of it for red and blue
BLUR_SIGMA = (0.4, 1.6)  # pixels
NOISE_SIGMA = (1.0, 8.0)  # grey levels
JPEG_QUALITY = (50, 95)


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a training sample. Shares are probabilities.

    At prediction the student sees the whole photo with its long side at the working size. In training the long side
    becomes image_size * u, u log-uniform in `scale`, and a square of image_size, the crop's side (by default the
    working size), is cut from it. So in the crop subjects have the size of prediction or up to twice that, where hair
    is wider than a pixel. The student sees the crop at its working size or, by train.student_scale, at a half of that
    (at less with a larger max_student_downscale): to it, subjects have half to twice the size of prediction.
    """

    image_size: int  # pixels of the crop's side
    scale: tuple[float, float] = (1.0, 2.0)
    edge_share: float = 0.7  # crops centred on a pixel where alpha is neither 0 nor 1
    flip_share: float = 0.5
    rotation_share: float = 0.25
    rotation_degrees: float = 8.0
    colour_share: float = 0.7
    blur_share: float = 0.1
    noise_share: float = 0.15
    jpeg_share: float = 0.2


def draw_scale(settings: Augmentation, rng: Generator) -> float:
    """The u of Augmentation: long side of the scaled photo in image sizes."""
    low, high = np.log(settings.scale)
    return float(np.exp(rng.uniform(low, high)))


def crop_box(alpha: Pixels, scale: float, settings: Augmentation, rng: Generator) -> tuple[int, int, int, int]:
    """(top, left, height, width) in alpha (H, W) of what fills a square of image_size after scaling.

    Centred on a random soft pixel with edge_share, as far as the borders allow; else anywhere.
    """
    side = max(1, round(settings.image_size / scale))
    height, width = min(side, alpha.shape[0]), min(side, alpha.shape[1])
    space = alpha.shape[0] - height, alpha.shape[1] - width
    top, left = (int(rng.integers(0, room + 1)) for room in space)
    wants_edge, pick = rng.random() < settings.edge_share, rng.random()
    if wants_edge and max(space) > 0 and (centre := _edge_pixel(alpha, pick)) is not None:
        top, left = (
            min(max(at - extent // 2, 0), room) for at, extent, room in zip(centre, (height, width), space, strict=True)
        )
    return top, left, height, width


def _edge_pixel(alpha: Pixels, pick: float) -> tuple[int, int] | None:
    """The edge pixel at `pick` in [0, 1) of their list, on a grid of at most 256 steps; None without one.

    Edge: a soft alpha, or a neighbour on the grid is of another kind, so that a binary truth has an edge too.
    """
    step = max(1, max(alpha.shape) // 256)
    coarse = alpha[::step, ::step]
    kind = (coarse > NEARLY).astype(np.uint8) + (coarse >= 255 - NEARLY)  # sure 0, soft, sure 1: see common/truth.py
    kernel = np.ones((3, 3), np.uint8)
    rows, columns = np.nonzero((kind == 1) | (cv2.dilate(kind, kernel) != cv2.erode(kind, kernel)))
    if len(rows) == 0:
        return None
    at = int(pick * len(rows))
    return int(rows[at]) * step, int(columns[at]) * step


def crop_and_scale(planes: Sequence[Pixels], scale: float, settings: Augmentation, rng: Generator) -> list[Pixels]:
    """Crop and scale photo (H, W, 3), alpha (H, W) and, where it is given, unknown (H, W).

    Returns pixels (S, S, 4), S = image_size, photo and alpha, and with it unknown (S, S). What the photo does not fill
    is padded by reflection, in random parts on either side.
    """
    top, left, height, width = crop_box(planes[1], scale, settings, rng)
    size = settings.image_size
    scaled = (min(size, max(1, round(height * scale))), min(size, max(1, round(width * scale))))
    here = slice(top, top + height), slice(left, left + width)
    photo, alpha, *unknown = (plane[here] for plane in planes)  # only the crop is copied
    return pad_to_square([resize_pixels(plane, scaled) for plane in (cv2.merge([photo, alpha]), *unknown)], size, rng)


def resize_pixels(pixels: Pixels, size: Size) -> Pixels:
    """Antialiased resize of uint8 (H, W) or (H, W, C) to (height, width)."""
    channels_first = torch.from_numpy(np.ascontiguousarray(np.atleast_3d(pixels))).permute(2, 0, 1)
    return np.ascontiguousarray(resize(channels_first, size).permute(1, 2, 0).numpy()).reshape(*size, *pixels.shape[2:])


def pad_to_square(planes: Sequence[Pixels], size: int, rng: Generator) -> list[Pixels]:
    """Pad planes (H, W, ...) by reflection to (size, size, ...), in random parts on either side."""
    down, across = size - planes[0].shape[0], size - planes[0].shape[1]
    top, left = int(rng.integers(0, down + 1)), int(rng.integers(0, across + 1))
    if down == across == 0:
        return list(planes)
    # OpenCV reflects again and again where the padding is wider than the photo; torch's reflect refuses.
    border = (top, down - top, left, across - left, cv2.BORDER_REFLECT_101)
    return [cv2.copyMakeBorder(plane, *border) for plane in planes]


def flip_and_rotate(planes: Sequence[Pixels], settings: Augmentation, rng: Generator) -> list[Pixels]:
    """Flip and rotate all planes alike, each at random."""
    if rng.random() < settings.flip_share:
        planes = [cv2.flip(plane, 1) for plane in planes]  # copying numpy's view takes 100 times as long
    if rng.random() < settings.rotation_share:
        angle = rng.uniform(-settings.rotation_degrees, settings.rotation_degrees)
        planes = [rotate(plane, angle) for plane in planes]
    return list(planes)


def rotate(pixels: Pixels, angle: float) -> Pixels:
    """Turn (H, W, ...) about its centre by degrees, reflected at the borders."""
    height, width = pixels.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
    return cv2.warpAffine(pixels, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)


def degrade(photo: Pixels, settings: Augmentation, rng: Generator) -> Pixels:
    """Change colours, and then blur, add noise and compress, each at random; photo uint8 (H, W, 3).

    By OpenCV on uint8, which costs less than reading the file: torchvision's transforms go through float32 and take
    5 to 50 times as long.
    """
    steps: Sequence[tuple[float, Callable[[Pixels, Generator], Pixels]]] = (
        (settings.colour_share, shift_colours),
        (settings.blur_share, blur_lens),
        (settings.noise_share, add_noise),
        (settings.jpeg_share, code_as_jpeg),
    )
    for share, step in steps:
        if rng.random() < share:
            photo = step(photo, rng)
    return photo


def shift_colours(photo: Pixels, rng: Generator) -> Pixels:
    """Change brightness, contrast, saturation and white balance by one 3 x 4 matrix; not hue, as no skin is green."""
    brightness, contrast, saturation = rng.uniform(1 - COLOUR_STRENGTH, 1 + COLOUR_STRENGTH, 3)
    red, blue = rng.uniform(1 - COLOUR_STRENGTH / 4, 1 + COLOUR_STRENGTH / 4, 2)
    matrix = contrast * (saturation * np.eye(3) + (1 - saturation) * LUMA) @ np.diag([red, 1.0, blue])
    offset = (1 - contrast) * (LUMA @ np.asarray(cv2.mean(photo))[:3])  # contrast turns about the mean grey
    return cv2.transform(photo, brightness * np.column_stack([matrix, np.full(3, offset)]))


def blur_lens(photo: Pixels, rng: Generator) -> Pixels:
    """Blur as a lens that is slightly out of focus."""
    return cv2.GaussianBlur(photo, (0, 0), rng.uniform(*BLUR_SIGMA))


def add_noise(photo: Pixels, rng: Generator) -> Pixels:
    """Add Gaussian sensor noise, independent in each channel."""
    generator = torch.Generator().manual_seed(int(rng.integers(2**63)))  # torch draws twice as fast as numpy
    noise = torch.randn(photo.shape, generator=generator).mul_(rng.uniform(*NOISE_SIGMA))
    return cv2.add(photo, noise.numpy(), dtype=cv2.CV_8U)


def code_as_jpeg(photo: Pixels, rng: Generator) -> Pixels:
    """Encode as JPEG and decode again, in OpenCV's order of channels, or red and blue would swap their luma weights."""
    quality = int(rng.integers(JPEG_QUALITY[0], JPEG_QUALITY[1] + 1))
    coded = cv2.imencode(".jpg", cv2.cvtColor(photo, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    decoded: np.ndarray = cv2.imdecode(coded, cv2.IMREAD_COLOR)  # type: ignore[assignment]  # None for a broken file
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
