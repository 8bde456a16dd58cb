"""From the words of a config to data sets: folders in the DIS5K_Flat layout, the word synthetic, and cut-outs.

build_training_set(["synthetic", "Datasets/a", "Datasets/b*2"], image_size=1024, samples=2000, seed=0)
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch.utils.data import Dataset

from data.augmentation import Augmentation
from data.dataset import CompositeDataset, MixedDataset, PhotoDataset, PhotoValidation
from data.synthetic.dataset import SyntheticDataset, SyntheticValidation

SYNTHETIC = "synthetic"


class DataError(ValueError):
    """A data set that cannot be used; the message names the folder, what is wrong and what to do."""


class Source(NamedTuple):
    """A data set as it is named in the config: its folder (or the word synthetic), and its weight in the mix."""

    path: str
    weight: float


def parse_source(text: str) -> Source:
    """ "Datasets/b*2" -> Source("Datasets/b", 2.0). Raises DataError."""
    path, star, weight = text.rpartition("*")
    if not star:
        return Source(text, 1.0)
    try:
        source = Source(path, float(weight))
    except ValueError:
        source = Source(path, 0.0)
    if not (path and 0 < source.weight < float("inf")):
        raise DataError(f"{text} is no data set: write a folder, or a folder and its weight such as Datasets/mine*2.")
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
    """Training samples of each DATASET/train, `samples` drawn ones an epoch for the word synthetic, and the cut-outs
    of `foregrounds` over all `backgrounds`; each set with its weight."""
    sets: list[tuple[Dataset, float]] = []
    for path, weight in map(parse_source, datasets):
        if path == SYNTHETIC:
            drawn = SyntheticDataset(samples=samples, size=settings.image_size, seed=seed)
            sets.append((drawn, weight))
        else:
            sets.append((_open(PhotoDataset, _existing(path) / "train", settings, seed), weight))
    for path, weight in map(parse_source, foregrounds):
        sets.append((_open(CompositeDataset, path, list(backgrounds), settings, seed), weight))
    return sets[0][0] if len(sets) == 1 and sets[0][1] == 1 else MixedDataset(sets, seed)


def build_validation_sets(datasets: Sequence[str], *, image_size: int, samples: int, seed: int) -> dict[str, Dataset]:
    """By name, each DATASET/val at native size, and `samples` fixed drawn photos for the word synthetic.

    Of several sets those without a val folder are for training alone. Raises DataError where none has one.
    """
    sets: dict[str, Dataset] = {}
    paths = [source.path for source in map(parse_source, datasets)]
    for path in dict.fromkeys(paths):
        if path == SYNTHETIC:
            sets[SYNTHETIC] = SyntheticValidation(samples=samples, size=image_size, seed=seed)
        elif len(paths) == 1 or (_existing(path) / "val").is_dir():
            name = Path(path).name
            sets[name if name not in sets else path] = _open(PhotoValidation, _existing(path) / "val")
    if not sets:
        raise DataError(f"None of {', '.join(paths)} has a val folder: one of them must, or nothing can be measured.")
    return sets


def fingerprint(validation: Mapping[str, Dataset]) -> str:
    """What tells one validation set from another: names, and sizes of the files (of drawn photos: how many of what
    size). Scores on different ones cannot be compared."""
    facts: list[Any] = []
    for name, dataset in validation.items():
        pairs = getattr(dataset, "pairs", None)
        if pairs is None:
            facts.append((name, sorted(vars(dataset).items())))
        else:
            facts.append((name, [(pair.name, *(path.stat().st_size for path in pair[1:] if path)) for pair in pairs]))
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def _existing(dataset: str) -> Path:
    if not Path(dataset).is_dir():
        raise DataError(
            f"The data set {dataset} is not there: name a folder that holds train/im, train/gt, val/im and "
            "val/gt with --dataset, or try --dataset synthetic, which needs no data at all."
        )
    return Path(dataset)


def _open(kind: type[Dataset], *arguments: Any) -> Dataset:
    try:
        return kind(*arguments)
    except ValueError as error:
        raise DataError(str(error)) from error
