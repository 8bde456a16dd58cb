"""How fast one loader worker is: beside a plain decode-and-resize loop, and beside the decoding alone.

    from experiments.benchmark_loader import benchmark_loader
    benchmark_loader("Datasets/DIS5K_Flat/train")    # or None: photos of 12 megapixels that it makes itself

All in one process with one thread, so a row reads as images a second per worker.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from common.photos import photo_size, read_photo
from common.resize import working_size
from data.augmentation import Augmentation
from data.dataset import PhotoDataset
from data.pairs import Pair, find_pairs, read_alpha_levels

PLAIN, FLOOR, SAME_JOB, TRAINING = "plain loop", "decoding alone", "loader, same job", "loader, augmented"
REPEATS = 3  # of each measurement, of which the fastest counts
EXPLAINED = {
    PLAIN: "Pillow opens, converts and resizes the whole photo and alpha; both become float tensors",
    FLOOR: "photo at reduced scale and alpha, not resized",
    SAME_JOB: "PhotoDataset: whole photo at the target size, padded to a square, uint8 tensors",
    TRAINING: "PhotoDataset as in training: random scale and crop, rotation, colour, blur, noise, JPEG",
}


def benchmark_loader(
    root: str | Path | None = None, target: int = 1024, images: int = 4, rounds: int = 4
) -> dict[str, float]:
    """Print and return images a second by row, for the first `images` pairs of a folder with im and gt.

    The rows take turns, file by file, so that what else runs on the machine weighs on all of them alike; each of
    the `rounds` draws other augmentations. CPU seconds, files in the page cache. root may also hold train/.
    Raises ValueError where it has no pairs.
    """
    with tempfile.TemporaryDirectory() as folder:
        if root is None:
            root = write_large_photos(Path(folder), images)
        elif not (Path(root) / "im").is_dir() and (Path(root) / "train").is_dir():
            root = Path(root) / "train"
        pairs = find_pairs(root)[:images]
        threads = torch.get_num_threads(), cv2.getNumThreads()
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        try:
            rates = _measure(_jobs(root, pairs, target), len(pairs), rounds)
        finally:
            torch.set_num_threads(threads[0])
            cv2.setNumThreads(threads[1])
        print(_table(rates, pairs, target))
    return rates


def _jobs(root: str | Path, pairs: list[Pair], target: int) -> dict[str, Callable[[int, int], object]]:
    """What each row does with (round, number of the pair)."""
    nothing = {f"{name}_share": 0.0 for name in ("flip", "rotation", "colour", "blur", "noise", "jpeg")}
    whole = PhotoDataset(root, Augmentation(target, scale=(1.0, 1.0), **nothing), seed=0)
    training = PhotoDataset(root, Augmentation(target), seed=0)
    return {
        PLAIN: lambda turn, index: plain_pair(pairs[index], target),
        FLOOR: lambda turn, index: decode_pair(pairs[index], target),
        SAME_JOB: lambda turn, index: whole[(turn, index)],
        TRAINING: lambda turn, index: training[(turn, index)],
    }


def plain_pair(pair: Pair, target: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What most training scripts do: all pixels decoded and resized by Pillow, then float tensors."""
    tensors = []
    for path, mode in ((pair.image, "RGB"), (pair.alpha, "L")):
        with Image.open(path) as file:
            picture = file.convert(mode)
        size = working_size(picture.height, picture.width, target)
        picture = v2.functional.resize(picture, list(size))
        tensors.append(F.to_dtype(F.pil_to_tensor(picture), torch.float32, scale=True))
    return tensors[0], tensors[1]


