"""Read and write photos: orientation, 16 bits, transparency, profiles; complete files or none.

    photo = read_photo("cat.jpg")        # photo.image (H, W, 3), upright; photo.alpha is the file's own
    write_alpha("cat.png", alpha)        # 8 bit grey PNG; bits=16 for more

common/decoding.py knows the formats. Everything goes through open files and bytes, so any file name works on any
system.
"""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from common.decoding import PhotoError, decode, first_line, png_chunk
from common.decoding import photo_size as photo_size
from common.errors import UserError
from common.files import atomic_write, list_files

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"),
    *(".heic", ".heif", ".hif", ".avif"),
)
NEARLY_EMPTY = 0.02  # games and renderers leave alpha channels that hide all of the picture
MAX_PIXELS = 200_000_000  # three bytes each: 600 MB for the photo alone


@dataclass(frozen=True, eq=False)
class Photo:
    """One decoded photo, upright.

    image: (H, W, 3) RGB, uint8 or, for 16 bit files, uint16. alpha: float32 (H, W) in [0, 1], or None
    where the file has none or is opaque, or transparent, everywhere. icc_profile: the bytes of an RGB profile, or None
    for sRGB. notes: what a person should know about the decoding ("frames left out: 3").
    """

    image: np.ndarray
    alpha: np.ndarray | None
    icc_profile: bytes | None
    notes: tuple[str, ...]


def list_images(root: str | Path) -> list[Path]:
    """Photos under a folder, by SUFFIXES; see files.walk. Raises UserError if a folder cannot be listed."""
    return list_files(root, SUFFIXES)


def read_photo(path: str | Path, shrink_to: int | None = None, max_pixels: int = MAX_PIXELS) -> Photo:
    """Decode a photo, upright and in RGB. Raises PhotoError for what is no readable photo of at most max_pixels.

    shrink_to lets a JPEG be decoded at 1/k, k = 2, 4 or 8, as long as its short side keeps shrink_to pixels; other
    formats ignore it. The result shows the whole photo: the last row and column, which the decoder fills up, are
    dropped where less than half full. Sizes are thus round(W / k), off by at most half a pixel of the result.
    """
    colour, alpha, icc_profile, notes = decode(path, shrink_to, max_pixels)
    if alpha is not None and alpha.max() <= NEARLY_EMPTY * np.iinfo(alpha.dtype).max:
        alpha = None
        notes.append("an alpha channel that is empty is ignored")
    if colour.ndim == 2:
        colour = cv2.cvtColor(colour, cv2.COLOR_GRAY2RGB)
    if icc_profile and icc_profile[16:20] != b"RGB ":
        icc_profile = None  # a CMYK or grey profile would be false for RGB pixels
    return Photo(colour, None if alpha is None else _to_unit(alpha), icc_profile, tuple(notes))


