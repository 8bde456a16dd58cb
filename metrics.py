"""Matting metrics on alphas in [0, 1], for all pixels ("image") and for the edge band ("edge").

    figures = matting_metrics(prediction, truth)      # {"image_sad": 3.1, ..., "edge_conn": 1.2}
    print(EDGE_RULE, UNITS["grad"])

Every function takes float32 arrays (H, W) at the size of the true alpha, neither padded nor quantised, and an optional
region, bool (H, W), of the pixels to count. Sad, mse, grad and conn follow Rhemann et al., "A Perceptually Motivated
Online Benchmark for Image Matting", CVPR 2009. grad_aim is the other convention that papers print as Grad. An empty
region has no error: its sums and means are 0. Bad input raises ValueError.

known, bool (H, W), is False where nobody knows the true alpha. Such a pixel is not counted, and the prediction there is
first replaced by the truth (fill_unknown), since grad and conn look at neighbours. So no metric depends on what was
predicted there. Within 4 pixels of it (grad_aim: 6) grad is slightly too low, because its windows overlap the replaced
pixels. Leaving those pixels out too would lose more, as an unknown band along an edge is often no wider.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np

EDGE_RADIUS = 0.01  # of the long side: 10 pixels at 1024
EDGE_RULE = (
    "edge band: pixels with 0 < true alpha < 1, and pixels where true 0 meets true 1, grown by a disc of "
    f"{EDGE_RADIUS:.0%} of the long side (at least 1 pixel)"
)

# What one unit is; whoever prints a figure prints this beside it.
UNITS = {
    "sad": "sum |p - g| / 1000",
    "mse": "mean (p - g)^2, not times 1000",
    "mad": "mean |p - g|",
    "grad": "sum (|grad p| - |grad g|)^2 / 1000, alphamatting kernels (sigma 1.4, L2 norm 1), no stretch",
    "conn": "sum |phi p - phi g| / 1000, alphamatting, steps of 0.1, 4-connected",
    "grad_aim": "sum (|grad p| - |grad g|)^2 / 10, AIM/P3M kernels; not comparable with grad",
    "composite": "mean |difference| of 8-bit grey levels, re-composited with the foregrounds that predict.py estimates",
}

COMPOSITE_COLOURS = {"black": (0.0, 0.0, 0.0), "white": (1.0, 1.0, 1.0), "green": (0.0, 1.0, 0.0)}

_SIGMA = 1.4
_TRUNCATION = 1e-2  # the Gaussian is cut where it falls below this
_CONN_LEVELS = 10  # thresholds 0.1, 0.2 ... 1
_CONN_TOLERANCE = 0.15


def edge_radius(shape: tuple[int, int]) -> int:
    """Radius of the edge band of an alpha of this (H, W), in pixels: see EDGE_RULE."""
    return max(1, round(EDGE_RADIUS * max(shape)))


def edge_band(truth: np.ndarray, radius: float | None = None, known: np.ndarray | None = None) -> np.ndarray:
    """The edge band of a true alpha (H, W), as bool (H, W), by EDGE_RULE; radius is in pixels.

    A binary alpha has a band too, along the boundary between 0 and 1. A constant 0 or 1 has none. Pixels whose truth
    is not known are outside it and do not cause it.
    """
    _check_alpha(truth, "the true alpha")
    known = np.ones(truth.shape, dtype=bool) if known is None else known
    is_zero, is_one = (truth <= 0) & known, (truth >= 1) & known
    is_edge = known & ~is_zero & ~is_one
    is_edge |= (is_zero & _grown(is_one)) | (is_one & _grown(is_zero))
    if not is_edge.any():
        return is_edge  # the distance to nothing is not defined
    # A distance transform costs the same at any radius; dilating by a disc grows with its area.
    distance = cv2.distanceTransform((~is_edge).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return known & (distance <= (edge_radius(truth.shape) if radius is None else radius))


def fill_unknown(prediction: np.ndarray, truth: np.ndarray, known: np.ndarray | None) -> np.ndarray:
    """The prediction, float (H, W), with the truth's values where known, bool (H, W), is False."""
    _check_pair(prediction, truth)
    if known is None:
        return prediction
    if known.shape != truth.shape or known.dtype != bool:
        raise ValueError(f"the mask of known pixels must be bool {truth.shape}, not {known.dtype} {known.shape}")
    return np.where(known, prediction, truth)


def sad(prediction: np.ndarray, truth: np.ndarray, region: np.ndarray | None = None) -> float:
    """Sum of absolute differences, in thousands."""
    return _total(_absolute_map(prediction, truth), region) / 1000


