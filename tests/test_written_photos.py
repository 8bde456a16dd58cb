"""Mattes and photos that are written: what is read back, whole files or none, and folders listed."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common import photos
from common.errors import UserError
from common.photos import (
    list_images,
    photo_size,
    read_alpha,
    read_alpha_levels,
    read_photo,
    to_uint8,
    write_alpha,
    write_image,
)
from tests.photo_files import PROFILE, RGB, RGB16, RGBA16, RNG, SMOOTH, exif_with, save, save_by_opencv, sentence

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
    with pytest.raises(UserError, match="transparency"):
        write_image(tmp_path / "a.jpg", RGBA16)
    with pytest.raises(UserError, match="suffix"):
        write_image(tmp_path / "a.gif", RGB)
    with pytest.raises(UserError, match="encoded"):
        write_image(tmp_path / "a.webp", np.zeros((1, 20_000, 3), np.uint8))  # WebP ends at 16383
    assert os.listdir(tmp_path) == []


def test_profile_is_carried(tmp_path):
    for name, image in (("a.jpg", RGB), ("a.png", RGB), ("b.png", RGB16), ("a.webp", RGB)):
        write_image(tmp_path / name, image, icc_profile=PROFILE)
        assert read_photo(tmp_path / name).icc_profile == PROFILE
    grey = PROFILE[:16] + b"GRAY" + PROFILE[20:]
    assert read_photo(save(tmp_path / "grey.png", RGB[..., 0], icc_profile=grey)).icc_profile is None


@pytest.mark.parametrize("name", ["dots.in.a name.png", "ünïcode 猫.png", "a" * 240 + ".png"])
def test_names(tmp_path, name):
    write_image(tmp_path / name, RGB)
    assert np.array_equal(read_photo(tmp_path / name).image, RGB)
    assert os.listdir(tmp_path) == [name]


def test_disk_full_and_missing_folder(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="cannot be written .*No such file"):
        write_image(tmp_path / "missing" / "a.png", RGB)

    def full(path: Path, data: bytes) -> None:
        with open(path, "wb") as stream:
            stream.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="No space left"):
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
    with pytest.raises(UserError, match="cannot be listed"):
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
