"""Photos that are in a data set twice, found by content.

faults = find_copies(inspections)          # duplicates in one split, leaks between two
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from data.faults import Inspection, Look
from data.kinds import Fault

HASH_DISTANCE = 20  # of 256 bits; the hashes of different photos differ in about 128
THUMBNAIL_DISTANCE = 6.0  # mean difference in grey levels; the hash of a flat picture is noise


class _Photo(NamedTuple):
    entry: Inspection
    look: Look


def find_copies(inspections: list[Inspection]) -> list[Fault]:
    """Photos that occur twice, in one split (duplicate) or in two (leak); each is named once, with its first copy.

    Equal bytes, or a perceptual hash and a thumbnail close enough for the same photo in another size or compression.
    """
    photos = [_Photo(entry, entry.look) for entry in inspections if entry.look is not None]
    if len(photos) < 2:
        return []
    hashes = np.stack([photo.look.hash for photo in photos])
    first_with: dict[bytes, int] = {}
    faults = []
    for number, photo in enumerate(photos):
        original = first_with.setdefault(photo.look.digest, number)
        is_exact = original != number
        if not is_exact:
            # One row at a time: 5000 photos take a second, and memory stays that of a row.
            distance = np.bitwise_count(hashes[:number] ^ hashes[number]).sum(axis=1)
            close = [near for near in np.nonzero(distance <= HASH_DISTANCE)[0] if _looks_alike(photos[near], photo)]
            if not close:
                continue
            original = int(close[0])
        faults.append(_copy_fault(photos[original].entry, photo.entry, is_exact))
    return faults


def _looks_alike(first: _Photo, second: _Photo) -> bool:
    return float(np.abs(first.look.thumbnail - second.look.thumbnail).mean()) <= THUMBNAIL_DISTANCE


def _copy_fault(original: Inspection, copy: Inspection, is_exact: bool) -> Fault:
    what = "the same file as" if is_exact else "nearly the same picture as"
    if original.split == copy.split:
        kind, cure = "duplicate", "one of them is enough."
    else:
        kind = "leak_exact" if is_exact else "leak_similar"
        cure = f"a photo of {original.split} must not be in {copy.split}, or the scores come out too good."
    return Fault(kind, str(copy.pair.image), f"{copy.pair.image} is {what} {original.pair.image}: {cure}")
