"""Convert a public data set, as its authors pack it, to the layout that train.py and evaluate.py read.

    python -m data.prepare DIS5K downloads/DIS5K Datasets/DIS5K_Flat
    python -m data.prepare AIM-500 downloads/AIM-500 Datasets/AIM-500
    python -m data.prepare trimaps mine Datasets/mine       your own photos, with trimaps instead of mattes
    python -m data.prepare DIS5K downloads/DIS5K Datasets/DIS5K_2048 --long-side 2048    smaller copies, read faster

ROOT gets a folder for each split that SOURCE holds, with links to the files in SOURCE (so keep SOURCE), or copies on
a system without links. data/public_sets.py says what SOURCE must hold. ROOT is written completely or not at all.
Exit codes: 0 all done, 1 photos or truths without a partner were left out (each is named), 2 nothing could start.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from common.command import command, new_parser
from common.errors import UserError
from common.files import atomic_folder, atomic_write
from common.photos import PhotoError, photo_size, read_alpha, read_photo, to_uint8, write_alpha, write_image
from common.pool import bounded_map
from common.processes import usable_cores
from common.truth import is_soft
from data.pairs import files_by_name, sizes_differ
from data.public_sets import PUBLIC_SETS, PublicSet, Split


class Found(NamedTuple):
    """What SOURCE holds of a split. pairs: name, photo and truth of each; alone: files without a partner."""

    split: Split
    pairs: list[tuple[str, Path, Path]]
    alone: list[Path]


def find_splits(public: PublicSet, source: Path) -> list[Found]:
    """The splits of a set that are in `source`. Raises UserError, in one sentence, if it is not laid out like that."""
    present = [split for split in public.splits if (source / split.photos).is_dir()]
    if not present:
        expected = public.splits[0].photos
        inner = next(source.glob(f"*/{expected}"), None)
        hint = f"did you mean {source / inner.relative_to(source).parts[0]}" if inner else "name the unpacked download"
        raise UserError(f"{source} does not hold {expected}: {hint}.")
    return [_find_pairs(split, source, public.number) for split in present]


def _find_pairs(split: Split, source: Path, number: str) -> Found:
    photos, truths = files_by_name(source / split.photos), files_by_name(*sorted(source.glob(split.truths)))
    partners = {name: re.sub(number, "", name) for name in photos}
    pairs = [(name, photo, truths[partners[name]]) for name, photo in photos.items() if partners[name] in truths]
    if not pairs:
        raise UserError(f"{source / split.photos} has no photo with a truth of its name in {source / split.truths}.")
    alone = [photo for name, photo in photos.items() if partners[name] not in truths]
    alone += [truths[name] for name in truths.keys() - partners.values()]
    return Found(split, pairs, sorted(alone))


def prepare(public: PublicSet, found: Sequence[Found], root: Path, long_side: int = 0) -> dict[str, list[str]]:
    """Write the splits to `root`, which must not exist; returns, by split, a sentence for each pair that is
    left out because its files cannot be used.

    long_side: pixels to which larger photos are copied, with their truths; 0 links all files as they are. Raises
    UserError.
    """
    faults: dict[str, list[str]] = {split.name: [] for split, _, _ in found}
    with atomic_folder(root) as folder, ThreadPoolExecutor(usable_cores()) as pool:
        for split, pairs, _ in found:
            add = partial(_add_pair, folder / split.name, public.has_trimaps, long_side)
            outcomes = bounded_map(pool, add, pairs, ahead=2 * usable_cores())
            for _, outcome in tqdm(outcomes, total=len(pairs), desc=split.name, unit="photo", disable=None):
                if isinstance(outcome, PhotoError):
                    faults[split.name].append(str(outcome))
                elif outcome:
                    raise outcome
    return faults


def _add_pair(folder: Path, is_trimap: bool, long_side: int, pair: tuple[str, Path, Path]) -> None:
    """Link or copy one pair into folder/im and folder/gt, and the unknown band of a trimap into folder/unknown.

    The trimap itself is the truth of all other pixels. Raises PhotoError for a file that cannot be used.
    """
    name, photo, truth = pair
    is_large = long_side and max(photo_size(photo)) > long_side
    unknown = None
    if is_trimap:
        unknown = is_soft(read_alpha(truth)).astype(np.float32)
    if is_large:
        if photo_size(photo) != photo_size(truth):
            raise PhotoError(sizes_differ(photo, photo_size(photo)[::-1], truth, photo_size(truth)[::-1]))
        width, height = (max(1, round(side * long_side / max(photo_size(photo)))) for side in photo_size(photo))
        size = width, height
        image, matte = to_uint8(read_photo(photo, shrink_to=min(size)).image), read_alpha(truth)
        _write(write_image, folder / "im" / f"{name}.jpg", cv2.resize(image, size, interpolation=cv2.INTER_AREA))
        _write(write_alpha, folder / "gt" / f"{name}.png", cv2.resize(matte, size, interpolation=cv2.INTER_AREA))
        if unknown is not None:  # a pixel of the copy that holds an unknown one is unknown
            unknown = (cv2.resize(unknown, size, interpolation=cv2.INTER_AREA) > 0).astype(np.float32)
    else:
        link(photo, folder / "im" / f"{name}{photo.suffix}")
        link(truth, folder / "gt" / f"{name}{truth.suffix}")
    if unknown is not None and unknown.any():
        _write(write_alpha, folder / "unknown" / f"{name}.png", unknown)


def _write(write: Callable[[Path, np.ndarray], None], path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, picture)


def link(file: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    for make in (os.symlink, os.link):  # Windows makes the second without special rights, on one drive
        with suppress(OSError):
            make(file.resolve(), path)
            return
    with atomic_write(path) as temporary:
        shutil.copyfile(file, temporary)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = new_parser(__doc__)
    names = ", ".join(PUBLIC_SETS)
    parser.add_argument("name", type=str.lower, choices=PUBLIC_SETS, metavar="NAME", help=f"which set: {names}")
    parser.add_argument("source", type=Path, metavar="SOURCE", help="the unpacked download")
    parser.add_argument("root", type=Path, metavar="ROOT", help="the folder to make")
    text = "copy photos that are larger, and their truths, at this long side; others are linked (default: link all)"
    parser.add_argument("--long-side", type=int, default=0, metavar="PIXELS", help=text)
    options = parser.parse_args(argv)
    public = PUBLIC_SETS[options.name]
    found = find_splits(public, options.source)
    faults = prepare(public, found, options.root, options.long_side)
    for split, pairs, alone in found:
        print(f"{options.root / split.name}: {len(pairs) - len(faults[split.name])} photos")
        for reason in (*faults[split.name], *(f"without a partner: {path}" for path in alone)):
            print(f"left out, {reason}", file=sys.stderr)
    absent = [split.photos for split in public.splits if split not in [entry.split for entry in found]]
    if absent:
        print(f"not in {options.source}: {', '.join(absent)}")
    print(f"licence: {public.licence}")
    return 1 if any(faults.values()) or any(entry.alone for entry in found) else 0


if __name__ == "__main__":
    sys.exit(main())
