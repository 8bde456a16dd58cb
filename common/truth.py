"""What is sure, soft and edge in a true alpha: the one standard for metrics, losses, crops and data.check.

Compression leaves nearly sure levels: a JPEG's 0 to 8, a film's 1 and 254. They must count as sure, or all of a photo
would be its edge. A clean truth is measured exactly: there a level of 1 is the end of a strand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import cv2
import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Alpha = TypeVar("Alpha", np.ndarray, "Tensor")

NEARLY = 8  # grey levels of 255: as far from 0 or 1 a level is nearly sure


def is_soft(alpha: Alpha) -> Alpha:
    """Where an alpha in [0, 1], of any shape, is more than NEARLY from 0 and from 1, bool."""
    return (alpha > NEARLY / 255) & (alpha < 1 - NEARLY / 255)


def is_noisy(alpha: np.ndarray) -> bool:
    """Whether an alpha, float in [0, 1], has been through JPEG or video: more nearly sure pixels than soft ones.

    In a clean truth nearly sure pixels are the ends of soft edges, at most half as many (measured on blurred discs and
    smoke). What is less than half a level from 0 or 1 counts as 0 or 1.
    """
    from_sure = np.minimum(alpha, 1 - alpha)
    soft = np.count_nonzero(from_sure > NEARLY / 255)
    return np.count_nonzero(from_sure > 0.5 / 255) - soft > soft


def edge_seeds(alpha: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
    """Soft pixels, and those where sure 0 meets sure 1, 4-connected: bool (H, W).

    alpha: float (H, W) in [0, 1]; known: bool (H, W), False where nobody knows the truth, or None: such pixels are no
    seeds and cause none. Exactly 0 and 1 are sure; where the truth is_noisy, nearly 0 and 1 too.
    """
    nearly = NEARLY / 255 if is_noisy(alpha if known is None else alpha[known]) else 0.0
    is_zero, is_one = alpha <= nearly, alpha >= 1 - nearly
    if known is None:
        return ~(is_zero | is_one) | (is_zero & _grown(is_one)) | (is_one & _grown(is_zero))
    is_zero, is_one = is_zero & known, is_one & known
    return (known & ~(is_zero | is_one)) | (is_zero & _grown(is_one)) | (is_one & _grown(is_zero))


def _grown(mask: np.ndarray) -> np.ndarray:
    """A mask, bool (H, W), with its 4-connected neighbours."""
    return cv2.dilate(mask.view(np.uint8), cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))).view(bool)