def mse(prediction: np.ndarray, truth: np.ndarray, region: np.ndarray | None = None) -> float:
    """Mean squared error."""
    return _mean(_absolute_map(prediction, truth) ** 2, region)


def mad(prediction: np.ndarray, truth: np.ndarray, region: np.ndarray | None = None) -> float:
    """Mean absolute difference."""
    return _mean(_absolute_map(prediction, truth), region)


def grad(prediction: np.ndarray, truth: np.ndarray, region: np.ndarray | None = None) -> float:
    """Gradient error, in thousands: the squared difference of gradient magnitudes, summed.

    First-order Gaussian derivatives of sigma 1.4, 9 x 9, L2 norm 1, replicated borders. The reference
    MATLAB code stretches both mattes to [0, 1] first, which would hide a washed-out matte: we do not.
    """
    return _total(_grad_map(prediction, truth), region) / 1000


def conn(prediction: np.ndarray, truth: np.ndarray, region: np.ndarray | None = None) -> float:
    """Connectivity error, in thousands; components are those of the whole image, whatever the region.

    At threshold t, Omega is the largest 4-connected component of (p >= t) and (g >= t), the first in
    reading order if several are largest, and no pixel at all if the intersection is empty. l is the
    last threshold before the pixel leaves Omega for the first time, as in the reference code, and
    phi(a) = 1 - d [d >= 0.15] with d = a - l.
    """
    return _total(_conn_map(prediction, truth), region) / 1000


def grad_aim(prediction: np.ndarray, truth: np.ndarray, region: np.ndarray | None = None) -> float:
    """Gradient error as the AIM and P3M evaluation code counts it: see UNITS, never mix with grad.

    Derivatives of a Gaussian of sum 1, cut at 4 sigma (13 x 13), reflected borders, divided by 10.
    """
    smooth, slope = _gaussian_filters(int(4 * _SIGMA + 0.5))
    smooth, slope = smooth / smooth.sum(), slope / smooth.sum()
    return _total(_gradient_map(prediction, truth, smooth, slope, cv2.BORDER_REFLECT), region) / 10


def matting_metrics(
    prediction: np.ndarray, truth: np.ndarray, known: np.ndarray | None = None, with_conn: bool = True
) -> dict[str, float]:
    """All figures of one matte, by name: "image_sad" ... "edge_conn", units in UNITS.

    "edge_share" is the share of the pixels in the edge band; where it is 0 the edge figures are 0 and mean nothing.
    Conn takes most of the time: training leaves it out.
    """
    prediction = fill_unknown(prediction, truth, known)
    absolute = _absolute_map(prediction, truth)
    error_maps = {"sad": absolute, "mse": absolute**2, "mad": absolute, "grad": _grad_map(prediction, truth)}
    if with_conn:
        error_maps["conn"] = _conn_map(prediction, truth)
    edge = edge_band(truth, known=known)
    figures = {}
    for name, region in (("image", known), ("edge", edge)):
        for metric, error_map in error_maps.items():
            is_mean = metric in ("mse", "mad")
            figures[f"{name}_{metric}"] = _mean(error_map, region) if is_mean else _total(error_map, region) / 1000
    figures["edge_share"] = float(np.count_nonzero(edge) / edge.size)
    return figures


def composite_error(
    image: np.ndarray,
    prediction: np.ndarray,
    truth: np.ndarray,
    estimate: Callable[[np.ndarray, np.ndarray], np.ndarray],
    known: np.ndarray | None = None,
) -> dict[str, float]:
    """What a person sees as a halo: the cut-out by the prediction against the cut-out by the truth, on plain colours.

    image is the photo, uint8 (H, W, 3). For each matte a its foreground F is estimate(image, a), uint8 (H, W, 3),
    and is put on colour c as a F + (1 - a) c. The error is the mean absolute difference of the two composites over
    pixels and channels, in 8-bit grey levels: "image_composite_black", ..., "edge_composite_green".
    """
    prediction = fill_unknown(prediction, truth, known)
    if image.shape != (*truth.shape, 3) or image.dtype != np.uint8:
        raise ValueError(f"the photo must be uint8 {(*truth.shape, 3)}, not {image.dtype} {image.shape}")
    # d = p Fp - g Fg is what all colours share: the composites differ by d - (p - g) c.
    layers = [alpha[..., None] * (np.float32(estimate(image, alpha)) / 255) for alpha in (prediction, truth)]
    shared, difference = layers[0] - layers[1], (prediction - truth)[..., None]  # (H, W, 3), (H, W, 1)
    edge = edge_band(truth, known=known)
    figures = {}
    for name, colour in COMPOSITE_COLOURS.items():
        error_map = np.abs(shared - difference * np.asarray(colour, np.float32)).mean(axis=2)  # (H, W)
        figures[f"image_composite_{name}"] = 255 * _mean(error_map, known)
        figures[f"edge_composite_{name}"] = 255 * _mean(error_map, edge)
    return figures


