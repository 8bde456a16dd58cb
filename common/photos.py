"""Read and write photos: orientation, 16 bits, transparency, profiles; complete files or none.

    photo = read_photo("cat.jpg")        # photo.image (H, W, 3), upright; photo.alpha is the file's own
    write_alpha("cat.png", alpha)        # 8 bit grey PNG; bits=16 for more

Pillow reads all that has 8 bits a channel, pillow-heif among it. OpenCV reads 16 bits, which Pillow cuts to 8, and
writes PNG. Everything goes through open files and bytes, so any file name works on any system.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import warnings
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError
from PIL.ExifTags import Base as ExifTag
from PIL.TiffImagePlugin import TiffImageFile

from common.files import FileError, atomic_write, list_files

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"),
    *(".heic", ".heif", ".hif", ".avif"),
)
MAX_PIXELS = 200_000_000  # three bytes each: 600 MB for the photo alone

# What a file holds counts, not its suffix. The list also keeps Pillow from starting Ghostscript and the like.
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "HEIF", "AVIF")
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")
_PNG_FACTS = (b"eXIf", b"iCCP", b"acTL", b"fcTL", b"fdAT")
_NEARLY_OPAQUE = 0.98  # editors leave 254 in a few pixels: such an alpha channel says nothing


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
    """(width, height) of the upright photo, without decoding it. Raises PhotoError."""
    with _opened(path) as (picture, _):
        width, height = picture.size
        return (height, width) if _orientation(picture, []) >= 5 else (width, height)


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

    From the alpha channel where there is one that is not (nearly) opaque everywhere, else from the grey, which
    may be stored as RGB. 8 and 16 bits. Raises PhotoError as read_photo, and for a picture in colours.
    """
    color, alpha, _, _ = _decode(path, None, max_pixels)
    if alpha is not None:
        return _to_unit(alpha)
    if color.ndim == 2:
        return _to_unit(color)
    red, green, blue = cv2.split(color)
    # JPEG rounds the channels of a grey picture a little apart: judged by the mean, not by the worst pixel.
    tint = max(cv2.mean(cv2.absdiff(red, green))[0], cv2.mean(cv2.absdiff(blue, green))[0])
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
    chunk = _png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(icc_profile))
    return data[:33] + chunk + data[33:]  # 8 bytes of signature and 25 of IHDR come first


def _decode(
    path: str | Path, shrink_to: int | None, max_pixels: int
) -> tuple[np.ndarray, np.ndarray | None, bytes | None, list[str]]:
    """(color (H, W) or (H, W, 3), alpha (H, W) or None, profile or None, notes), upright, 8 or 16 bit."""
    notes: list[str] = []
    with _opened(path) as (picture, stream):
        if isinstance(picture, TiffImageFile):
            _skip_thumbnails(picture, notes)
        elif picture.format != "MPO" and getattr(picture, "is_animated", False):
            notes.append("animated: first frame used")
        width, height = picture.size
        if width * height > max_pixels:
            raise PhotoError(
                f"{path} has {width} x {height} pixels, more than the limit of {max_pixels}: "
                "scale it down, or raise max_pixels if you trust it."
            )
        orientation = _orientation(picture, notes)
        icc_profile = picture.info.get("icc_profile")
        if _is_16_bit(picture):
            color, alpha = _decode_16_bit(path, picture, stream)
        elif picture.mode in _MODES:
            color, alpha = _decode_8_bit(picture, shrink_to, notes)
        else:
            raise PhotoError(f"{path} has pixels of mode {picture.mode}: save it as RGB or grey, 8 or 16 bit.")
        if alpha is not None and alpha.min() >= _NEARLY_OPAQUE * np.iinfo(alpha.dtype).max:
            alpha = None
        color = _turn(color, orientation)
        return color, None if alpha is None else _turn(alpha, orientation), icc_profile, notes


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[Image.Image, BinaryIO]]:
    """Pillow's view of a file's headers, and its bytes; whatever fails inside becomes one PhotoError."""
    # Pillow would print it into the progress bar
    warnings.filterwarnings("ignore", "Corrupt EXIF data", UserWarning, r"PIL\.")
    Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit would refuse 179 megapixels, whatever max_pixels says
    PngImagePlugin.MAX_TEXT_CHUNK = 2**26  # of a profile: printers' have more than Pillow's 1 MB
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise PhotoError(f"{path} is a folder, not a photo: name the files in it, or rename it.")
        if not stat.S_ISREG(status.st_mode):  # opening a pipe could wait forever
            raise PhotoError(f"{path} is a pipe or a device, not a file: save the photo to a file.")
        if status.st_size == 0:
            raise PhotoError(f"{path} is empty (0 bytes): save or copy it again.")
        with open(path, "rb") as file:
            is_png = file.read(8) == _PNG_SIGNATURE
            stream = io.BytesIO(_tidy_png(_PNG_SIGNATURE + file.read(), _PNG_PIXELS + _PNG_FACTS)) if is_png else file
            with Image.open(stream, formats=_formats()) as picture:
                yield picture, stream
    except PhotoError:
        raise
    except UnidentifiedImageError as error:
        raise PhotoError(
            f"{path} is no photo that can be read: give a JPEG, PNG, WebP, BMP, GIF, HEIC, AVIF, or a TIFF of 8 or "
            "16 bits."
        ) from error
    except MemoryError as error:
        raise PhotoError(f"{path} does not fit in memory: scale it down.") from error
    except Exception as error:  # on a broken file Pillow's plugins raise nearly anything
        if isinstance(error, OSError) and error.strerror:
            reason, cure = error.strerror, "check its name and permissions"
        else:
            reason, cure = _first_line(error), "it is damaged or cut short, save or copy it again"
        raise PhotoError(f"{path} cannot be read ({reason}): {cure}.") from error


