"""What can be wrong with a folder of photos and alphas: the kinds of faults, and the tests that find them.

pairs, faults = pair_up(Path("Datasets/DIS5K_Flat/train"))   # names only
inspection = inspect(pairs[0], "train")                      # reads the files of a pair
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import cv2
import imagehash
import numpy as np
from PIL import Image

from common.photos import photo_size, read_alpha, read_photo, to_uint8
from data.alpha_faults import SOFT, alpha_faults
from data.kinds import Fault
from data.pairs import Pair, match_split, read_unknown, sizes_differ

HASH_SIDE, THUMBNAIL_SIDE = 16, 16
EXIF_ORIENTATION = 0x0112


class Look(NamedTuple):
    """What a photo looks like: digest of its file; perceptual hash uint64 (4,); thumbnail int16 (16, 16, 3)."""

    digest: bytes
    hash: np.ndarray
    thumbnail: np.ndarray


@dataclass
class Inspection:
    """What one pair holds; None for what could not be read. Shares are shares of the pixels."""

    pair: Pair
    split: str
    size: tuple[int, int] | None = None  # (width, height)
    soft_share: float | None = None  # of the known pixels
    unknown_share: float | None = None
    look: Look | None = None
    faults: list[Fault] = field(default_factory=list)


def pair_up(folder: Path, required: bool = True) -> tuple[list[Pair], list[Fault]]:
    """The pairs of folder/im and folder/gt, and what is wrong with the names; required: training needs this split."""
    sides = (folder / "im", folder / "gt")
    kind = "folder_missing" if required else "split_incomplete"
    missing = [
        Fault(kind, str(side), f"{side} does not exist: photos go to im, alphas to gt.")
        for side in sides
        if not side.is_dir()
    ]
    if missing:
        return [], missing
    pairs, faults = [], []
    for name, (photos, alphas, masks) in match_split(folder).items():
        for paths in (photos, alphas, masks):
            if len(paths) > 1:
                others = ", ".join(path.name for path in paths)
                sentence = f"{paths[0].parent} holds {others}, all named {name}: only one of them can have the pair."
                faults.append(Fault("name_twice", str(paths[0]), sentence))
        if photos and alphas:
            pairs.append(Pair(name, photos[0], alphas[0], masks[0] if masks else None))
        elif photos:
            sentence = f"{photos[0]} has no alpha of its name in {sides[1]}."
            faults.append(Fault("photo_without_alpha", str(photos[0]), sentence))
        elif alphas:
            sentence = f"{alphas[0]} has no photo of its name in {sides[0]}."
            faults.append(Fault("alpha_without_photo", str(alphas[0]), sentence))
        if masks and not photos:
            sentence = f"{masks[0]} has no photo of its name in {sides[0]}."
            faults.append(Fault("unknown_without_photo", str(masks[0]), sentence))
    return pairs, faults


def check_sizes(pair: Pair) -> list[Fault]:
    """Faults that show in the headers of a pair's files, without decoding."""
    sizes: dict[str, tuple[int, int]] = {}
    faults = []
    for kind, path in (("photo", pair.image), ("alpha", pair.alpha), ("unknown", pair.unknown)):
        try:
            if path:
                sizes[kind] = photo_size(path)
        except ValueError as error:
            faults.append(Fault(f"{kind}_unreadable", str(path), str(error)))
    for kind, path in (("photo", pair.image), ("unknown", pair.unknown)):
        if path and kind in sizes and "alpha" in sizes and sizes[kind] != sizes["alpha"]:
            sentence = sizes_differ(path, sizes[kind][::-1], pair.alpha, sizes["alpha"][::-1])
            faults.append(Fault("sizes_differ", str(path), sentence))
    return faults


def inspect(pair: Pair, split: str) -> Inspection:
    """Decode a pair and look at it. What cannot be read becomes a fault, never an exception."""
    found = Inspection(pair, split, faults=check_sizes(pair))
    known_kinds = {fault.kind for fault in found.faults}
    for kind, path, look in (("photo", pair.image, _look_at_photo), ("alpha", pair.alpha, _look_at_truth)):
        if f"{kind}_unreadable" not in known_kinds:
            try:
                look(found)
            except ValueError as error:
                found.faults.append(Fault(f"{kind}_unreadable", str(path), str(error)))
    if not found.faults and (sentence := turned_alone(pair)):
        found.faults.append(Fault("turned_alone", str(pair.image), sentence))
    return found


def _look_at_photo(found: Inspection) -> None:
    """Size, look and transparency. Raises ValueError."""
    path = found.pair.image
    found.size = photo_size(path)
    # An eighth of the width and height is plenty for the hash, and the decoder still reads the file to its end.
    photo = read_photo(path, shrink_to=256)
    pixels = to_uint8(photo.image)
    bits = imagehash.phash(Image.fromarray(pixels), hash_size=HASH_SIDE).hash
    thumbnail = cv2.resize(pixels, (THUMBNAIL_SIDE, THUMBNAIL_SIDE), interpolation=cv2.INTER_AREA).astype(np.int16)
    digest = hashlib.sha256(path.read_bytes()).digest()
    found.look = Look(digest, np.packbits(bits).view(np.uint64), thumbnail)
    if photo.alpha is not None and photo.alpha.min() < 0.5:
        sentence = f"{path} is a cut-out, not a photo: put it into a folder for --foregrounds, or give its original."
        found.faults.append(Fault("photo_cut_out", str(path), sentence))


def _look_at_truth(found: Inspection) -> None:
    """Values of the alpha where it is known, and how much is not. Raises ValueError if the alpha cannot be read."""
    pair = found.pair
    alpha = read_alpha(pair.alpha)
    known = np.ones(alpha.shape, bool)
    if pair.unknown and not any(fault.path == str(pair.unknown) for fault in found.faults):
        try:
            known = read_unknown(pair.unknown, alpha.shape) == 0
        except ValueError as error:
            found.faults.append(Fault("unknown_unreadable", str(pair.unknown), str(error)))
    found.unknown_share = float(1 - known.mean())
    if not known.any():
        sentence = f"{pair.unknown} marks every pixel as unknown (white): nothing of {pair.alpha.name} counts."
        found.faults.append(Fault("unknown_full", str(pair.unknown), sentence))
        return
    found.soft_share = float(np.mean((alpha[known] > SOFT[0]) & (alpha[known] < SOFT[1])))
    found.faults += alpha_faults(alpha, pair.alpha, known)


def turned_alone(pair: Pair) -> str | None:
    """A sentence where EXIF turns or mirrors one side of a pair and the sizes cannot tell whether that is right."""
    turns = [_orientation(path) for path in (pair.image, pair.alpha)]
    width, height = photo_size(pair.image)
    sizes_tell = max(turns) >= 5 and width != height
    if turns[0] == turns[1] or sizes_tell:
        return None
    turned, other = (pair.image, pair.alpha) if turns[0] != 1 else (pair.alpha, pair.image)
    return (
        f"{turned} is turned by its EXIF orientation {max(turns)} and {other.name} is not: see with --contact-sheet "
        "whether they fit, and save both upright, without EXIF."
    )


def _orientation(path: Path) -> int:
    """EXIF orientation of a file that has been read before; 1 where the EXIF block is broken."""
    with Image.open(path) as picture:
        if picture.format == "PNG" and "exif" not in picture.info:
            return 1  # getexif would decode the pixels to look for a block after them, which few programs write
        try:
            return picture.getexif().get(EXIF_ORIENTATION, 1)
        except (SyntaxError, ValueError, struct.error):
            return 1
