"""Reading photos: formats, orientation, reduced decoding."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, features

from common.photos import photo_size, read_photo
from tests.photo_files import (
    PROFILE,
    RGB,
    RGB16,
    RGBA16,
    SMOOTH,
    exif_with,
    insert_chunks,
    png_chunk,
    save,
    save_by_opencv,
    save_tiff16,
    sentence,
)

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
    assert read_photo(path).image.shape == (10, 14, 3) and read_photo(path).notes == ("pages left out: 1",)


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


def test_transparency_comes_separately(tmp_path):
    grey, alpha = RGB[..., 0], RGB[..., 1]
    photo = read_photo(save(tmp_path / "rgba.png", np.dstack([RGB, alpha])))
    assert np.array_equal(photo.image, RGB)
    np.testing.assert_allclose(photo.alpha, alpha / 255, atol=1e-6)
    photo = read_photo(save(tmp_path / "la.png", np.dstack([grey, alpha])))
    assert np.array_equal(photo.image, np.dstack([grey] * 3))
    np.testing.assert_allclose(photo.alpha, alpha / 255, atol=1e-6)
    assert read_photo(save(tmp_path / "opaque.png", np.dstack([RGB, np.full_like(alpha, 255)]))).alpha is None
    for empty in (np.zeros_like(alpha), alpha // 52):  # 0 to 4 of 255
        photo = read_photo(save(tmp_path / "empty.png", np.dstack([RGB, empty])))
        assert photo.alpha is None and photo.notes == ("an alpha channel that is empty is ignored",)
        assert np.array_equal(photo.image, RGB)


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
def test_the_first_of_several_pictures_is_read_and_the_others_are_counted(tmp_path, name):
    frames = [Image.new("RGB", (20, 10), color) for color in ("red", "lime", "blue")]
    photo = read_photo(save(tmp_path / name, frames[0], save_all=True, append_images=frames[1:]))
    assert np.abs(photo.image.astype(int) - (255, 0, 0)).max() <= 8
    assert photo.notes == (f"{'pages' if name == 'a.tif' else 'frames'} left out: 2",)


def test_suffix_does_not_decide(tmp_path):
    path = tmp_path / "a.jpg"
    save(path, RGB, format="PNG")
    assert np.array_equal(read_photo(path).image, RGB)


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
