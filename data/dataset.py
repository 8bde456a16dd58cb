"""Photos with their true alphas, from folders.

    pairs = find_pairs("Datasets/DIS5K_Flat/train")                # ROOT/im and ROOT/gt, matched by stem
    dataset = PhotoDataset("Datasets/DIS5K_Flat/train", Augmentation(1024), seed=0)
    item = dataset[(epoch, index)]        # image uint8 (3, S, S); alpha, unknown uint8 (1, S, S); name

A training item is a function of (seed, epoch, index) and the files, whichever process loads it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.random import Generator
from torch.utils.data import Dataset

from common.errors import UserError
from common.photos import list_images, read_photo, to_uint8
from common.resize import resize
from data.augmentation import (
    Augmentation,
    Pixels,
    crop_and_scale,
    crop_box,
    degrade,
    draw_scale,
    flip_and_rotate,
    resize_pixels,
)
from data.pairs import find_pairs, read_pair, read_reduced_pair, read_unknown

Item = dict[str, Any]  # tensors by name, and the sample's name

ATTEMPTS = 8  # samples tried in place of a broken one before the run stops


class TrainingDataset(Dataset):
    """What all training sets share: keys, random numbers, augmentation, broken files. Subclasses load."""

    def __init__(self, settings: Augmentation, seed: int) -> None:
        self.settings, self.seed = settings, seed
        self._warned: set[str] = set()  # at most one entry per file; decides about warnings, never about items

    def __len__(self) -> int:
        raise NotImplementedError

    def load(self, index: int, rng: Generator) -> tuple[list[Pixels], str]:
        """The planes of sample `index`, cropped and scaled, as augmentation.crop_and_scale returns them, and its name.

        Raises UserError for a broken file.
        """
        raise NotImplementedError

    def __getitem__(self, key: tuple[int, int]) -> Item:
        """The sample of (epoch, index); another one, drawn from the same key, where its file is broken.

        Raises RuntimeError after ATTEMPTS broken files in a row, IndexError outside the set.
        """
        epoch, index = key
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is outside a set of {len(self)} samples.")
        for attempt in range(ATTEMPTS):
            rng = np.random.default_rng((self.seed, epoch, index, attempt))
            try:
                planes, name = self.load(int(rng.integers(len(self))) if attempt else index, rng)
            except ValueError as error:
                self._warn_once(str(error))
                reason = error
                continue
            pixels, *unknown = flip_and_rotate(planes, self.settings, rng)
            photo = degrade(cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB), self.settings, rng)
            return training_item(photo, cv2.extractChannel(pixels, 3), *unknown, name=name)
        raise RuntimeError(
            f"{ATTEMPTS} samples in a row cannot be read, the last because {reason} "
            "Look at the whole set with python -m data.check."
        )

    def _warn_once(self, sentence: str) -> None:
        """Name each broken file once per worker."""
        if sentence not in self._warned:
            self._warned.add(sentence)
            warnings.warn(f"{sentence} Another sample takes its place.", stacklevel=3)


def training_item(photo: Pixels, alpha: Pixels, unknown: Pixels | None = None, *, name: str) -> Item:
    """Arrays (S, S, ...) as tensors: image uint8 (3, S, S); alpha uint8 (1, S, S); unknown uint8 (1, S, S), 0 or 1.

    The planes were resized alike, so unknown is above 0 wherever an unknown pixel had a weight of at least half a grey
    level in the alpha: all of those pixels are 1.
    """
    touched = np.zeros_like(alpha) if unknown is None else (unknown > 0).astype(np.uint8)
    return {
        "image": torch.stack([torch.from_numpy(channel) for channel in cv2.split(photo)]),
        "alpha": torch.from_numpy(alpha)[None],
        "unknown": torch.from_numpy(touched)[None],
        "name": name,
    }


class Names:
    """Tuples of file names, packed into one string of bytes.

    A list would be copied into each forked worker, since reading it writes to reference counts; an array of characters
    takes four bytes a character, and pads all to the longest.
    """

    def __init__(self, rows: Iterable[tuple[str, ...]]) -> None:
        encoded = [os.fsencode("\0".join(row)) for row in rows]
        self._ends = np.cumsum([len(row) for row in encoded])
        self._bytes = b"".join(encoded)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> list[str]:
        start = int(self._ends[index - 1]) if index else 0
        return os.fsdecode(self._bytes[start : int(self._ends[index])]).split("\0")


class PhotoDataset(TrainingDataset):
    """Augmented samples of the pairs in ROOT/im and ROOT/gt, with ROOT/unknown where it is."""

    def __init__(self, root: str | Path, settings: Augmentation, seed: int) -> None:
        super().__init__(settings, seed)
        self._pairs = Names(tuple(str(part or "") for part in pair) for pair in find_pairs(root))

    def __len__(self) -> int:
        return len(self._pairs)

    def load(self, index: int, rng: Generator) -> tuple[list[Pixels], str]:
        name, *paths = self._pairs[index]
        extent = draw_scale(self.settings, rng) * self.settings.image_size  # long side of the scaled photo
        planes = read_reduced_pair(*paths, long_side=extent)
        return crop_and_scale(planes, extent / max(planes[0].shape), self.settings, rng), name


class CompositeDataset(TrainingDataset):
    """RGBA cut-outs over backgrounds, composited on the fly: alpha F + (1 - alpha) B.

    A cut-out's long side becomes 0.5 to 1 of that of a scaled photo. It is scaled premultiplied, since the colours of
    its transparent pixels have no meaning, and composited in float, so rounding comes last.
    """

    def __init__(
        self, foregrounds: str | Path, backgrounds: Sequence[str | Path], settings: Augmentation, seed: int
    ) -> None:
        super().__init__(settings, seed)
        self._foregrounds, self._backgrounds = _images([foregrounds]), _images(backgrounds)

    def __len__(self) -> int:
        return len(self._foregrounds)

    def load(self, index: int, rng: Generator) -> tuple[list[Pixels], str]:
        [path] = self._foregrounds[index]
        cutout = read_photo(path)
        if cutout.alpha is None:
            raise UserError(f"{path} has no transparency: a foreground must be a cut-out with an alpha channel.")
        premultiplied = self._place(to_uint8(cutout.image), cutout.alpha, rng)
        [backdrop_path] = self._backgrounds[int(rng.integers(len(self._backgrounds)))]
        backdrop = self._backdrop(backdrop_path, rng)
        alpha = premultiplied[..., 3:]
        composite = premultiplied[..., :3] + (1 - alpha) * backdrop
        pixels = np.rint(np.dstack([composite, 255 * alpha])).astype(np.uint8)
        return [pixels], f"{Path(path).stem}+{Path(backdrop_path).stem}"

    def _place(self, colour: np.ndarray, alpha: np.ndarray, rng: Generator) -> np.ndarray:
        """The scaled cut-out at a random place in the square: float32 (S, S, 4), alpha F in grey levels, then alpha."""
        size = self.settings.image_size
        scale = draw_scale(self.settings, rng) * rng.uniform(0.5, 1.0) * size / max(alpha.shape)
        levels = cv2.convertScaleAbs(alpha, alpha=255)
        top, left, height, width = crop_box(levels, scale, self.settings, rng)
        here = slice(top, top + height), slice(left, left + width)
        opacity = alpha[here]
        target = [min(size, max(1, round(extent * scale))) for extent in (height, width)]
        # one channel at a time: all four as float32 would take 192 MB at 12 megapixels
        planes = [colour[here][..., channel] * opacity for channel in range(3)] + [opacity]
        small = [resize(torch.from_numpy(plane)[None], (target[0], target[1]))[0].numpy() for plane in planes]
        canvas = np.zeros((size, size, 4), np.float32)
        down, across = (int(rng.integers(0, size - extent + 1)) for extent in target)
        canvas[down : down + target[0], across : across + target[1]] = np.dstack(small)
        return canvas

    def _backdrop(self, path: str, rng: Generator) -> np.ndarray:
        """A square from a random place of a background, its side 0.5 to 1 of the short side: uint8 (S, S, 3)."""
        size = self.settings.image_size
        photo = to_uint8(read_photo(path, shrink_to=2 * size).image)
        side = max(1, round(min(photo.shape[:2]) * rng.uniform(0.5, 1.0)))
        top, left = (int(rng.integers(0, extent - side + 1)) for extent in photo.shape[:2])
        return resize_pixels(photo[top : top + side, left : left + side], (size, size))


class MixedDataset(Dataset):
    """Several training sets as one, each with a weight: dataset[(epoch, index)].

    A set of n samples and weight w gives round(w n) samples per epoch, at least one: with weight 2 each sample twice,
    augmented differently, with weight 0.5 half of them in one epoch and the other half in the next.
    """

    def __init__(self, datasets: Sequence[tuple[Any, float]], seed: int) -> None:
        self.datasets = [dataset for dataset, _ in datasets]  # Any: torch's Dataset has no __len__, each of ours has
        self.counts = [max(1, round(weight * len(dataset))) for dataset, weight in datasets]
        self.seed = seed
        self._orders: list[dict[int, np.ndarray]] = [{} for _ in datasets]

    def __len__(self) -> int:
        return sum(self.counts)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        epoch, index = key
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is outside a set of {len(self)} samples.")
        which = 0
        while index >= self.counts[which]:
            index -= self.counts[which]
            which += 1
        dataset = self.datasets[which]
        # Over all epochs the set is gone through again and again, in a new order each time.
        turn, place = divmod(epoch * self.counts[which] + index, len(dataset))
        return dataset[(turn, int(self._order(which, turn, epoch)[place]))]

    def _order(self, which: int, turn: int, epoch: int) -> np.ndarray:
        """The order of a set in one turn; orders are kept as long as their epoch lasts: 45 ms for a million samples."""
        orders, length = self._orders[which], len(self.datasets[which])
        if turn not in orders:
            for old in [kept for kept in orders if kept < epoch * self.counts[which] // length]:
                del orders[old]
            orders[turn] = np.random.default_rng((self.seed, which, turn)).permutation(length).astype(np.uint32)
        return orders[turn]


def _images(folders: Sequence[str | Path]) -> Names:
    """Paths of all images in the folders. Raises UserError if a folder has none."""
    paths: list[tuple[str]] = []
    for folder in folders:
        found = list_images(folder)
        if not found:
            raise UserError(f"{folder} holds no images: cut-outs and backgrounds are .png, .jpg, .webp or .tif.")
        paths += [(str(path),) for path in found]
    return Names(paths)


class PhotoValidation(Dataset):
    """Whole pairs at their own size: image uint8 (3, H, W), alpha float32 (1, H, W) in [0, 1], name; and, where part
    of the truth is not known, unknown bool (1, H, W)."""

    def __init__(self, root: str | Path) -> None:
        self.pairs = find_pairs(root)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Item:
        """Raises UserError, in one sentence, if a file cannot be read or the sizes differ."""
        pair = self.pairs[index]
        photo, alpha = read_pair(pair.image, pair.alpha)
        item = validation_item(photo, alpha, pair.name)
        if pair.unknown:
            item["unknown"] = torch.from_numpy(read_unknown(pair.unknown, alpha.shape) > 0)[None]
        return item


def validation_item(photo: Pixels, alpha: np.ndarray, name: str) -> Item:
    """A photo (H, W, 3) and its float alpha (H, W) as tensors: see PhotoValidation."""
    image = torch.from_numpy(photo).permute(2, 0, 1).contiguous()
    return {"image": image, "alpha": torch.from_numpy(alpha)[None], "name": name}
