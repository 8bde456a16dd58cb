"""Faults that show in the values of a true alpha: a wrong scale, a trimap, an inverted matte.

faults = alpha_faults(read_alpha("gt/cat.png"), "gt/cat.png")
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data.kinds import Fault

SOFT = (0.02, 0.98)  # alphas between these are soft; JPEG makes a few near the ends of any truth
FAINTEST = 0.02  # no real truth stays below this: 1/255 is a 0/1 mask, 255/65535 8 bits in a 16 bit file
OPAQUE = 0.9  # nearly every subject is opaque somewhere; only glass, smoke and the like stay below this
DOUBTFUL = ("alpha_scale", "alpha_faint", "alpha_levels")
FEWEST_TRUTHS = 3  # that must all be doubtful before none is believed
BORDER = 0.95  # share of opaque pixels from which a border counts as opaque


def alpha_faults(alpha: np.ndarray, path: str | Path, known: np.ndarray | None = None) -> list[Fault]:
    """The faults of an alpha float32 (H, W) in [0, 1], judged where known (bool (H, W), not all False) says so."""
    values = alpha if known is None else alpha[known]
    highest, lowest = float(values.max()), float(values.min())
    if highest == 0:
        return [Fault("alpha_empty", str(path), f"{path} is 0 everywhere: it shows no subject.")]
    if lowest == 1:
        return [Fault("alpha_full", str(path), f"{path} is 1 everywhere: it cuts nothing out.")]
    levels = np.flatnonzero(np.bincount(np.rint(values.ravel() * 65535).astype(np.uint16), minlength=1))
    if highest < OPAQUE:
        is_certain = highest <= FAINTEST or len(levels) == 2
        return [Fault("alpha_scale" if is_certain else "alpha_faint", str(path), _scale_sentence(path, levels))]
    faults = _inverted(alpha, path)
    is_soft = (values > SOFT[0]) & (values < SOFT[1])
    if not is_soft.any():
        sentence = f"{path} holds 0 and 1 only, no soft pixel: hair and glass cannot be learned from it."
        faults.append(Fault("alpha_binary", str(path), sentence))
    elif len(levels) <= 3:
        *others, last = [f"{level / 257:.4g}" for level in levels]
        sentence = (
            f"{path} holds only the values {', '.join(others)} and {last} of 255: it looks like a trimap or a label "
            "image; mark the pixels between in a mask in unknown/, or write 0 and 255."
        )
        faults.append(Fault("alpha_levels", str(path), sentence))
    return faults


def judge_together(faults: list[Fault], truths: int) -> list[Fault]:
    """Faults of so many truths of one split: a glass may be faint, but where all truths are faint or of two or three
    levels, each has the wrong scale (alpha_scale). Those that are 0 everywhere say nothing about it."""
    doubtful, empty = (sum(fault.kind in kinds for fault in faults) for kinds in (DOUBTFUL, ("alpha_empty",)))
    if doubtful < FEWEST_TRUTHS or doubtful + empty < truths:
        return faults
    return [fault._replace(kind="alpha_scale") if fault.kind in DOUBTFUL else fault for fault in faults]


def _scale_sentence(path: str | Path, levels: np.ndarray) -> str:
    """Which scale the values of a faint alpha probably have; levels: those that occur, of 65535."""
    top = int(levels[-1])
    full, top = (255, top // 257) if top % 257 == 0 else (65535, top)  # 8 bits are read as multiples of 257
    scale, name = top, f"a label image or mask with the value {top}"
    if full == 65535:
        bits = next((bits for bits in (8, 10, 12, 14) if top < 2**bits), 16)
        scale, name = 2**bits - 1, f"{bits} bit values in a 16 bit file"
    elif len(levels) > 2:
        scale = next((scale for scale in (1, 100, 127, 128) if top <= scale), 255)
        name = "percent" if scale == 100 else f"values from 0 to {scale}"
    start = f"{path} reaches only {top} of {full}"
    if scale == full:
        return f"{start}: if its subject is opaque anywhere, scale it so that opaque is {full}."
    return f"{start}: it looks like {name}; multiply it by {full / scale:.5g}, so that opaque is {full}."


def _inverted(alpha: np.ndarray, path: str | Path) -> list[Fault]:
    """A subject may fill the frame, but hardly with all of its border opaque and a hole inside. Where the border is
    opaque at the top only, it may be an inverted portrait, or the subject may hang from above."""
    border = np.concatenate([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]])
    hole = float(np.mean(alpha < 0.5))
    if hole <= 0.01:
        return []
    if border.mean() > BORDER:
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
