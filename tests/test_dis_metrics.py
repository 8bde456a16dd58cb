"""dis_metrics.py: what PySODMetrics is given, and how the figures of images become those of a set."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evaluation.dis_metrics import DIS, F_CURVE, dis_means, dis_scores
from metrics import METRICS

DIS_NAMES = [name for name in METRICS if name.startswith(DIS)]


def square(size: int = 40) -> np.ndarray:
    alpha = np.zeros((size, size), dtype=np.float32)
    alpha[10:30, 12:28] = 1
    return alpha


def test_a_perfect_matte_has_perfect_scores():
    scores = dis_scores(square(), square())
    for name, best in {"dis_max_f": 1, "dis_weighted_f": 1, "dis_mae": 0, "dis_s": 1, "dis_hce": 0}.items():
        assert scores[name] == pytest.approx(best, abs=1e-6), name
    assert scores["dis_e"] > 0.99  # its curve falls to the all-foreground score at threshold 0


def test_mae_and_f_by_hand():
    """Half of the object found, at full strength: precision 1, recall 0.5, F = 1.3 * 0.5 / (0.3 + 0.5)."""
    prediction = square()
    prediction[20:30] = 0
    scores = dis_scores(prediction, square())
    assert scores["dis_mae"] == pytest.approx(160 / 1600)
    assert scores["dis_max_f"] == pytest.approx(1.3 * 0.5 / 0.8)


def test_the_truth_is_binarised_over_128():
    soft = square() * np.float32(129 / 255)
    scores = dis_scores(square(), soft)
    assert scores["dis_mae"] == 0  # a true alpha of 0.506 counts as 1
    assert dis_scores(square(), square() * np.float32(128 / 255))["dis_mae"] == pytest.approx(320 / 1600)


@pytest.mark.parametrize("value", [0, 1])
def test_constant_mattes_give_finite_scores(value):
    constant = np.full((20, 24), value, dtype=np.float32)
    for prediction in (constant, 1 - constant, square(24)[:20]):
        scores = dis_scores(prediction, constant)
        assert all(math.isfinite(scores[name]) for name in DIS_NAMES)


def test_max_f_of_a_set_is_the_maximum_of_the_mean_curve():
    rows = [dict.fromkeys(DIS_NAMES, 0.5) | {F_CURVE: curve} for curve in ([1.0, 0.0, 0.6], [0.0, 1.0, 0.6])]
    assert dis_means(rows)["dis_max_f"] == 0.6
    assert dis_means(rows)["dis_s"] == 0.5
