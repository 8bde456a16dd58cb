"""What the tests of photos share: pixels, and files of kinds that few programs write."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from common.photos import PhotoError, read_photo

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (40, 56, 3), dtype=np.uint8)
RGB16 = RNG.integers(0, 65536, (40, 56, 3), dtype=np.uint16)
RGBA16 = RNG.integers(0, 65536, (40, 56, 4), dtype=np.uint16)
SMOOTH = cv2.resize(RNG.integers(0, 256, (6, 7, 3), dtype=np.uint8), (200, 160), interpolation=cv2.INTER_CUBIC)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def save(path: Path, image: np.ndarray | Image.Image, **options) -> Path:
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(path, **options)
    return path


def save_by_opencv(path: Path, image: np.ndarray) -> Path:
    path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
    return path


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def insert_chunks(path: Path, *chunks: bytes, behind: bytes = b"") -> Path:
    """Put chunks before the pixels of a PNG, and bytes behind its end."""
    data = path.read_bytes()
    path.write_bytes(data[:33] + b"".join(chunks) + data[33:] + behind)
    return path


def save_tiff16(path: Path, pixels: np.ndarray, photometric: int, planar: int = 1, extra: int | None = None) -> Path:
    """A little-endian TIFF of uint16 (H, W, C) in one strip, or a strip for each plane: kinds no library writes."""
    height, width, channels = pixels.shape
    planes = np.moveaxis(pixels, 2, 0) if planar == 2 else pixels[None]
    size = pixels.nbytes // len(planes)
    entries = {256: [width], 257: [height], 258: [16] * channels, 259: [1], 262: [photometric]}
    entries |= {273: [8 + size * index for index in range(len(planes))], 277: [channels], 278: [height]}
    entries |= {279: [size] * len(planes), 284: [planar]} | ({} if extra is None else {338: [extra]})
    head, tail = struct.pack("<H", len(entries)), b""
    end = 8 + pixels.nbytes + 2 + 12 * len(entries) + 4
    for tag, values in entries.items():
        packed = struct.pack(f"<{len(values)}H", *values)
        if len(packed) > 4:
            tail, packed = tail + packed, struct.pack("<I", end + len(tail))
        head += struct.pack("<HHI", tag, 3, len(values)) + packed.ljust(4, b"\0")
    data = b"".join(plane.astype("<u2").tobytes() for plane in planes)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + head + bytes(4) + tail)
    return path


def exif_with(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def sentence(path: Path, read=read_photo, **options) -> str:
    with pytest.raises(PhotoError) as error:
        read(path, **options)
    text = str(error.value)
    assert text.startswith(str(path)) and text.endswith(".") and "\n" not in text
    return text
