"""Mattes of photos that are 2, 4 and 8 times larger than the student's view of them.

    python -m experiments.ratios CHECKPOINT [CHECKPOINT ...] --photos ROOT/val [--csv F]

The student's working size stays; the photos and their truths are scaled to 2, 4 and 8 times its long side. A row is a
checkpoint's mean over a set, the drawn validation set or the photos, at a ratio: of its coarse and of its final matte.
It shows what refinement in octaves is for: compare runs of train.py with and without --no-use-octaves.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from torch.utils.data import Dataset
from tqdm import tqdm

from common.command import command, new_parser
from common.files import atomic_write
from common.resize import resize_alpha, resize_to_working_size, working_size
from data.dataset import PhotoValidation
from data.synthetic.dataset import SyntheticValidation
from evaluation.validation import COARSE, REFINED, validate
from metrics import TITLES
from models.checkpoint import find_model, load_model

FIGURES = ("image_sad", "edge_sad", "edge_mse", "image_grad")


class ScaledPhotos(Dataset):
    """The items of a validation set with their long side scaled to `long_side` pixels."""

    def __init__(self, photos: Any, long_side: int) -> None:
        self.photos, self.long_side = photos, long_side

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = dict(self.photos[index])
        height, width = item["image"].shape[-2:]
        size = working_size(height, width, self.long_side)
        item["image"] = resize_to_working_size(item["image"], self.long_side)
        item["alpha"] = resize_alpha(item["alpha"][None], size)[0].clamp(0, 1)
        if "unknown" in item:
            item["unknown"] = resize_alpha(item["unknown"][None].float(), size)[0] > 0
        return item


def measure(checkpoint: Path, photos: Path | None, ratios: Sequence[int], samples: int) -> list[dict[str, Any]]:
    """The rows of one checkpoint. Raises UserError, and ValueError where the photos cannot be used."""
    model = load_model(checkpoint)
    rows = []
    for ratio in tqdm(ratios, desc=checkpoint.parent.name, unit="ratio", leave=False, disable=None):
        side = ratio * model.image_size
        sets: dict[str, Any] = {"drawn": SyntheticValidation(samples=samples, size=side, seed=0)}
        if photos:
            sets[photos.parent.name or photos.name] = ScaledPhotos(PhotoValidation(photos), side)
        for name, dataset in sets.items():
            scores = validate(model, dataset).figures
            for matte in (COARSE, REFINED):
                if f"{matte}_image_sad" in scores:
                    figures = {TITLES[name]: scores.get(f"{matte}_{name}") for name in FIGURES}
                    rows.append({"run": checkpoint.parent.name, "ratio": ratio, "set": name, "matte": matte, **figures})
    return rows


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = new_parser(__doc__)
    flag = parser.add_argument
    flag("checkpoints", type=Path, nargs="+", metavar="CHECKPOINT", help="best.safetensors or its run folder")
    flag("--photos", type=Path, metavar="DIR", help="folder with im and gt, such as ROOT/val")
    flag("--ratios", type=int, nargs="+", default=[2, 4, 8], metavar="N")
    flag("--samples", type=int, default=32, help="drawn photos (default: %(default)s)")
    flag("--csv", type=Path, metavar="F", help="also write the table to this file")
    options = parser.parse_args(argv)
    files = [find_model(path, Path()) for path in options.checkpoints]
    rows = [row for file in files for row in measure(file, options.photos, options.ratios, options.samples)]
    table = pd.DataFrame(rows).sort_values(["set", "ratio", "matte"], kind="stable")
    if options.csv:
        with atomic_write(options.csv) as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g")
    print(table.to_string(index=False, float_format="{:.4g}".format))
    return 0


if __name__ == "__main__":
    sys.exit(main())
