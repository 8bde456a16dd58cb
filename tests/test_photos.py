"""Reading and writing photos: formats, orientation, damage, whole files or none."""

from __future__ import annotations

import io
import os
import random
import struct
import threading
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, features

from common import photos
from common.photos import (
    PhotoError,
    list_images,
    photo_size,
    read_alpha,
    read_alpha_levels,
    read_photo,
    to_uint8,
    write_alpha,
    write_image,
)

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (40, 56, 3), dtype=np.uint8)
RGB16 = RNG.integers(0, 65536, (40, 56, 3), dtype=np.uint16)
RGBA16 = RNG.integers(0, 65536, (40, 56, 4), dtype=np.uint16)
SMOOTH = cv2.resize(RNG.integers(0, 256, (6, 7, 3), dtype=np.uint8), (200, 160), interpolation=cv2.INTER_CUBIC)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
# What each EXIF orientation asks of a viewer, in numpy's words and not in those of photos.py.
TURNS = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(np.swapaxes(a, 0, 1), 2),
    8: lambda a: np.rot90(a, 1),
}


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


# Formats


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".bmp", ".TIFF"])
def test_lossless_rgb(tmp_path, suffix):
    options = {"lossless": True} if suffix == ".webp" else {}
    photo = read_photo(save(tmp_path / f"a{suffix}", RGB, **options))
    assert np.array_equal(photo.image, RGB) and photo.image.dtype == np.uint8
    assert photo.alpha is None and photo.icc_profile is None and photo.notes == ()
    assert photo.image.flags.writeable  # torch.from_numpy warns about arrays that are not


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_equals_pillow(tmp_path, mode, progressive):
    path = save(tmp_path / "a.jpg", Image.fromarray(SMOOTH).convert(mode), quality=92, progressive=progressive)
    assert np.array_equal(read_photo(path).image, np.asarray(Image.open(path).convert("RGB")))


def test_cmyk_jpeg(tmp_path):
    """Pillow stores CMYK inverted, as Adobe does; red must come back red."""
    path = save(tmp_path / "a.jpg", Image.new("RGB", (32, 24), (255, 0, 0)).convert("CMYK"), icc_profile=PROFILE[:16])
    photo = read_photo(path)
    assert np.abs(photo.image.astype(int) - (255, 0, 0)).max() <= 4
    assert "CMYK" in photo.notes[0] and photo.icc_profile is None


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_are_kept(tmp_path, suffix):
    for stored, image, alpha in (
        (RGB16[..., 0], np.repeat(RGB16[..., :1], 3, axis=2), None),
        (RGB16[..., ::-1], RGB16, None),
        (cv2.cvtColor(RGBA16, cv2.COLOR_RGBA2BGRA), RGBA16[..., :3], RGBA16[..., 3] / 65535),
    ):
        photo = read_photo(save_by_opencv(tmp_path / f"a{suffix}", stored))
        assert photo.image.dtype == np.uint16 and np.array_equal(photo.image, image)
        assert (photo.alpha is None) == (alpha is None)
        if alpha is not None:
            assert photo.alpha.dtype == np.float32
            np.testing.assert_allclose(photo.alpha, alpha, atol=1e-6)


def test_16_bit_grey_with_alpha(tmp_path):
    rows = RGBA16[..., :2].astype(">u2")
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", 56, 40, 16, 4, 0, 0, 0)
    path = tmp_path / "a.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(data))
        + png_chunk(b"IEND", b"")
    )
    photo = read_photo(path)
    assert np.array_equal(photo.image, np.repeat(RGBA16[..., :1], 3, axis=2))
    np.testing.assert_allclose(photo.alpha, RGBA16[..., 1] / 65535, atol=1e-6)


