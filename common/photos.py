"""Read and write photos faithfully: orientation, 16 bits, transparency, profiles, whole files or none.

    photo = read_photo("cat.jpg")        # photo.image (H, W, 3), upright; photo.alpha is the file's own
    write_alpha("cat.png", alpha)        # 8 bit grey PNG; bits=16 for more

Pillow reads the headers and most formats. OpenCV decodes two kinds: plain JPEGs, because it is faster
(12 megapixels on one core: 94 ms against 165 ms, the same pixels), and 16 bits a channel, which Pillow
cuts to 8. Everything goes through open files and bytes, so any file name works on any system.
"""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from common.files import FileError, atomic_write, list_files

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
MAX_PIXELS = 200_000_000  # three bytes each: 600 MB for the photo alone

# What a file holds counts, not its suffix. The list also keeps Pillow from starting Ghostscript and the like.
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
_ORIENTATION_TAG = 0x0112
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
_REDUCED = {
    2: (cv2.IMREAD_REDUCED_GRAYSCALE_2, cv2.IMREAD_REDUCED_COLOR_2),
    4: (cv2.IMREAD_REDUCED_GRAYSCALE_4, cv2.IMREAD_REDUCED_COLOR_4),
    8: (cv2.IMREAD_REDUCED_GRAYSCALE_8, cv2.IMREAD_REDUCED_COLOR_8),
}


class PhotoError(ValueError):
    """A file that cannot be read or written; str() is one sentence: which, what is wrong, what to do."""


@dataclass(frozen=True, eq=False)
class Photo:
    """One decoded photo, upright.

    image: (H, W, 3) RGB, uint8 or, for 16 bit files, uint16. alpha: float32 (H, W) in [0, 1], or None
    where the file has no transparency or is opaque everywhere. icc_profile: the bytes of an RGB profile
    or None. notes: what a person should know about the decoding ("animated: first frame used").
    """

    image: np.ndarray
    alpha: np.ndarray | None
    icc_profile: bytes | None
    notes: tuple[str, ...]


def list_images(root: str | Path) -> list[Path]:
    """Photos under a folder, by SUFFIXES; see files.walk. Raises PhotoError where a folder cannot be listed."""
    try:
        return list_files(root, SUFFIXES)
    except FileError as error:
        raise PhotoError(str(error)) from error


def photo_size(path: str | Path) -> tuple[int, int]:
    """(width, height) of the upright photo, from its headers only. Raises PhotoError."""
    with _opened(path) as (stream, header):
        width, height = _stored_size(header)
        return (height, width) if _orientation(header, stream, []) >= 5 else (width, height)


def read_photo(path: str | Path, shrink_to: int | None = None, max_pixels: int = MAX_PIXELS) -> Photo:
    """Decode a photo, upright and in RGB.

    shrink_to lets a JPEG be decoded at 1/2, 1/4 or 1/8 (a fraction of the work) as long as its short
    side keeps shrink_to pixels; other formats ignore it. The result shows the whole photo: of the last
    row and column, which the decoder fills up where the size is no multiple of k, those are dropped that
    are less than half full. Sizes are thus round(W / k), off by at most half a pixel of the result.

    Raises PhotoError for anything that is not a readable photo of at most max_pixels.
    """
    color, alpha, icc_profile, notes = _decode(path, shrink_to, max_pixels)
    if color.ndim == 2:
        color = cv2.cvtColor(color, cv2.COLOR_GRAY2RGB)
    if icc_profile and icc_profile[16:20] != b"RGB ":
        icc_profile = None  # a CMYK or grey profile would be false for RGB pixels
    return Photo(color, None if alpha is None else _to_unit(alpha), icc_profile, tuple(notes))