def decode_pair(pair: Pair, target: int) -> tuple[np.ndarray, np.ndarray]:
    """The two files decoded as the loader decodes them for a long side of `target`, and nothing else."""
    width, height = photo_size(pair.image)
    shrink_to = max(1, target * min(width, height) // max(width, height))
    return read_photo(pair.image, shrink_to=shrink_to).image, read_alpha_levels(pair.alpha)


def _measure(jobs: dict[str, Callable], pairs: int, rounds: int) -> dict[str, float]:
    """Images a second of each job: the best of REPEATS with the same random numbers, the mean over rounds."""
    seconds = {name: np.full((rounds, pairs, REPEATS), np.inf) for name in jobs}
    for index in range(pairs):
        for job in jobs.values():
            job(0, index)  # fills the page cache and the allocators
    for turn, index, repeat in np.ndindex(rounds, pairs, REPEATS):
        for name, job in jobs.items():
            start = time.process_time()
            job(turn, index)
            seconds[name][turn, index, repeat] = time.process_time() - start
    return {name: 1 / float(values.min(-1).mean()) for name, values in seconds.items()}


def _table(rates: dict[str, float], pairs: list[Pair], target: int) -> str:
    """The rows with their ratios to the plain loop and to the floor."""
    width, height = photo_size(pairs[0].image)
    sizes = [np.mean([getattr(pair, name).stat().st_size for pair in pairs]) / 1e6 for name in ("image", "alpha")]
    lines = [
        f"{len(pairs)} pairs, the first of {width} x {height} ({width * height / 1e6:.1f} megapixels), mean file sizes "
        f"{sizes[0]:.1f} MB (photo) and {sizes[1]:.1f} MB (alpha); target {target}, one thread",
        f"{'':<20}{'images/s':>9}{'ms':>7}{'x plain':>9}{'x floor':>9}",
    ]
    for name, rate in rates.items():
        ratios = f"{rate / rates[PLAIN]:9.2f}{rate / rates[FLOOR]:9.2f}"
        lines.append(f"{name:<20}{rate:9.2f}{1000 / rate:7.0f}{ratios}   {EXPLAINED[name]}")
    return "\n".join(lines)


def write_large_photos(root: Path, count: int, size: tuple[int, int] = (3000, 4000)) -> Path:
    """Write `count` pairs of (height, width) into root/im (JPEG, quality 90) and root/gt (grey PNG); returns root.

    The photos have detail at every scale and grain, so that the files are as large as a camera's;
    the alphas a soft body and 800 hairs.
    """
    height, width = size
    for folder in ("im", "gt"):
        (root / folder).mkdir(parents=True)
    for index in range(count):
        rng = np.random.default_rng(index)
        photo = np.full((height, width, 3), 118, np.float32)
        for octave in range(1, 10):
            coarse = rng.normal(0, 1, (height // 2**octave + 2, width // 2**octave + 2, 3)).astype(np.float32)
            photo += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) * 1.8**octave * 0.18
        photo += rng.normal(0, 1, (height, width, 1)).astype(np.float32) * 5
        pixels = np.clip(photo, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / "im" / f"photo_{index}.jpg", quality=90)
        Image.fromarray(_hairy_alpha(rng, height, width)).save(root / "gt" / f"photo_{index}.png")
    return root


def _hairy_alpha(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A soft disc with hairs that leave it: uint8 (H, W)."""
    alpha = np.zeros((height, width), np.uint8)
    centre, radius = np.array([width / 2, height / 2]), height * rng.uniform(0.25, 0.33)
    cv2.circle(alpha, (width // 2, height // 2), int(radius), 255, -1, cv2.LINE_AA)
    alpha = cv2.blur(alpha, (height // 200 + 1, height // 200 + 1))
    for turn, reach, bend in rng.uniform((0, 1.05, -0.2), (2 * np.pi, 1.4, 0.2), (800, 3)):
        steps = np.linspace(0.97, reach, 12)
        angles = turn + bend * (steps - 0.97) * 4
        points = centre + radius * steps[:, None] * np.column_stack([np.cos(angles), np.sin(angles)])
        shade = int(rng.integers(120, 256))
        cv2.polylines(alpha, [np.rint(points * 8).astype(np.int32)], False, shade, 2, cv2.LINE_AA, 3)
    return alpha