def test_rare_16_bit_tiffs(tmp_path):
    path = save_tiff16(tmp_path / "a.tif", RGBA16, photometric=2, extra=2)
    assert np.array_equal(read_photo(path).image, RGBA16[..., :3]) and read_photo(path).alpha is not None
    path = save_tiff16(tmp_path / "a.tif", RGBA16, photometric=2, extra=0)
    assert np.array_equal(read_photo(path).image, RGBA16[..., :3]) and read_photo(path).alpha is None
    path = save_tiff16(tmp_path / "a.tif", RGB16[..., :1], photometric=0)
    assert np.array_equal(read_photo(path).image[..., :1], 65535 - RGB16[..., :1])
    sentence(save_tiff16(tmp_path / "a.tif", RGB16, photometric=2, planar=2))  # OpenCV would shuffle its pixels


def test_associated_alpha_of_16_bits(tmp_path):
    """The colours are stored times alpha; where it is 0 there is none."""
    alpha = np.maximum(RGBA16[..., 3:], 1000)
    stored = np.dstack([(RGB16 * (alpha / 65535)).round().astype(np.uint16), alpha])
    photo = read_photo(save_tiff16(tmp_path / "a.tif", stored, photometric=2, extra=1))
    assert np.abs(photo.image.astype(int) - RGB16).max() <= 33  # half a level, times 65535 / 1000
    np.testing.assert_allclose(photo.alpha, alpha[..., 0] / 65535, atol=1e-6)
    assert not read_photo(save_tiff16(tmp_path / "b.tif", stored * np.uint16(0), photometric=2, extra=1)).image.any()


def test_a_transparent_level_of_16_bits(tmp_path):
    grey = RGB16[..., 0].copy()
    grey[3:9] = 1234
    path = save_by_opencv(tmp_path / "grey.png", grey)
    photo = read_photo(insert_chunks(path, png_chunk(b"tRNS", struct.pack(">H", 1234))))
    assert np.array_equal(photo.image[..., 0], grey) and np.array_equal(photo.alpha, (grey != 1234).astype(np.float32))
    image = RGB16.copy()
    image[3:9] = 1, 2, 3
    path = save_by_opencv(tmp_path / "rgb.png", image[..., ::-1])
    photo = read_photo(insert_chunks(path, png_chunk(b"tRNS", struct.pack(">HHH", 1, 2, 3))))
    assert np.array_equal(photo.image, image) and photo.alpha[3:9].max() == 0 and photo.alpha.mean() > 0.8


@pytest.mark.parametrize("bits", [8, 16])
def test_a_thumbnail_before_the_photo_is_passed_over(tmp_path, bits):
    pages = [Image.fromarray(RGB16[..., 0] if bits == 16 else RGB) for _ in range(2)]
    small = pages[0].resize((14, 10))
    path = tmp_path / "a.tif"
    small.save(path, save_all=True, append_images=pages[:1], tiffinfo={254: 1})
    data = path.read_bytes()  # Pillow gives the tag to both pages
    at = data.rindex(struct.pack("<HHII", 254, 4, 1, 1))
    path.write_bytes(data[:at] + struct.pack("<HHII", 254, 4, 1, 0) + data[at + 12 :])
    photo = read_photo(path)
    assert photo.image.shape == (40, 56, 3) and photo_size(path) == (56, 40)
    assert np.array_equal(photo.image[..., 0], RGB16[..., 0] if bits == 16 else RGB[..., 0])
    assert photo.notes == ("the first page is a thumbnail: page 2 used",)
    path.write_bytes(data)  # all of them marked
    assert read_photo(path).image.shape == (10, 14, 3) and "first used" in read_photo(path).notes[0]


