"""A data set for the ablation: exact alphas over real backgrounds, in the DIS5K_Flat layout.

    python -m experiments.composites --backgrounds DIR [--cutouts DIR] --output runs/composites

Subjects are the synthetic set's drawings and, with --cutouts, RGBA cut-outs of real things. Backgrounds are photos:
most are out of focus, as behind a subject, some are sharp, and some hold a second subject that is not to be matted.
Validation uses nothing of training: drawings of its own split, every fifth cut-out, every fifth background.
An image depends only on (seed, split, index) and the two folders.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator
from tqdm import tqdm

from common.command import command, new_parser
from common.errors import UserError
from common.photos import list_images, read_photo, to_uint8, write_alpha, write_image
from data.synthetic.dataset import SPLITS, degrade, render_sample

HELD_OUT = 5  # every fifth file is for validation
CUTOUT_SHARE = 0.3
BLURRED_SHARE = 0.7
DISTRACTOR_SHARE = 0.3  # of the blurred scenes


def share(paths: Sequence[Path], split: str) -> list[Path]:
    """The files of a split: every fifth is for validation, the others are for training."""
    return [path for number, path in enumerate(paths) if (number % HELD_OUT == 0) == (split == "val")]


def compose(
    seed: int, split: str, index: int, size: int, backgrounds: Sequence[Path], cutouts: Sequence[Path]
) -> tuple[np.ndarray, np.ndarray]:
    """One image uint8 (S, S, 3) and its alpha float32 (S, S) in [0, 1]."""
    rng = np.random.default_rng([seed, SPLITS.index(split), index, 7])
    if cutouts and rng.random() < CUTOUT_SHARE:
        foreground, alpha = placed_cutout(rng, cutouts[int(rng.integers(len(cutouts)))], size)
    else:
        sample = render_sample(seed, split, index, size)
        foreground, alpha = sample.foreground, sample.alpha
    scene = backdrop(rng, backgrounds[int(rng.integers(len(backgrounds)))], size)
    if rng.random() < BLURRED_SHARE:
        if rng.random() < DISTRACTOR_SHARE:
            other = render_sample(seed + 1, split, index, size)
            scene += other.alpha[..., None] * (other.foreground - scene)
        scene = cv2.GaussianBlur(scene, (0, 0), rng.uniform(0.01, 0.05) * size)
    return degrade(rng, scene + alpha[..., None] * (foreground - scene)), alpha


def placed_cutout(rng: Generator, path: Path, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A real cut-out at a random angle and place: colour (S, S, 3), alpha (S, S), float32 in [0, 1]."""
    cutout = read_photo(path, shrink_to=2 * size)
    if cutout.alpha is None:
        raise UserError(f"{path} has no transparency: a cut-out must have an alpha channel.")
    alpha = cutout.alpha[..., None]
    premultiplied = np.dstack([to_uint8(cutout.image) / np.float32(255) * alpha, alpha])
    height, width = alpha.shape[:2]
    scale = size * rng.uniform(0.6, 1.1) / max(height, width)
    if scale < 0.5:  # warpAffine samples points: shrink by area first
        premultiplied = cv2.resize(premultiplied, None, fx=2 * scale, fy=2 * scale, interpolation=cv2.INTER_AREA)
        height, width = premultiplied.shape[:2]
        scale = 0.5
    turn: np.ndarray = cv2.getRotationMatrix2D((width / 2, height / 2), rng.normal(0, 12), scale)
    turn[:, 2] += size * (0.5 + rng.normal(0, 0.08, 2)) - np.array([width / 2, height / 2])
    if rng.random() < 0.5:
        premultiplied = premultiplied[:, ::-1].copy()
    placed = cv2.warpAffine(premultiplied, turn, (size, size), flags=cv2.INTER_LINEAR)
    alpha = np.clip(placed[..., 3], 0, 1)
    return np.clip(placed[..., :3] / np.maximum(alpha, 1e-3)[..., None], 0, 1), alpha


def backdrop(rng: Generator, path: Path, size: int) -> np.ndarray:
    """A square from a random place of a photo, float32 (S, S, 3) in [0, 1]."""
    photo = to_uint8(read_photo(path, shrink_to=2 * size).image)
    side = max(1, round(min(photo.shape[:2]) * rng.uniform(0.5, 1.0)))
    top, left = (int(rng.integers(0, extent - side + 1)) for extent in photo.shape[:2])
    square = photo[top : top + side, left : left + side]
    shrinks = side > size
    square = cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    if rng.random() < 0.5:
        square = square[:, ::-1]
    return square.astype(np.float32) / 255


def write(
    output: Path, split: str, count: int, size: int, seed: int, backgrounds: Sequence[Path], cutouts: Sequence[Path]
) -> None:
    for part in ("im", "gt"):
        (output / split / part).mkdir(parents=True, exist_ok=True)
    for index in tqdm(range(count), desc=split, unit="image"):
        image, alpha = compose(seed, split, index, size, share(backgrounds, split), share(cutouts, split))
        write_image(output / split / "im" / f"{index:05}.png", image)
        write_alpha(output / split / "gt" / f"{index:05}.png", alpha)


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = new_parser(__doc__)
    flag = parser.add_argument
    flag("--output", type=Path, required=True, metavar="DIR")
    flag("--backgrounds", type=Path, required=True, metavar="DIR", help="photos without a main object")
    flag("--cutouts", type=Path, metavar="DIR", help="RGBA pictures of single subjects")
    flag("--train", type=int, default=2400, metavar="N")
    flag("--val", type=int, default=80, metavar="N")
    flag("--size", type=int, default=192, metavar="PIXELS")
    flag("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    backgrounds = list_images(options.backgrounds)
    cutouts = list_images(options.cutouts) if options.cutouts else []
    if len(backgrounds) < HELD_OUT:
        raise UserError(
            f"{options.backgrounds} holds {len(backgrounds)} photos: give {HELD_OUT} or more, to hold some out."
        )
    for split, count in (("train", options.train), ("val", options.val)):
        write(options.output, split, count, options.size, options.seed, backgrounds, cutouts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
