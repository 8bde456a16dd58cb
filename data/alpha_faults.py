"""Faults that show in the values of a true alpha: a wrong scale, a trimap, an inverted matte.

faults = look_at_truth(find_pairs("Datasets/mine/train")[0]).faults
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.errors import UserError
from common.photos import read_alpha
from common.truth import NEARLY, is_noisy, is_soft
from data.faults import Fault
from data.pairs import Pair, read_unknown

OPAQUE = 0.9  # nearly every subject is opaque somewhere; only glass, smoke and the like stay below this
DOUBTFUL = ("alpha_scale", "alpha_perhaps_scale", "alpha_levels", "alpha_faint")
FEWEST_TRUTHS = 3  # that must all be doubtful before none is believed
BORDER = 0.95  # share of opaque pixels from which a border counts as opaque
NOISE = 0.01  # share of nearly sure pixels that is worth a warning
# What 1 may have become, in 8 and in 16 bits.
SCALES = {255: (1, 100, 127, 128), 65535: (255, 1023, 4095, 16383)}


class Truth(NamedTuple):
    """What the alpha of a pair holds; where all of it is unknown, no more than that."""

    faults: list[Fault]
    unknown_share: float  # of the pixels
    soft_share: float | None = None  # of the known pixels
    border_and_centre: tuple[float, float] | None = None  # means of the alpha, 0 where it is unknown


def look_at_truth(pair: Pair) -> Truth:
    """Judge the alpha of a pair where it is known. Raises UserError if it cannot be read; of a mask that is a fault."""
    alpha, faults = read_alpha(pair.alpha), []
    known = np.ones(alpha.shape, bool)
    if pair.unknown:
        try:
            known = read_unknown(pair.unknown, alpha.shape) == 0
        except UserError as error:
            faults.append(Fault.of("unknown_unreadable", pair.unknown, error=error))
        if not known.any():
            return Truth([Fault.of("unknown_full", pair.unknown, alpha=pair.alpha.name)], 1.0)
    faults += alpha_faults(alpha, pair.alpha, known)
    soft = float(np.mean(is_soft(alpha[known])))
    return Truth(faults, float(1 - known.mean()), soft, border_and_centre(np.where(known, alpha, 0)))


def alpha_faults(alpha: np.ndarray, path: str | Path, known: np.ndarray | None = None) -> list[Fault]:
    """The faults of an alpha float32 (H, W) in [0, 1], judged where known (bool (H, W), not all False) says so."""
    values = alpha if known is None else alpha[known]
    highest, lowest = float(values.max()), float(values.min())
    levels = np.flatnonzero(np.bincount(np.rint(values.ravel() * 65535).astype(np.uint16), minlength=1))
    if lowest > 1 - (NEARLY + 0.5) / 255:
        return [Fault.of("alpha_full", path, nearly="" if lowest == 1 else "nearly ")]
    if highest < OPAQUE:
        return [_faint(highest, levels, path)]
    faults = _inverted(alpha, path)
    if not is_soft(values).any():
        faults.append(Fault.of("alpha_binary", path))
    elif len(levels) <= 3:
        *others, last = [f"{level / 257:.4g}" for level in levels]
        faults.append(Fault.of("alpha_levels", path, others=", ".join(others), last=last))
    from_sure = np.minimum(values, 1 - values)
    share = float(np.mean((from_sure > 0.5 / 255) & (from_sure <= NEARLY / 255)))
    if share > NOISE and is_noisy(values):
        faults.append(Fault.of("alpha_noisy", path, share=share, levels=NEARLY))
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
    why = f"its alphas are on average {border:.0%} opaque along the border and {centre:.0%} in the middle"
    return [Fault.of("alpha_inverted", folder, why=why)]


def _faint(highest: float, levels: np.ndarray, path: str | Path) -> Fault:
    """The fault of an alpha that is nowhere opaque, with its likely scale; levels: those that occur, of 65535."""
    top, is_label = int(levels[-1]), len(levels) <= 2
    is_8_bit = not (levels % 257).any()  # 8 bits are read as multiples of 257
    is_mask = len(levels) == 2 and levels[0] == 0
    if highest <= (NEARLY + 0.5) / 255 and (is_8_bit and not is_mask or not top):
        return Fault.of("alpha_empty", path, nearly="nearly " if top else "")
    full, top = (255, top // 257) if is_8_bit else (65535, top)
    if len(levels) == 2 or highest <= (NEARLY + 0.5) / 255:
        kind = "alpha_scale"
    else:
        kind = "alpha_perhaps_scale" if top in SCALES[full] else "alpha_faint"
    if full == 65535:
        bits = next((bits for bits in (8, 10, 12, 14) if top < 2**bits), 16)
        scale, name = 2**bits - 1, f"{bits} bit values in a 16 bit file"
    elif is_label:
        scale, name = top, f"a label image or mask with the value {top}"
    else:
        scale = next((scale for scale in SCALES[255] if top <= scale), 255)
        name = "percent" if scale == 100 else f"values from 0 to {scale}"
    cure = f"it looks like {name}; multiply it by {full / scale:.5g}, so that opaque is {full}"
    if scale == full:
        cure = f"if its subject is opaque anywhere, scale it so that opaque is {full}"
    return Fault.of(kind, path, top=top, full=full, cure=cure)


def _inverted(alpha: np.ndarray, path: str | Path) -> list[Fault]:
    """A subject may fill the frame, but hardly with all of its border opaque and a hole inside. Where the border is
    opaque at the top only, it may be an inverted portrait, or the subject may hang from above."""
    hole = float(np.mean(alpha < 0.5))
    if hole <= 0.01:
        return []
    if border_and_centre(alpha)[0] > BORDER:
        why = f"its border is opaque, and {hole:.0%} of the pixels inside are not"
        return [Fault.of("alpha_inverted", path, why=why)]
    height, width = alpha.shape
    upper = np.concatenate([alpha[0], alpha[: height // 2, 0], alpha[: height // 2, -1]])
    centre = alpha[height // 3 : height - height // 3, width // 3 : width - width // 3]
    is_portrait = upper.mean() > BORDER and centre.mean() < 0.5
    return [Fault.of("alpha_perhaps_inverted", path)] if is_portrait else []


def border_and_centre(alpha: np.ndarray) -> tuple[float, float]:
    """Means of an alpha (H, W) along its border and over the middle half of its sides."""
    border = np.concatenate([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]])
    height, width = alpha.shape
    centre = alpha[height // 4 : height - height // 4, width // 4 : width - width // 4]
    return float(border.mean()), float(centre.mean())
