"""The synthetic set: drawn subjects with exact mattes over drawn scenes.

dataset = SyntheticDataset(samples=2000, size=512, seed=0)
item = dataset[(epoch, index)]        # image uint8 (3, S, S); alpha, unknown uint8 (1, S, S); name

A sample depends on (seed, split, index) and the size only. It satisfies
image = alpha * foreground + (1 - alpha) * background exactly: opacity is drawn at twice the size
and averaged, and the composite is made after that. The datasets then degrade the image, never the
alpha, as a camera would: lens blur, noise, JPEG.
"""

from __future__ import annotations

import math
import zlib
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator
from torch.utils.data import Dataset

from data.dataset import Item, training_item, validation_item
from data.synthetic import creatures, objects
from data.synthetic.backgrounds import random_palette, render_scene
from data.synthetic.foregrounds import Canvas, soften

SPLITS = ("train", "val")
AREA = (0.08, 0.65)  # accepted share of opacity in the frame
ATTEMPTS = 3

# name of the family: (what draws it, its share of the samples)
SUBJECTS = {
    "animal": (creatures.animal, 0.20),
    "portrait": (creatures.portrait, 0.18),
    "veil": (creatures.veil, 0.05),
    "plant": (creatures.plant, 0.08),
    "feather": (creatures.feather, 0.08),
    "dandelion": (creatures.dandelion, 0.05),
    "bicycle": (objects.bicycle, 0.06),
    "racket": (objects.racket, 0.06),
    "glass": (objects.glass, 0.09),
    "sign": (objects.sign, 0.07),
    "sculpture": (objects.sculpture, 0.08),
}


class SyntheticSample(NamedTuple):
    """float32 in [0, 1]: image, foreground, background (S, S, 3) RGB; alpha (S, S)."""

    image: np.ndarray
    alpha: np.ndarray
    foreground: np.ndarray
    background: np.ndarray


def _generator(seed: int, split: str, index: int, purpose: str) -> Generator:
    """The random stream of one sample; streams of different arguments are independent."""
    return np.random.default_rng([seed, SPLITS.index(split), index, zlib.crc32(purpose.encode())])


def draw_subject(rng: Generator, size: int, palette: np.ndarray, family: str | None = None) -> Canvas:
    """A subject of a random family (or the named one) in a random pose on a new canvas."""
    names = list(SUBJECTS)
    if family is None:
        family = names[rng.choice(len(names), p=[share for _, share in SUBJECTS.values()])]
    angle, zoom = rng.normal(0, 0.15), rng.uniform(0.8, 1.25)
    cosine, sine, mirror = math.cos(angle), math.sin(angle), 1 if rng.random() < 0.5 else -1
    turn = zoom * np.array([[mirror * cosine, -sine], [mirror * sine, cosine]])
    centre = np.array([0.5, 0.5]) + rng.normal(0, 0.06, 2)
    matrix = np.concatenate([turn, (centre - turn @ [0.5, 0.55])[:, None]], axis=1)
    canvas = Canvas(rng=rng, size=size, matrix=matrix, palette=palette)
    SUBJECTS[family][0](canvas)
    return canvas


