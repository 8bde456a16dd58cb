"""Builds the data sets that a config names: folders in the DIS5K_Flat layout, the word synthetic, and cut-outs.

build_training_set(["synthetic", "Datasets/a", "Datasets/b*2"], settings=Augmentation(1024), samples=2000, seed=0)
build_validation_sets(["synthetic", "Datasets/a"], image_size=1024, samples=64, seed=0)    # by name
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from torch.utils.data import Dataset

from common.errors import UserError
from data.augmentation import Augmentation
from data.dataset import CompositeDataset, MixedDataset, PhotoDataset, PhotoValidation

SYNTHETIC = "synthetic"


class Source(NamedTuple):
    """A data set as it is named in the config: its folder (or the word synthetic), and its weight in the mix."""

    path: str
    weight: float


def parse_source(text: str) -> Source:
    """ "Datasets/b*2" -> Source("Datasets/b", 2.0). Raises UserError."""
    path, star, weight = text.rpartition("*")
    if not star:
        return Source(text, 1.0)
    try:
        source = Source(path, float(weight))
    except ValueError:
        source = Source(path, 0.0)
    if not (path and 0 < source.weight < float("inf")):
        raise UserError(f"{text} is no data set: write a folder, or a folder and its weight such as Datasets/mine*2.")
    return source


def build_training_set(
    datasets: Sequence[str],
    *,
    settings: Augmentation,
    samples: int,
    seed: int,
    foregrounds: Sequence[str] = (),
    backgrounds: Sequence[str] = (),
) -> Dataset:
    """Each DATASET/train, `samples` drawn photos per epoch for the word synthetic, and the cut-outs of each folder of
    `foregrounds` over all `backgrounds`, mixed by their weights. Raises UserError."""
    sets: list[tuple[Dataset, float]] = []
    for path, weight in map(parse_source, datasets):
        if path == SYNTHETIC:
            from data.synthetic.dataset import SyntheticDataset  # a sixth of what train.py would load, for this word

            drawn = SyntheticDataset(samples=samples, size=settings.image_size, seed=seed)
            sets.append((drawn, weight))
        else:
            sets.append((PhotoDataset(_existing(path) / "train", settings, seed), weight))
    for path, weight in map(parse_source, foregrounds):
        sets.append((CompositeDataset(path, list(backgrounds), settings, seed), weight))
    return sets[0][0] if len(sets) == 1 and sets[0][1] == 1 else MixedDataset(sets, seed)


def build_validation_sets(datasets: Sequence[str], *, image_size: int, samples: int, seed: int) -> dict[str, Dataset]:
    """By name, each DATASET/val at native size, and `samples` fixed drawn photos for the word synthetic.

    Of several sets, those without a val folder only train. Raises UserError if none has one.
    """
    sets: dict[str, Dataset] = {}
    paths = list(dict.fromkeys(source.path for source in map(parse_source, datasets)))
    for path in paths:
        if path == SYNTHETIC:
            from data.synthetic.dataset import SyntheticValidation  # see build_training_set

            sets[SYNTHETIC] = SyntheticValidation(samples=samples, size=image_size, seed=seed)
        elif len(paths) == 1 or (_existing(path) / "val").is_dir():
            name = Path(path).absolute().name
            sets[name if name not in sets else path] = PhotoValidation(_existing(path) / "val")
    if not sets:
        raise UserError(f"None of {', '.join(paths)} has a val folder: one of them must, or nothing can be measured.")
    return sets


def _existing(dataset: str) -> Path:
    if not Path(dataset).is_dir():
        raise UserError(
            f"The data set {dataset} is not there: name a folder that holds train/im, train/gt, val/im and "
            "val/gt with --dataset, or try --dataset synthetic, which needs no files."
        )
    return Path(dataset)
