"""Bytes of a photo to upright pixels, for common/photos.py: what the libraries read, and where they need help.

Pillow reads all that has 8 bits per channel, with pillow-heif for HEIC; OpenCV reads 16 bits, which Pillow cuts to 8.
OpenCV would read a JPEG of 12 megapixels in 101 ms, Pillow takes 126: reading it and writing its matte takes 1.16 times
as long, reading it reduced for training 0.9 times. But OpenCV cannot read all, and prints about what is wrong.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import warnings
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError
from PIL.ExifTags import Base as ExifTag
from PIL.TiffImagePlugin import TiffImageFile

from common.errors import UserError

# What a file holds counts, not its suffix. The list also keeps Pillow from starting Ghostscript and the like.
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "HEIF", "AVIF")
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")
_PNG_KEPT = (*_PNG_PIXELS, b"eXIf", b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"acTL", b"fcTL", b"fdAT")
HEAD = 2**16  # bytes in which HEIC, AVIF and PNG name their colours
_NEARLY_OPAQUE = 0.98  # editors leave 254 in a few pixels: such an alpha channel says nothing


class PhotoError(UserError):
    """A file that cannot be read or written; str() is one sentence: which, what is wrong, what to do."""


def require_file(path: str | Path, what: str) -> None:
    """Raise PhotoError for what is no file with anything in it, OSError for what is not there. what: photo or video."""
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise PhotoError(f"{path} is a folder, not a {what}: name the files in it, or rename it.")
    if not stat.S_ISREG(status.st_mode):  # opening a pipe could wait forever
        raise PhotoError(f"{path} is a pipe or a device, not a file: save the {what} to a file.")
    if status.st_size == 0:
        raise PhotoError(f"{path} is empty (0 bytes): save or copy it again.")


def photo_size(path: str | Path, quick: bool = False) -> tuple[int, int]:
    """(width, height) of the upright photo, without decoding it. Raises PhotoError.

    quick: of a PNG only what comes before its pixels is read. Few programs write the orientation behind them.
    """
    with _opened(path, png_chunks=(b"IHDR", b"eXIf"), png_end=b"IDAT" if quick else b"IEND") as (picture, _):
        width, height = picture.size
        return (height, width) if _orientation(picture, _read_exif(picture, [])) >= 5 else (width, height)


def decode(
    path: str | Path, shrink_to: int | None, max_pixels: int
) -> tuple[np.ndarray, np.ndarray | None, bytes | None, list[str]]:
    """(colour (H, W) or (H, W, 3), alpha (H, W) or None, profile or None, notes), upright, 8 or 16 bit."""
    notes: list[str] = []
    with _opened(path) as (picture, stream):
        if picture.tell() and isinstance(picture, TiffImageFile):
            notes.append(f"the first page is a thumbnail: page {picture.tell() + 1} used")
        if more := _pictures_left_out(picture):
            notes.append(f"{'pages' if isinstance(picture, TiffImageFile) else 'frames'} left out: {more}")
        width, height = picture.size
        if width * height > max_pixels:
            raise PhotoError(
                f"{path} has {width} x {height} pixels, more than the limit of {max_pixels}: "
                "scale it down, or raise max_pixels if you trust it."
            )
        exif = _read_exif(picture, notes)
        from common.colour import find_profile  # until a photo is read nobody needs it

        at = stream.tell()
        stream.seek(0)
        icc_profile, note = find_profile(picture, stream.read(HEAD), exif)
        stream.seek(at)  # Pillow may read on
        notes.extend(filter(None, [note]))
        if _is_16_bit(picture):
            colour, alpha = _decode_16_bit(path, picture, stream)
        elif picture.mode in _MODES:
            colour, alpha = _decode_8_bit(picture, shrink_to, notes)
        else:
            raise PhotoError(f"{path} has pixels of mode {picture.mode}: save it as RGB or grey, 8 or 16 bit.")
        if alpha is not None and alpha.min() >= _NEARLY_OPAQUE * np.iinfo(alpha.dtype).max:
            alpha = None
        orientation = _orientation(picture, exif)
        colour = _turn(colour, orientation)
        return colour, None if alpha is None else _turn(alpha, orientation), icc_profile, notes


@contextmanager
def _opened(
    path: str | Path, png_chunks: Collection[bytes] = _PNG_KEPT, png_end: bytes = b"IEND"
) -> Iterator[tuple[Image.Image, BinaryIO]]:
    """Pillow's view of a file's headers, and its bytes; whatever fails inside becomes one PhotoError.

    Of a PNG the chunks named in png_chunks before png_end.
    """
    # What the libraries print names no file and goes into the progress bar.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    cv2.setLogLevel(0)
    Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit would refuse 179 megapixels, whatever max_pixels says
    PngImagePlugin.MAX_TEXT_CHUNK = 2**26  # of a profile: printers' have more than Pillow's 1 MB
    try:
        require_file(path, "photo")
        with open(path, "rb") as file:
            is_png = file.read(8) == _PNG_SIGNATURE
            stream = _tidy_png(file, png_chunks, png_end) if is_png else file
            stream.seek(0)
            with Image.open(stream, formats=_formats()) as picture:
                if isinstance(picture, TiffImageFile):
                    _skip_thumbnails(picture)
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
            reason, cure = first_line(error), "it is damaged or cut short, save or copy it again"
        raise PhotoError(f"{path} cannot be read ({reason}): {cure}.") from error


@cache
def _formats() -> tuple[str, ...]:
    """Those of _FORMATS that this installation reads: not every system has pillow-heif and AVIF."""
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _tidy_png(stream: BinaryIO, kept: Collection[bytes], end: bytes = b"IEND") -> BinaryIO:
    """A PNG of the chunks named in `kept` before `end`, EXIF and cICP first. Raises ValueError if one of its pixels' is
    damaged.

    By hand, as Pillow refuses a file for one wrong bit in a comment or a long one, does not know the EXIF block behind
    the pixels until it has decoded them, and OpenCV's libpng prints about all these without naming the file.
    """
    stream.seek(8)
    chunks = []
    # IEND: what some programs put behind it is no part of the picture
    while len(head := stream.read(8)) == 8 and (kind := head[4:]) not in (end, b"IEND"):
        length = int.from_bytes(head[:4], "big")
        if kind not in kept:
            stream.seek(length + 4, os.SEEK_CUR)
            continue
        body, checksum = stream.read(length), stream.read(4)
        if len(checksum) < 4:
            raise ValueError("image file is truncated")
        if zlib.crc32(body, zlib.crc32(kind)) == int.from_bytes(checksum, "big"):
            chunks.append((kind not in (b"IHDR", b"eXIf", b"cICP"), head + body + checksum))
        elif kind in _PNG_PIXELS:
            raise ValueError(f"wrong checksum of its {kind.decode()}")
    chunks.sort(key=lambda entry: entry[0])
    return io.BytesIO(b"".join([_PNG_SIGNATURE, *(chunk for _, chunk in chunks), png_chunk(b"IEND", b"")]))


def _skip_thumbnails(picture: TiffImageFile) -> None:
    """Go to the first page that is not marked as a reduced copy of another."""
    try:
        while picture.tag_v2.get(254, 0) & 1:  # NewSubfileType
            picture.seek(picture.tell() + 1)
    except EOFError:
        picture.seek(0)


def _pictures_left_out(picture: Image.Image) -> int:
    """How many pictures of a file come after the one that is read. The others of an MPO are for stereo and HDR."""
    if picture.format == "MPO" or not getattr(picture, "is_animated", False):
        return 0
    used = picture.tell()
    try:
        return picture.n_frames - 1 - used  # type: ignore[attr-defined]  # counting moves to the last page
    except Exception:  # a broken page further on harms nothing
        return 1
    finally:
        picture.seek(used)


def _read_exif(picture: Image.Image, notes: list[str]) -> Image.Exif:
    """The EXIF block; empty where there is none, and with a note where it is broken."""
    exif = Image.Exif()  # not picture.getexif(): for some formats it hides a broken block, and it decodes a PNG
    if block := picture.info.get("exif"):
        with suppress(Exception):  # on a broken block Pillow raises nearly anything
            exif.load(block)
        if not len(exif):  # so it is too where Pillow finds no directory of tags, and only warns
            notes.append("broken EXIF ignored")
    return exif


def _orientation(picture: Image.Image, exif: Image.Exif) -> int:
    """EXIF orientation, 1 to 8. Both decoders turn a TIFF themselves."""
    value = 1
    with suppress(Exception):  # the value may be broken too
        value = 1 if isinstance(picture, TiffImageFile) else exif.get(ExifTag.Orientation, 1)
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
    """(colour, alpha) in uint8; a TIFF comes upright, the others as stored, a JPEG at 1/1, 1/2, 1/4 or 1/8."""
    exact = None if shrink_to is None else picture.draft(None, (shrink_to, shrink_to))
    if picture.mode == "CMYK":
        notes.append("CMYK converted without its profile")
    if picture.mode.endswith(("A", "a")) or "transparency" in picture.info:
        pixels = np.array(picture.convert("RGBA"))
        return cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB), np.ascontiguousarray(pixels[..., 3])
    mode = "L" if picture.mode in ("1", "L") else "RGB"
    picture.load()  # turns a TIFF
    pixels = np.array(picture if picture.mode == mode else picture.convert(mode))
    if exact is not None:  # the decoder filled the last row and column up; see read_photo
        width, height = (max(1, round(side)) for side in exact[1][2:])
        pixels = np.ascontiguousarray(pixels[:height, :width])
    return pixels, None


def _is_16_bit(picture: Image.Image) -> bool:
    """Whether a PNG or TIFF has 16 unsigned bits per channel; Pillow's mode does not tell."""
    if isinstance(picture, TiffImageFile):
        return set(picture.tag_v2.get(258, (1,))) == {16} and set(picture.tag_v2.get(339, (1,))) == {1}
    return isinstance(picture, PngImagePlugin.PngImageFile) and any("16" in str(tile.args) for tile in picture.tile)


