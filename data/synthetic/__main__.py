"""Write photos of the synthetic set and their mattes as files.

    python -m data.synthetic --output DIR --count 16 --size 512

writes DIR/train/im, DIR/train/gt, DIR/val/im, DIR/val/gt (PNG) and DIR/contact_sheet.png.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from common.command import command, new_parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Command line: write a folder of samples."""
    parser = new_parser(__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder to write into")
    parser.add_argument("--count", type=int, default=16, help="samples of each split")
    parser.add_argument("--size", type=int, default=512, help="side of the square pictures in pixels")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other pictures")
    options = parser.parse_args(argv)
    if options.count < 1 or options.size < 32:
        parser.error("--count must be at least 1 and --size at least 32.")
    from data.synthetic.folder import write_folder  # loads torch, which takes seconds

    write_folder(options.output, count=options.count, size=options.size, seed=options.seed)
    print(f"{options.count} samples of each split and contact_sheet.png in {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
