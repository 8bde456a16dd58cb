"""From a photo and its matte to the picture of each --kind."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import ImageColor

from common import photos
from common.photos import Photo
from inference.foreground import Colors, blurred, composite, covering, estimate_colors, native_foreground

KINDS = ("alpha", "cutout", "foreground", "composite")

Background = Callable[[np.ndarray, Colors], np.ndarray]  # (photo, its colours) -> (H, W, 3) of the photo's type


@dataclass(frozen=True)
class Style:
    """What is written: the kind, bits a channel, and what a composite is put on."""

    kind: str
    bits: int = 8
    background: Background | None = None


def render(photo: Photo, matte: np.ndarray, style: Style) -> np.ndarray:
    """The array that photos.write_alpha (kind alpha) or write_image takes.

    matte: float32 (H, W), what the network says. A photo's own alpha is multiplied in, but not into the equation that
    the foreground's colours are estimated with: it says nothing about how the subject and its background mix.
    """
    alpha = matte if photo.alpha is None else matte * photo.alpha
    if style.kind == "alpha":
        return alpha
    image = photos.to_uint8(photo.image) if style.bits == 8 else to_uint16(photo.image)
    colors = estimate_colors(image, matte)
    foreground = native_foreground(image, matte, colors)
    if style.kind == "foreground":
        return foreground
    if style.kind == "composite":
        return composite(foreground, alpha, style.background(image, colors))
    levels = alpha * np.float32(np.iinfo(image.dtype).max) + np.float32(0.5)
    return cv2.merge((*cv2.split(foreground), levels.astype(image.dtype)))  # (H, W, 4)


def to_uint16(image: np.ndarray) -> np.ndarray:
    """uint8 to uint16, 255 becoming 65535."""
    return image if image.dtype == np.uint16 else image.astype(np.uint16) * np.uint16(257)


def read_background(text: str) -> Background:
    """ "blur", a colour ("red", "#00ff00", "rgb(0, 128, 0)") or a photo's path. Raises PhotoError."""
    if text == "blur":
        return lambda image, colors: blurred(colors, image)
    try:
        color = np.array(ImageColor.getrgb(text)[:3], np.uint8).reshape(1, 1, 3)
    except ValueError:
        if not os.path.exists(text):  # False, where Path's raises: for a name that is too long
            raise photos.PhotoError(
                f"{text} is no background: give a colour (red, #00ff00), a photo's path or the word blur."
            ) from None
        color = photos.to_uint8(photos.read_photo(text).image)
    return lambda image, colors: covering(color, image)
