"""From a photo to its matte, and from both to the picture of each --kind."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, ImageCms, ImageColor

from common import photos
from common.files import make_folder
from common.photos import Photo, PhotoError
from inference.foreground import Colours, blurred, composite, covering, estimate_colours, native_foreground

SUBJECT = 0.5  # alpha; a matte that nowhere reaches it shows no subject
NO_SUBJECT = "no subject found"  # a note in manifest.json

Predictor = Callable[[torch.Tensor], torch.Tensor]  # uint8 (3, H, W) -> alpha, float (1, H, W); matting.predict_alpha
# (photo's pixels, their colours, its profile) -> (H, W, 3) of the pixels' type, in the photo's profile
Background = Callable[[np.ndarray, Colours, bytes | None], np.ndarray]


@dataclass(frozen=True)
class Style:
    """What is written: the kind, bits per channel, and what a composite is put on."""

    kind: str
    bits: int = 8
    background: Background | None = None


def predict_matte(predictor: Predictor, image: np.ndarray) -> np.ndarray:
    """The network's matte, float32 (H, W) in [0, 1], of a photo (H, W, 3), uint8 or uint16."""
    # The levels of the file, whatever its profile. Converting 12 megapixels to sRGB takes 0.9 s, most of what reading
    # and writing a photo take, and training shifts colours further: levels change by 9 to 20 in the median over the
    # photos in test_data/, by 3 to 10 from Display P3 to sRGB, and by 12 to 20 from ProPhoto.
    pixels = torch.from_numpy(photos.to_uint8(image)).permute(2, 0, 1)  # (3, H, W)
    return predictor(pixels)[0].float().cpu().numpy()


def has_subject(matte: np.ndarray) -> bool:
    """Whether anything in the photo is opaque."""
    return bool(matte.max() >= SUBJECT)


def notes_on(photo: Photo, matte: np.ndarray) -> list[str]:
    """What a person should know about a photo and its matte."""
    if not has_subject(matte):
        return [*photo.notes, NO_SUBJECT]
    if photo.alpha is not None and not has_subject(matte * photo.alpha):
        return [*photo.notes, "the subject lies where the photo itself is transparent"]
    return list(photo.notes)


def render(photo: Photo, matte: np.ndarray, style: Style) -> np.ndarray:
    """The array that write_rendered takes.

    matte: float32 (H, W), as predicted. A photo's own alpha is multiplied in, but not into the equation that the
    foreground's colours are estimated with: it says nothing about how the subject and its background mix.
    """
    alpha = matte if photo.alpha is None else matte * photo.alpha
    if style.kind == "alpha":
        return alpha
    image = photos.to_uint8(photo.image) if style.bits == 8 else to_uint16(photo.image)
    colours = estimate_colours(image, matte)
    foreground = native_foreground(image, matte, colours)
    if style.kind == "foreground":
        return foreground
    if style.background is not None:
        return composite(foreground, alpha, style.background(image, colours, photo.icc_profile))
    levels = alpha * np.float32(np.iinfo(image.dtype).max) + np.float32(0.5)
    return cv2.merge((*cv2.split(foreground), levels.astype(image.dtype)))  # (H, W, 4)


def write_rendered(path: Path, rendered: np.ndarray, style: Style, icc_profile: bytes | None = None) -> None:
    """Write what render gave, and the folder it goes to. A matte has no colours, so no profile.

    Raises UserError.
    """
    make_folder(path.parent, "choose another --output")
    if style.kind == "alpha":
        photos.write_alpha(path, rendered, style.bits)
    else:
        photos.write_image(path, rendered, icc_profile)


def to_uint16(image: np.ndarray) -> np.ndarray:
    """uint8 to uint16, 255 becoming 65535."""
    return image if image.dtype == np.uint16 else image.astype(np.uint16) * np.uint16(257)


def read_background(text: str, max_pixels: int = photos.MAX_PIXELS) -> Background:
    """What stands behind a composite: "blur", a colour of sRGB ("red", "#00ff00") or a photo's path. Raises PhotoError.

    A colour and a photo are converted to the profile of the photo that they stand behind.
    """
    if text == "blur":
        return lambda image, colours, profile: blurred(colours, image)
    own_profile = None
    try:
        colour = np.array(ImageColor.getrgb(text)[:3], np.uint8).reshape(1, 1, 3)
    except ValueError:
        if not os.path.exists(text):  # False for a name that is too long, where Path.exists raises
            raise PhotoError(
                f"{text} is no background: give a colour (red, #00ff00), a photo's path or the word blur."
            ) from None
        photo = photos.read_photo(text, max_pixels=max_pixels)
        colour, own_profile = photos.to_uint8(photo.image), photo.icc_profile
    converted = lru_cache(maxsize=1)(partial(convert, colour, own_profile))  # the photos of a folder mostly share one
    return lambda image, colours, profile: covering(converted(profile), image)


def convert(pixels: np.ndarray, source: bytes | None, target: bytes | None) -> np.ndarray:
    """uint8 RGB (H, W, 3) from one profile to another, None being sRGB; unchanged where a profile cannot be used."""
    if source == target:
        return pixels
    try:
        before, after = (
            ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB") if profile is None else io.BytesIO(profile))
            for profile in (source, target)
        )
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        converted = ImageCms.profileToProfile(Image.fromarray(pixels), before, after, renderingIntent=intent)
    except (ImageCms.PyCMSError, OSError, ValueError):  # viewers ignore a broken profile too
        return pixels
    return np.asarray(converted)