def _subject(rng: Generator, size: int, palette: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Alpha (S, S) and colour (S, S, 3) of a drawn subject, float32 in [0, 1]."""
    canvas = draw_subject(rng, size, palette)
    alpha = cv2.resize(canvas.cover.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA) / 255
    return alpha, canvas.colour.astype(np.float32) / 255


def weather(rng: Generator, colour: np.ndarray) -> np.ndarray:
    """Fine texture on every surface: weave, pores, dust, one to three pixels large. (S, S, 3), same range.

    A surface in focus is never as flat as drawn colour. Before a blurred scene this is the local cue that a
    network from random weights finds first, as in photographs with a shallow depth of field.
    """
    height, width = colour.shape[:2]
    grain = rng.standard_normal((height, width), np.float32)
    coarse = cv2.GaussianBlur(grain[::-1], (0, 0), rng.uniform(0.8, 1.6))
    grain = 0.5 * grain + coarse * np.float32(0.8 / max(float(coarse.std()), 1e-6))
    strength = np.float32(rng.uniform(0.08, 0.2))
    return np.clip(colour * (1 + strength * grain[..., None]), 0, 1)


def render_sample(seed: int, split: str, index: int, size: int) -> SyntheticSample:
    """Draw one sample; see SyntheticSample. Most of the scenes (85 %) are out of focus behind the subject."""
    rng = _generator(seed, split, index, "scene")
    palette = random_palette(rng)
    for _ in range(ATTEMPTS):
        alpha, colour = _subject(rng, size, palette)
        if AREA[0] <= alpha.mean() <= AREA[1]:
            break
    alpha, colour = soften(rng, alpha, weather(rng, colour))
    alpha = np.clip(alpha, 0, 1)  # blurring in float32 can leave 1 by a rounding
    blur = rng.uniform(0.02, 0.06) if rng.random() < 0.85 else 0.0
    # A second subject may stand in a blurred scene, never in a sharp one, where it would be wanted too.
    has_other = blur > 0 and rng.random() < 0.25
    others = [_subject(rng, max(32, size // 4), random_palette(rng))] if has_other else []
    near = random_palette(rng, palette.mean(0), 0.1) if rng.random() < 0.2 else random_palette(rng)
    background = render_scene(rng, size, near, others, blur)
    foreground = np.minimum(colour * np.float32(rng.uniform(0.75, 1.15)), np.float32(1))
    image = foreground - background
    image *= alpha[..., None]
    image += background  # alpha F + (1 - alpha) B
    return SyntheticSample(image, alpha, foreground, background)


def degrade(rng: Generator, image: np.ndarray) -> np.ndarray:
    """What a camera does to a picture: slight blur, sensor noise, JPEG. float32 [0, 1] in, uint8 out."""
    if rng.random() < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 0.7))
    if rng.random() < 0.7:
        grain = rng.standard_normal(image.shape, np.float32)
        image = cv2.scaleAdd(grain, rng.uniform(0.002, 0.015), image)
    pixels: np.ndarray = np.maximum(image, np.float32(0))
    pixels = cv2.convertScaleAbs(pixels, None, 255)  # rounds, saturates
    if rng.random() < 0.5:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(65, 97))]
        coded = cv2.imencode(".jpg", pixels[..., ::-1], quality)[1]
        decoded: np.ndarray = cv2.imdecode(coded, cv2.IMREAD_COLOR)  # type: ignore[assignment]  # None if broken
        pixels = decoded[..., ::-1]
    return np.ascontiguousarray(pixels)


def draw_photo(seed: int, split: str, index: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A degraded image uint8 (S, S, 3) and its untouched alpha float32 (S, S)."""
    sample = render_sample(seed, split, index, size)
    return degrade(_generator(seed, split, index, "camera"), sample.image), sample.alpha


class SyntheticDataset(Dataset):
    """Training samples, drawn afresh each epoch: `dataset[(epoch, index)]`, or `dataset[index]` of epoch 0.

    An item: image uint8 (3, S, S), alpha and unknown uint8 (1, S, S), name. It depends on (seed, epoch, index) only.
    """

    def __init__(self, *, samples: int, size: int, seed: int, split: str = "train") -> None:
        self.samples, self.size, self.seed, self.split = samples, size, seed, split

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, key: int | tuple[int, int]) -> Item:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not 0 <= index < self.samples:
            raise IndexError(f"index {index} is outside a set of {self.samples} samples.")
        number = int(index) + int(epoch) * self.samples
        image, alpha = draw_photo(self.seed, self.split, number, self.size)
        return training_item(image, np.rint(alpha * 255).astype(np.uint8), name=f"{self.split}_{number:06d}")


class SyntheticValidation(Dataset):
    """A fixed set from a stream of its own: `dataset[index]`.

    An item: image uint8 (3, S, S), alpha float32 (1, S, S) in [0, 1], name.
    """

    def __init__(self, *, samples: int, size: int, seed: int) -> None:
        self.samples, self.size, self.seed = samples, size, seed

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> Item:
        if not 0 <= index < self.samples:
            raise IndexError(f"index {index} is outside a set of {self.samples} samples.")
        return validation_item(*draw_photo(self.seed, "val", int(index), self.size), f"val_{index:06d}")
