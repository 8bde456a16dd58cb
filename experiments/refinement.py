"""What the refiner adds to the student's matte, by checkpoint and by set of photos with their truths.

    python -m experiments.refinement ratios RUN [RUN ...] [--photos ROOT/val ...] [--csv F]
    python -m experiments.refinement sure RUN [RUN ...] --photos ROOT/val [ROOT/val ...]

ratios: the student's working size stays; a drawn set and the photos are scaled to 2, 4 and 8 times its long side. A row
is a mean over a set, of the coarse or of the final matte. It shows what refinement in octaves is for: compare runs of
train.py with and without --no-use-octaves.
sure: of the pixels where the student's interpolated alpha is at most 0.05 from 0 or 1 and at most 0.05 from the truth,
the mean error of the coarse and of the refined matte, and their share of all pixels. Attention should keep the refiner
from adding noise there: compare runs with and without --no-use-attention.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

import matting
from common.command import command, new_parser
from common.files import atomic_write
from common.resize import resize_alpha, resize_to_working_size, working_size
from config import Config
from data.dataset import PhotoValidation
from data.synthetic.dataset import SyntheticValidation
from evaluation.validation import COARSE, REFINED, validate
from metrics import TITLES
from models import MattingNetwork
from models.checkpoint import find_model, load_model

FIGURES = ("image_sad", "edge_sad", "edge_mse", "image_grad")
MARGIN = 0.05  # in alpha
Row = dict[str, Any]


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


def ratio_rows(model: MattingNetwork, sets: Mapping[str, Any], options: argparse.Namespace) -> Iterator[Row]:
    for ratio in tqdm(options.ratios, unit="ratio", leave=False, disable=None):
        side = ratio * model.image_size
        scaled: dict[str, Any] = {"drawn": SyntheticValidation(samples=options.samples, size=side, seed=0)}
        scaled |= {name: ScaledPhotos(photos, side) for name, photos in sets.items()}
        for name, dataset in scaled.items():
            scores = validate(model, dataset).figures
            for matte in (COARSE, REFINED):
                if f"{matte}_image_sad" in scores:
                    figures = {TITLES[name]: scores.get(f"{matte}_{name}") for name in FIGURES}
                    yield {"ratio": ratio, "set": name, "matte": matte, **figures}


def sure_rows(model: MattingNetwork, sets: Mapping[str, Any], options: argparse.Namespace) -> Iterator[Row]:
    for name, photos in sets.items():
        yield {"set": name, **sure_figures(model, photos)}


def sure_figures(model: Any, photos: Any) -> dict[str, float]:
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
    count = max(chosen, 1)
    return {"share": chosen / pixels, "coarse": coarse_error / count, "refined": refined_error / count}


def sure_and_right(coarse: Tensor, truth: Tensor, unknown: Tensor | None = None) -> Tensor:
    """Bool (1, H, W), of alphas (1, H, W)."""
    chosen = ((coarse <= MARGIN) | (coarse >= 1 - MARGIN)) & ((coarse - truth).abs() <= MARGIN)
    return chosen if unknown is None else chosen & ~unknown


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = new_parser(__doc__)
    kinds = parser.add_subparsers(required=True, metavar="ratios|sure")
    for name, rows_of in (("ratios", ratio_rows), ("sure", sure_rows)):
        kind = kinds.add_parser(name)
        kind.set_defaults(rows_of=rows_of, order=["set", "ratio", "matte"] if name == "ratios" else [])
        kind.add_argument("checkpoints", type=Path, nargs="+", metavar="RUN", help="run folder or best.safetensors")
        text = "folders with im and gt, such as ROOT/val"
        kind.add_argument("--photos", type=Path, nargs="+", default=[], required=name == "sure", help=text)
        kind.add_argument("--csv", type=Path, metavar="F", help="also write the table to this file")
        if name == "ratios":
            kind.add_argument("--ratios", type=int, nargs="+", default=[2, 4, 8], metavar="N")
            kind.add_argument("--samples", type=int, default=32, help="drawn photos (default: %(default)s)")
    options = parser.parse_args(argv)
    sets = {folder.parent.name or folder.name: PhotoValidation(folder) for folder in options.photos}
    files = {path: find_model(path, Config.output) for path in options.checkpoints}
    rows = [
        {"run": path.as_posix(), **row}
        for path, file in files.items()
        for row in options.rows_of(load_model(file), sets, options)
    ]
    table = pd.DataFrame(rows)
    if options.order:
        table = table.sort_values(options.order, kind="stable")
    if options.csv:
        with atomic_write(options.csv) as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g")
    print(table.to_string(index=False, float_format="{:.5g}".format))
    return 0


if __name__ == "__main__":
    sys.exit(main())