def _decode_16_bit(path: str | Path, picture: Image.Image, stream: BinaryIO) -> tuple[np.ndarray, np.ndarray | None]:
    """(colour, alpha) in uint16; a TIFF comes upright, a PNG as stored."""
    tags: Mapping[int, Any] = {}
    page = 0
    if isinstance(picture, TiffImageFile):
        tags, page = picture.tag_v2, picture.tell()
    else:
        stream = _tidy_png(stream, _PNG_PIXELS)
    stream.seek(0)
    pages: Sequence[np.ndarray] = ()
    if tags.get(284) != 2:  # channels in separate planes: OpenCV reads them in a wrong order
        data = np.frombuffer(stream.read(), np.uint8)
        _, pages = cv2.imdecodemulti(data, cv2.IMREAD_UNCHANGED, range=(page, page + 1))
    if not pages or pages[0].dtype != np.uint16:
        raise PhotoError(f"{path} is damaged or a rare kind of 16 bit file: save it again as 16 bit RGB.")
    colour, alpha = pages[0], None
    if colour.ndim == 2 and tags.get(262) == 0:  # white is stored as 0
        colour = cv2.bitwise_not(colour)
    elif colour.ndim == 3:
        if colour.shape[2] == 4 and ("A" in picture.mode or "transparency" in picture.info):  # else it means nothing
            alpha = np.ascontiguousarray(colour[..., 3])
        colour = cv2.cvtColor(colour, cv2.COLOR_BGR2RGB if colour.shape[2] == 3 else cv2.COLOR_BGRA2RGB)
    if alpha is None and "transparency" in picture.info:  # the level, or the colour, that stands for nothing
        hidden = colour == np.asarray(picture.info["transparency"], np.uint16)
        alpha = np.where(hidden if colour.ndim == 2 else hidden.all(axis=2), 0, 65535).astype(np.uint16)
    if alpha is not None and 1 in tags.get(338, ()):  # the colours are stored times alpha
        divisor = np.maximum(alpha, 1)[..., None].astype(np.uint32)
        colour = np.minimum((colour * np.uint32(65535) + divisor // 2) // divisor, 65535).astype(np.uint16)
    return colour, alpha


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(". ")
