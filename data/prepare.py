"""Convert a public data set, as its authors pack it, to the layout that train.py and evaluate.py read.

    python -m data.prepare DIS5K downloads/DIS5K Datasets/DIS5K_Flat
    python -m data.prepare AIM-500 downloads/AIM-500 Datasets/AIM-500
    python -m data.prepare trimaps mine Datasets/mine       your own photos, with trimaps instead of mattes

ROOT gets a folder for each split that SOURCE holds, with links to the files in SOURCE (so keep SOURCE), or copies on
a system without links. data/public_sets.py says what SOURCE must hold. ROOT is written completely or not at all.
Exit codes: 0 all done, 1 photos or truths without a partner were left out (each is named), 2 nothing could start.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from common.command import command, new_parser
from common.errors import UserError
from common.files import atomic_folder, atomic_write
from common.photos import read_alpha, write_alpha
from data.alpha_faults import SOFT
from data.pairs import match_images
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
    photos, truths = _files_by_name([source / split.photos]), _files_by_name(sorted(source.glob(split.truths)))
    partners = {name: re.sub(number, "", name) for name in photos}
    pairs = [(name, photo, truths[partners[name]]) for name, photo in photos.items() if partners[name] in truths]
    if not pairs:
        raise UserError(f"{source / split.photos} has no photo with a truth of its name in {source / split.truths}.")
    alone = [photo for name, photo in photos.items() if partners[name] not in truths]
    alone += [truths[name] for name in truths.keys() - partners.values()]
    return Found(split, pairs, sorted(alone))


def _files_by_name(folders: Sequence[Path]) -> dict[str, Path]:
    """The one file of each name in these folders. Raises UserError if there are two."""
    files = {}
    for name, sides in match_images(*folders).items():
        first, *others = [path for side in sides for path in side]
        if others:
            raise UserError(f"{first} and {others[0]} share a name: remove the one that is wrong.")
        files[name] = first
    return files


def prepare(public: PublicSet, found: Sequence[Found], root: Path) -> None:
    """Write the splits to `root`, which must not exist. Raises UserError and, for a trimap, PhotoError."""
    with atomic_folder(root) as folder:
        for split, pairs, _ in found:
            for name, photo, truth in tqdm(pairs, desc=split.name, unit="photo", disable=None):
                link(photo, folder / split.name / "im" / f"{name}{photo.suffix}")
                link(truth, folder / split.name / "gt" / f"{name}{truth.suffix}")
                if public.has_trimaps:
                    _write_unknown(truth, folder / split.name / "unknown" / f"{name}.png")


def link(file: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    for make in (os.symlink, os.link):  # Windows makes the second without special rights, on one drive
        with suppress(OSError):
            make(file.resolve(), path)
            return
    with atomic_write(path) as temporary:
        shutil.copyfile(file, temporary)


def _write_unknown(trimap: Path, path: Path) -> None:
    """The mask of a trimap's band; none where it has no band. The trimap itself is the truth of all other pixels."""
    levels = read_alpha(trimap)
    unknown = (levels > SOFT[0]) & (levels < SOFT[1])
    if unknown.any():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_alpha(path, unknown.astype(np.float32))


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = new_parser(__doc__)
    names = ", ".join(PUBLIC_SETS)
    parser.add_argument("name", type=str.lower, choices=PUBLIC_SETS, metavar="NAME", help=f"which set: {names}")
    parser.add_argument("source", type=Path, metavar="SOURCE", help="the unpacked download")
    parser.add_argument("root", type=Path, metavar="ROOT", help="the folder to make")
    options = parser.parse_args(argv)
    public = PUBLIC_SETS[options.name]
    found = find_splits(public, options.source)
    prepare(public, found, options.root)
    for split, pairs, alone in found:
        print(f"{options.root / split.name}: {len(pairs)} photos")
        for path in alone:
            print(f"left out, without a partner: {path}", file=sys.stderr)
    absent = [split.photos for split in public.splits if split not in [entry.split for entry in found]]
    if absent:
        print(f"not in {options.source}: {', '.join(absent)}")
    print(f"licence: {public.licence}")
    return 1 if any(entry.alone for entry in found) else 0


if __name__ == "__main__":
    sys.exit(main())
