"""Foreground colours: the photo explained, no fringe of the old background, bounded memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from inference import foreground
from inference.foreground import blurred, composite, covering, estimate_colours, native_foreground


def disc(size: int) -> np.ndarray:
    """A soft disc, float32 (size, size)."""
    y, x = np.mgrid[:size, :size] - size / 2
    return np.clip((size / 3 - np.hypot(y, x)) / (size / 20) + 0.5, 0, 1).astype(np.float32)


def mixed(size: int, dtype: type) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(photo, alpha, true foreground): an orange disc with stripes on green."""
    top = np.iinfo(dtype).max
    alpha = disc(size)
    stripes = 0.1 * np.sin(np.arange(size) / 3)[None, :, None]
    front = np.broadcast_to(np.array([0.8, 0.5, 0.2]) + stripes, (size, size, 3))
    photo = alpha[..., None] * front + (1 - alpha[..., None]) * np.array([0.1, 0.7, 0.1])
    return (photo * top + 0.5).astype(dtype), alpha, front


def estimate(photo: np.ndarray, alpha: np.ndarray, side: int = foreground.ESTIMATION_SIDE) -> np.ndarray:
    return native_foreground(photo, alpha, estimate_colours(photo, alpha, side))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("side", [400, 100])  # at full size, and at a quarter
def test_edge_loses_the_old_background(dtype, side):
    photo, alpha, true = mixed(400, dtype)
    top = np.iinfo(dtype).max
    edge = (alpha > 0.05) & (alpha < 0.95)

    def error(colours: np.ndarray) -> float:
        return float((np.abs(colours / top - true)[edge] * alpha[edge, None]).mean())

    found = estimate(photo, alpha, side)
    assert found.dtype == dtype and found.shape == photo.shape
    assert error(found) < 0.25 * error(photo)


def test_where_alpha_is_1_the_photo_is_kept_to_the_bit():
    photo, alpha, _ = mixed(300, np.uint8)
    assert np.array_equal(estimate(photo, alpha, 90)[alpha == 1], photo[alpha == 1])


def test_foreground_on_its_own_background_is_the_photo():
    photo, alpha, _ = mixed(200, np.uint8)
    colours = estimate_colours(photo, alpha)
    front = native_foreground(photo, alpha, colours)
    back = native_foreground(photo, 1 - alpha, foreground.Colours(colours.background, colours.foreground))
    assert np.abs(composite(front, alpha, back).astype(int) - photo).max() <= 2  # each of the three is rounded


@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (33, 2)])
def test_no_edge_and_odd_shapes_are_legal(alpha, shape):
    photo = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    found = estimate(photo, np.full(shape, alpha, np.float32))
    assert found.shape == photo.shape
    assert alpha == 0 or np.array_equal(found, photo)


def test_strips_change_nothing(monkeypatch):
    photo, alpha, _ = mixed(150, np.uint8)
    whole = estimate(photo, alpha)
    monkeypatch.setattr(foreground, "STRIP_PIXELS", 1000)
    assert np.array_equal(estimate(photo, alpha), whole)


def test_blurred_background_shows_nothing_of_the_subject():
    photo, alpha, _ = mixed(200, np.uint8)
    photo[alpha > 0.9] = (255, 0, 255)
    around = blurred(estimate_colours(photo, alpha), photo)[alpha == 0]
    assert np.abs(around.astype(int) - photo[2, 2]).max() < 20


@pytest.mark.parametrize("size", [(30, 90), (90, 30), (500, 700), (1, 1)])
def test_covering_picture_fills_and_keeps_its_middle_and_proportions(size):
    height, width = size
    picture = np.zeros((height, width, 3), np.uint8)
    picture[height // 2 :, :, 0] = 255
    found = covering(picture, np.zeros((60, 60, 3), np.uint16))
    assert found.shape == (60, 60, 3) and found.dtype == np.uint16
    if height > 1:
        assert (found[:25, :, 0] < 3000).all() and (found[35:, :, 0] > 62000).all()
    ring = cv2.circle(np.zeros((*size, 3), np.uint8), (width // 2, height // 2), 10, (255, 255, 255), -1)
    spot = covering(ring, np.zeros((60, 60, 3), np.uint8))[..., 0] > 128
    if min(size) >= 30:
        assert np.ptp(np.nonzero(spot)[0]) == pytest.approx(np.ptp(np.nonzero(spot)[1]), abs=2)


def test_estimation_leaves_pytorch_its_threads():
    """In a process of its own: numba is imported once in each."""
    code = (
        "import numpy as np, torch; from inference.foreground import estimate_colours; torch.set_num_threads(1); "
        "estimate_colours(np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9), np.float32)); "
        "assert torch.get_num_threads() == 1, torch.get_num_threads()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(foreground.__file__).parent.parent)