def read_alpha(path: str | Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a matte: float32 (H, W) in [0, 1], upright.

    From the alpha channel where there is one that is not opaque everywhere, else from the grey, which
    may be stored as RGB. 8 and 16 bits. Raises PhotoError as read_photo, and for a picture in colours.
    """
    color, alpha, _, _ = _decode(path, None, max_pixels)
    if alpha is not None:
        return _to_unit(alpha)
    if color.ndim == 2:
        return _to_unit(color)
    red, green, blue = cv2.split(color)
    # JPEG rounds the channels of a grey picture a little apart: judged by the mean, not by the worst pixel.
    tint = max(float(np.mean(cv2.absdiff(red, green))), float(np.mean(cv2.absdiff(blue, green))))
    if tint > 0.01 * np.iinfo(color.dtype).max:
        raise PhotoError(f"{path} is a picture in colours, not a matte: give a grey one or an alpha channel.")
    return _to_unit(green)


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Round a uint16 array (H, W[, C]) to uint8, 65535 becoming 255; a uint8 array is returned as it is."""
    if image.dtype == np.uint8:
        return image
    if image.dtype != np.uint16:
        raise ValueError(f"to_uint8 takes uint8 or uint16, not {image.dtype}")
    return cv2.convertScaleAbs(image, alpha=1 / 257).reshape(image.shape)  # no ties: 257 is odd


def write_alpha(path: str | Path, alpha: np.ndarray, bits: int = 8) -> None:
    """Write a matte as a grey PNG, rounded to 8 or 16 bits. alpha: float (H, W) in [0, 1].

    Raises PhotoError where it cannot be written, ValueError for an alpha that is not a finite (H, W).
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

    uint8, or uint16, which PNG keeps and the others round to 8 bits. Raises PhotoError where the file
    cannot be written or its format cannot hold the image.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".png", ".webp", ".jpg", ".jpeg"):
        raise PhotoError(f"{path} has a suffix that is not written here: use .png, .webp or .jpg.")
    if suffix in (".jpg", ".jpeg") and image.shape[2:] == (4,):
        raise PhotoError(f"{path} cannot hold transparency: use .png or .webp.")
    try:
        with atomic_write(path) as temporary:
            temporary.write_bytes(_encode(image, suffix, icc_profile))
    except FileError as error:
        raise PhotoError(str(error)) from error
    except (ValueError, cv2.error) as error:
        raise PhotoError(f"{path} cannot be encoded ({_first_line(error)}): try .png.") from error


def _encode(image: np.ndarray, suffix: str, icc_profile: bytes | None) -> bytes:
    """The bytes of a file; see write_image."""
    if suffix == ".png":
        return _encode_png(image, icc_profile)
    buffer = io.BytesIO()
    picture = Image.fromarray(to_uint8(image))
    if suffix == ".webp":
        # 12 megapixels of cut-out: method 0 takes 0.8 s for 2.4 MB, Pillow's default of 4 2.2 s for 2.0 MB.
        # The alpha is lossless in each.
        picture.save(buffer, "WEBP", quality=95, method=0, icc_profile=icc_profile)
    else:
        picture.save(buffer, "JPEG", quality=95, subsampling=0, icc_profile=icc_profile)
    return buffer.getvalue()


def _encode_png(image: np.ndarray, icc_profile: bytes | None) -> bytes:
    """A PNG by OpenCV, which keeps 16 bits; the profile is put in by hand, as it cannot write one.

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
    body = b"iCCPicc\0\0" + zlib.compress(icc_profile)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return data[:33] + chunk + data[33:]  # 8 bytes of signature and 25 of IHDR come first


def _decode(
    path: str | Path, shrink_to: int | None, max_pixels: int
) -> tuple[np.ndarray, np.ndarray | None, bytes | None, list[str]]:
    """(color (H, W) or (H, W, 3), alpha (H, W) or None, profile or None, notes), upright, 8 or 16 bit."""
    notes: list[str] = []
    with _opened(path) as (stream, header):
        is_tiff = header.format == "TIFF"
        width, height = _stored_size(header)
        if width * height > max_pixels:
            raise PhotoError(
                f"{path} has {width} x {height} pixels, more than the limit of {max_pixels}: "
                "scale it down, or raise max_pixels if you trust it."
            )
        if header.format != "MPO" and getattr(header, "is_animated", False):
            notes.append("several pages: first used" if is_tiff else "animated: first frame used")
        # Both decoders turn a TIFF themselves (OpenCV whatever its flags say), so it is not turned again.
        orientation = 1 if is_tiff else _orientation(header, stream, notes)
        icc_profile = header.info.get("icc_profile")
        if _is_16_bit(header, stream):
            color, alpha = _decode_16_bit(path, header, stream)
        elif header.format in ("JPEG", "MPO") and header.mode in ("L", "RGB"):
            color, alpha = _decode_jpeg(header, stream, shrink_to), None
        elif header.mode not in _MODES:
            raise PhotoError(f"{path} has pixels of mode {header.mode}: save it as RGB or grey, 8 or 16 bit.")
        else:
            color, alpha = _decode_by_pillow(header, notes)
        if alpha is not None and alpha.min() == np.iinfo(alpha.dtype).max:
            alpha = None
        color = _turn(color, orientation)
        return color, None if alpha is None else _turn(alpha, orientation), icc_profile, notes


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[BinaryIO, Image.Image]]:
    """The open file and Pillow's view of its headers; whatever fails inside becomes one PhotoError."""
    # Pillow would print it into the progress bar; Photo.notes says it
    warnings.filterwarnings("ignore", "Corrupt EXIF data", UserWarning, r"PIL\.")
    Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit would refuse 179 megapixels, whatever max_pixels says
    if os.path.isdir(path):
        raise PhotoError(f"{path} is a folder, not a photo: name the files in it, or rename it.")
    try:
        with open(path, "rb") as stream:
            if os.fstat(stream.fileno()).st_size == 0:
                raise PhotoError(f"{path} is empty (0 bytes): save or copy it again.")
            with Image.open(stream, formats=_FORMATS) as header:
                yield stream, header
    except PhotoError:
        raise
    except UnidentifiedImageError as error:
        raise PhotoError(
            f"{path} is no photo that can be read: give a JPEG, PNG, WebP, BMP, GIF or TIFF of 8 or 16 bits."
        ) from error
    except MemoryError as error:
        raise PhotoError(f"{path} does not fit in memory: scale it down.") from error
    except Exception as error:  # on a broken file Pillow's plugins raise nearly anything
        if isinstance(error, OSError) and error.strerror:
            reason, cure = error.strerror, "check its name and permissions"
        else:
            reason, cure = _first_line(error), "it is damaged or cut short, save or copy it again"
        raise PhotoError(f"{path} cannot be read ({reason}): {cure}.") from error


