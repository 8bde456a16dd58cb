"""Speed and memory, measured on this machine.

    python benchmark.py --sizes 512 1024 2048 4096          prediction: encoder alone, + decoder, + refiner; gated
    python benchmark.py --train --sizes 512 1024            a training step, with and without teacher, by part
    python benchmark.py --train --dataset ROOT              the same, and fed by the loader: does the device wait?
    python benchmark.py --loader [ROOT]                     the loader beside a plain loop and beside decoding alone

Times are medians of several runs after a warm-up. Peak memory is of the process on a CPU (above the loaded model)
and of the allocator on a GPU. Weights are random: speed does not depend on them, and the share of uncertain pixels
is set by the synthetic photo, not by the model. Exit codes: 0 measured, 2 nothing could start.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from common.devices import DeviceError, choose_device, choose_precision, describe
from common.files import write_json
from config import VARIANTS
from data.build import DataError
from experiments.benchmark_loader import benchmark_loader
from experiments.benchmark_prediction import measure_prediction
from experiments.benchmark_training import measure_training

VARIANT_NAMES = {variant.name.removeprefix("Swin").lower(): variant for variant in VARIANTS}


class StartError(ValueError):
    """Nothing could be measured; the message is one sentence that says what to do."""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        default=[512, 1024],
        metavar="PIXELS",
        help="side of the square photo (prediction) or crop (training)",
    )
    parser.add_argument("--variants", nargs="+", default=["tiny", "base"], choices=list(VARIANT_NAMES))
    parser.add_argument(
        "--photos",
        nargs="+",
        choices=("portrait", "worst"),
        default=["portrait", "worst"],
        help="prediction: a subject of usual size, or a photo that is uncertain everywhere",
    )
    parser.add_argument("--working-size", type=int, default=1024, help="what the student sees of a photo, at most")
    parser.add_argument("--train", action="store_true", help="measure training steps instead of prediction")
    parser.add_argument("--batch-size", type=int, default=0, help="images a training step; 0 = 1 on a CPU, 4 on a GPU")
    parser.add_argument(
        "--options",
        nargs="*",
        default=["teacher", "frozen-teacher", "no-teacher"],
        choices=["teacher", "frozen-teacher", "no-teacher", "frozen-student", "compile", "checkpointing"],
        help="training: what to vary; the teacher learns in the first epochs and is frozen then; a "
        "frozen student is without teacher (--freeze-encoder-epochs)",
    )
    parser.add_argument(
        "--dataset",
        default="",
        metavar="ROOT",
        help="training: also time steps that the loader feeds, from ROOT/train or the word synthetic",
    )
    parser.add_argument(
        "--num-workers",
        type=int,
        default=min(12, (os.cpu_count() or 1) - 1),
        help="loader processes for --dataset (default: %(default)s)",
    )
    parser.add_argument("--steps", type=int, default=20, help="timed steps for --dataset (default: %(default)s)")
    parser.add_argument(
        "--loader",
        nargs="?",
        const="",
        metavar="ROOT",
        help="measure the loader on ROOT/train, or on 12-megapixel photos that it makes",
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--amp", default="auto", choices=["auto", "bf16", "fp16", "off"])
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each part; the median is printed")
    parser.add_argument("--json", type=Path, metavar="F", help="also write the rows to this file")
    flags = parser.parse_args(argv)
    if flags.steps < 1 or flags.num_workers < 0:
        parser.error("give at least 1 with --steps, and at least 0 with --num-workers")
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    flags = parse(argv)
    try:
        make_folder(flags.json)
        rows = measure_loader(flags.loader) if flags.loader is not None else measure_network(flags)
    except (StartError, DataError, DeviceError) as error:
        print(error, file=sys.stderr)
        return 2
    if flags.json:
        write_json(flags.json, json.loads(json.dumps(rows, default=str)))
    return 0


def make_folder(file: Path | None) -> None:
    """The folder of --json, before anything is measured. Raises StartError."""
    try:
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(f"{file.parent} cannot be made ({error.strerror}): choose another --json.") from error


def measure_loader(root: str) -> dict[str, float]:
    """Images a second by row. Raises StartError where the data set cannot be used."""
    try:
        return benchmark_loader(root or None)
    except (ValueError, OSError) as error:  # Pillow's word for a broken file is an OSError
        raise StartError(str(error)) from error


def measure_network(flags: argparse.Namespace) -> list[dict]:
    """Rows of prediction or of training steps. Raises DataError and DeviceError."""
    device = choose_device(flags.device)
    precision = choose_precision(flags.amp, device)
    print(f"{describe(device)}, {str(precision).removeprefix('torch.')}, torch {torch.__version__}")
    measure = measure_training if flags.train else measure_prediction
    rows = []
    for name in flags.variants:
        rows += measure(VARIANT_NAMES[name], flags, device, precision)
    return rows


if __name__ == "__main__":
    sys.exit(main())
