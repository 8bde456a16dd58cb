"""Which photo belongs to which alpha, and reading the two aligned.

pairs = find_pairs("Datasets/DIS5K_Flat/val")            # ROOT/im and ROOT/gt, matched by stem
photo, alpha = read_pair(pairs[0].image, pairs[0].alpha)
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from common.errors import UserError
from common.files import count_others, match_by_name, say_others
from common.photos import SUFFIXES, photo_size, read_alpha, read_alpha_levels, read_photo, to_uint8


class Pair(NamedTuple):
    """The files of a photo and its true alpha. name: path below im without its suffix, with / on every system."""

    name: str
    image: Path
    alpha: Path
    unknown: Path | None = None  # a mask, white where the truth is not known


def match_images(*folders: Path) -> dict[str, list[list[Path]]]:
    """files.match_by_name for photos: by name, the photos of that name in each folder."""
    return match_by_name(folders, SUFFIXES)


def files_by_name(*folders: Path) -> dict[str, Path]:
    """The one photo of each name in these folders together. Raises UserError where two share a name."""
    files = {}
    for name, sides in match_images(*folders).items():
        first, *others = [path for side in sides for path in side]
        if others:
            raise UserError(f"{first} and {others[0]} share a name: rename or remove one of them.")
        files[name] = first
    return files


def say_left_out(folder: Path) -> str:
    """One sentence about the files below a folder that are not read as photos, or "" for none."""
    others = count_others(folder, SUFFIXES, on_error=lambda error: None)
    return f"{folder}: {say_others(others)}; convert what belongs here to PNG or JPEG." if others else ""


def match_split(root: Path) -> dict[str, list[list[Path]]]:
    """By name, the files in ROOT/im, ROOT/gt and, an empty list where there is no such folder, ROOT/unknown."""
    folders = [folder for name in ("im", "gt", "unknown") if (folder := root / name).is_dir() or name != "unknown"]
    return {name: [*sides, []][:3] for name, sides in match_images(*folders).items()}


def find_pairs(root: str | Path) -> list[Pair]:
    """Pairs of ROOT/im and ROOT/gt, sorted by name. Photos or alphas without a partner are left out.

    Raises UserError, in one sentence, if a folder is missing, two files share a name, or nothing pairs.
    """
    root = Path(root)
    for folder in (root / "im", root / "gt"):
        if not folder.is_dir():
            hint = f": did you mean {root / 'train'}" if (root / "train" / folder.name).is_dir() else ""
            raise UserError(f"{folder} does not exist; photos belong in im and their alphas in gt{hint}.")
    matches = match_split(root)
    for paths in (paths for sides in matches.values() for paths in sides if len(paths) > 1):
        raise UserError(f"{paths[0]} and {paths[1].name} share a name: rename or remove one of them.")
    pairs = [
        Pair(name, photos[0], alphas[0], unknown[0] if unknown else None)
        for name, (photos, alphas, unknown) in matches.items()
        if photos and alphas
    ]
    if not pairs:
        photo_count, alpha_count = (sum(len(sides[position]) for sides in matches.values()) for position in (0, 1))
        raise UserError(
            f"{root} holds {photo_count} photos and {alpha_count} alphas, and no two with the same name: "
            "cat.jpg in im needs cat.png in gt."
        )
    return pairs


def read_unknown(path: str | Path, size: tuple[int, int]) -> np.ndarray:
    """Where the truth is not known: uint8 (H, W), 255 there and 0 elsewhere. size: (H, W) of the alpha.

    Raises UserError, in one sentence, if the file cannot be read or has another size.
    """
    mask = read_alpha_levels(path)
    if mask.shape != tuple(size):
        raise UserError(
            f"{path} has {mask.shape[1]} x {mask.shape[0]} pixels and its alpha {size[1]} x {size[0]}: a mask of "
            "unknown pixels must have the size of its alpha."
        )
    return np.where(mask > 127, np.uint8(255), np.uint8(0))


def read_pair(image: str | Path, alpha: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Photo uint8 (H, W, 3) and alpha float32 (H, W) in [0, 1], at the files' size.

    Raises UserError, in one sentence, if a file cannot be read or the sizes differ.
    """
    photo, matte = to_uint8(read_photo(image).image), read_alpha(alpha)
    if photo.shape[:2] != matte.shape:
        raise UserError(sizes_differ(image, photo.shape, alpha, matte.shape))
    return photo, matte


def read_reduced_pair(
    image: str | Path, alpha: str | Path, unknown: str | Path = "", *, long_side: float
) -> list[np.ndarray]:
    """Photo uint8 (H, W, 3), alpha and, where it has a file, unknown uint8 (H, W), at 1/1, 1/2, 1/4 or 1/8.

    A JPEG is decoded at the smallest of these sizes whose long side still has long_side pixels. Its pixel j then covers
    the pixels jk ... jk + k - 1 of the file, also at the last border, where the decoder pads. The others are averaged
    over the same blocks, not stretched to the same size, so all agree at odd sizes. Where EXIF turns the photo, the
    incomplete block may come first: then they are off by at most half a pixel of the result. Raises UserError, in one
    sentence, if a file cannot be read or the sizes differ.
    """
    matte = read_alpha_levels(alpha)
    shrink_to = max(1, int(min(matte.shape) * long_side / max(matte.shape)))
    photo = to_uint8(read_photo(image, shrink_to=shrink_to).image)
    for factor in (1, 2, 4, 8):
        if photo.shape[:2] == tuple(max(1, round(side / factor)) for side in matte.shape):
            size = (photo.shape[0], photo.shape[1])
            masks = [matte, read_unknown(unknown, matte.shape)] if unknown else [matte]
            return [photo, *(reduce_blocks(mask, factor, size) for mask in masks)]
    raise UserError(sizes_differ(image, photo_size(image)[::-1], alpha, matte.shape))


def reduce_blocks(matte: np.ndarray, factor: int, size: tuple[int, int]) -> np.ndarray:
    """Average uint8 (H, W) over blocks of factor x factor, to size (h, w); the last block may be incomplete."""
    if factor == 1:
        return matte
    height, width = size[0] * factor, size[1] * factor
    down, across = max(0, height - matte.shape[0]), max(0, width - matte.shape[1])
    matte = matte[:height, :width]
    if down or across:
        matte = cv2.copyMakeBorder(matte, 0, down, 0, across, cv2.BORDER_REPLICATE)
    return cv2.resize(matte, size[::-1], interpolation=cv2.INTER_AREA)


def sizes_differ(image: str | Path, image_shape: tuple, alpha: str | Path, alpha_shape: tuple) -> str:
    """The sentence for a pair whose sizes differ; shapes are (H, W, ...) of the upright pictures."""
    return (
        f"{image} has {image_shape[1]} x {image_shape[0]} pixels and its alpha {Path(alpha).name} "
        f"{alpha_shape[1]} x {alpha_shape[0]}: both must have one size, after their EXIF orientation."
    )