def _stored_size(header: Image.Image) -> tuple[int, int]:
    """(width, height) before orientation. Newer Pillows turn a TIFF's .size in advance, so ask its tags."""
    return (header.tag_v2[256], header.tag_v2[257]) if header.format == "TIFF" else header.size


def _orientation(header: Image.Image, stream: BinaryIO, notes: list[str]) -> int:
    """EXIF orientation, 1 to 8; 1 with a note where the EXIF block is broken."""
    if header.format == "TIFF":
        value = header.tag_v2.get(_ORIENTATION_TAG, 1)
    else:
        exif = header.info.get("exif")
        if exif is None and header.format == "PNG":
            exif = _png_exif(stream)
        try:
            value = _exif_orientation(exif) if exif else 1
        except (KeyError, struct.error):
            notes.append("broken EXIF ignored")
            value = 1
    return value if value in range(1, 9) else 1


def _exif_orientation(exif: bytes) -> int:
    """Look the tag up in the first directory of an EXIF block; KeyError or struct.error where it is broken.

    Pillow's getexif() is silent about some broken blocks, warns about others, and decodes a whole PNG.
    """
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}[exif[:2]]
    (start,) = struct.unpack_from(order + "I", exif, 4)
    (count,) = struct.unpack_from(order + "H", exif, start)
    for at in range(start + 2, start + 2 + 12 * count, 12):
        tag, _, _, value = struct.unpack_from(order + "HHIH", exif, at)  # tag, type, count, value
        if tag == _ORIENTATION_TAG:
            return value
    return 1


