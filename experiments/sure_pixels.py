"""What the refiner does where the student's matte needs no refinement.

    python -m experiments.sure_pixels RUN [RUN ...] --photos ROOT/val [ROOT/val ...]

A pixel is sure and right where the student's interpolated alpha is at most 0.05 from 0 or 1 and at most 0.05 from the
truth. A row is a run's mean over such pixels of a set: the error of its coarse and of its refined matte, and the share
of all pixels. Attention should keep the refiner from adding noise there: compare runs with and without
--no-use-attention.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor
from tqdm import tqdm

import matting
from common.command import command, new_parser
from data.dataset import PhotoValidation
from models.checkpoint import find_model, load_model

MARGIN = 0.05  # in alpha


def sure_and_right(coarse: Tensor, truth: Tensor, unknown: Tensor | None = None) -> Tensor:
    """Bool (1, H, W), of alphas (1, H, W)."""
    chosen = ((coarse <= MARGIN) | (coarse >= 1 - MARGIN)) & ((coarse - truth).abs() <= MARGIN)
    return chosen if unknown is None else chosen & ~unknown


def measure(model: Any, photos: Any) -> dict[str, float]:
    """Share of all pixels, and mean |alpha - truth| of the coarse and the refined matte over them."""
    pixels, chosen, coarse_error, refined_error = 0, 0, 0.0, 0.0
    for item in tqdm(photos, unit="photo", leave=False, disable=None):
        mattes = matting.predict_mattes(model, item["image"])
        coarse, truth = mattes.coarse_alpha.cpu(), item["alpha"]
        sure = sure_and_right(coarse, truth, item.get("unknown"))
        pixels += truth.numel()
        chosen += int(sure.sum())
        coarse_error += float((coarse - truth).abs()[sure].double().sum())
        refined_error += float((mattes.alpha.cpu() - truth).abs()[sure].double().sum())
    return {
        "share": chosen / pixels,
        "coarse": coarse_error / max(chosen, 1),
        "refined": refined_error / max(chosen, 1),
    }


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = new_parser(__doc__)
    parser.add_argument("checkpoints", type=Path, nargs="+", metavar="RUN", help="run folder or best.safetensors")
    parser.add_argument("--photos", type=Path, nargs="+", required=True, metavar="DIR", help="folders with im and gt")
    options = parser.parse_args(argv)
    rows = []
    sets = {folder.parent.name or folder.name: PhotoValidation(folder) for folder in options.photos}
    for checkpoint in options.checkpoints:
        file = find_model(checkpoint, Path())
        model = load_model(file)
        rows += [{"run": checkpoint.as_posix(), "set": name, **measure(model, sets[name])} for name in sets]
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.5f}".format))
    return 0


if __name__ == "__main__":
    sys.exit(main())
