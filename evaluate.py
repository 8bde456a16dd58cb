"""Measure mattes against their truths, over the whole image and over the edge band.

    python evaluate.py --dataset ROOT/val --checkpoint C          a checkpoint on ROOT/val/im and ROOT/val/gt
    python evaluate.py --predictions DIR --ground-truth DIR       mattes of any method, matched by name
    python evaluate.py --compare A B --dataset ROOT/val           checkpoints side by side, and a figure
    torchrun --nproc-per-node 8 evaluate.py --dataset ROOT/val    the photos shared over 8 processes, same totals

Where ROOT/val/unknown/NAME.png (or --unknown DIR) is white, the true alpha is not known: no metric counts the pixel.
Exit codes: 0 all scored, 1 some files failed (each is named), 2 nothing could start, or a result could not be written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from common import distributed
from common.command import add_checkpoint, add_device, command, new_parser
from common.devices import choose_device
from common.errors import UserError
from common.files import make_folder
from common.processes import is_main, own_cores
from config import DATASET, Config
from evaluation import checkpoints, tables
from evaluation.folders import Folders, score_folders
from evaluation.scoring import MetricOptions, Scores, report_failures
from evaluation.validation import score_dataset

MAX_COMPARED = 8


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = parse_options(argv)
    try:
        for path in filter(None, (options.csv, options.json, options.compare and options.figure)):
            make_folder(path.parent, "choose another folder")  # before the work, so that it is not lost at its end
        scores = evaluate_folders(options) if options.predictions else evaluate_checkpoints(options)
    finally:
        distributed.shutdown()
    return 1 if scores.failures else 0


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = new_parser(__doc__)
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


def evaluate_folders(options: argparse.Namespace) -> Scores:
    """Mode --predictions, scored and reported."""
    join_processes(None)
    photos = options.images if options.composite else None
    folders = Folders(options.predictions, options.ground_truth, options.unknown, photos)
    scores = score_folders(folders, metric_options(options), options.workers)
    report(scores, options)
    return scores


def evaluate_checkpoints(options: argparse.Namespace) -> Scores:
    """Modes --checkpoint and --compare, scored and reported."""
    device = choose_device(options.device)
    join_processes(device)
    files = checkpoints.find_files(options.compare or [options.checkpoint], Path(Config.output))
    sources = checkpoints.load_sources(files, device, coarse_too=bool(options.compare))
    if options.compare and len(sources) < 2:
        raise UserError(f"{files[0]} has no refiner and nothing to be compared with: name another checkpoint too.")
    dataset, unpaired = checkpoints.open_dataset(options.dataset, files[0])
    # As torchrun's processes do: on a CPU the last bits depend on the number. To use more cores, start with torchrun.
    torch.set_num_threads(1)
    scores = score_dataset(sources, dataset, metric_options(options), options.workers)
    scores = Scores(scores.rows, unpaired + scores.failures)
    report(scores, options)  # before the figure: a picture that fails must not cost the scores
    if options.compare and scores.rows and is_main():
        checkpoints.draw_comparison(options.figure, sources, dataset, scores.rows)
    return scores


def metric_options(options: argparse.Namespace) -> MetricOptions:
    return MetricOptions(dis=options.dis, composite=options.composite)


def join_processes(device: torch.device | None) -> None:
    """Ranks meet when each has scored its share: how long that takes is up to the photos."""
    distributed.setup(device, patience_minutes=distributed.LONG_PATIENCE_MINUTES)


def report(scores: Scores, options: argparse.Namespace) -> None:
    """Write the files, print the table and its notes, name what failed; once for all ranks.

    Raises UserError for a file that cannot be written.
    """
    if not is_main():
        return
    if options.csv and scores.rows:
        tables.write_csv(options.csv, scores.rows)
    if options.json:
        tables.write_json(options.json, scores.rows, scores.failures)
    if scores.rows:  # printed last: a reader who leaves (| head) must not cost the files
        print(tables.table({label: tables.summarize(rows) for label, rows in tables.by_matte(scores.rows).items()}))
        if options.kinds:
            print("", tables.kinds_table(scores.rows), sep="\n")
        print("", *tables.notes(scores.rows), sep="\n")
    report_failures(scores.failures)
    if scores.failures:
        print(f"{len(scores.failures)} failed", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
