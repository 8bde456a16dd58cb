"""What can be wrong with a folder of photos and alphas: the kinds of faults, and the tests that find them.

pairs, faults = pair_up(Path("Datasets/DIS5K_Flat/train"))   # names only
inspection = inspect(pairs[0], "train")                      # reads the two files
faults += find_copies(inspections)                           # duplicates and leaks, by content
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import cv2
import imagehash
import numpy as np
from PIL import Image

from common.photos import photo_size, read_alpha, read_photo, to_uint8
from data.pairs import Pair, match_images, sizes_differ

ERROR, WARNING = "error", "warning"

# An error harms training or makes its validation a lie. A warning is for a person to judge: whole sets have
# 0/1 truths (DIS5K, DAVIS) and are worth training on, and a photo that stands twice only counts twice.
SEVERITY = {
    "folder_missing": ERROR,
    "photo_without_alpha": ERROR,
    "alpha_without_photo": ERROR,
    "name_twice": ERROR,
    "sizes_differ": ERROR,
    "photo_unreadable": ERROR,
    "alpha_unreadable": ERROR,
    "alpha_empty": ERROR,
    "alpha_full": ERROR,
    "alpha_inverted": ERROR,
    "alpha_scale": ERROR,
    "alpha_binary": WARNING,
    "duplicate": WARNING,
    "leak_exact": ERROR,
    "leak_similar": ERROR,
}

SOFT = (0.02, 0.98)  # alphas between these are soft; JPEG makes a few near the ends of any truth
FAINTEST = 0.02  # no real truth stays below this: 1/255 is a 0/1 mask, 255/65535 an 8 bit one in 16 bits
HASH_SIDE, HASH_DISTANCE = 16, 20  # perceptual hash of 256 bits; other photos differ in about 128
THUMBNAIL_SIDE, THUMBNAIL_DISTANCE = 16, 6.0  # mean difference in grey levels; flat pictures have noise as hash


class Fault(NamedTuple):
    """One finding. sentence: one, which names the file."""

    kind: str
    path: str
    sentence: str


@dataclass
class Inspection:
    """What one pair holds. soft_share: of pixels that are soft; None where the alpha could not be read."""

    pair: Pair
    split: str
    size: tuple[int, int] | None = None  # (width, height)
    soft_share: float | None = None
    digest: bytes = b""
    hash: np.ndarray | None = None  # uint64 (4,)
    thumbnail: np.ndarray | None = None  # int16 (16, 16, 3)
    faults: list[Fault] = field(default_factory=list)


def pair_up(folder: Path) -> tuple[list[Pair], list[Fault]]:
    """The pairs of folder/im and folder/gt that can be made, and what is wrong with the names."""
    sides = (folder / "im", folder / "gt")
    missing = [
        Fault("folder_missing", str(side), f"{side} does not exist: photos go to im, alphas to gt.")
        for side in sides
        if not side.is_dir()
    ]
    if missing:
        return [], missing
    pairs, faults = [], []
    for name, (photos, alphas) in match_images(*sides).items():
        for paths in (photos, alphas):
            if len(paths) > 1:
                others = ", ".join(path.name for path in paths)
                sentence = f"{paths[0].parent} holds {others}, all named {name}: only one of them can have the pair."
                faults.append(Fault("name_twice", str(paths[0]), sentence))
        if not alphas:
            sentence = f"{photos[0]} has no alpha of its name in {sides[1]}."
            faults.append(Fault("photo_without_alpha", str(photos[0]), sentence))
        elif not photos:
            sentence = f"{alphas[0]} has no photo of its name in {sides[0]}."
            faults.append(Fault("alpha_without_photo", str(alphas[0]), sentence))
        else:
            pairs.append(Pair(name, photos[0], alphas[0]))
    return pairs, faults


def check_sizes(pair: Pair) -> list[Fault]:
    """Faults that the headers of a pair tell, without decoding."""
    sizes, faults = [], []
    for path, kind in ((pair.image, "photo_unreadable"), (pair.alpha, "alpha_unreadable")):
        try:
            sizes.append(photo_size(path))
        except ValueError as error:
            faults.append(Fault(kind, str(path), str(error)))
    if len(sizes) == 2 and sizes[0] != sizes[1]:
        sentence = sizes_differ(pair.image, sizes[0][::-1], pair.alpha, sizes[1][::-1])
        faults.append(Fault("sizes_differ", str(pair.image), sentence))
    return faults


def inspect(pair: Pair, split: str) -> Inspection:
    """Decode a pair and look at it. What cannot be read becomes a fault, never an exception."""
    found = Inspection(pair, split, faults=check_sizes(pair))
    known = {fault.kind for fault in found.faults}
    if "photo_unreadable" not in known:
        try:
            _look_at_photo(found)
        except ValueError as error:
            found.faults.append(Fault("photo_unreadable", str(pair.image), str(error)))
    if "alpha_unreadable" not in known:
        try:
            alpha = read_alpha(pair.alpha)
        except ValueError as error:
            found.faults.append(Fault("alpha_unreadable", str(pair.alpha), str(error)))
        else:
            found.soft_share = float(np.mean((alpha > SOFT[0]) & (alpha < SOFT[1])))
            found.faults += alpha_faults(alpha, pair.alpha)
    return found


def _look_at_photo(found: Inspection) -> None:
    """Size, digest of the file, perceptual hash and thumbnail. Raises ValueError."""
    path = found.pair.image
    found.size = photo_size(path)
    # 1/8 of the pixels a side is plenty for the hash, and the decoder still reads the file to its end.
    photo = to_uint8(read_photo(path, shrink_to=256).image)
    found.digest = hashlib.sha256(path.read_bytes()).digest()
    bits = imagehash.phash(Image.fromarray(photo), hash_size=HASH_SIDE).hash
    found.hash = np.packbits(bits).view(np.uint64)
    side = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    found.thumbnail = cv2.resize(photo, side, interpolation=cv2.INTER_AREA).astype(np.int16)


def alpha_faults(alpha: np.ndarray, path: Path) -> list[Fault]:
    """What the values of an alpha, float32 (H, W) in [0, 1], say is wrong with it."""
    highest, lowest = float(alpha.max()), float(alpha.min())
    if highest == 0:
        return [Fault("alpha_empty", str(path), f"{path} is 0 everywhere: it shows no subject.")]
    if lowest == 1:
        return [Fault("alpha_full", str(path), f"{path} is 1 everywhere: it cuts nothing out.")]
    if highest <= FAINTEST:
        sentence = (
            f"{path} reaches only {highest:.4f} of 1: a mask of 0 and 1 saved without the factor 255, or 8 bit "
            "values in a 16 bit file; multiply it."
        )
        return [Fault("alpha_scale", str(path), sentence)]
    faults = []
    border = np.concatenate([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]])
    hole = float(np.mean(alpha < 0.5))
    # A subject may fill the frame, but hardly with all of its border opaque and a hole inside.
    if border.mean() > 0.95 and hole > 0.01:
        sentence = f"{path} looks inverted: its border is opaque, and {hole:.0%} of the pixels inside are not."
        faults.append(Fault("alpha_inverted", str(path), sentence))
    if not ((alpha > SOFT[0]) & (alpha < SOFT[1])).any():
        sentence = f"{path} holds 0 and 1 only, no soft pixel: hair and glass cannot be learned from it."
        faults.append(Fault("alpha_binary", str(path), sentence))
    return faults


def find_copies(inspections: list[Inspection]) -> list[Fault]:
    """Photos that stand twice, in one split (duplicate) or in two (leak); each is named once, with its first copy.

    Equal bytes, or a perceptual hash and a thumbnail close enough for another size or compression of one photo.
    """
    entries = [entry for entry in inspections if entry.hash is not None]
    if len(entries) < 2:
        return []
    hashes = np.stack([entry.hash for entry in entries])
    first_with: dict[bytes, int] = {}
    faults = []
    for number, entry in enumerate(entries):
        original = first_with.setdefault(entry.digest, number)
        is_exact = original != number
        if not is_exact:
            # One row at a time: 5000 photos take a second, and memory stays that of a row.
            distance = np.bitwise_count(hashes[:number] ^ hashes[number]).sum(axis=1)
            close = [near for near in np.nonzero(distance <= HASH_DISTANCE)[0] if _looks_alike(entries[near], entry)]
            if not close:
                continue
            original = int(close[0])
        faults.append(_copy_fault(entries[original], entry, is_exact))
    return faults


def _looks_alike(first: Inspection, second: Inspection) -> bool:
    return float(np.abs(first.thumbnail - second.thumbnail).mean()) <= THUMBNAIL_DISTANCE


def _copy_fault(original: Inspection, copy: Inspection, is_exact: bool) -> Fault:
    what = "the same file as" if is_exact else "nearly the same picture as"
    if original.split == copy.split:
        kind, cure = "duplicate", "one of them is enough."
    else:
        kind = "leak_exact" if is_exact else "leak_similar"
        cure = f"what is in {original.split} must not be in {copy.split}, or the figures flatter."
    return Fault(kind, str(copy.pair.image), f"{copy.pair.image} is {what} {original.pair.image}: {cure}")
