"""metrics.py against figures worked out by hand, and what holds of every metric."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

import metrics
from common.truth import is_soft
from evaluation.scoring import shipped_foreground
from tests.drawn_alphas import SCORES, drawn_alpha, imperfect


def alpha_of(*rows: list[float]) -> np.ndarray:
    return np.array(rows, dtype=np.float32)


def matting_metrics(prediction: np.ndarray, truth: np.ndarray, known: np.ndarray | None = None) -> dict[str, float]:
    return metrics.matting_metrics(prediction, metrics.Truth(truth, known))


# Figures worked out by hand


def test_sums_and_means_by_hand():
    prediction, truth = alpha_of([0, 0.5], [1, 0.25]), alpha_of([0, 1], [0.5, 0.25])
    right = np.array([[False, True], [False, True]])
    assert SCORES["sad"](prediction, truth) == 0.001
    assert SCORES["mse"](prediction, truth) == 0.125
    assert SCORES["mad"](prediction, truth) == 0.25
    assert SCORES["sad"](prediction, truth, right) == 0.0005
    assert SCORES["mse"](prediction, truth, right) == 0.125
    assert SCORES["mad"](prediction, truth, right) == 0.25


def test_grad_of_a_step_by_hand():
    """3 rows, a step from 0 to 1, against nothing.

    With g(j) = exp(-j^2 / 3.92): sum g = 3.50566 and |g| = 1.57526, so the smoothing side gives 2.22545.
    j g(j) = 0.77484, 0.72088, 0.30201, 0.06752, norm 1.55937: a pixel sees what lies past the step, which
    is 1.86525, 1.09041, 0.36953, 0.06752 on each side; the squares of all eight sum to 9.61852.
    """
    truth = np.zeros((3, 40), dtype=np.float32)
    truth[:, 20:] = 1
    expected = 3 * 2.22545**2 * 9.61852 / 1.55937**2 / 1000
    assert expected == pytest.approx(0.05877, rel=1e-4)
    assert SCORES["grad"](np.zeros_like(truth), truth) == pytest.approx(expected, rel=1e-4)


def test_grad_does_not_stretch_its_inputs():
    """A washed-out matte has a gradient error; stretched to [0, 1] it would have none."""
    truth = drawn_alpha(32, 32, 0)
    assert SCORES["grad"](0.5 * truth, truth) > 0.1 * SCORES["grad"](np.zeros_like(truth), truth) > 0


CONN_BY_HAND = {  # prediction, truth, 1000 times the figure
    # from 0.6 on the last pixel is cut off: l = 0.5 for it and for the weak one; phi differs by 0.5 once
    "a detached pixel": ([[1, 1, 0.5, 1]], [[1, 1, 1, 1]], 0.5),
    # two pixels that touch at a corner are apart: the second one leaves at 0.1, so l = 0 and phi = 1 - a
    "four-connected": ([[0.5, 0], [0, 0.5]], [[0.5, 0], [0, 1]], 0.5),
    # the right part is the largest only from 0.3 on, but it left at 0.1: l = 0, phi differs by 0.1 twice
    "the first time": ([[0.2, 0.2, 0.2, 0, 0.6, 0.6, 0]], [[0.2, 0.2, 0.2, 0, 0.5, 0.5, 0]], 0.2),
    # l = 0.5 everywhere; d = 0.14 counts as connected, d = 0.16 does not
    "below the tolerance": ([[0.64, 0.5]], [[0.5, 0.5]], 0),
    "above the tolerance": ([[0.66, 0.5]], [[0.5, 0.5]], 0.16),
    # two parts of 2 pixels: the upper, first in reading order, is Omega; in the lower, with l = 0, errors count in full
    "equal parts": ([[0, 0.95, 0.95], [0] * 3, [0.95, 0.95, 0]], [[0, 1, 1], [0] * 3, [1, 1, 0]], 0.1),
    # no pixel is ever inside: l = 0, so phi is 1 for the empty matte and 0 for the full one
    "an empty intersection": ([[0] * 5] * 4, [[1] * 5] * 4, 20),
}


@pytest.mark.parametrize("case", CONN_BY_HAND)
def test_conn_by_hand(case):
    prediction, truth, expected = CONN_BY_HAND[case]
    assert 1000 * SCORES["conn"](alpha_of(*prediction), alpha_of(*truth)) == pytest.approx(expected, rel=1e-5)


def own_colours(image, alpha):
    return image


def test_composite_error_by_hand():
    """With the photo as its own foreground: 0.5 F + 0.5 c against F, for a grey F of 51 / 255."""
    image = np.full((4, 4, 3), 51, dtype=np.uint8)
    truth = np.ones((4, 4), dtype=np.float32)
    figures = metrics.composite_error(image, 0.5 * truth, metrics.Truth(truth), own_colours)
    assert figures["image_composite_black"] == pytest.approx(25.5, rel=1e-5)
    assert figures["image_composite_white"] == pytest.approx(102, rel=1e-5)
    assert figures["image_composite_green"] == pytest.approx((25.5 + 102 + 25.5) / 3, rel=1e-5)
    assert "edge_composite_black" not in figures  # a full alpha has no edge


def test_composite_error_shows_a_halo():
    """A dark disc on white: a matte 3 pixels too wide takes white along, which black shows and white hides."""
    truth = np.zeros((48, 48), dtype=np.float32)
    cv2.circle(truth, (24, 24), 12, 1.0, -1, cv2.LINE_4)
    image = np.repeat(np.uint8(255 - 205 * truth)[..., None], 3, axis=2)
    wide = cv2.dilate(truth, np.ones((7, 7), np.uint8))
    assert not any(metrics.composite_error(image, truth, metrics.Truth(truth), shipped_foreground).values())
    figures = metrics.composite_error(image, wide, metrics.Truth(truth), shipped_foreground)
    assert figures["image_composite_black"] > 10 > 2 > figures["image_composite_white"]


# The edge band


def test_edge_band_of_a_binary_alpha_lies_along_its_boundary():
    alpha = alpha_of([0, 0, 0, 0, 1, 1, 1, 1])
    assert metrics.edge_radius(alpha.shape) == 1
    assert metrics.edge_band(alpha)[0].tolist() == [0, 0, 1, 1, 1, 1, 0, 0]


def test_edge_band_of_a_soft_alpha_by_hand():
    alpha = np.zeros((5, 5), dtype=np.float32)
    alpha[2, 2] = 0.5
    assert metrics.edge_band(alpha, radius=0).sum() == 1
    assert metrics.edge_band(alpha, radius=1).sum() == 5  # a disc, not a square
    assert metrics.edge_band(alpha, radius=1.5).sum() == 9


@pytest.mark.parametrize("value", [0, 1])
def test_edge_band_of_a_constant_alpha_is_empty(value):
    assert not metrics.edge_band(np.full((9, 9), value, dtype=np.float32)).any()


def test_edge_band_grows_with_the_image():
    assert metrics.edge_radius((480, 854)) == 9
    assert metrics.edge_radius((4096, 3000)) == 41
    assert "1%" in metrics.EDGE_RULE


def compressed(alpha: np.ndarray, quality: int) -> np.ndarray:
    """An alpha after JPEG, as read from the file."""
    encoded = cv2.imencode(".jpg", np.rint(255 * alpha), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.float32(cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)) / 255


def soft_disc(radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:300, :400]
    return np.rint(255 * np.clip(radius + 0.5 - np.hypot(rows - 150, columns - 200), 0, 1)).astype(np.float32) / 255


@pytest.mark.parametrize(
    ("spoil", "change"),
    [
        (lambda alpha: np.clip(alpha, 1 / 255, 254 / 255), 0.01),
        (lambda alpha: np.clip(alpha, 4 / 255, 251 / 255), 0.02),
        (lambda alpha: np.float32(np.rint((16 + 219 * alpha) / 255 * 255) - 16) / 219, 0.01),
        (lambda alpha: compressed(alpha, 95), 0.05),
        (lambda alpha: compressed(alpha, 90), 0.12),
        (lambda alpha: compressed(alpha, 75), 0.5),
    ],
    ids=["1 and 254", "4 and 251", "limited range", "JPEG 95", "JPEG 90", "JPEG 75"],
)
def test_nearly_sure_levels_make_no_edge(spoil, change):
    """One matte, one truth stored in another way: the edge figures cover the same pixels."""
    truth, prediction = soft_disc(100), soft_disc(103)
    expected = matting_metrics(prediction, truth)
    figures = matting_metrics(prediction, spoil(truth))
    for name in ("edge_mad", "edge_share"):
        assert figures[name] == pytest.approx(expected[name], rel=change)


@pytest.mark.parametrize("sigma", [0, 1, 3, 10])
def test_a_clean_truth_is_measured_exactly(sigma):
    """Each level but 0 and 1 is soft where nothing points to compression: as published."""
    truth = soft_disc(80)
    truth = np.rint(255 * cv2.GaussianBlur(truth, (0, 0), sigma)).astype(np.float32) / 255 if sigma else truth
    soft = (truth > 0) & (truth < 1)
    assert 0 < soft.mean() < 0.8 and np.array_equal(metrics.edge_band(truth, radius=0), soft)


def test_each_grey_level_is_sure_or_soft():
    levels = np.arange(256, dtype=np.float32) / 255
    assert np.flatnonzero(is_soft(levels)).tolist() == list(range(9, 247))


# Invariants


@pytest.mark.parametrize("value", [0, 1])
def test_constant_truths_give_finite_figures_and_no_edge(value):
    truth = np.full((16, 20), value, dtype=np.float32)
    figures = matting_metrics(1 - truth, truth)
    assert all(math.isfinite(figure) for figure in figures.values())
    assert figures["image_mad"] == 1 and figures["edge_share"] == 0
    assert [name for name in figures if name.startswith("edge")] == ["edge_share"]
    assert not any(matting_metrics(truth, truth).values())


def test_matting_metrics_agrees_with_the_single_functions():
    truth = drawn_alpha(48, 64, 2)
    prediction = imperfect(truth, 3)
    figures = matting_metrics(prediction, truth)
    band = metrics.edge_band(truth)
    assert figures.pop("edge_share") == band.mean()
    assert set(figures) == {f"{r}_{m}" for r in ("image", "edge") for m in SCORES} - {"edge_grad_aim"}
    for name, figure in figures.items():
        region, metric = name.split("_", 1)
        assert figure == SCORES[metric](prediction, truth, band if region == "edge" else None)
    quick = metrics.matting_metrics(prediction, metrics.Truth(truth), metrics.IN_TRAINING)
    assert set(quick) == {*metrics.TITLES, "edge_share"} and quick.items() <= matting_metrics(prediction, truth).items()


@pytest.mark.parametrize("metric", SCORES)
def test_figures_repeat_to_the_last_bit_wherever_the_arrays_lie(metric):
    truth = drawn_alpha(48, 64, 2)
    prediction = imperfect(truth, 3)
    figures = set()
    for offset in range(8):
        buffer = np.empty(truth.size + 8, dtype=np.float32)
        moved = buffer[offset : offset + truth.size].reshape(truth.shape)
        moved[:] = truth
        figures.add(SCORES[metric](prediction.copy(), moved))
    assert len(figures) == 1


@pytest.mark.parametrize("metric", SCORES)
def test_an_empty_region_has_no_figure(metric):
    truth = drawn_alpha(24, 24, 4)
    assert math.isnan(SCORES[metric](1 - truth, truth, np.zeros(truth.shape, dtype=bool)))


@pytest.mark.parametrize(
    "prediction",
    [np.zeros((4, 5), np.float32), np.full((4, 4), 255, np.float32), np.full((4, 4), np.nan, np.float32),
     np.zeros((4, 4), np.uint8), np.zeros((4, 4, 1), np.float32)],
    ids=["size", "x255", "nan", "uint8", "channel"],
)  # fmt: skip
@pytest.mark.parametrize("metric", SCORES)
def test_bad_mattes_are_refused(metric, prediction):
    with pytest.raises(ValueError, match="alpha"):
        SCORES[metric](prediction, np.zeros((4, 4), np.float32))


def half_known() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A prediction, its truth, and which pixels of the truth are known: not a square in the middle."""
    truth = drawn_alpha(48, 64, 2)
    known = np.ones(truth.shape, dtype=bool)
    known[10:30, 20:50] = False
    return imperfect(truth, 3), truth, known


