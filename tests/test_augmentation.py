"""data.augmentation: functions of pixels and rng; photo, alpha and unknown move alike."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from data import augmentation
from data.augmentation import (
    Augmentation,
    add_noise,
    blur_lens,
    code_as_jpeg,
    crop_and_scale,
    crop_box,
    degrade,
    flip_and_rotate,
    pad_to_square,
    rotate,
    shift_colours,
)

STILL = {f"{name}_share": 0.0 for name in ("flip", "rotation", "colour", "blur", "noise", "jpeg")}


def disc(height: int, width: int, centre: tuple[float, float], radius: float) -> np.ndarray:
    """An antialiased disc, uint8 (H, W); centre is (x, y) with pixel centres at whole numbers."""
    y, x = np.mgrid[:height, :width]
    distance = np.hypot(x - centre[0], y - centre[1])
    return np.rint(255 * np.clip(radius + 0.5 - distance, 0, 1)).astype(np.uint8)


def centroid(values: np.ndarray) -> tuple[float, float]:
    y, x = np.mgrid[: values.shape[0], : values.shape[1]]
    weight = values.astype(np.float64)
    return float((x * weight).sum() / weight.sum()), float((y * weight).sum() / weight.sum())


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def random_photo(height: int, width: int) -> np.ndarray:
    return rng().integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("scale", [0.31, 0.77, 1.0, 1.9])
@pytest.mark.parametrize("seed", range(3))
def test_photo_alpha_and_unknown_move_alike(scale: float, seed: int) -> None:
    plane = disc(211, 173, (81.3, 95.7), 40)
    settings = Augmentation(128, **(STILL | {"flip_share": 0.5, "rotation_share": 1.0}))
    planes = crop_and_scale([cv2.merge([plane] * 3), plane, plane], scale, settings, rng(seed))
    pixels, unknown = flip_and_rotate(planes, settings, rng(seed))
    assert pixels.shape == (128, 128, 4) and unknown.shape == (128, 128)
    assert pixels.dtype == unknown.dtype == np.uint8
    for channel in range(4):
        assert np.abs(pixels[..., channel].astype(int) - unknown).max() <= 1  # of two kernels that round


def test_cut_has_the_scale_it_was_asked_for() -> None:
    alpha = disc(400, 400, (200, 200), 60)
    settings = Augmentation(256, edge_share=0.0, **STILL)
    (pixels,) = crop_and_scale([cv2.merge([alpha] * 3), alpha], 0.5, settings, rng())
    inside = pixels[28:228, 28:228, 3] if pixels[0, 0, 3] else pixels[..., 3]
    # The disc of radius 60 has radius 30: its area, in full pixels, tells to a fraction of one.
    assert np.sqrt(inside.astype(float).sum() / 255 / np.pi) == pytest.approx(30, abs=0.3)


def test_edge_share_centres_the_crop() -> None:
    alpha = np.zeros((500, 700), np.uint8)
    alpha[400:404, 600:604] = 128  # the only soft pixels
    for seed in range(20):
        top, left, height, width = crop_box(alpha, 1.0, Augmentation(100, edge_share=1.0), rng(seed))
        assert top <= 400 and left <= 600 and top + height >= 404 and left + width >= 604
        assert abs(top + height / 2 - 400) <= 4 and abs(left + width / 2 - 600) <= 4
    boxes = {crop_box(alpha, 1.0, Augmentation(100, edge_share=0.0), rng(k)) for k in range(20)}
    assert len(boxes) == 20


def test_crops_of_a_constant_and_a_binary_alpha() -> None:
    for value in (0, 255):
        alpha = np.full((300, 90), value, np.uint8)
        top, left, height, width = crop_box(alpha, 0.5, Augmentation(100, edge_share=1.0), rng())
        assert (height, width) == (200, 90) and 0 <= top <= 100 and left == 0
    alpha = np.zeros((400, 400), np.uint8)
    alpha[300:, 300:] = 255  # its corner is an edge
    top, left, _, _ = crop_box(alpha, 1.0, Augmentation(50, edge_share=1.0), rng(1))
    assert top + 50 >= 298 and left + 50 >= 298


def test_padding_reflects_even_when_wider_than_the_photo() -> None:
    pixels = rng().integers(0, 256, (3, 40, 4), dtype=np.uint8)
    padded, mask = pad_to_square([pixels, pixels[..., 0]], 40, rng())
    assert padded.shape == (40, 40, 4) and np.array_equal(padded[..., 0], mask)
    assert {row.tobytes() for row in padded} == {row.tobytes() for row in pixels}


def test_everything_is_a_function_of_pixels_and_rng() -> None:
    photo, alpha = random_photo(90, 70), disc(90, 70, (30.0, 40.0), 20)
    settings = Augmentation(64, **dict.fromkeys(STILL, 0.5))

    def sample(seed: int) -> bytes:
        source = rng(seed)
        (pixels,) = flip_and_rotate(crop_and_scale([photo, alpha], 0.9, settings, source), settings, source)
        return pixels.tobytes() + degrade(np.ascontiguousarray(pixels[..., :3]), settings, source).tobytes()

    torch.manual_seed(1)
    np.random.seed(1)
    cv2.setRNGSeed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].tobytes()
    samples = [sample(seed) for seed in range(12)]
    assert torch.equal(before[0], torch.get_rng_state()) and before[1] == np.random.get_state()[1].tobytes()
    cv2.setRNGSeed(2)
    assert [sample(seed) for seed in reversed(range(12))] == samples[::-1]
    assert len(set(samples)) == 12
    assert np.array_equal(photo, random_photo(90, 70))  # inputs stay as they are


@pytest.mark.parametrize("name", STILL)
def test_a_share_of_one_changes_and_a_share_of_none_does_not(name: str) -> None:
    photo = cv2.GaussianBlur(random_photo(64, 64), (0, 0), 2)
    still, always = Augmentation(64, **STILL), Augmentation(64, **(STILL | {name: 1.0}))
    pixels = cv2.merge([photo, disc(64, 64, (20, 30), 9)])

    def changed(settings: Augmentation) -> tuple[bool, bool]:
        (moved,) = flip_and_rotate([pixels], settings, rng())
        return not np.array_equal(moved, pixels), not np.array_equal(degrade(photo, settings, rng()), photo)

    moves = ("flip_share", "rotation_share")
    assert changed(still) == (False, False)
    assert changed(always) == (name in moves, name not in moves)


def test_rotation_is_about_the_centre() -> None:
    matte = disc(101, 81, (40.0, 50.0), 20)
    assert centroid(rotate(matte, 10.0)) == pytest.approx((40.0, 50.0), abs=0.05)
    side = disc(
        101, 101, (70.0, 50.0), 10
    )  # a quarter turn counterclockwise takes what is right of the centre above it
    assert centroid(rotate(side, 90.0)) == pytest.approx((50.0, 30.0), abs=0.05)


def test_strength_zero_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augmentation, "COLOUR_STRENGTH", 0.0)
    monkeypatch.setattr(augmentation, "BLUR_SIGMA", (1e-3, 1e-3))
    monkeypatch.setattr(augmentation, "NOISE_SIGMA", (0.0, 0.0))
    photo = random_photo(33, 47)
    for step in (shift_colours, blur_lens, add_noise, lambda photo, rng: rotate(photo, 0.0)):
        assert np.abs(step(photo, rng()).astype(int) - photo).max() <= 1


def test_colours_shift_by_what_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contrast turns about the mean grey, and grey stays grey but for the white balance."""
    photo = np.full((8, 8, 3), 100, np.uint8)
    photo[:4] = 120

    class Fixed:
        def __init__(self, *draws: object) -> None:
            self.draws = list(draws)

        def uniform(self, low: float, high: float, count: int) -> object:
            return self.draws.pop(0)

    assert np.unique(shift_colours(photo, Fixed((1.0, 1.2, 0.8), (1.0, 1.0)))).tolist() == [98, 122]
    assert np.unique(shift_colours(photo, Fixed((1.1, 1.0, 1.2), (1.0, 1.0)))).tolist() == [110, 132]


def test_jpeg_keeps_the_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augmentation, "JPEG_QUALITY", (90, 90))
    photo = np.full((40, 40, 3), (200, 60, 20), np.uint8)
    assert np.abs(code_as_jpeg(photo, rng()).astype(int) - photo).max() <= 3


def test_noise_has_the_sigma_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augmentation, "NOISE_SIGMA", (6.0, 6.0))
    noisy = add_noise(np.full((200, 200, 3), 128, np.uint8), rng())
    assert noisy.std() == pytest.approx(6, rel=0.03) and noisy.mean() == pytest.approx(128, abs=0.1)
