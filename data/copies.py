"""Photos that are in a data set twice, found by content.

faults = find_copies(inspections)          # duplicates in one split, leaks between two
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import imagehash
import numpy as np
from PIL import Image

from data.alpha_faults import Truth
from data.faults import Fault
from data.pairs import Pair

HASH_SIDE, THUMBNAIL_SIDE = 16, 16
HASH_DISTANCE = 20  # of 256 bits; the hashes of different photos differ in about 128
THUMBNAIL_DISTANCE = 6.0  # mean difference in grey levels; the hash of a flat picture is noise


class Look(NamedTuple):
    """What a photo looks like: digest of its file; perceptual hash uint64 (4,); thumbnail int16 (16, 16, 3)."""

    digest: bytes
    hash: np.ndarray
    thumbnail: np.ndarray


@dataclass
class Inspection:
    """What one pair holds; None for what could not be read."""

    pair: Pair
    split: str
    size: tuple[int, int] | None = None  # (width, height)
    look: Look | None = None
    truth: Truth | None = None
    faults: list[Fault] = field(default_factory=list)


def look_of(pixels: np.ndarray, digest: bytes) -> Look:
    """pixels: uint8 (H, W, 3); digest: of the file."""
    bits = imagehash.phash(Image.fromarray(pixels), hash_size=HASH_SIDE).hash
    thumbnail = cv2.resize(pixels, (THUMBNAIL_SIDE, THUMBNAIL_SIDE), interpolation=cv2.INTER_AREA).astype(np.int16)
    return Look(digest, np.packbits(bits).view(np.uint64), thumbnail)


def find_copies(inspections: Sequence[Inspection]) -> list[Fault]:
    """Photos that occur twice, in one split (duplicate) or in two (leak); each is named once, with its first copy.

    Equal bytes, or a perceptual hash and a thumbnail close enough for the same photo in another size or compression.
    """
    photos = [entry for entry in inspections if entry.look is not None]
    looks = [entry.look for entry in photos if entry.look is not None]
    if len(photos) < 2:
        return []
    first_with: dict[bytes, int] = {}
    exact = [first_with.setdefault(look.digest, number) for number, look in enumerate(looks)]
    similar = _first_similar(looks, list(first_with.values()))
    return [
        _copy_fault(photos[similar.get(number, original)], photo, is_exact=original != number)
        for number, (photo, original) in enumerate(zip(photos, exact, strict=True))
        if original != number or number in similar
    ]


def _first_similar(looks: Sequence[Look], numbers: Sequence[int]) -> dict[int, int]:
    """For each of these looks that is close to an earlier one: the earliest.

    Only earlier photos that share a band of the hash and nearly the shade are compared. All close ones do: the bits
    that may differ cannot be in every band, and the means of close thumbnails are close. So the work grows with the
    number of photos, not with its square.
    """
    hashes = np.stack([looks[number].hash for number in numbers])
    bits = np.unpackbits(hashes.view(np.uint8), axis=1)  # (n, 256)
    bands = [part @ (1 << np.arange(part.shape[1])) for part in np.array_split(bits, HASH_DISTANCE + 1, axis=1)]
    shades = [int(looks[number].thumbnail.mean() // THUMBNAIL_DISTANCE) for number in numbers]
    tables: list[dict[tuple[int, int], list[int]]] = [{} for _ in bands]
    similar = {}
    for place, (shade, *values) in enumerate(zip(shades, *(band.tolist() for band in bands), strict=True)):
        earlier: set[int] = set()
        for table, value in zip(tables, values, strict=True):
            for near in (shade - 1, shade, shade + 1):
                earlier.update(table.get((value, near), ()))
            table.setdefault((value, shade), []).append(place)
        candidates = np.array(sorted(earlier), np.int64)
        distance = np.bitwise_count(hashes[candidates] ^ hashes[place]).sum(axis=1)
        own = looks[numbers[place]].thumbnail
        for near in candidates[distance <= HASH_DISTANCE]:
            if np.abs(looks[numbers[near]].thumbnail - own).mean() <= THUMBNAIL_DISTANCE:
                similar[numbers[place]] = numbers[near]
                break
    return similar


def _copy_fault(original: Inspection, copy: Inspection, is_exact: bool) -> Fault:
    alike, first = "the same file as" if is_exact else "nearly the same picture as", original.pair.image
    if original.split == copy.split:
        return Fault.of("duplicate", copy.pair.image, alike=alike, first=first)
    kind = "leak_exact" if is_exact else "leak_similar"
    return Fault.of(kind, copy.pair.image, alike=alike, first=first, split=original.split, other=copy.split)
