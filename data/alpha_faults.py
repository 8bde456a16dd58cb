"""Faults that show in the values of a true alpha: a wrong scale, a trimap, an inverted matte.

faults = alpha_faults(read_alpha("gt/cat.png"), "gt/cat.png")
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common.truth import NEARLY, is_noisy, is_soft
from data.faults import Fault

OPAQUE = 0.9  # nearly every subject is opaque somewhere; only glass, smoke and the like stay below this
DOUBTFUL = ("alpha_scale", "alpha_perhaps_scale", "alpha_levels", "alpha_faint")
FEWEST_TRUTHS = 3  # that must all be doubtful before none is believed
BORDER = 0.95  # share of opaque pixels from which a border counts as opaque
NOISE = 0.01  # share of nearly sure pixels that is worth a warning
# What 1 may have become, in 8 and in 16 bits.
SCALES = {255: (1, 100, 127, 128), 65535: (255, 1023, 4095, 16383)}


def alpha_faults(alpha: np.ndarray, path: str | Path, known: np.ndarray | None = None) -> list[Fault]:
    """The faults of an alpha float32 (H, W) in [0, 1], judged where known (bool (H, W), not all False) says so."""
    values = alpha if known is None else alpha[known]
    highest, lowest = float(values.max()), float(values.min())
    levels = np.flatnonzero(np.bincount(np.rint(values.ravel() * 65535).astype(np.uint16), minlength=1))
    if lowest > 1 - (NEARLY + 0.5) / 255:
        nearly = "" if lowest == 1 else "nearly "
        return [Fault("alpha_full", str(path), f"{path} is {nearly}1 everywhere: it cuts nothing out.")]
    if highest < OPAQUE:
        return [_faint(highest, levels, path)]
    faults = _inverted(alpha, path)
    if not is_soft(values).any():
        sentence = f"{path} holds 0 and 1 only, no soft pixel: hair and glass cannot be learned from it."
        faults.append(Fault("alpha_binary", str(path), sentence))
    elif len(levels) <= 3:
        *others, last = [f"{level / 257:.4g}" for level in levels]
        sentence = (
            f"{path} holds only the values {', '.join(others)} and {last} of 255: it looks like a trimap or a label "
            "image; mark the pixels between in a mask in unknown/, or write 0 and 255."
        )
        faults.append(Fault("alpha_levels", str(path), sentence))
    from_sure = np.minimum(values, 1 - values)
    share = float(np.mean((from_sure > 0.5 / 255) & (from_sure <= NEARLY / 255)))
    if share > NOISE and is_noisy(values):
        sentence = (
            f"{path} is only nearly 0 or 1 in {share:.0%} of its pixels, as JPEG and video leave an alpha: up to "
            f"{NEARLY} levels of 255 count as sure; a PNG made from the original would be better."
        )
        faults.append(Fault("alpha_noisy", str(path), sentence))
    return faults


def judge_together(faults: list[Fault], truths: int) -> list[Fault]:
    """Faults of so many truths of one split: one glass may be of percent, but where all truths are faint or of two or
    three levels, and most of them end at a usual scale, each has the wrong scale (alpha_scale). Those that are 0
    everywhere say nothing about it."""
    counts = {kind: sum(fault.kind == kind for fault in faults) for kind in (*DOUBTFUL, "alpha_empty")}
    doubtful = sum(counts[kind] for kind in DOUBTFUL)
    is_believed = doubtful < FEWEST_TRUTHS or doubtful + counts["alpha_empty"] < truths
    if is_believed or 2 * counts["alpha_faint"] > doubtful:
        return faults
    return [fault._replace(kind="alpha_scale") if fault.kind in DOUBTFUL else fault for fault in faults]


def inverted_set(means: Sequence[tuple[float, float]], folder: Path) -> list[Fault]:
    """The fault of a folder of alphas, by the border_and_centre of several: subjects stand in the middle, not around
    it, though many a single inverted alpha has a border that tells nothing."""
    border, centre = np.mean(means, axis=0) if means else (0.0, 1.0)
    if len(means) < FEWEST_TRUTHS or border <= max(centre, 0.5):
        return []
    sentence = (
        f"{len(means)} alphas of {folder} look inverted: on average {border:.0%} opaque along the border and "
        f"{centre:.0%} in the middle; the subject must be white."
    )
    return [Fault("alpha_inverted", str(folder), sentence)]


def _faint(highest: float, levels: np.ndarray, path: str | Path) -> Fault:
    """The fault of an alpha that is nowhere opaque; levels: those that occur, of 65535."""
    top = int(levels[-1])
    is_8_bit = not (levels % 257).any()  # 8 bits are read as multiples of 257
    is_mask = len(levels) == 2 and levels[0] == 0
    if highest <= (NEARLY + 0.5) / 255 and (is_8_bit and not is_mask or not top):
        nearly = "nearly " if top else ""
        return Fault("alpha_empty", str(path), f"{path} is {nearly}0 everywhere: it shows no subject.")
    full, top = (255, top // 257) if is_8_bit else (65535, top)
    if len(levels) == 2 or highest <= (NEARLY + 0.5) / 255:
        kind = "alpha_scale"
    else:
        kind = "alpha_perhaps_scale" if top in SCALES[full] else "alpha_faint"
    return Fault(kind, str(path), _scale_sentence(path, top, full, is_label=len(levels) <= 2))


def _scale_sentence(path: str | Path, top: int, full: int, *, is_label: bool) -> str:
    """Which scale the values of a faint alpha, at most `top` of `full`, probably have."""
    scale, name = top, f"a label image or mask with the value {top}"
    if full == 65535:
        bits = next((bits for bits in (8, 10, 12, 14) if top < 2**bits), 16)
        scale, name = 2**bits - 1, f"{bits} bit values in a 16 bit file"
    elif not is_label:
        scale = next((scale for scale in SCALES[255] if top <= scale), 255)
        name = "percent" if scale == 100 else f"values from 0 to {scale}"
    start = f"{path} reaches only {top} of {full}"
    if scale == full:
        return f"{start}: if its subject is opaque anywhere, scale it so that opaque is {full}."
    return f"{start}: it looks like {name}; multiply it by {full / scale:.5g}, so that opaque is {full}."


def _inverted(alpha: np.ndarray, path: str | Path) -> list[Fault]:
    """A subject may fill the frame, but hardly with all of its border opaque and a hole inside. Where the border is
    opaque at the top only, it may be an inverted portrait, or the subject may hang from above."""
    hole = float(np.mean(alpha < 0.5))
    if hole <= 0.01:
        return []
    if border_and_centre(alpha)[0] > BORDER:
        sentence = f"{path} looks inverted: its border is opaque, and {hole:.0%} of the pixels inside are not."
        return [Fault("alpha_inverted", str(path), sentence)]
    height, width = alpha.shape
    upper = np.concatenate([alpha[0], alpha[: height // 2, 0], alpha[: height // 2, -1]])
    centre = alpha[height // 3 : height - height // 3, width // 3 : width - width // 3]
    if upper.mean() > BORDER and centre.mean() < 0.5:
        sentence = (
            f"{path} may be inverted: it is opaque along the upper border and clear in the middle; the subject must be "
            "white, look at it with --contact-sheet."
        )
        return [Fault("alpha_perhaps_inverted", str(path), sentence)]
    return []


def border_and_centre(alpha: np.ndarray) -> tuple[float, float]:
    """Means of an alpha (H, W) along its border and over the middle half of its sides."""
    border = np.concatenate([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]])
    height, width = alpha.shape
    centre = alpha[height // 4 : height - height // 4, width // 4 : width - width // 4]
    return float(border.mean()), float(centre.mean())
