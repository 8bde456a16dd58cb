"""The options of evaluate.py."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.command import add_checkpoint, add_device, new_parser
from common.processes import own_cores
from config import DATASET

MAX_COMPARED = 8


def evaluate_options(description: str | None, argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = new_parser(description)
    folder: dict[str, Any] = dict(type=Path, metavar="DIR")
    file: dict[str, Any] = dict(type=Path, metavar="FILE")
    add = parser.add_argument_group("what to measure").add_argument
    text = "folder with im (photos) and gt (true alphas), or with val inside; or synthetic (default: %(default)s)"
    add("--dataset", metavar="DIR", default=DATASET, help=text)
    add_checkpoint(add)
    text = "checkpoints to put side by side; one with a refiner also shows its coarse matte, as TwinSwin-Matte"
    add("--compare", type=Path, nargs="+", metavar="C", help=text)
    add("--predictions", **folder, help="folder of mattes to score")
    add("--ground-truth", **folder, help="folder of true alphas with the same names")
    add("--unknown", **folder, help="folder of masks with the same names, white where the true alpha is not known")
    add("--images", **folder, help="the photos of --predictions, for --composite")
    add = parser.add_argument_group("more figures").add_argument
    add("--dis", action="store_true", help="the DIS metrics too; they binarise the truth")
    text = "the halo: the error of re-composites on black, white and green (the first use compiles for a minute)"
    add("--composite", action="store_true", help=text)
    text = "the means by kind of photo too: a kind is the part of a name before its first _, # or -"
    add("--kinds", action="store_true", help=text)
    add = parser.add_argument_group("output").add_argument
    add("--csv", **file, help="write one line per matte")
    add("--json", **file, help="write the summary")
    text = "the picture that --compare draws (default: %(default)s)"
    add("--figure", **file, default=Path("compare.png"), help=text)
    add = parser.add_argument_group("machine").add_argument
    text = "threads that read and score photos; 0 = no other than the network's (default here: %(default)s)"
    add("--workers", type=int, metavar="N", default=min(8, own_cores()), help=text)
    add_device(add)
    options = parser.parse_args(argv)
    check_options(parser, options)
    return options


def check_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End with exit code 2 where flags do not fit together."""
    if bool(options.predictions) != bool(options.ground_truth):
        parser.error("--predictions and --ground-truth belong together")
    if sum(bool(given) for given in (options.predictions, options.compare, options.checkpoint)) > 1:
        parser.error("choose one of --checkpoint, --compare and --predictions")
    if options.predictions and options.composite and not options.images:
        parser.error("--composite needs the photos: name their folder with --images")
    if options.unknown and not options.predictions:
        parser.error("--unknown belongs to --predictions; a data set has its own folder unknown")
    if options.workers < 0 or len(options.compare or []) > MAX_COMPARED:
        parser.error(f"--workers must not be negative, and --compare takes {MAX_COMPARED} checkpoints at most")