def _grown(mask: np.ndarray) -> np.ndarray:
    """A mask, bool (H, W), with its 4-connected neighbours."""
    return cv2.dilate(mask.view(np.uint8), cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))).view(bool)


def _check_alpha(alpha: np.ndarray, name: str) -> None:
    if alpha.ndim != 2 or alpha.size == 0 or alpha.dtype not in (np.float32, np.float64):
        raise ValueError(f"{name} must be a float32 or float64 array (H, W), not {alpha.dtype} {alpha.shape}")
    if not (alpha.min() >= 0 and alpha.max() <= 1):  # NaN fails both
        raise ValueError(f"{name} must lie in [0, 1], not in [{alpha.min():g}, {alpha.max():g}]")


def _check_pair(prediction: np.ndarray, truth: np.ndarray) -> None:
    _check_alpha(prediction, "the predicted alpha")
    _check_alpha(truth, "the true alpha")
    if prediction.shape != truth.shape:
        raise ValueError(f"sizes must agree: the predicted alpha is {prediction.shape}, the true alpha {truth.shape}")


def _total(error_map: np.ndarray, region: np.ndarray | None) -> float:
    values = error_map if region is None else error_map[region]
    return float(values.sum(dtype=np.float64))  # float32 sums lose digits over millions of pixels


def _mean(error_map: np.ndarray, region: np.ndarray | None) -> float:
    count = error_map.size if region is None else np.count_nonzero(region)
    return _total(error_map, region) / max(count, 1)


def _absolute_map(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    _check_pair(prediction, truth)
    return np.abs(prediction - truth)


def _grad_map(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    half_size = math.ceil(_SIGMA * math.sqrt(-2 * math.log(math.sqrt(2 * math.pi) * _SIGMA * _TRUNCATION)))
    smooth, slope = _gaussian_filters(half_size)
    # The 2-D kernel is an outer product, so its L2 norm is the product of the two norms.
    smooth, slope = smooth / np.linalg.norm(smooth), slope / np.linalg.norm(slope)
    return _gradient_map(prediction, truth, smooth, slope, cv2.BORDER_REPLICATE)


def _gaussian_filters(half_size: int) -> tuple[np.ndarray, np.ndarray]:
    """A Gaussian and its derivative, (2 half_size + 1,) each, not normalised."""
    x = np.arange(-half_size, half_size + 1, dtype=np.float64)
    smooth = np.exp(-(x**2) / (2 * _SIGMA**2))
    return smooth, -x / _SIGMA**2 * smooth


def _gradient_map(
    prediction: np.ndarray, truth: np.ndarray, smooth: np.ndarray, slope: np.ndarray, border: int
) -> np.ndarray:
    """Squared difference of the gradient magnitudes, by filters that smooth one way and differentiate the other."""
    _check_pair(prediction, truth)
    magnitudes = []
    for alpha in (prediction, truth):
        along_x = cv2.sepFilter2D(alpha, -1, slope, smooth, borderType=border)
        along_y = cv2.sepFilter2D(alpha, -1, smooth, slope, borderType=border)
        # Not cv2.magnitude: its last bit depends on where the arrays lie in memory, so totals would not repeat.
        magnitudes.append(np.sqrt(along_x * along_x + along_y * along_y))
    return (magnitudes[0] - magnitudes[1]) ** 2


def _conn_map(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    _check_pair(prediction, truth)
    both = np.minimum(prediction, truth)  # both >= t is p >= t and g >= t
    dtype = both.dtype.type  # levels in the alpha's own precision, so that a float32 0.7 reaches 0.7
    is_inside = np.ones(both.shape, dtype=bool)
    level = np.zeros(both.shape, dtype=np.uint8)
    for step in range(1, _CONN_LEVELS + 1):
        is_inside &= _largest_component(both >= dtype(step) / dtype(_CONN_LEVELS))
        level += is_inside
    last_level = level.astype(both.dtype) / dtype(_CONN_LEVELS)
    return np.abs(_connected_part(prediction - last_level) - _connected_part(truth - last_level))


def _connected_part(distance: np.ndarray) -> np.ndarray:
    """phi of Rhemann et al.: 1 - d where d reaches the tolerance, else 1."""
    return 1 - distance * (distance >= distance.dtype.type(_CONN_TOLERANCE))


def _largest_component(mask: np.ndarray) -> np.ndarray:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=4)
    if count == 1:  # background alone
        return np.zeros(mask.shape, dtype=bool)
    return labels == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()