@cache
def _formats() -> tuple[str, ...]:
    """Those of _FORMATS that this installation reads: pillow-heif and AVIF have no wheel for every system."""
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _tidy_png(data: bytes, kept: Collection[bytes]) -> bytes:
    """A PNG of the chunks named in `kept`, EXIF first. Raises ValueError where one of its pixels' is damaged.

    By hand, as Pillow refuses a file for one wrong bit in a comment or a long one, does not know the EXIF block behind
    the pixels until it has decoded them, and OpenCV's libpng prints about all these without naming the file.
    """
    chunks, at = [], 8
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        chunk = data[at : at + 12 + length]
        at += len(chunk)
        if kind not in kept:
            continue
        if len(chunk) < 12 + length:
            raise ValueError("image file is truncated")
        if zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big"):
            chunks.append((kind not in (b"IHDR", b"eXIf"), chunk))
        elif kind in _PNG_PIXELS:
            raise ValueError(f"wrong checksum of its {kind.decode()}")
    chunks.sort(key=lambda entry: entry[0])
    return _PNG_SIGNATURE + b"".join(chunk for _, chunk in chunks) + _png_chunk(b"IEND", b"")


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _skip_thumbnails(picture: TiffImageFile, notes: list[str]) -> None:
    """Go to the first page that is not marked as a reduced copy of another."""
    try:
        while picture.tag_v2.get(254, 0) & 1:  # NewSubfileType
            picture.seek(picture.tell() + 1)
    except EOFError:
        picture.seek(0)
    if picture.tell():
        notes.append(f"the first page is a thumbnail: page {picture.tell() + 1} used")
    elif picture.is_animated:
        notes.append("several pages: first used")


def _orientation(picture: Image.Image, notes: list[str]) -> int:
    """EXIF orientation, 1 to 8; 1 with a note where the EXIF block is broken."""
    block = picture.info.get("exif")
    if isinstance(picture, TiffImageFile) or not block:  # both decoders turn a TIFF themselves
        return 1
    exif = Image.Exif()  # not picture.getexif(): for some formats it hides a broken block, and it decodes a PNG
    try:
        exif.load(block)
        value = exif.get(ExifTag.Orientation, 1)
    except (SyntaxError, ValueError, struct.error):
        notes.append("broken EXIF ignored")
        return 1
    return value if value in range(1, 9) else 1


