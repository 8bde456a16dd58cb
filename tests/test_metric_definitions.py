"""metrics.py against slow transcriptions of each definition, in float64."""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import gaussian_filter

import metrics
from tests.drawn_alphas import SCORES, drawn_alpha, imperfect


def slow_band(alpha, radius):
    height, width = alpha.shape
    seeds = []
    for y in range(height):
        for x in range(width):
            around = [(y, x - 1), (y, x + 1), (y - 1, x), (y + 1, x)]
            values = [alpha[v, u] for v, u in around if 0 <= v < height and 0 <= u < width]
            if 0 < alpha[y, x] < 1 or 1 - alpha[y, x] in values and alpha[y, x] in (0, 1):
                seeds.append((y, x))
    rows, columns = np.mgrid[:height, :width]
    return np.any([(rows - y) ** 2 + (columns - x) ** 2 <= radius**2 for y, x in seeds], axis=0)


def slow_errors(prediction, truth, inside):
    return [float(p) - float(g) for p, g, i in zip(prediction.flat, truth.flat, inside.flat, strict=True) if i]


def slow_sad(prediction, truth, inside):
    return sum(abs(d) for d in slow_errors(prediction, truth, inside)) / 1000


def slow_mse(prediction, truth, inside):
    errors = slow_errors(prediction, truth, inside)
    return sum(d * d for d in errors) / len(errors)


def slow_mad(prediction, truth, inside):
    errors = slow_errors(prediction, truth, inside)
    return sum(abs(d) for d in errors) / len(errors)


def slow_magnitude(alpha):
    """gaussgradient of the reference code: a 2-D kernel, element by element, then a 2-D convolution."""
    sigma, epsilon = 1.4, 1e-2
    half = math.ceil(sigma * math.sqrt(-2 * math.log(math.sqrt(2 * math.pi) * sigma * epsilon)))

    def gauss(x):
        return math.exp(-(x**2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))

    kernel = np.array([[gauss(i) * -j * gauss(j) / sigma**2 for j in range(-half, half + 1)]
                       for i in range(-half, half + 1)])  # fmt: skip
    kernel /= math.sqrt((kernel**2).sum())
    padded = np.pad(alpha.astype(np.float64), half, mode="edge")
    magnitude = np.zeros(alpha.shape)
    for y, x in np.ndindex(alpha.shape):
        window = padded[y : y + 2 * half + 1, x : x + 2 * half + 1]
        magnitude[y, x] = math.hypot((window * kernel).sum(), (window * kernel.T).sum())
    return magnitude


def slow_grad(prediction, truth, inside):
    return ((slow_magnitude(prediction) - slow_magnitude(truth)) ** 2)[inside].sum() / 1000


def slow_grad_aim(prediction, truth, inside):
    """With the very call of the AIM code."""
    total = []
    for alpha in (prediction.astype(np.float64), truth.astype(np.float64)):
        down, across = (gaussian_filter(alpha, sigma=1.4, order=order) for order in ([1, 0], [0, 1]))
        total.append(np.sqrt(down**2 + across**2))
    return ((total[0] - total[1]) ** 2)[inside].sum() / 10


def slow_largest_component(mask):
    """Flood fill from each pixel in reading order; the first of the largest."""
    height, width = mask.shape
    largest, seen = set(), set()
    for start in np.ndindex(mask.shape):
        if not mask[start] or start in seen:
            continue
        component, stack = {start}, [start]
        while stack:
            y, x = stack.pop()
            for v, u in ((y, x - 1), (y, x + 1), (y - 1, x), (y + 1, x)):
                if 0 <= v < height and 0 <= u < width and mask[v, u] and (v, u) not in component:
                    component.add((v, u))
                    stack.append((v, u))
        seen |= component
        largest = component if len(component) > len(largest) else largest
    return largest


def slow_conn(prediction, truth, inside):
    last = dict.fromkeys(np.ndindex(prediction.shape))
    for step in range(1, 11):
        threshold = np.float32(step / 10)
        omega = slow_largest_component((prediction >= threshold) & (truth >= threshold))
        for pixel in last:
            if last[pixel] is None and pixel not in omega:
                last[pixel] = (step - 1) / 10
    total = 0.0
    for pixel, level in last.items():
        level = 1.0 if level is None else level
        phi = [1 - d if d >= 0.15 else 1.0 for d in (float(prediction[pixel]) - level, float(truth[pixel]) - level)]
        total += abs(phi[0] - phi[1]) * bool(inside[pixel])
    return total / 1000


SLOW = {"sad": slow_sad, "mse": slow_mse, "mad": slow_mad, "grad": slow_grad, "conn": slow_conn,
        "grad_aim": slow_grad_aim}  # fmt: skip


def drawn_pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(7)
    noise = random.random((2, 23, 31)).astype(np.float32)
    steps = (random.integers(0, 11, (2, 20, 26)) / 10).astype(np.float32)  # on the thresholds themselves
    drawn = [drawn_alpha(48, 40, seed) for seed in (5, 6)]
    binary = (drawn[0] > 0.5).astype(np.float32)
    return [tuple(noise), tuple(steps), *((imperfect(a, 1), a) for a in (*drawn, binary)), (drawn[0], drawn[1])]


def largest_differences(pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Of each metric: the largest relative difference from the transcription, over pairs and three regions."""
    largest = dict.fromkeys(SLOW, 0.0)
    for prediction, truth in pairs:
        scattered = np.random.default_rng(0).random(truth.shape) < 0.3
        for region in (None, metrics.edge_band(truth), scattered):
            inside = np.ones(truth.shape, dtype=bool) if region is None else region
            for name, slow in SLOW.items():
                expected = slow(prediction, truth, inside)
                difference = abs(SCORES[name](prediction, truth, region) - expected) / expected
                largest[name] = max(largest[name], difference)
    return largest


def test_edge_band_by_brute_force():
    alpha = drawn_alpha(40, 30, 3)
    alpha[5:25, 5:20] = 1  # a hard boundary too
    alpha[8:12, 8:12] = 0
    expected = slow_band(alpha, 3)
    assert 0 < expected.mean() < 1
    assert np.array_equal(metrics.edge_band(alpha, 3), expected)


def test_cross_check_with_the_transcriptions():
    assert all(difference < 1e-5 for difference in largest_differences(drawn_pairs()).values())
