"""What evaluate.py measures of checkpoints: their mattes on a data set, and the picture that compares them.

Raises UserError if nothing can be measured.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from common import plots
from common.errors import UserError
from common.processes import print_once
from data.build import SYNTHETIC
from data.dataset import PhotoValidation
from data.synthetic.dataset import SyntheticValidation
from evaluation.folders import Folders, match_files, truth_faults
from evaluation.scoring import TRUTH_FAULTS, Failure, Row
from evaluation.validation import COARSE, REFINED, MatteSource, compared, predict_sources
from inference.loading import load, read_metadata


def load_sources(files: Sequence[Path], device: torch.device, coarse_too: bool) -> list[MatteSource]:
    """The matte of each checkpoint; with coarse_too, before it the coarse matte of each that has a refiner."""
    sources = []
    for letter, file in zip(string.ascii_uppercase, files, strict=False):
        model = load(file, device)
        prefix = f"{letter} " if len(files) > 1 else ""
        if model.refiner is None or coarse_too:
            sources.append(MatteSource(f"{prefix}TwinSwin-Matte", model, COARSE))
        if model.refiner is not None:
            sources.append(MatteSource(f"{prefix}TSR-Matte", model, REFINED))
        print_once(f"{prefix}{file}")
    return sources


class CheckedTruths(PhotoValidation):
    """Pairs whose truths have a usual scale; item[TRUTH_FAULTS] lists what may be wrong with one."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Raises UserError for a pair that does not serve."""
        item = super().__getitem__(index)
        known = ~item["unknown"][0].numpy() if "unknown" in item else None  # (H, W)
        return item | {TRUTH_FAULTS: truth_faults(item["alpha"][0].numpy(), self.pairs[index].alpha, known)}


def open_dataset(name: str, model_file: Path) -> tuple[Any, list[Failure]]:
    """The photos to measure on, and those without a partner.

    name: a folder with im and gt, or with val inside; or synthetic, for the set that this checkpoint was validated on.
    """
    if name == SYNTHETIC:
        return synthetic_set(model_file), []
    root = Path(name)
    root = root / "val" if (root / "val" / "im").is_dir() else root
    return CheckedTruths(root), match_files(Folders(root / "im", root / "gt"))[1]


def synthetic_set(model_file: Path) -> Any:
    """The embedded photos that a checkpoint was validated on, from the settings in its file."""
    trained = read_metadata(model_file)
    samples, seed = (trained["config"].get(name) for name in ("val_samples", "seed"))
    if not (isinstance(samples, int) and isinstance(seed, int) and samples > 0 <= seed):
        raise UserError(
            f"{model_file} does not say which synthetic photos it was validated on (its config has "
            f"val_samples {samples}, seed {seed}): name a folder with --dataset."
        )
    return SyntheticValidation(samples=samples, size=trained["model"]["image_size"], seed=seed)


def draw_comparison(path: Path, sources: Sequence[MatteSource], dataset: Any, rows: Sequence[Row]) -> None:
    """The photos in which two mattes differ most, as much as half of the photos do, and least.

    Raises UserError if the figure cannot be written or a matte does not fit in memory.
    """
    pair = compared(sources)
    differences = {row["index"]: row["difference"] for row in rows}
    order = sorted(differences, key=lambda index: -differences[index])
    shown = []
    for index in dict.fromkeys((order[0], order[len(order) // 2], order[-1])):
        item = dataset[index]  # predicted again: keeping the mattes of a whole set takes too much memory
        image, truth = item["image"].permute(1, 2, 0).numpy(), item["alpha"][0].numpy()
        mattes = predict_sources(sources, item["image"])
        shown.append({"name": item["name"], "image": image, "truth": truth, "mattes": mattes})
    plots.comparison(path, shown, pair)
    print(
        f"{path}: largest, median and smallest difference between {pair[0]} and {pair[1]}, framed where it is largest"
    )
