"""Whether truths and mattes have the scale that every figure takes for granted: an opaque pixel is 1. Needs no torch.

A truth whose scale is certainly wrong is not scored, as a file that cannot be read; one that may be a glass is scored
and noted. So are mattes, where all of a method look so: a weak network's are faint too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from data.alpha_faults import DOUBTFUL, alpha_faults, judge_together
from data.kinds import Fault

TRUTH_FAULT, MATTE_FAULT = "truth_fault", "matte_fault"  # in a row: a Fault, or None for a usual scale


def check_truth(alpha: np.ndarray, path: str | Path, known: np.ndarray | None = None) -> Fault | None:
    """What may be wrong with the scale of a truth, float32 (H, W), where known, bool (H, W), says so.

    Raises UserError, in one sentence, where it is certainly wrong.
    """
    fault = check_matte(alpha, path, known)
    if fault and fault.kind == "alpha_scale":
        raise UserError(fault.sentence)
    return fault


def check_matte(alpha: np.ndarray, path: str | Path, known: np.ndarray | None = None) -> Fault | None:
    """What may be wrong with the scale of a matte; alpha_empty where nothing tells it."""
    if known is not None and not known.any():
        return None
    found = (fault for fault in alpha_faults(alpha, path, known) if fault.kind in (*DOUBTFUL, "alpha_empty"))
    return next(found, None)


def scale_notes(rows: Sequence[dict[str, Any]], mattes: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Warnings about the scales, at most one for all truths and one for each method; mattes: its rows by label."""
    notes = []
    truths = {row["name"]: row.get(TRUTH_FAULT) for row in rows}
    faults = judge_together(list(filter(None, truths.values())), len(truths))
    if doubts := [fault for fault in faults if fault.kind in DOUBTFUL]:
        verb = "have" if doubts[0].kind == "alpha_scale" else "may have"
        first = doubts[0].sentence
        notes.append(f"WARNING: {len(doubts)} of {len(truths)} truths {verb} a wrong scale. The first: {first}")
    for label, part in mattes.items():
        faults = [fault for row in part if (fault := row.get(MATTE_FAULT))]
        doubts = [fault for fault in faults if fault.kind in DOUBTFUL]
        if doubts and len(faults) == len(part):
            notes.append(f"WARNING: all mattes of {label} may have a wrong scale. The first: {doubts[0].sentence}")
    return notes
