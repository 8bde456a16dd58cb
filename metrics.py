"""Matting metrics on alphas in [0, 1], for all pixels ("image") and for the edge band ("edge").

    figures = matting_metrics(prediction, Truth(alpha))      # {"image_sad": 3.1, ..., "edge_conn": 1.2}
    print(EDGE_RULE, METRICS["grad"].unit)

METRICS is the one table of figures: logs, cards, tables and plots are made from it. Every function takes float32 arrays
(H, W) at the size of the true alpha, neither padded nor quantised. Sad, mse, grad and conn follow Rhemann et al., "A
Perceptually Motivated Online Benchmark for Image Matting", CVPR 2009. grad_aim is the other convention that papers
print as Grad. Bad input raises ValueError.

A truth may be known in part only. A pixel that is not known is not counted, and the prediction there is first replaced
by the truth, since grad and conn look at neighbours. So no metric depends on what was predicted there. Within 4 pixels
of it (grad_aim: 6) grad is slightly too low, because its windows overlap the replaced pixels. Leaving those pixels out
too would lose more, as an unknown band along an edge is often no wider.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection
from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np

from common.truth import NEARLY, edge_seeds

EDGE_RADIUS_IN_LONG_SIDES = 0.01  # 10 pixels at 1024
EDGE_RULE = (
    f"edge band: pixels with 0 < true alpha < 1 (in one with compression noise: {NEARLY} of 255 levels from 0 and 1), "
    f"and pixels where true 0 meets true 1, grown by a disc of {EDGE_RADIUS_IN_LONG_SIDES:.0%} of the long side "
    "(at least 1 pixel)"
)
REGIONS = ("image", "edge")
COMPOSITE_COLOURS = {"black": (0.0, 0.0, 0.0), "white": (1.0, 1.0, 1.0), "green": (0.0, 1.0, 0.0)}

_SIGMA = 1.4
_TRUNCATION = 1e-2  # the Gaussian is cut where it falls below this
_CONN_LEVELS = 10  # thresholds 0.1, 0.2 ... 1
_CONN_TOLERANCE = 0.15


class Truth:
    """A true alpha, with all that can be computed before any matte of it is known.

    alpha: float (H, W) in [0, 1]; known: bool (H, W), False where nobody knows the true alpha, or None.
    """

    def __init__(self, alpha: np.ndarray, known: np.ndarray | None = None) -> None:
        _check_alpha(alpha, "the true alpha")
        if known is not None and (known.shape != alpha.shape or known.dtype != bool):
            raise ValueError(f"the mask of known pixels must be bool {alpha.shape}, not {known.dtype} {known.shape}")
        self.alpha, self.known = alpha, known

    @cached_property
    def edge(self) -> np.ndarray:
        return edge_band(self.alpha, known=self.known)

    @cached_property
    def slope(self) -> np.ndarray:
        return gradient_magnitude(self.alpha)

    @cached_property
    def digest(self) -> str:
        """Of the contents: equal for the same truth, wherever its file lies and whatever it is called."""
        unknown = "" if self.known is None or self.known.all() else content_hash(self.known)
        return content_hash(self.alpha) + unknown

    def fill(self, prediction: np.ndarray) -> np.ndarray:
        """The prediction, float (H, W), with the truth's values where that is not known."""
        _check_alpha(prediction, "the predicted alpha")
        if prediction.shape != self.alpha.shape:
            sizes = f"the predicted alpha is {prediction.shape}, the true alpha {self.alpha.shape}"
            raise ValueError(f"sizes must agree: {sizes}")
        return prediction if self.known is None else np.where(self.known, prediction, self.alpha)


def content_hash(array: np.ndarray) -> str:
    return hashlib.sha1(np.ascontiguousarray(array).data).hexdigest()


def edge_radius(shape: tuple[int, int]) -> int:
    """Radius of the edge band of an alpha of this (H, W), in pixels: see EDGE_RULE."""
    return max(1, round(EDGE_RADIUS_IN_LONG_SIDES * max(shape)))


