"""Colours named without an ICC profile: the output says the same, as the profile that is found shows."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from common.colour import HDR, SRGB, build_profile, by_numbers, srgb
from common.photos import Photo, read_photo, write_image
from inference.rendering import convert
from tests.photo_files import PROFILE, RGB, RGB16, insert_chunks, png_chunk, save, save_by_opencv

CHOSEN = np.array([[(60, 160, 90), (255, 255, 255), (0, 0, 0), (200, 40, 40)]], np.uint8)
P3 = (0, 164, 81)  # what (60, 160, 90) of Display P3 is in sRGB
CICP = {name: png_chunk(b"cICP", bytes([*codes, 0, 1])) for name, codes in {"P3": (12, 13), "PQ": (9, 16)}.items()}
GAMA = {value: png_chunk(b"gAMA", struct.pack(">I", value)) for value in (45455, 100_000, 0)}
CHRM = {
    name: png_chunk(b"cHRM", struct.pack(">8I", *(round(each * 100_000) for each in xy)))
    for name, xy in {
        "sRGB": (*SRGB[6:], *SRGB[:6]),
        "P3": (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
        "broken": (0.3127, 0, 0, 0, 0, 0, 0, 0),
    }.items()
}


def seen(photo: Photo) -> np.ndarray:
    """sRGB of the photo's first pixel as CHOSEN's first."""
    return convert(CHOSEN, photo.icc_profile, None)[0, 0].astype(int)


@pytest.mark.parametrize(
    ("chunks", "colour"),
    [
        ([], None),
        ([CICP["P3"]], P3),
        ([png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(PROFILE)), CICP["P3"]], P3),  # cICP counts more
        ([GAMA[45455]], None),
        ([GAMA[45455], CHRM["sRGB"]], None),
        ([CHRM["P3"]], P3),
        ([GAMA[45455], CHRM["P3"]], (0, 164, 81)),
        ([png_chunk(b"sRGB", b"\0"), GAMA[45455], CHRM["P3"]], None),
        ([GAMA[100_000]], (133, 208, 160)),  # linear light
        ([png_chunk(b"cICP", bytes([1, 13, 0, 1]))], None),
    ],
)
@pytest.mark.parametrize("image", [RGB, RGB16, RGB[..., 0]], ids=["8 bits", "16 bits", "grey"])
def test_png(tmp_path, chunks, colour, image):
    photo = read_photo(insert_chunks(save_by_opencv(tmp_path / "a.png", image), *chunks))
    assert photo.notes == () and photo.image.dtype == image.dtype
    if colour is None:
        assert photo.icc_profile is None
    else:
        assert np.abs(seen(photo) - colour).max() <= 3
        write_image(tmp_path / "b.png", photo.image, photo.icc_profile)
        assert read_photo(tmp_path / "b.png").icc_profile == photo.icc_profile  # the output says the same


@pytest.mark.parametrize(
    ("chunks", "note"),
    [
        ([CICP["PQ"]], HDR),
        ([png_chunk(b"cICP", bytes([77, 13, 0, 1]))], "unknown kind"),
        ([GAMA[45455], CHRM["broken"]], "broken colour values"),
        ([GAMA[0]], "broken colour values"),
    ],
)
def test_what_cannot_be_said_is_noted(tmp_path, chunks, note):
    photo = read_photo(insert_chunks(save(tmp_path / "a.png", RGB), *chunks))
    assert len(photo.notes) == 1 and note in photo.notes[0] and (photo.icc_profile is None) == (note != HDR)


@pytest.mark.parametrize("suffix", [".heic", ".avif"])
@pytest.mark.parametrize("codes", [(12, 13), (1, 13), (9, 16)])
def test_heic_and_avif(tmp_path, suffix, codes):
    path = tmp_path / f"a{suffix}"
    if suffix == ".heic":
        pillow_heif = pytest.importorskip("pillow_heif")
        names = ("color_primaries", "transfer_characteristics", "matrix_coefficients", "full_range_flag")
        heif = pillow_heif.from_pillow(Image.fromarray(RGB))
        heif.save(path, **dict(zip(names, (*codes, 6, 1), strict=True)))
    elif not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    else:  # Pillow writes 1 and 13
        data = save(path, RGB).read_bytes()
        plain, asked = (b"colrnclx" + struct.pack(">HH", *pair) for pair in ((1, 13), codes))
        assert plain in data
        path.write_bytes(data.replace(plain, asked))
    photo = read_photo(path)
    assert photo.notes == ((HDR,) if codes == (9, 16) else ())
    assert (photo.icc_profile is None) == (codes == (1, 13))
    if codes == (12, 13):
        assert np.abs(seen(photo) - P3).max() <= 2
        save_options = {"icc_profile": PROFILE}
        if suffix == ".avif":
            assert read_photo(save(tmp_path / "b.avif", RGB, **save_options)).icc_profile == PROFILE


@pytest.mark.parametrize("word", ["R03", "R98"])
def test_adobe_rgb_of_cameras(tmp_path, word):
    exif = Image.Exif()
    exif[0x8769] = {0xA005: {1: word}}
    photo = read_photo(save(tmp_path / "a.jpg", RGB, exif=exif))
    assert photo.notes == () and (photo.icc_profile is None) == (word == "R98")


def test_profiles_say_what_they_should():
    """Their own white is white and black black; sRGB built so is sRGB; HDR's paper white is white."""
    for codes in ((1, 8), (4, 4), (5, 5), (6, 13), (9, 13), (11, 13), (12, 13), (22, 13)):
        profile, note = by_numbers(*codes)
        assert (
            np.abs(convert(CHOSEN, profile, None)[0, 1:3].astype(int) - ((255,) * 3, (0,) * 3)).max() <= 1 and not note
        )
    assert np.abs(convert(CHOSEN, build_profile(SRGB, srgb), None).astype(int) - CHOSEN).max() <= 1
    for transfer, level in ((16, 0.5807), (18, 0.75)):  # of 203 cd / m2: BT.2408, table 1
        grey = np.full((1, 1, 3), round(level * 255), np.uint8)
        assert np.abs(convert(grey, by_numbers(9, transfer)[0], None).astype(int) - 255).max() <= 3


def test_the_web_page_and_predict_write_the_profile(tmp_path: Path):
    from inference.rendering import Style, render, write_rendered

    photo = read_photo(insert_chunks(save(tmp_path / "a.png", RGB), CICP["P3"]))
    for kind in ("cutout", "foreground"):
        style = Style(kind)
        rendered = render(photo, np.ones(RGB.shape[:2], np.float32), style)
        write_rendered(tmp_path / f"{kind}.png", rendered, style, photo.icc_profile)
        assert Image.open(tmp_path / f"{kind}.png").info["icc_profile"] == photo.icc_profile
