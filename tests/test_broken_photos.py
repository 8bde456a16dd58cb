"""Photos that are damaged, missing, no photos at all or far too large: each is read, or refused in a sentence."""

from __future__ import annotations

import io
import os
import random
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.photos import PhotoError, photo_size, read_alpha, read_photo
from tests.photo_files import (
    PROFILE,
    RGB,
    RGB16,
    RNG,
    SMOOTH,
    exif_with,
    insert_chunks,
    png_chunk,
    save,
    save_by_opencv,
    sentence,
)


@pytest.mark.parametrize("name", ["a.jpg", "progressive.jpg", "a.png", "a.webp", "a.tif", "a.bmp"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated_files_are_refused(tmp_path, name, share):
    options = {"progressive": True} if "prog" in name else {}
    path = save(tmp_path / name, RGB, **options)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    sentence(path)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # Pillow, about the TIFF
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_truncated_16_bit_files_are_refused(tmp_path, suffix, capfd):
    path = save_by_opencv(tmp_path / f"a{suffix}", RGB16)
    path.write_bytes(path.read_bytes()[:-4000])
    sentence(path)
    assert capfd.readouterr().err == ""  # nor does a library write into the progress bar


def test_truncated_jpeg_with_a_whole_thumbnail_is_refused(tmp_path):
    """The thumbnail's own end marker must not pass for the photo's; the whole file must still be read."""
    buffer = io.BytesIO()
    Image.fromarray(RGB[:16, :16]).save(buffer, "JPEG")
    thumbnail = b"Exif\0\0" + exif_with(1).removeprefix(b"Exif\0\0") + buffer.getvalue()
    path = save(tmp_path / "a.jpg", SMOOTH, exif=thumbnail)
    data = path.read_bytes()
    assert read_photo(path).image.shape == SMOOTH.shape
    path.write_bytes(data[:-100])
    assert "truncated" in sentence(path)
    path.write_bytes(data + b"a phone's trailer")
    assert read_photo(path).image.shape == SMOOTH.shape


FUZZED = ["a.jpg", "progressive.jpg", "a.png", "16.png", "a.webp", "a.tif", "lzw.tif", "16.tif", "a.bmp", "a.gif"]


@pytest.mark.parametrize("name", FUZZED)
def test_mutated_files_are_read_or_refused(tmp_path, name):
    """Thirty of each kind: bytes changed, taken out, put in. Nothing else than a photo or one sentence comes of it."""
    path = tmp_path / name
    options = {"exif": exif_with(6)} if name.endswith((".jpg", ".png", ".tif", ".webp")) else {}
    options |= {"progressive": True} if name == "progressive.jpg" else {}
    options |= {"compression": "tiff_lzw"} if name == "lzw.tif" else {}
    whole = (save_by_opencv(path, RGB16) if "16" in name else save(path, RGB, **options)).read_bytes()
    chance = random.Random(name)
    done = {"read": 0, "refused": 0}
    for _ in range(30):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 2, 8))):
            at = chance.randrange(min(len(data), chance.choice((60, 400, len(data)))))  # headers more often
            length = chance.choice((0, 1, 4, 100))
            data[at : at + length] = chance.randbytes(chance.choice((length, 0, 4)))
        path.write_bytes(data)
        for read in (read_photo, read_alpha, photo_size):
            try:
                read(path)
                done["read"] += 1
            except PhotoError as error:
                assert str(error).startswith(str(path)) and str(error).endswith(".") and "\n" not in str(error)
                done["refused"] += 1
    assert min(done.values()) > 0  # mutations that always or never harm would test nothing


@pytest.mark.parametrize("bits", [8, 16])
def test_pngs_that_other_readers_open(tmp_path, bits, capfd):
    image = RGB if bits == 8 else RGB16
    comment = png_chunk(b"tEXt", b"Comment\0fine")
    noise = RNG.integers(0, 256, 1_200_000, dtype=np.uint8).tobytes()
    profile = PROFILE + noise
    chunks = {
        "crc.png": [comment[:-1] + bytes([comment[-1] ^ 1])],
        "text.png": [png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(3_000_000)))],
        "profile.png": [png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(profile))],
        "no_profile.png": [png_chunk(b"iCCP", b"icc\0\0no deflate")],
        "behind.png": [],
    }
    for name, extra in chunks.items():
        path = save_by_opencv(tmp_path / name, image[..., ::-1])
        insert_chunks(path, *extra, behind=png_chunk(b"IDAT", b"\0") + noise if name == "behind.png" else b"")
        photo = read_photo(path)
        assert np.array_equal(photo.image, image), name
        assert photo.icc_profile == (profile if name == "profile.png" else None)
        assert photo_size(path) == (56, 40)
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 40] ^= 1
    path.write_bytes(data)
    assert "wrong checksum" in sentence(path)
    assert capfd.readouterr().err == ""


def test_float_is_refused(tmp_path):
    for index, image in enumerate((RGB[..., 0].astype(np.float32), RGB[..., 0].astype(np.int32))):
        assert "8 or 16 bit" in sentence(save(tmp_path / f"{index}.tif", Image.fromarray(image)))
    assert "16 bits" in sentence(save_by_opencv(tmp_path / "rgb.tiff", RGB.astype(np.float32)))


def test_files_that_are_no_photos(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no photo")
    (tmp_path / "script.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    (tmp_path / "folder.jpg").mkdir()
    assert "empty" in sentence(tmp_path / "empty.jpg")
    assert "no photo" in sentence(tmp_path / "text.jpg")
    assert "no photo" in sentence(tmp_path / "script.jpg")
    assert "folder" in sentence(tmp_path / "folder.jpg")
    assert "No such file" in sentence(tmp_path / "missing.jpg")
    assert "empty" in sentence(tmp_path / "empty.jpg", read=photo_size)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    for read in (read_photo, read_alpha, photo_size):
        assert "pipe" in sentence(tmp_path / "a.jpg", read=read)
    assert "device" in sentence(Path("/dev/null"))


def test_unreadable_permissions(tmp_path, monkeypatch):
    """Simulated, as root may read anything."""

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    path = save(tmp_path / "a.png", RGB)
    monkeypatch.setattr("builtins.open", refuse)
    assert "Permission denied" in sentence(path)


@pytest.mark.filterwarnings("error")
def test_decompression_bomb_is_seen_in_the_header(tmp_path):
    path = save(tmp_path / "a.png", Image.new("1", (16_000, 12_600)))  # 201.6 megapixels in 25 kB
    assert photo_size(path) == (16_000, 12_600)  # and neither warning nor exception of Pillow's
    assert "16000 x 12600" in sentence(path)
    small = save(tmp_path / "b.png", RGB)
    assert "limit of 2000" in sentence(small, max_pixels=2000)
    assert "limit of 2000" in sentence(small, read=read_alpha, max_pixels=2000)
    assert read_photo(small, max_pixels=56 * 40).image.shape == RGB.shape


@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (20_000, 1)])
def test_extreme_shapes(tmp_path, size):
    for suffix in (".png", ".jpg", ".tif"):
        path = save(tmp_path / f"a{suffix}", Image.new("RGB", size, "gray"), exif=exif_with(6))
        assert photo_size(path) == size[::-1]
        assert read_photo(path, shrink_to=1).image.shape == (*size, 3)