def edge_band(alpha: np.ndarray, radius: float | None = None, known: np.ndarray | None = None) -> np.ndarray:
    """The edge band of a true alpha (H, W), as bool (H, W), by EDGE_RULE; radius is in pixels.

    A binary alpha has a band too, along the boundary between 0 and 1. A constant 0 or 1 has none. Pixels whose truth
    is not known are outside it and do not cause it.
    """
    known = np.ones(alpha.shape, dtype=bool) if known is None else known
    is_edge = edge_seeds(alpha, known)
    if not is_edge.any():
        return is_edge  # the distance to nothing is not defined
    # A distance transform costs the same at any radius; dilating by a disc grows with its area.
    distance = cv2.distanceTransform((~is_edge).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return known & (distance <= (edge_radius(alpha.shape) if radius is None else radius))


def absolute_error(prediction: np.ndarray, truth: Truth) -> np.ndarray:
    return np.abs(prediction - truth.alpha)


def squared_error(prediction: np.ndarray, truth: Truth) -> np.ndarray:
    return (prediction - truth.alpha) ** 2


def gradient_error(prediction: np.ndarray, truth: Truth) -> np.ndarray:
    """Squared difference of gradient magnitudes.

    The reference MATLAB code stretches both mattes to [0, 1] first, which would hide a washed-out matte: we do not.
    """
    return (gradient_magnitude(prediction) - truth.slope) ** 2


def gradient_error_aim(prediction: np.ndarray, truth: Truth) -> np.ndarray:
    """As the AIM and P3M evaluation code counts it: derivatives of a Gaussian of sum 1, cut at 4 sigma (13 x 13),
    reflected borders."""
    smooth, slope = _gaussian_filters(int(4 * _SIGMA + 0.5))
    filters = smooth / smooth.sum(), slope / smooth.sum()
    magnitudes = (_magnitude(alpha, *filters, cv2.BORDER_REFLECT) for alpha in (prediction, truth.alpha))
    return (next(magnitudes) - next(magnitudes)) ** 2


def connectivity_error(prediction: np.ndarray, truth: Truth) -> np.ndarray:
    """|phi p - phi g|; components are those of the whole image, whatever the region.

    At threshold t, Omega is the largest 4-connected component of (p >= t) and (g >= t), the first in
    reading order if several are largest, and no pixel at all if the intersection is empty. l is the
    last threshold before the pixel leaves Omega for the first time, as in the reference code, and
    phi(a) = 1 - d [d >= 0.15] with d = a - l.
    """
    both = np.minimum(prediction, truth.alpha)  # both >= t is p >= t and g >= t
    dtype = both.dtype.type  # levels in the alpha's own precision, so that a float32 0.7 reaches 0.7
    is_inside = np.ones(both.shape, dtype=bool)
    level = np.zeros(both.shape, dtype=np.uint8)
    for step in range(1, _CONN_LEVELS + 1):
        is_inside &= _largest_component(both >= dtype(step) / dtype(_CONN_LEVELS))
        level += is_inside
    last_level = level.astype(both.dtype) / dtype(_CONN_LEVELS)
    return np.abs(_connected_part(prediction - last_level) - _connected_part(truth.alpha - last_level))


class Metric(NamedTuple):
    """A row of METRICS: how a figure is computed from a map of errors, and how it is shown.

    total: the map's sum is divided by it; 0 for the mean. error_map None: composite_error or dis_metrics computes it.
    in_training: measured at each validation, so it has columns in the log, the card and the tables of the experiments;
    drawn: the regions of which train.py prints it after an epoch, and draws a curve.
    """

    title: str
    unit: str
    error_map: Callable[[np.ndarray, Truth], np.ndarray] | None = None
    total: float = 0.0
    regions: tuple[str, ...] = REGIONS
    higher_is_better: bool = False
    in_training: bool = False
    drawn: tuple[str, ...] = ()


METRICS = {
    "sad": Metric("SAD", "sum |p - g| / 1000", absolute_error, 1000, in_training=True),
    "mad": Metric("MAD", "mean |p - g|", absolute_error, in_training=True, drawn=REGIONS),
    "mse": Metric("MSE", "mean (p - g)^2, not times 1000", squared_error, in_training=True),
    "grad": Metric(
        "Grad",
        "sum (|grad p| - |grad g|)^2 / 1000, alphamatting kernels (sigma 1.4, L2 norm 1), no stretch",
        gradient_error,
        1000,
        in_training=True,
        drawn=("edge",),
    ),  # fmt: skip
    "conn": Metric(
        "Conn",
        "sum |phi p - phi g| / 1000, alphamatting, steps of 0.1, 4-connected",
        connectivity_error,
        1000,
    ),  # fmt: skip
    "grad_aim": Metric(
        "Grad of AIM",
        "sum (|grad p| - |grad g|)^2 / 10, AIM/P3M kernels; not comparable with grad",
        gradient_error_aim,
        10,
        regions=("image",),
    ),  # fmt: skip
    **{
        f"composite_{colour}": Metric(
            f"composite on {colour}",
            "mean |difference| of 8-bit grey levels, re-composited with the foregrounds that predict.py estimates, "
            f"on {colour}",
        )
        for colour in COMPOSITE_COLOURS
    },
    # of evaluation/dis_metrics.py, by --dis: one region, the whole image, which their names do not say
    "dis_max_f": Metric(
        "max F", "F, beta^2 0.3: curves of 256 thresholds averaged over images, then the maximum", higher_is_better=True
    ),
    "dis_weighted_f": Metric("weighted F", "weighted F, beta 1", higher_is_better=True),
    "dis_mae": Metric("MAE", "mean |p - binary g|"),
    "dis_s": Metric("S", "S measure, alpha 0.5", higher_is_better=True),
    "dis_e": Metric("E", "E measure, mean over thresholds", higher_is_better=True),
    "dis_hce": Metric("HCE", "human correction effort, in clicks, relax 5"),
}
IN_TRAINING = [name for name, metric in METRICS.items() if metric.in_training]
# The figures of a validation, "image_sad" ..., with their titles: "SAD", "edge SAD".
TITLES = {
    f"{region}_{name}": f"{'' if region == 'image' else 'edge '}{METRICS[name].title}"
    for region in REGIONS
    for name in IN_TRAINING
}
DECIDES = "image_mad"  # the best epoch has the lowest, of the matte that the run ships
DRAWN = {f"{region}_{name}": TITLES[f"{region}_{name}"] for name in IN_TRAINING for region in METRICS[name].drawn}


def score(metric: str, prediction: np.ndarray, truth: Truth, region: np.ndarray | None = None) -> float:
    """One figure, by its name in METRICS, over the pixels of a region, bool (H, W), or all: NaN if there are none."""
    row = METRICS[metric]
    if row.error_map is None:
        raise ValueError(f"{metric} is not computed from a map of errors")
    return _pool(row.error_map(truth.fill(prediction), truth), region, row.total)


def matting_metrics(prediction: np.ndarray, truth: Truth, names: Collection[str] = tuple(METRICS)) -> dict[str, float]:
    """The figures of one matte that have a map of errors, by name: "image_sad" ... "edge_conn", units in METRICS.

    "edge_share" is the share of the pixels in the edge band; where it is 0 there are no edge figures. Conn takes most
    of the time: training leaves it out.
    """
    prediction = truth.fill(prediction)
    rows = {name: METRICS[name] for name in names if METRICS[name].error_map}
    maps = {function: function(prediction, truth) for row in rows.values() if (function := row.error_map)}
    figures = {
        f"{region}_{name}": _pool(maps[row.error_map], where, row.total)
        for region, where in _regions(truth).items()
        for name, row in rows.items()
        if row.error_map and region in row.regions
    }
    return figures | {"edge_share": float(np.count_nonzero(truth.edge) / truth.edge.size)}


def composite_error(
    image: np.ndarray,
    prediction: np.ndarray,
    truth: Truth,
    estimate: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> dict[str, float]:
    """What a person sees as a halo: the cut-out by the prediction against the cut-out by the truth, on plain colours.

    image is the photo, uint8 (H, W, 3). For each matte a its foreground F is estimate(image, a), uint8 (H, W, 3),
    and is put on colour c as a F + (1 - a) c. The error is the mean absolute difference of the two composites over
    pixels and channels, in 8-bit grey levels: "image_composite_black", ..., "edge_composite_green".
    """
    prediction = truth.fill(prediction)
    if image.shape != (*truth.alpha.shape, 3) or image.dtype != np.uint8:
        raise ValueError(f"the photo must be uint8 {(*truth.alpha.shape, 3)}, not {image.dtype} {image.shape}")
    # d = p Fp - g Fg is what all colours share: the composites differ by d - (p - g) c.
    layers = [alpha[..., None] * (np.float32(estimate(image, alpha)) / 255) for alpha in (prediction, truth.alpha)]
    shared, difference = layers[0] - layers[1], (prediction - truth.alpha)[..., None]  # (H, W, 3), (H, W, 1)
    figures = {}
    for name, colour in COMPOSITE_COLOURS.items():
        error_map = np.abs(shared - difference * np.asarray(colour, np.float32)).mean(axis=2)  # (H, W)
        for region, where in _regions(truth).items():
            figures[f"{region}_composite_{name}"] = 255 * _pool(error_map, where)
    return figures


def gradient_magnitude(alpha: np.ndarray) -> np.ndarray:
    """By first-order Gaussian derivatives of sigma 1.4, 9 x 9, L2 norm 1, with replicated borders: (H, W)."""
    half_size = math.ceil(_SIGMA * math.sqrt(-2 * math.log(math.sqrt(2 * math.pi) * _SIGMA * _TRUNCATION)))
    smooth, slope = _gaussian_filters(half_size)
    # The 2-D kernel is an outer product, so its L2 norm is the product of the two norms.
    return _magnitude(alpha, smooth / np.linalg.norm(smooth), slope / np.linalg.norm(slope), cv2.BORDER_REPLICATE)


def _gaussian_filters(half_size: int) -> tuple[np.ndarray, np.ndarray]:
    """A Gaussian and its derivative, (2 half_size + 1,) each, not normalised."""
    x = np.arange(-half_size, half_size + 1, dtype=np.float64)
    smooth = np.exp(-(x**2) / (2 * _SIGMA**2))
    return smooth, -x / _SIGMA**2 * smooth


def _magnitude(alpha: np.ndarray, smooth: np.ndarray, slope: np.ndarray, border: int) -> np.ndarray:
    """Gradient magnitude by filters that smooth one way and differentiate the other."""
    along_x = cv2.sepFilter2D(alpha, -1, slope, smooth, borderType=border)
    along_y = cv2.sepFilter2D(alpha, -1, smooth, slope, borderType=border)
    # Not cv2.magnitude: its last bit depends on where the arrays lie in memory, so totals would not repeat.
    return np.sqrt(along_x * along_x + along_y * along_y)


def _connected_part(distance: np.ndarray) -> np.ndarray:
    """phi of Rhemann et al.: 1 - d where d reaches the tolerance, else 1."""
    return 1 - distance * (distance >= distance.dtype.type(_CONN_TOLERANCE))


def _largest_component(mask: np.ndarray) -> np.ndarray:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=4)
    if count == 1:  # background alone
        return np.zeros(mask.shape, dtype=bool)
    return labels == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()


def _check_alpha(alpha: np.ndarray, name: str) -> None:
    if alpha.ndim != 2 or alpha.size == 0 or alpha.dtype not in (np.float32, np.float64):
        raise ValueError(f"{name} must be a float32 or float64 array (H, W), not {alpha.dtype} {alpha.shape}")
    if not (alpha.min() >= 0 and alpha.max() <= 1):  # NaN fails both
        raise ValueError(f"{name} must lie in [0, 1], not in [{alpha.min():g}, {alpha.max():g}]")


def _regions(truth: Truth) -> dict[str, np.ndarray | None]:
    """Region -> its pixels, bool (H, W), or None for all; without the edge where the truth has none."""
    return {"image": truth.known} | ({"edge": truth.edge} if truth.edge.any() else {})


def _pool(error_map: np.ndarray, region: np.ndarray | None, total: float = 0.0) -> float:
    """The sum over a region divided by `total`, or the mean; NaN for an empty region."""
    values = error_map if region is None else error_map[region]
    if not values.size:
        return math.nan
    return float(values.sum(dtype=np.float64) / (total or values.size))  # float32 sums lose digits over millions
