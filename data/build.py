"""From the words of a config to data sets: a folder in the DIS5K_Flat layout, the word synthetic, cut-outs beside."""

from __future__ import annotations

from pathlib import Path

from torch.utils.data import Dataset

from data.dataset import CompositeDataset, MixedDataset, PhotoDataset, PhotoValidation
from data.synthetic.dataset import SyntheticDataset, SyntheticValidation
from data.transforms import Augmentation

SYNTHETIC = "synthetic"


class DataError(ValueError):
    """A data set that cannot be used; the message names the folder, what is wrong and what to do."""


def build_training_set(
    dataset: str, *, image_size: int, samples: int, seed: int, foregrounds: str = "", backgrounds: str = ""
) -> Dataset:
    """Training samples of DATASET/train, or `samples` synthetic ones an epoch; cut-outs over backgrounds beside."""
    if dataset == SYNTHETIC:
        sets: list[Dataset] = [SyntheticDataset(samples=samples, size=image_size, seed=seed)]
    else:
        sets = [_open(PhotoDataset, _existing(dataset) / "train", Augmentation(image_size), seed)]
    if foregrounds:
        sets.append(_open(CompositeDataset, foregrounds, backgrounds, Augmentation(image_size), seed))
    return sets[0] if len(sets) == 1 else MixedDataset(sets)


def build_validation_set(dataset: str, *, image_size: int, samples: int, seed: int) -> Dataset:
    """DATASET/val at native size, or `samples` fixed synthetic photos."""
    if dataset == SYNTHETIC:
        return SyntheticValidation(samples=samples, size=image_size, seed=seed)
    return _open(PhotoValidation, _existing(dataset) / "val")


def _existing(dataset: str) -> Path:
    if not Path(dataset).is_dir():
        raise DataError(
            f"The data set {dataset} is not there: name a folder that holds train/im, train/gt, val/im and "
            "val/gt with --dataset, or try --dataset synthetic, which needs no data at all."
        )
    return Path(dataset)


def _open(kind: type[Dataset], *arguments) -> Dataset:
    try:
        return kind(*arguments)
    except ValueError as error:
        raise DataError(str(error)) from error