def _turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Make an (H, W[, C]) array upright. OpenCV is several times faster here than a copy of numpy's view."""
    if orientation >= 5:
        pixels = cv2.transpose(pixels)
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return pixels if flip is None else cv2.flip(pixels, flip)


def _decode_8_bit(
    picture: Image.Image, shrink_to: int | None, notes: list[str]
) -> tuple[np.ndarray, np.ndarray | None]:
    """(color, alpha) in uint8; a TIFF comes upright, the others as stored, a JPEG at 1/1, 1/2, 1/4 or 1/8."""
    box = (0, 0, *picture.size)
    if shrink_to is not None and (draft := picture.draft(None, (shrink_to, shrink_to))):
        box = (0, 0, *(max(1, round(side)) for side in draft[1][2:]))
    if picture.mode == "CMYK":
        notes.append("CMYK converted without its profile")
    if picture.mode.endswith(("A", "a")) or "transparency" in picture.info:
        pixels = np.array(picture.convert("RGBA"))
        return cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB), np.ascontiguousarray(pixels[..., 3])
    mode = "L" if picture.mode in ("1", "L") else "RGB"
    picture.load()  # turns a TIFF
    pixels = np.array(picture if picture.mode == mode else picture.convert(mode))
    return (pixels if shrink_to is None else np.ascontiguousarray(pixels[: box[3], : box[2]])), None


def _is_16_bit(picture: Image.Image) -> bool:
    """Whether a PNG or TIFF has 16 unsigned bits a channel; Pillow's mode does not tell."""
    if isinstance(picture, TiffImageFile):
        return set(picture.tag_v2.get(258, (1,))) == {16} and set(picture.tag_v2.get(339, (1,))) == {1}
    return picture.format == "PNG" and any("16" in str(tile.args) for tile in picture.tile)


def _decode_16_bit(path: str | Path, picture: Image.Image, stream: BinaryIO) -> tuple[np.ndarray, np.ndarray | None]:
    """(color, alpha) in uint16; a TIFF comes upright, a PNG as stored."""
    stream.seek(0)
    data = stream.read()
    tags, page = {}, 0
    if isinstance(picture, TiffImageFile):
        tags, page = picture.tag_v2, picture.tell()
    else:
        data = _tidy_png(data, _PNG_PIXELS)
    pages: Sequence[np.ndarray] = ()
    if tags.get(284) != 2:  # channels in separate planes: OpenCV reads them in a wrong order
        _, pages = cv2.imdecodemulti(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED, range=(page, page + 1))
    if not pages or pages[0].dtype != np.uint16:
        raise PhotoError(f"{path} is damaged or a rare kind of 16 bit file: save it again as 16 bit RGB.")
    color, alpha = pages[0], None
    if color.ndim == 2 and tags.get(262) == 0:  # white is stored as 0
        color = cv2.bitwise_not(color)
    elif color.ndim == 3:
        if color.shape[2] == 4 and ("A" in picture.mode or "transparency" in picture.info):  # else it means nothing
            alpha = np.ascontiguousarray(color[..., 3])
        color = cv2.cvtColor(color, cv2.COLOR_BGR2RGB if color.shape[2] == 3 else cv2.COLOR_BGRA2RGB)
    if alpha is None and "transparency" in picture.info:  # the level, or the colour, that stands for nothing
        hidden = color == np.asarray(picture.info["transparency"], np.uint16)
        alpha = np.where(hidden if color.ndim == 2 else hidden.all(axis=2), 0, 65535).astype(np.uint16)
    if alpha is not None and 1 in tags.get(338, ()):  # the colours are stored times alpha
        divisor = np.maximum(alpha, 1)[..., None].astype(np.uint32)
        color = np.minimum((color * np.uint32(65535) + divisor // 2) // divisor, 65535).astype(np.uint16)
    return color, alpha


def _to_unit(levels: np.ndarray) -> np.ndarray:
    """uint8 or uint16 levels to float32 in [0, 1]."""
    return levels.astype(np.float32) / np.float32(np.iinfo(levels.dtype).max)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(". ")