def read_alpha(path: str | Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a matte: float32 (H, W) in [0, 1], upright.

    From the alpha channel where there is one that is not (nearly) opaque everywhere, else from the grey, which
    may be stored as RGB. 8 and 16 bits. Raises PhotoError as read_photo, and for a picture in colours.
    """
    return _to_unit(_alpha_levels(path, max_pixels))


def read_alpha_levels(path: str | Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """As read_alpha, rounded to uint8 (H, W): a quarter of the memory."""
    return to_uint8(_alpha_levels(path, max_pixels))


def _alpha_levels(path: str | Path, max_pixels: int) -> np.ndarray:
    """A matte's levels, uint8 or uint16 (H, W); see read_alpha."""
    colour, alpha, _, _ = decode(path, None, max_pixels)
    if alpha is not None or colour.ndim == 2:
        return colour if alpha is None else alpha
    red, green, blue = cv2.split(colour)
    # JPEG rounds the channels of a grey picture a little apart: judged by the mean, not by the worst pixel.
    tint = max(cv2.absdiff(channel, green).mean(dtype=np.float64) for channel in (red, blue))
    if tint > 0.01 * np.iinfo(colour.dtype).max:
        raise PhotoError(f"{path} is a picture in colours, not a matte: give a grey one or an alpha channel.")
    return green


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Round a uint16 array (H, W[, C]) to uint8, 65535 becoming 255; a uint8 array is returned as it is."""
    if image.dtype == np.uint8:
        return image
    if image.dtype != np.uint16:
        raise ValueError(f"to_uint8 takes uint8 or uint16, not {image.dtype}")
    return cv2.convertScaleAbs(image, alpha=1 / 257).reshape(image.shape)  # no ties: 257 is odd


def write_alpha(path: str | Path, alpha: np.ndarray, bits: int = 8) -> None:
    """Write a matte as a grey PNG, rounded to 8 or 16 bits. alpha: float (H, W) in [0, 1].

    Raises UserError if it cannot be written, ValueError for an alpha that is not a finite (H, W).
    """
    if bits not in (8, 16) or Path(path).suffix.lower() != ".png":
        raise ValueError(f"a matte is a .png of 8 or 16 bits, not {Path(path).name} of {bits}")
    if alpha.ndim != 2 or not np.isfinite(alpha).all():
        raise ValueError(f"the matte for {path} must be (H, W) and finite, its shape is {alpha.shape}")
    top = 2**bits - 1
    levels = np.clip(alpha, 0, 1).astype(np.float32) * np.float32(top) + np.float32(0.5)
    write_image(path, levels.astype(np.uint8 if bits == 8 else np.uint16))


def write_image(path: str | Path, image: np.ndarray, icc_profile: bytes | None = None) -> None:
    """Write grey (H, W), RGB (H, W, 3) or straight-alpha RGBA (H, W, 4) as .png, .webp or .jpg, by suffix.

    uint8, or uint16, which PNG keeps and the others round to 8 bits. Raises UserError if the file
    cannot be written or its format cannot hold the image.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".png", ".webp", ".jpg", ".jpeg"):
        raise UserError(f"{path} has a suffix that is not written here: use .png, .webp or .jpg.")
    if suffix in (".jpg", ".jpeg") and image.shape[2:] == (4,):
        raise UserError(f"{path} cannot hold transparency: use .png or .webp.")
    try:
        data = _encode(image, suffix, icc_profile)
    except (ValueError, cv2.error) as error:
        raise UserError(f"{path} cannot be encoded ({first_line(error)}): try .png.") from error
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def _encode(image: np.ndarray, suffix: str, icc_profile: bytes | None) -> bytes:
    """The bytes of a file; see write_image."""
    if suffix == ".png":
        return _encode_png(image, icc_profile)
    buffer = io.BytesIO()
    # WebP of 12 megapixels of cut-out: method 0 takes 0.8 s for 2.4 MB, Pillow's default of 4 2.2 s for 2.0 MB. The
    # alpha is lossless in each.
    kind: dict[str, Any] = dict(format="WEBP", method=0) if suffix == ".webp" else dict(format="JPEG", subsampling=0)
    Image.fromarray(to_uint8(image)).save(buffer, quality=95, icc_profile=icc_profile, **kind)
    return buffer.getvalue()


def _encode_png(image: np.ndarray, icc_profile: bytes | None) -> bytes:
    """A PNG by OpenCV, which keeps 16 bits; the profile is put in by hand, as before 4.13 it cannot write one.

    OpenCV's defaults (level 1, run lengths, one filter) on 12 megapixels of leaves, fur and nothing, one
    core, ms and MB: 8 bit matte 55, 0.96; 16 bit matte 85, 3.15; RGBA cut-out 300, 8.3. Pillow at level 1:
    101, 0.89; 370, 3.31; 676, 8.1; at its default 6: 177, 0.73; 396, 3.04; 1238, 7.5. Asking OpenCV for
    any level makes it try all filters: 130 to 190 ms for the 8 bit matte and 0.74 MB at best.
    """
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR if image.shape[2] == 3 else cv2.COLOR_RGBA2BGRA)
    data = cv2.imencode(".png", image)[1].tobytes()
    if icc_profile is None:
        return data
    chunk = png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(icc_profile))
    return data[:33] + chunk + data[33:]  # 8 bytes of signature and 25 of IHDR come first


def _to_unit(levels: np.ndarray) -> np.ndarray:
    """uint8 or uint16 levels to float32 in [0, 1]."""
    return levels.astype(np.float32) / np.float32(np.iinfo(levels.dtype).max)
