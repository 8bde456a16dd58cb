"""Speed and memory, measured on this machine.

    python benchmark.py --sizes 512 1024 2048 4096          prediction: encoder alone, + decoder, + refiner; gated
    python benchmark.py --train --sizes 512 1024            a training step, with and without teacher, by part
    python benchmark.py --loader [ROOT]                     the loader beside a plain loop and beside decoding alone

Times are medians of several runs after a warm-up. Peak memory is of the process on a CPU (above the loaded model)
and of the allocator on a GPU. Weights are random: speed does not depend on them, and the share of uncertain pixels
is set by the synthetic photo, not by the model.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.prediction import measure_prediction
from benchmarks.training import measure_training
from checkpoint import write_json
from config import VARIANTS
from data.loader_benchmark import benchmark_loader
from devices import DeviceError, choose_device, choose_precision, describe

VARIANT_NAMES = {variant.name.removeprefix("Swin").lower(): variant for variant in VARIANTS}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024], metavar="PIXELS",
                        help="side of the square photo (prediction) or crop (training)")
    parser.add_argument("--variants", nargs="+", default=["tiny", "base"], choices=list(VARIANT_NAMES))
    parser.add_argument("--photos", nargs="+", choices=("portrait", "worst"), default=["portrait", "worst"],
                        help="prediction: a subject of usual size, or a photo that is uncertain everywhere")
    parser.add_argument("--working-size", type=int, default=1024, help="what the student sees of a photo, at most")
    parser.add_argument("--train", action="store_true", help="measure training steps instead of prediction")
    parser.add_argument("--batch-size", type=int, default=0, help="images a training step; 0 = 1 on a CPU, 4 on a GPU")
    parser.add_argument("--options", nargs="*", default=["teacher", "frozen-teacher", "no-teacher"],
                        choices=["teacher", "frozen-teacher", "no-teacher", "frozen-student", "compile",
                                 "checkpointing"],
                        help="training: what to vary; the teacher learns in the first epochs and is frozen then; a "
                             "frozen student is without teacher (--freeze-encoder-epochs)")
    parser.add_argument("--loader", nargs="?", const="", metavar="ROOT",
                        help="measure the loader on ROOT/train, or on 12-megapixel photos that it makes")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--amp", default="auto", choices=["auto", "bf16", "fp16", "off"])
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each part; the median is printed")
    parser.add_argument("--json", type=Path, metavar="F", help="also write the rows to this file")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    flags = parse(argv)
    if flags.loader is not None:
        rows = benchmark_loader(flags.loader or None)
    else:
        try:
            device = choose_device(flags.device)
            precision = choose_precision(flags.amp, device)
        except DeviceError as error:
            print(error, file=sys.stderr)
            return 2
        print(f"{describe(device)}, {str(precision).removeprefix('torch.')}, torch {torch.__version__}")
        measure = measure_training if flags.train else measure_prediction
        rows = []
        for name in flags.variants:
            rows += measure(VARIANT_NAMES[name], flags, device, precision)
    if flags.json:
        write_json(flags.json, json.loads(json.dumps(rows, default=str)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