def _png_exif(stream: BinaryIO) -> bytes | None:
    """The EXIF block of a PNG, which may stand behind the pixels; leaves the stream where it was."""
    start = stream.tell()
    exif = None
    stream.seek(8)
    while exif is None and len(head := stream.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"eXIf":
            exif = stream.read(length)
        stream.seek(length + 4, os.SEEK_CUR)
    stream.seek(start)
    return exif


def _turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Make an (H, W[, C]) array upright. OpenCV is several times faster here than a copy of numpy's view."""
    if orientation >= 5:
        pixels = cv2.transpose(pixels)
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return pixels if flip is None else cv2.flip(pixels, flip)


def _decode_jpeg(header: Image.Image, stream: BinaryIO, shrink_to: int | None) -> np.ndarray:
    """A grey (H, W) or RGB (H, W, 3) JPEG at full size or at 1/2, 1/4, 1/8."""
    stream.seek(0)
    data = stream.read()
    if not _is_whole_jpeg(data):
        raise ValueError("image file is truncated")
    flag = cv2.IMREAD_GRAYSCALE if header.mode == "L" else cv2.IMREAD_COLOR
    scale = 1
    for k in (2, 4, 8):
        if shrink_to is not None and min(header.size) // k >= shrink_to:
            scale, flag = k, _REDUCED[k][header.mode == "RGB"]
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise ValueError("the JPEG data makes no sense")
    if header.mode == "RGB":
        cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)
    width, height = (max(1, round(side / scale)) for side in header.size)
    return np.ascontiguousarray(pixels[:height, :width])


def _is_whole_jpeg(data: bytes) -> bool:
    """Whether the end marker follows the picture. Where it is missing some OpenCVs (4.10) paint it grey.

    The segments before the scan are stepped over, as the thumbnail in one of them has an end marker too;
    inside the scan FF is always followed by 00 or a restart marker.
    """
    at = 2
    while at + 4 <= len(data) and data[at + 1] != 0xDA:
        # FF may be repeated as filling; a length counts its own two bytes, not the marker's.
        at += 1 if data[at + 1] == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data.find(b"\xff\xd9", at) >= 0


def _is_16_bit(header: Image.Image, stream: BinaryIO) -> bool:
    """Whether a PNG or TIFF has 16 unsigned bits a channel; Pillow's mode does not tell."""
    if header.format == "TIFF":
        signs = header.tag_v2.get(339, (1,))
        return set(header.tag_v2.get(258, (1,))) == {16} and set(signs) == {1}
    if header.format != "PNG":
        return False
    start = stream.tell()
    stream.seek(24)
    depth = stream.read(1)
    stream.seek(start)
    return depth == b"\x10"


def _decode_16_bit(path: str | Path, header: Image.Image, stream: BinaryIO) -> tuple[np.ndarray, np.ndarray | None]:
    """(color, alpha) in uint16; a TIFF comes upright, a PNG as stored."""
    stream.seek(0)
    data = stream.read()
    if header.format == "PNG" and b"IEND" not in data[-64:]:
        raise ValueError("image file is truncated")  # OpenCV finds that too, but prints three lines about it
    tags = header.tag_v2 if header.format == "TIFF" else {}
    pixels = None
    if tags.get(284) != 2:  # channels in separate planes: OpenCV reads them in a wrong order
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16:
        raise PhotoError(f"{path} is damaged or a rare kind of 16 bit file: save it again as 16 bit RGB.")
    if pixels.ndim == 2:
        return (~pixels if tags.get(262) == 0 else pixels), None  # tag 262 at 0: white is stored as 0
    if pixels.shape[2] == 3:
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), None
    alpha = None  # a fourth channel may have no stated meaning
    if "A" in header.mode or "transparency" in header.info:
        alpha = np.ascontiguousarray(pixels[..., 3])
    return cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGB), alpha


def _decode_by_pillow(header: Image.Image, notes: list[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """(color, alpha) in uint8; a TIFF comes upright (newer Pillows turn it unasked), the others as stored."""
    if header.mode == "CMYK":
        notes.append("CMYK converted without its profile")
    picture = ImageOps.exif_transpose(header) if header.format == "TIFF" else header
    if "A" in picture.mode or picture.mode == "RGBa" or "transparency" in picture.info:
        pixels = np.array(picture.convert("RGBA"))
        return cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB), np.ascontiguousarray(pixels[..., 3])
    mode = "L" if picture.mode in ("1", "L") else "RGB"
    return np.array(picture if picture.mode == mode else picture.convert(mode)), None


def _to_unit(levels: np.ndarray) -> np.ndarray:
    """uint8 or uint16 levels to float32 in [0, 1]."""
    return levels.astype(np.float32) / np.float32(np.iinfo(levels.dtype).max)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(". ")