@pytest.mark.parametrize("suffix", [".heic", ".avif"])
def test_what_phones_make(tmp_path, suffix):
    pillow_heif = pytest.importorskip("pillow_heif") if suffix == ".heic" else None
    if pillow_heif:
        pillow_heif.register_heif_opener()
    elif not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    rgba = np.dstack([SMOOTH, np.broadcast_to(np.uint8(90), SMOOTH.shape[:2])])
    for orientation in (1, 6):
        path = save(tmp_path / f"a{suffix}", SMOOTH, quality=95, exif=exif_with(orientation))
        path = path.rename(tmp_path / "a.jpg")  # as some programs name it
        expected = TURNS[orientation](SMOOTH)
        assert photo_size(path) == expected.shape[1::-1]
        assert np.abs(read_photo(path).image.astype(int) - expected).mean() < 4
    photo = read_photo(save(tmp_path / f"b{suffix}", rgba, quality=95, icc_profile=PROFILE))
    assert np.abs(photo.alpha - 90 / 255).max() < 0.02 and photo.icc_profile == PROFILE
    cut = tmp_path / f"c{suffix}"
    cut.write_bytes((tmp_path / f"b{suffix}").read_bytes()[:-400])
    sentence(cut)


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


def test_transparency_comes_separately(tmp_path):
    grey, alpha = RGB[..., 0], RGB[..., 1]
    photo = read_photo(save(tmp_path / "rgba.png", np.dstack([RGB, alpha])))
    assert np.array_equal(photo.image, RGB)
    np.testing.assert_allclose(photo.alpha, alpha / 255, atol=1e-6)
    photo = read_photo(save(tmp_path / "la.png", np.dstack([grey, alpha])))
    assert np.array_equal(photo.image, np.dstack([grey] * 3))
    np.testing.assert_allclose(photo.alpha, alpha / 255, atol=1e-6)
    assert read_photo(save(tmp_path / "opaque.png", np.dstack([RGB, np.full_like(alpha, 255)]))).alpha is None


