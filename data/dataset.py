"""Photos with their true alphas, from folders.

    pairs = find_pairs("Datasets/DIS5K_Flat/train")                # ROOT/im and ROOT/gt, matched by stem
    dataset = PhotoDataset("Datasets/DIS5K_Flat/train", Augmentation(1024), seed=0)
    item = dataset[(epoch, index)]                                 # image uint8 (3, S, S), alpha uint8 (1, S, S), name

A training item is a function of (seed, epoch, index) and the files, whichever process loads it.
"""

from __future__ import annotations

import warnings
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.utils.data import Dataset

from common.photos import list_images, read_photo, to_uint8
from common.resize import resize
from data.pairs import find_pairs, read_pair, read_reduced_pair
from data.transforms import Augmentation, Augmenter, crop_box, cut, draw_scale

Item = dict[str, Tensor | str]

ATTEMPTS = 8  # samples tried in place of a broken one before the run stops


class TrainingDataset(Dataset):
    """What the sources of training samples share: keys, random numbers, augmentation, broken files."""

    def __init__(self, settings: Augmentation, seed: int) -> None:
        self.settings, self.seed = settings, seed
        self.augmenter = Augmenter(settings)
        self._warned: set[str] = set()  # at most one entry a file; decides about warnings, never about items

    def __len__(self) -> int:
        raise NotImplementedError

    def load(self, index: int, rng: Generator) -> tuple[np.ndarray, str]:
        """Sample `index`: pixels uint8 (S, S, 4), alpha last, and its name. Raises ValueError for a broken file."""
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
                pixels, name = self.load(int(rng.integers(len(self))) if attempt else index, rng)
            except ValueError as error:
                self._warn_once(str(error))
                reason = error
                continue
            image, alpha = self.augmenter(pixels, rng)
            return {"image": image, "alpha": alpha, "name": name}
        raise RuntimeError(
            f"{ATTEMPTS} samples in a row cannot be read, the last because {reason} "
            "Look at the whole set with python -m data.check."
        )

    def _warn_once(self, sentence: str) -> None:
        """Name a broken file once a worker."""
        if sentence not in self._warned:
            self._warned.add(sentence)
            warnings.warn(f"{sentence} Training goes on with another sample.", stacklevel=3)


class PhotoDataset(TrainingDataset):
    """Augmented samples of the pairs in ROOT/im and ROOT/gt."""

    def __init__(self, root: str | Path, settings: Augmentation, seed: int) -> None:
        super().__init__(settings, seed)
        # One array of characters: a list of paths would be copied into each forked worker page by page,
        # as looking at a Python object writes its reference count.
        self._pairs = np.array(find_pairs(root), dtype=str)  # (pairs, 3)

    def __len__(self) -> int:
        return len(self._pairs)

    def load(self, index: int, rng: Generator) -> tuple[np.ndarray, str]:
        name, image_path, alpha_path = map(str, self._pairs[index])
        extent = draw_scale(self.settings, rng) * self.settings.image_size  # long side of the scaled photo
        photo, alpha = read_reduced_pair(image_path, alpha_path, extent)
        scale = extent / max(alpha.shape)
        return cut(photo, alpha, scale, self.settings, rng), name


class CompositeDataset(TrainingDataset):
    """RGBA cut-outs over backgrounds, composited on the fly: alpha F + (1 - alpha) B.

    A cut-out's long side becomes 0.5 to 1 of that of a scaled photo. It is scaled premultiplied, since the
    colours of its transparent pixels mean nothing, and composited in float before anything is rounded.
    """

    def __init__(self, foregrounds: str | Path, backgrounds: str | Path, settings: Augmentation, seed: int) -> None:
        super().__init__(settings, seed)
        self._foregrounds, self._backgrounds = (
            np.array([str(path) for path in list_images(folder)], dtype=str) for folder in (foregrounds, backgrounds)
        )
        for folder, paths in ((foregrounds, self._foregrounds), (backgrounds, self._backgrounds)):
            if len(paths) == 0:
                raise ValueError(f"{folder} holds no images: cut-outs and backgrounds are .png, .jpg, .webp or .tif.")

    def __len__(self) -> int:
        return len(self._foregrounds)

    def load(self, index: int, rng: Generator) -> tuple[np.ndarray, str]:
        path = str(self._foregrounds[index])
        cutout = read_photo(path)
        if cutout.alpha is None:
            raise ValueError(f"{path} has no transparency: a foreground must be a cut-out with an alpha channel.")
        premultiplied = self._place(to_uint8(cutout.image), cutout.alpha, rng)
        backdrop_path = str(self._backgrounds[rng.integers(len(self._backgrounds))])
        backdrop = self._backdrop(backdrop_path, rng)
        alpha = premultiplied[..., 3:]
        composite = premultiplied[..., :3] + (1 - alpha) * backdrop
        pixels = np.rint(np.dstack([composite, 255 * alpha])).astype(np.uint8)
        return pixels, f"{Path(path).stem}+{Path(backdrop_path).stem}"

    def _place(self, colour: np.ndarray, alpha: np.ndarray, rng: Generator) -> np.ndarray:
        """The scaled cut-out somewhere in the square: float32 (S, S, 4), alpha F in grey levels, alpha in [0, 1]."""
        size = self.settings.image_size
        scale = draw_scale(self.settings, rng) * rng.uniform(0.5, 1.0) * size / max(alpha.shape)
        levels = cv2.convertScaleAbs(alpha, alpha=255)
        top, left, height, width = crop_box(levels, scale, self.settings, rng)
        here = slice(top, top + height), slice(left, left + width)
        opacity = alpha[here]
        target = [min(size, max(1, round(extent * scale))) for extent in (height, width)]
        # One channel at a time: four of them as float32 take 192 MB at 12 megapixels.
        planes = [colour[here][..., channel] * opacity for channel in range(3)] + [opacity]
        small = [resize(torch.from_numpy(plane)[None], tuple(target))[0].numpy() for plane in planes]
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
        pixels = torch.from_numpy(photo[top : top + side, left : left + side]).permute(2, 0, 1)
        return resize(pixels, (size, size)).permute(1, 2, 0).numpy()


class MixedDataset(Dataset):
    """Several training sets one after the other, as one: dataset[(epoch, index)]."""

    def __init__(self, datasets: Sequence[Dataset]) -> None:
        self.datasets = list(datasets)
        self._ends = list(accumulate(len(dataset) for dataset in self.datasets))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, key: tuple[int, int]) -> Item:
        epoch, index = key
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is outside a set of {len(self)} samples.")
        which = bisect_right(self._ends, index)
        return self.datasets[which][(epoch, index - (self._ends[which - 1] if which else 0))]


class PhotoValidation(Dataset):
    """Whole pairs at their own size: image uint8 (3, H, W), alpha float32 (1, H, W) in [0, 1], name."""

    def __init__(self, root: str | Path) -> None:
        self.pairs = find_pairs(root)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Item:
        """Raises ValueError, in one sentence, where a file cannot be read or the sizes differ."""
        pair = self.pairs[index]
        photo, alpha = read_pair(pair.image, pair.alpha)
        image = torch.from_numpy(photo).permute(2, 0, 1).contiguous()
        return {"image": image, "alpha": torch.from_numpy(alpha)[None], "name": pair.name}
