"""Colours from one ICC profile to another: what is put under a photo has to be in the photo's own colours."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageCms


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
