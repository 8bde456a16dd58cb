"""How fast one loader worker is, next to a plain decode-and-resize loop and to the decoding alone.

All in one process with one thread: a row is images per second and worker.
"""

from __future__ import annotations

import inspect
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch.utils.benchmark import Timer
from torchvision.transforms.v2 import functional as F

from common.errors import UserError
from common.photos import photo_size, read_alpha_levels, read_photo, write_alpha
from common.resize import working_size
from data.augmentation import Augmentation
from data.dataset import PhotoDataset
from data.pairs import Pair, find_pairs
from data.synthetic.dataset import render_sample

PLAIN = "plain loop"  # what most training scripts do: Pillow decodes and resizes all pixels, then float tensors
FLOOR = "decoding alone"  # photo at reduced scale and alpha, not resized
SAME_JOB = "loader, same job"  # whole photo at the target size, padded to a square, uint8 tensors
TRAINING = "loader, augmented"  # as in training: random scale and crop, rotation, colour, blur, noise, JPEG


def loader_cases(
    root: str | Path | None = None, target: int = 1024, images: int = 4, rounds: int = 4
) -> Iterator[tuple[dict, Callable[[], dict]]]:
    """The label of each row and what measures it, on the first `images` pairs of a folder with im and gt.

    root may also hold train/; None: photos of 12 megapixels that are made here. Each of the `rounds` draws other
    augmentations. Raises UserError if root has no pairs.
    """
    with tempfile.TemporaryDirectory() as folder:
        if root is None:
            root = write_large_photos(Path(folder), images)
        elif not (Path(root) / "im").is_dir() and (Path(root) / "train").is_dir():
            root = Path(root) / "train"
        try:
            pairs = find_pairs(root)[:images]
        except ValueError as error:
            raise UserError(str(error)) from error
        rates: dict[str, float] = {}
        for name, call in row_calls(root, pairs, target).items():
            yield {"row": name}, partial(measure_row, name, call, len(pairs), rounds, rates)


def measure_row(name: str, call: Callable[[int, int], object], pairs: int, rounds: int, rates: dict) -> dict:
    """Images per second, CPU time with one thread, and the ratios to the rows before. Adds to `rates`."""
    keys = [(turn, index) for turn in range(rounds) for index in range(pairs)]
    names = {"call": call, "keys": keys}
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        timer = Timer("for key in keys: call(*key)", globals=names, timer=time.process_time)  # warms up twice
        rates[name] = len(keys) / timer.timeit(1).mean
    finally:
        cv2.setNumThreads(threads)
    ratios = {f"x {other}": rates[name] / rates[other] for other in (PLAIN, FLOOR) if other in rates}
    return {"images/s": rates[name], "ms": 1000 / rates[name], **ratios}


def row_calls(root: str | Path, pairs: list[Pair], target: int) -> dict[str, Callable[[int, int], object]]:
    """What each row does with (round, number of the pair)."""
    nothing = {name: 0.0 for name in inspect.signature(Augmentation).parameters if name.endswith("_share")}
    whole = PhotoDataset(root, Augmentation(target, scale=(1.0, 1.0), **nothing), seed=0)
    training = PhotoDataset(root, Augmentation(target), seed=0)
    return {
        PLAIN: lambda turn, index: plain_pair(pairs[index], target),
        FLOOR: lambda turn, index: decode_pair(pairs[index], target),
        SAME_JOB: lambda turn, index: whole[turn, index],
        TRAINING: lambda turn, index: training[turn, index],
    }


def plain_pair(pair: Pair, target: int) -> list[torch.Tensor]:
    tensors = []
    for path, mode in ((pair.image, "RGB"), (pair.alpha, "L")):
        with Image.open(path) as file:
            picture = file.convert(mode)
        picture = F.resize(picture, list(working_size(picture.height, picture.width, target)))
        tensors.append(F.to_dtype(F.pil_to_tensor(picture), torch.float32, scale=True))
    return tensors


def decode_pair(pair: Pair, target: int) -> tuple[np.ndarray, np.ndarray]:
    """The two files decoded as the loader decodes them for a long side of `target`, and nothing else."""
    width, height = photo_size(pair.image)
    shrink_to = max(1, target * min(width, height) // max(width, height))
    return read_photo(pair.image, shrink_to=shrink_to).image, read_alpha_levels(pair.alpha)


def write_large_photos(root: Path, count: int, size: tuple[int, int] = (3000, 4000)) -> Path:
    """Write `count` drawn pairs of (height, width) into root/im (JPEG) and root/gt (grey PNG); returns root.

    Grain makes the photos' files as large as a camera's.
    """
    height, width = size
    for folder in ("im", "gt"):
        (root / folder).mkdir(parents=True)
    for index in range(count):
        sample = render_sample(0, "val", index, min(1024, width))
        photo, alpha = (cv2.resize(pixels, (width, height)) for pixels in (sample.image, sample.alpha))
        grain = np.random.default_rng(index).normal(0, 8 / 255, (height, width, 1)).astype(np.float32)
        pixels = np.clip((photo + grain) * 255, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / "im" / f"photo_{index}.jpg", quality=90)
        write_alpha(root / "gt" / f"photo_{index}.png", np.clip(alpha, 0, 1))
    return root
