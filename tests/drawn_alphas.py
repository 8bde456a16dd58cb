"""What the tests of metrics.py share: the metrics by name, drawn alphas, and imperfect predictions of them."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

import metrics


def scored_by(name: str) -> Callable[..., float]:
    """The metric as a function of a prediction, a true alpha and a region."""
    return lambda prediction, alpha, region=None: metrics.score(name, prediction, metrics.Truth(alpha), region)


SCORES = {name: scored_by(name) for name, metric in metrics.METRICS.items() if metric.error_map}


def drawn_alpha(height: int, width: int, seed: int) -> np.ndarray:
    """Soft blobs and thin strands, with sure areas at both ends, of 8-bit levels as true alphas are."""
    random = np.random.default_rng(seed)
    field = cv2.GaussianBlur(random.standard_normal((height, width)).astype(np.float32), (0, 0), 6)
    alpha = np.clip(3 * field / field.std() + 0.5, 0, 1)
    for _ in range(8):
        start, end = (tuple(int(v) for v in random.integers(0, (width, height))) for _ in range(2))
        cv2.line(alpha, start, end, float(random.uniform(0.3, 1)), 1, cv2.LINE_4)
    return np.rint(alpha * 255).astype(np.float32) / 255


def imperfect(alpha: np.ndarray, seed: int) -> np.ndarray:
    """A prediction of it: blurred, shifted by a pixel, noisy."""
    noise = np.random.default_rng(seed).normal(0, 0.05, alpha.shape).astype(np.float32)
    blurred = cv2.GaussianBlur(np.roll(alpha, 1, axis=1), (0, 0), 1.5)
    return np.clip(blurred + noise * (blurred > 0.01), 0, 1)
