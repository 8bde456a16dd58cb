"""Build a folder of mixed real photos, some of them broken, for predict.py to prove itself on.

The good files go through every format and oddity that predict.py promises to read.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from PIL import Image, ImageCms

from common.photos import list_images, read_photo, to_uint8

ROOT = Path(__file__).resolve().parent.parent
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def encoded(image: np.ndarray | Image.Image, form: str, **options) -> bytes:
    """The bytes of a file that Pillow writes."""
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def by_opencv(image: np.ndarray, suffix: str) -> bytes:
    """16 bits per channel, which Pillow does not write."""
    return cv2.imencode(suffix, image[..., ::-1].astype(np.uint16) * 257)[1].tobytes()


def turned(image: np.ndarray, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, "JPEG", quality=90, exif=exif)


def see_through(image: np.ndarray) -> np.ndarray:
    """RGBA, opaque on the left and clear on the right."""
    alpha = np.broadcast_to(np.linspace(255, 0, image.shape[1]).astype(np.uint8)[None, :, None], (*image.shape[:2], 1))
    return np.concatenate([image, alpha], axis=2)


def grey(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def animated(image: np.ndarray, form: str) -> bytes:
    return encoded(image, form, save_all=True, append_images=[Image.fromarray(255 - image)])


# suffix of the file -> its bytes; {} takes the number
GOOD: tuple[tuple[str, Callable[[np.ndarray], bytes]], ...] = (
    ("holiday/{}.jpg", lambda image: encoded(image, "JPEG", quality=92)),
    ("{}.png", lambda image: encoded(image, "PNG")),
    ("{}.webp", lambda image: encoded(image, "WEBP", quality=90)),
    ("{}.tif", lambda image: encoded(image, "TIFF")),
    ("{}.bmp", lambda image: encoded(image, "BMP")),
    ("holiday/best of/{} \u00e9t\u00e9.JPEG", lambda image: encoded(image, "JPEG", progressive=True)),
    ("holiday/{}.v2.final.jpg", lambda image: turned(image, 6)),
    ("scans/{}.jpg", lambda image: turned(image, 3)),
    ("scans/{}.tiff", lambda image: by_opencv(image, ".tiff")),
    ("scans/{}.16 bit.png", lambda image: by_opencv(image, ".png")),
    ("print/{}.jpg", lambda image: encoded(Image.fromarray(image).convert("CMYK"), "JPEG")),
    ("print/{}.png", lambda image: encoded(Image.fromarray(image).convert("P", palette=Image.Palette.ADAPTIVE), "PNG")),
    ("grey/{}.jpg", lambda image: encoded(grey(image), "JPEG")),
    ("grey/{}.png", lambda image: encoded(Image.fromarray(grey(image)).convert("1"), "PNG")),
    ("layers/{}.png", lambda image: encoded(see_through(image), "PNG")),
    ("layers/{}.webp", lambda image: encoded(see_through(image), "WEBP")),
    ("moving/{}.webp", lambda image: animated(image, "WEBP")),
    ("moving/{}.png", lambda image: animated(image, "PNG")),
    ("profile/{}.jpg", lambda image: encoded(image, "JPEG", icc_profile=PROFILE)),
    ("odd/{}.jpg", lambda image: encoded(image, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")),
    ("odd/{} 1x1.png", lambda image: encoded(image[:1, :1], "PNG")),
    ("odd/{} line.png", lambda image: encoded(np.tile(image[:, :1], (-(-2000 // len(image)), 1, 1))[:2000], "PNG")),
)


def png_of_claimed_size(width: int, height: int) -> bytes:
    """A few bytes that promise a picture of that size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def clip(image: np.ndarray) -> bytes:
    """A video of four frames, whose table of contents stands at its end."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "clip.mov")
        writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"mp4v"), 25, image.shape[1::-1])
        for _ in range(4):
            writer.write(image)
        writer.release()
        return path.read_bytes()


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    """With damage in the middle."""
    middle = len(data) // 2
    return data[:middle] + bytes(255 - byte for byte in data[middle : middle + 64]) + data[middle + 64 :]


# None: a folder of that name
BROKEN: tuple[tuple[str, Callable[[np.ndarray], bytes | None]], ...] = (
    ("{} truncated.jpg", lambda image: half(encoded(image, "JPEG"))),
    ("{} only a header.jpg", lambda image: encoded(image, "JPEG")[:200]),
    ("holiday/{} truncated.png", lambda image: half(encoded(image, "PNG"))),
    ("{} truncated.webp", lambda image: half(encoded(image, "WEBP"))),
    ("scans/{} truncated.tif", lambda image: half(encoded(image, "TIFF"))),
    ("{} truncated.bmp", lambda image: half(encoded(image, "BMP"))),
    ("scans/{} truncated 16 bit.png", lambda image: half(by_opencv(image, ".png"))),
    ("{} damaged.png", lambda image: flipped(encoded(image, "PNG"))),
    ("{} empty.jpg", lambda image: b""),
    ("holiday/{} empty.png", lambda image: b""),
    ("{} text.jpg", lambda image: b"Not a photo.\n"),
    ("{} page.png", lambda image: b"<!doctype html><title>404</title>\n"),
    ("{} zeros.webp", lambda image: bytes(5000)),
    ("{} folder.jpg", lambda image: None),
    ("holiday/{} folder.png", lambda image: None),
    ("{} bomb.png", lambda image: png_of_claimed_size(60_000, 60_000)),
    ("{} empty.mp4", lambda image: b""),
    ("{} text.mkv", lambda image: b"Not a video.\n"),
    ("{} truncated.mov", lambda image: half(clip(image))),
    ("{} archive.tif", lambda image: b"PK\x03\x04" + bytes(300)),
)


def make_mixed_folder(target: Path, source: Path, long_side: int) -> list[Path]:
    """A file of each kind, of the photos in `source`, scaled down; returns the paths of the broken ones."""
    pictures, named = cycle(list_images(source)), []
    for kinds in (GOOD, BROKEN):
        for number, (pattern, make) in enumerate(kinds):
            photo = next(pictures)
            image = to_uint8(read_photo(photo).image)
            scale = min(1.0, long_side / max(image.shape))
            data = make(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
            path = target / pattern.format(f"{photo.stem}_{number:03d}")
            (path if data is None else path.parent).mkdir(parents=True, exist_ok=True)
            if data is not None:
                path.write_bytes(data)
            if kinds is BROKEN:
                named.append(path)
    return named