def test_palette_with_and_without_transparency(tmp_path):
    picture = Image.fromarray((RGB[..., 0] // 86).astype(np.uint8), "L").convert("P")
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)[np.asarray(picture)]
    photo = read_photo(save(tmp_path / "a.png", picture))
    assert np.array_equal(photo.image, colors) and photo.alpha is None
    photo = read_photo(save(tmp_path / "b.png", picture, transparency=1))
    assert np.array_equal(photo.alpha, (np.asarray(picture) != 1).astype(np.float32))


def test_one_bit(tmp_path):
    bits = RGB[..., 0] > 127
    for suffix in (".png", ".tif", ".bmp"):
        photo = read_photo(save(tmp_path / f"a{suffix}", Image.fromarray(bits)))
        assert np.array_equal(photo.image, np.repeat(bits[..., None] * np.uint8(255), 3, axis=2))


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tif"])
def test_first_frame_with_a_note(tmp_path, name):
    frames = [Image.new("RGB", (20, 10), color) for color in ("red", "lime", "blue")]
    photo = read_photo(save(tmp_path / name, frames[0], save_all=True, append_images=frames[1:]))
    assert np.abs(photo.image.astype(int) - (255, 0, 0)).max() <= 8
    assert len(photo.notes) == 1 and "first" in photo.notes[0]


def test_float_is_refused(tmp_path):
    for index, image in enumerate((RGB[..., 0].astype(np.float32), RGB[..., 0].astype(np.int32))):
        assert "8 or 16 bit" in sentence(save(tmp_path / f"{index}.tif", Image.fromarray(image)))
    assert "16 bits" in sentence(save_by_opencv(tmp_path / "rgb.tiff", RGB.astype(np.float32)))


def test_suffix_does_not_decide(tmp_path):
    path = tmp_path / "a.jpg"
    save(path, RGB, format="PNG")
    assert np.array_equal(read_photo(path).image, RGB)


def test_profile_is_carried(tmp_path):
    for name, image in (("a.jpg", RGB), ("a.png", RGB), ("b.png", RGB16), ("a.webp", RGB)):
        write_image(tmp_path / name, image, icc_profile=PROFILE)
        assert read_photo(tmp_path / name).icc_profile == PROFILE
    grey = PROFILE[:16] + b"GRAY" + PROFILE[20:]
    assert read_photo(save(tmp_path / "grey.png", RGB[..., 0], icc_profile=grey)).icc_profile is None


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations(tmp_path, orientation):
    exif = exif_with(orientation)
    expected = TURNS[orientation](RGB)
    rgba = np.dstack([RGB, RGB[..., 0]])
    for name, image, options in (
        ("a.png", RGB, {}),
        ("b.png", rgba, {}),
        ("a.tif", RGB, {}),
        ("a.webp", RGB, {"lossless": True}),
    ):
        path = save(tmp_path / name, image, exif=exif, **options)
        photo = read_photo(path)
        assert np.array_equal(photo.image, expected), name
        assert photo_size(path) == expected.shape[1::-1], name
        if image is rgba:
            np.testing.assert_allclose(photo.alpha, expected[..., 0] / 255, atol=1e-6)
    path = save(tmp_path / "a.jpg", SMOOTH, exif=exif, quality=95)
    assert photo_size(path) == TURNS[orientation](SMOOTH).shape[1::-1]
    stored = np.asarray(Image.open(path))
    assert np.array_equal(read_photo(path).image, TURNS[orientation](stored))
    half = read_photo(path, shrink_to=80).image
    assert half.shape == TURNS[orientation](stored[::2, ::2]).shape
    assert np.abs(half.astype(int) - TURNS[orientation](cv2.resize(stored, (100, 80), interpolation=3))).max() <= 8


@pytest.mark.parametrize("orientation", [2, 6, 8])
def test_orientation_of_16_bit_files(tmp_path, orientation):
    path = save_by_opencv(tmp_path / "a.png", RGB16[..., ::-1])
    data = path.read_bytes()
    block = png_chunk(b"eXIf", exif_with(orientation).removeprefix(b"Exif\0\0"))
    path.write_bytes(data[:-12] + block + data[-12:])  # behind the pixels, where some editors put it
    assert np.array_equal(read_photo(path).image, TURNS[orientation](RGB16))
    assert photo_size(path) == TURNS[orientation](RGB16).shape[1::-1]
    path = save(tmp_path / "a.tif", Image.fromarray(RGB16[..., 0]), tiffinfo={274: orientation})
    assert np.array_equal(read_photo(path).image[..., 0], TURNS[orientation](RGB16[..., 0]))
    assert photo_size(path) == TURNS[orientation](RGB16).shape[1::-1]


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_broken_exif_is_ignored_with_a_note(tmp_path, name):
    path = save(tmp_path / name, RGB, exif=b"Exif\0\0this is no directory of tags")
    photo = read_photo(path)
    assert photo.image.shape == RGB.shape and photo.notes == ("broken EXIF ignored",)
    assert photo_size(path) == (56, 40)


def test_meaningless_orientation_is_upright(tmp_path):
    assert np.array_equal(read_photo(save(tmp_path / "a.png", RGB, exif=exif_with(9))).image, RGB)


# Reduced decoding


@pytest.mark.parametrize(("shrink_to", "scale"), [(None, 1), (81, 1), (80, 2), (41, 2), (40, 4), (20, 8), (1, 8)])
def test_shrink_keeps_the_short_side(tmp_path, shrink_to, scale):
    image = read_photo(save(tmp_path / "a.jpg", SMOOTH), shrink_to=shrink_to).image
    assert image.shape == (160 // scale, 200 // scale, 3)


@pytest.mark.parametrize("width", range(192, 209))
def test_shrink_shows_the_whole_photo(tmp_path, width):
    """A ramp read at 1/8 and stretched back lies within half a pixel (4 of the original) of where it was."""
    ramp = np.tile(np.linspace(20, 235, width), (160, 1))
    path = save(tmp_path / "a.jpg", np.dstack([ramp] * 3).round().astype(np.uint8), quality=98)
    image = read_photo(path, shrink_to=16).image
    assert image.shape[:2] == (20, round(width / 8))
    back = cv2.resize(image, (width, 160), interpolation=cv2.INTER_LINEAR)[80, 8:-8, 1]
    shift = np.abs(back - ramp[80, 8:-8]) / (215 / (width - 1))
    assert shift.max() <= 4 + 1  # one more for the rounding to grey levels


def test_shrink_of_other_formats_and_greys(tmp_path):
    assert read_photo(save(tmp_path / "a.png", RGB), shrink_to=5).image.shape == RGB.shape
    assert read_photo(save(tmp_path / "a.jpg", SMOOTH[..., 0]), shrink_to=20).image.shape == (20, 25, 3)


# Bad input


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


# Mattes


@pytest.mark.parametrize("bits", [8, 16])
def test_alpha_round_trip(tmp_path, bits):
    alpha = RNG.random((40, 56)).astype(np.float32)
    alpha[0, :2] = 0, 1
    write_alpha(tmp_path / "a.png", alpha, bits=bits)
    back = read_alpha(tmp_path / "a.png")
    assert back.dtype == np.float32 and back[0, 0] == 0 and back[0, 1] == 1
    assert np.abs(back - alpha).max() <= 0.5001 / (2**bits - 1)  # half a level: rounded, not cut
    write_alpha(tmp_path / "b.png", back, bits=bits)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_alpha_encodings_agree(tmp_path):
    grey = RGB[..., 0]
    expected = grey / np.float32(255)
    paths = [
        save(tmp_path / "grey.png", grey),
        save(tmp_path / "rgb.png", np.dstack([grey] * 3)),
        save(tmp_path / "channel.png", np.dstack([RGB, grey])),
        save(tmp_path / "opaque.png", np.dstack([grey, grey, grey, np.full_like(grey, 255)])),
        save(tmp_path / "palette.png", Image.fromarray(grey).convert("P")),
        save_by_opencv(tmp_path / "deep.png", grey.astype(np.uint16) * 257),
        save_by_opencv(tmp_path / "deep_rgb.tif", np.dstack([grey.astype(np.uint16) * 257] * 3)),
    ]
    for path in paths:
        np.testing.assert_allclose(read_alpha(path), expected, atol=1e-6, err_msg=path.name)
        assert np.array_equal(read_alpha_levels(path), grey), path.name
    turned = save(tmp_path / "turned.png", grey, exif=exif_with(6))
    np.testing.assert_allclose(read_alpha(turned), np.rot90(expected, -1), atol=1e-6)
    soft = save(tmp_path / "soft.jpg", np.dstack([SMOOTH[..., 0]] * 3), quality=90)
    assert np.abs(read_alpha(soft) - SMOOTH[..., 0] / 255).max() < 0.05


def test_an_alpha_channel_that_says_nothing(tmp_path):
    """Editors leave 254 in a few pixels of an RGBA mask: the grey is the mask."""
    grey = RGB[..., 0]
    channel = np.full_like(grey, 255)
    channel[5:7] = 254
    path = save(tmp_path / "a.png", np.dstack([grey, grey, grey, channel]))
    np.testing.assert_allclose(read_alpha(path), grey / np.float32(255), atol=1e-6)


def test_a_picture_is_no_matte(tmp_path):
    assert "colours" in sentence(save(tmp_path / "a.png", RGB), read=read_alpha)


def test_write_alpha_refuses_nonsense(tmp_path):
    alpha = np.zeros((4, 5), np.float32)
    for bad in (np.zeros((1, 4, 5), np.float32), np.full((4, 5), np.nan, np.float32)):
        with pytest.raises(ValueError):
            write_alpha(tmp_path / "a.png", bad)
    with pytest.raises(ValueError):
        write_alpha(tmp_path / "a.jpg", alpha)
    with pytest.raises(ValueError):
        write_alpha(tmp_path / "a.png", alpha, bits=12)
    assert os.listdir(tmp_path) == []
    write_alpha(tmp_path / "a.png", alpha - 0.1)
    assert read_alpha(tmp_path / "a.png").max() == 0  # beyond the range is clipped, never wrapped


def test_to_uint8_rounds_every_level():
    levels = np.arange(65536, dtype=np.uint16)
    assert np.array_equal(to_uint8(levels.reshape(256, 256)).ravel(), np.floor(levels / 257 + 0.5))
    assert to_uint8(RGB) is RGB and to_uint8(RGB16).shape == RGB16.shape
    with pytest.raises(ValueError):
        to_uint8(levels.astype(np.float32))


# Writing


def test_write_image_round_trip(tmp_path):
    rgba = np.dstack([RGB, RGB[..., 0]])
    for image in (RGB, RGB16, rgba, RGBA16):
        write_image(tmp_path / "a.png", image)
        photo = read_photo(tmp_path / "a.png")
        assert photo.image.dtype == image.dtype and np.array_equal(photo.image, image[..., :3])
        assert (photo.alpha is None) == (image.shape[2] == 3)
    write_image(tmp_path / "a.webp", np.dstack([SMOOTH, SMOOTH[..., 0]]))
    np.testing.assert_allclose(read_photo(tmp_path / "a.webp").alpha, SMOOTH[..., 0] / 255, atol=1e-6)
    write_image(tmp_path / "a.jpg", SMOOTH.astype(np.uint16) * 257)
    assert np.abs(read_photo(tmp_path / "a.jpg").image.astype(int) - SMOOTH).max() < 8


def test_unwritable_combinations(tmp_path):
    with pytest.raises(PhotoError, match="transparency"):
        write_image(tmp_path / "a.jpg", RGBA16)
    with pytest.raises(PhotoError, match="suffix"):
        write_image(tmp_path / "a.gif", RGB)
    with pytest.raises(PhotoError, match="encoded"):
        write_image(tmp_path / "a.webp", np.zeros((1, 20_000, 3), np.uint8))  # WebP ends at 16383
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["dots.in.a name.png", "ünïcode 猫.png", "a" * 240 + ".png"])
def test_names(tmp_path, name):
    write_image(tmp_path / name, RGB)
    assert np.array_equal(read_photo(tmp_path / name).image, RGB)
    assert os.listdir(tmp_path) == [name]


def test_disk_full_and_missing_folder(tmp_path, monkeypatch):
    with pytest.raises(PhotoError, match="cannot be written .*No such file"):
        write_image(tmp_path / "missing" / "a.png", RGB)

    def full(path: Path, data: bytes) -> None:
        with open(path, "wb") as stream:
            stream.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(PhotoError, match="No space left"):
        write_alpha(tmp_path / "a.png", np.zeros((4, 5), np.float32))
    assert os.listdir(tmp_path) == []


def test_two_writers_of_one_file(tmp_path):
    """Ranks or threads that write the same name leave one whole file, whoever is last."""
    path = tmp_path / "a.png"
    writers = [threading.Thread(target=write_image, args=(path, RGB)) for _ in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert np.array_equal(read_photo(path).image, RGB) and os.listdir(tmp_path) == ["a.png"]


# Folders


def test_list_images(tmp_path):
    for name in ("b.JPG", "a.tiff", "c.HEIC", "d.jfif", "notes.txt", ".part-1.png"):
        (tmp_path / name).touch()
    assert [path.name for path in list_images(tmp_path)] == ["a.tiff", "b.JPG", "c.HEIC", "d.jfif"]
    with pytest.raises(PhotoError, match="cannot be listed"):
        list_images(tmp_path / "missing")


def test_shipped_photos_are_readable_and_listed():
    """Each photo in test_data/ has its row of source and terms; each true alpha fits its photo."""
    root = Path(photos.__file__).parent.parent
    listed = (root / "test_data" / "README.md").read_text(encoding="utf-8")
    shipped = list_images(root / "test_data")
    assert len(shipped) >= 5
    for path in shipped:
        assert f"| {path.name} |" in listed
        assert read_photo(path).notes == ()
    for path in (root / "tests" / "data").glob("synthetic_*.png"):
        assert photo_size(path) == photo_size(root / "test_data" / f"{path.stem}.jpg")
        alpha = read_alpha(path)
        assert alpha.min() == 0 and 0 < ((alpha > 0) & (alpha < 1)).mean() < 0.5
