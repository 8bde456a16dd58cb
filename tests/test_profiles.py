"""A composite is in one profile: what is put under a photo is seen as it was chosen."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from common.photos import Photo, write_image
from inference.rendering import Style, convert, read_background, render

CHOSEN = (60, 160, 90)  # sRGB; as numbers of Display P3 it would be seen as (0, 164, 81)
MATRICES = {  # red, green and blue in XYZ under D50
    "P3": ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)),
    "ProPhoto": ((0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03134, 0.00009, 0.82491)),
}


def profile(name: str, gamma: float = 2.2) -> bytes:
    """A matrix profile of version 2, as cameras and phones put into their files."""

    def fixed(*numbers: float) -> bytes:
        return b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)

    curve = b"curv\0\0\0\0" + struct.pack(">IHxx", 1, round(gamma * 256))
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(79)
    red, green, blue = (b"XYZ \0\0\0\0" + fixed(*column) for column in MATRICES[name])
    white = b"XYZ \0\0\0\0" + fixed(0.9642, 1.0, 0.8249)
    tags = {b"desc": text, b"cprt": b"text\0\0\0\0-\0\0\0", b"wtpt": white, b"rXYZ": red, b"gXYZ": green}
    tags |= {b"bXYZ": blue, b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    at, table, body = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for tag, data in tags.items():
        table += tag + struct.pack(">II", at + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"lcms", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + fixed(0.9642, 1.0, 0.8249) + bytes(48)
    return head + table + body


def seen(pixels: np.ndarray, icc_profile: bytes | None) -> np.ndarray:
    """sRGB of the first pixel."""
    return convert(pixels[:1, :1], icc_profile, None)[0, 0].astype(int)


def test_the_profile_of_this_test_is_that_of_the_issue():
    assert np.abs(seen(np.array([[CHOSEN]], np.uint8), profile("P3")) - (0, 164, 81)).max() <= 4


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("bits", [8, 16])
def test_a_colour_is_seen_as_chosen_on_a_photo_of_any_profile(name, bits):
    photo = Photo(np.full((8, 8, 3), 128, np.uint8), None, profile(name), ())
    style = Style("composite", bits, read_background("rgb(60, 160, 90)"))
    placed = render(photo, np.zeros((8, 8), np.float32), style)
    placed = (placed / (1 if bits == 8 else 257)).astype(np.uint8)
    assert np.abs(seen(placed, photo.icc_profile) - CHOSEN).max() <= 4
    kept = render(photo, np.ones((8, 8), np.float32), style)
    assert (kept == (128 if bits == 8 else 128 * 257)).all()  # the subject's numbers stay: the profile does too


@pytest.mark.parametrize(("below", "above"), [("P3", None), (None, "P3"), ("P3", "P3"), ("ProPhoto", "P3")])
def test_a_photo_below_keeps_its_look(tmp_path, below, above):
    profiles = {None: None, **{name: profile(name) for name in MATRICES}}
    colours = convert(np.full((8, 8, 3), CHOSEN, np.uint8), None, profiles[below])
    write_image(tmp_path / "below.png", colours, profiles[below])
    photo = Photo(np.full((8, 8, 3), 128, np.uint8), None, profiles[above], ())
    style = Style("composite", background=read_background(str(tmp_path / "below.png")))
    placed = render(photo, np.zeros((8, 8), np.float32), style)
    assert np.abs(seen(placed, photo.icc_profile) - CHOSEN).max() <= 5
    assert below != above or np.array_equal(placed, colours)


def test_a_broken_profile_changes_nothing():
    pixels = np.full((2, 2, 3), CHOSEN, np.uint8)
    for broken in (b"", b"none", profile("P3")[:200], bytes(500)):
        assert np.array_equal(convert(pixels, None, broken), pixels)