def test_no_figure_depends_on_what_is_predicted_where_the_truth_is_not_known():
    prediction, truth, known = half_known()
    figures = matting_metrics(prediction, truth, known)
    other = np.where(known, prediction, 1 - prediction)
    assert matting_metrics(other, truth, known) == figures != matting_metrics(prediction, truth)
    assert not any(
        figure for name, figure in matting_metrics(np.where(known, truth, 0), truth, known).items()
        if name != "edge_share"
    )  # fmt: skip
    grey = np.full((*truth.shape, 3), 90, dtype=np.uint8)
    halos = [
        metrics.composite_error(grey, alpha, metrics.Truth(truth, known), own_colours) for alpha in (other, prediction)
    ]
    assert halos[0] == halos[1]


def test_figures_of_known_pixels_by_hand():
    """Only the first and the last pixel are known; the band is the last, for what is unknown causes none."""
    prediction, truth = alpha_of([0.25, 1, 1, 1]), alpha_of([0, 0.5, 0, 0.5])
    figures = matting_metrics(prediction, truth, np.array([[True, False, False, True]]))
    assert figures["image_sad"] == 0.00075 and figures["image_mad"] == 0.375
    assert figures["image_mse"] == (0.0625 + 0.25) / 2
    assert figures["edge_share"] == 0.25 and figures["edge_mad"] == 0.5


def test_known_pixels_far_from_unknown_ones_have_the_grad_and_the_sad_they_had():
    prediction, truth, known = half_known()
    far = cv2.erode(known.view(np.uint8), np.ones((9, 9), np.uint8)).view(bool)  # no filter reaches into the unknown
    filled = metrics.Truth(truth, known).fill(prediction)
    for score in (SCORES["grad"], SCORES["sad"]):
        assert score(filled, truth, far) == score(prediction, truth, far) > 0


def test_edge_figures_ignore_the_values_of_an_unknown_truth():
    _, truth, known = half_known()
    assert np.array_equal(metrics.edge_band(truth, 3, known), metrics.edge_band(np.where(known, truth, 0), 3, known))


@pytest.mark.parametrize("known", [np.ones((4, 5), bool), np.ones((4, 4), np.uint8)], ids=["size", "type"])
def test_a_bad_mask_of_known_pixels_is_refused(known):
    alpha = np.zeros((4, 4), np.float32)
    with pytest.raises(ValueError, match="known pixels must be bool"):
        matting_metrics(alpha, alpha, known)
