"""Measure mattes against their truths, over the whole image and over the edge band.

    python evaluate.py --dataset ROOT/val --checkpoint C          a checkpoint on ROOT/val/im and ROOT/val/gt
    python evaluate.py --predictions DIR --ground-truth DIR       mattes of any method, matched by name
    python evaluate.py --compare A B --dataset ROOT/val           checkpoints side by side, and a figure
    torchrun --nproc-per-node 8 evaluate.py --dataset ROOT/val    the photos shared over 8 processes, same totals

Where ROOT/val/unknown/NAME.png (or --unknown DIR) is white, the true alpha is not known: no metric counts the pixel.
Exit codes: 0 all scored, 1 some files failed (each is named), 2 nothing could start, or a result could not be written.
"""

from __future__ import annotations

from evaluation.options import evaluate_options

if __name__ == "__main__":
    evaluate_options(__doc__)  # --help and wrong flags are answered before the imports that take seconds

import argparse
import sys
from collections.abc import Sequence

import torch

from common import distributed
from common.command import command
from common.devices import choose_device
from common.errors import UserError
from common.files import make_folder
from common.processes import is_main
from config import Config
from evaluation import checkpoints, tables
from evaluation.folders import Folders, score_folders
from evaluation.scoring import MetricOptions, Scores, by_matte, report_failures, summarize
from evaluation.validation import score_dataset
from models.checkpoint import find_model


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = evaluate_options(__doc__, argv)
    try:
        for path in filter(None, (options.csv, options.json, options.compare and options.figure)):
            make_folder(path.parent, "choose another folder")  # before the work, so that it is not lost at its end
        scores = evaluate_folders(options) if options.predictions else evaluate_checkpoints(options)
    finally:
        distributed.shutdown()
    return 1 if scores.failures else 0


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
    files = [find_model(path, Config.output) for path in options.compare or [options.checkpoint]]
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
        print(tables.table({label: summarize(rows) for label, rows in by_matte(scores.rows).items()}))
        if options.kinds:
            print("", tables.kinds_table(scores.rows), sep="\n")
        print("", *tables.notes(scores.rows), sep="\n")
    report_failures(scores.failures)
    if scores.failures:
        print(f"{len(scores.failures)} failed", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
