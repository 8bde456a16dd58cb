"""A smaller data set, of links: every Nth photo of another's train and val, in the order of names.

    python -m experiments.thin Datasets/starter/real runs/thin/real --val-every 3
    python -m experiments.thin Datasets/starter/real runs/few --train-every 80 --val-every 3

ROOT is written completely or not at all.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from common.command import command, new_parser
from common.files import atomic_folder
from data.pairs import find_pairs
from data.prepare import link


def thin(source: Path, root: Path, every: dict[str, int]) -> dict[str, int]:
    """Make `root`, which must not exist; every: N by split. Returns the number of photos by split. Raises UserError."""
    with atomic_folder(root) as folder:
        counts = {}
        for split, step in every.items():
            pairs = find_pairs(source / split)[::step]
            for pair in pairs:
                for kind, file in (("im", pair.image), ("gt", pair.alpha), ("unknown", pair.unknown)):
                    if file:
                        link(file, folder / split / kind / f"{pair.name}{file.suffix}")
            counts[split] = len(pairs)
    return counts


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = new_parser(__doc__)
    flag = parser.add_argument
    flag("source", type=Path, metavar="SET", help="a data set with train and val")
    flag("root", type=Path, metavar="ROOT", help="the folder to make")
    flag("--train-every", type=int, default=1, metavar="N")
    flag("--val-every", type=int, default=1, metavar="N")
    options = parser.parse_args(argv)
    if min(options.train_every, options.val_every) < 1:
        parser.error("N must be 1 or more.")
    counts = thin(options.source, options.root, {"train": options.train_every, "val": options.val_every})
    print(f"{options.root}: {counts['train']} photos to train, {counts['val']} to validate")
    return 0


if __name__ == "__main__":
    sys.exit(main())
