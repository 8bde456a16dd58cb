"""Speed and memory, measured on this machine.

    python benchmark.py --sizes 512 1024 2048 4096          prediction by part: encoder, decoder, refiner, all
    python benchmark.py --checkpoint checkpoints/RUN        prediction with this model, at its own working size
    python benchmark.py --photos FOLDER [--checkpoint C]    prediction of real photos, in processor seconds, by octave
    python benchmark.py --train --sizes 512 1024            a training step by part, with and without teacher
    python benchmark.py --train --dataset ROOT              also steps fed by the loader: does the device wait?
    python benchmark.py --memory --sizes 1024               the peak memory of a training step on a GPU, estimated
    python benchmark.py --loader [ROOT]                     the loader next to a plain loop and to decoding alone

Times are means of several runs after a warm-up, with --photos of one. Prediction on a CPU is measured in processor
seconds, all threads together. Peak memory is the process's on a CPU, above what is held before, and the allocator's
on a GPU; --memory needs no GPU, and says how much its estimate leaves out. Without --checkpoint the
encoder's weights are random, which does not change its speed; the refiner is the starter model's, and the coarse matte
is given, since what is uncertain decides what the refiner costs. What runs out of memory costs its row, not the table.

Exit codes: 0 measured, 2 could not start, 130 stopped by Ctrl-C, after the rows so far.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from common.command import add_device, command, new_parser
from common.devices import choose_device, choose_precision, describe, is_out_of_memory
from common.files import make_folder, write_json
from common.processes import usable_cores
from config import VARIANTS
from experiments.benchmark_loader import loader_cases
from experiments.benchmark_memory import memory_cases
from experiments.benchmark_prediction import checkpoint_cases, prediction_cases
from experiments.benchmark_training import OPTIONS, training_cases

VARIANT_NAMES = {variant.name.removeprefix("Swin").lower(): variant for variant in VARIANTS}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = new_parser(__doc__)
    flag = parser.add_argument
    what = "side of the square photo (prediction) or crop (training)"
    flag("--sizes", type=int, nargs="+", default=[512, 1024], metavar="PIXELS", help=what)
    what = "default: tiny and base; all with --memory"
    flag("--variants", nargs="+", default=[], choices=list(VARIANT_NAMES), help=what)
    what = "prediction with this model instead of variants: best.safetensors, its run folder, or hf:owner/name"
    flag("--checkpoint", type=Path, metavar="C", help=what)
    what = "prediction of the photos in FOLDER by part and octave, with --checkpoint or else the starter model"
    flag("--photos", type=Path, metavar="FOLDER", help=what)
    what = "with --photos: also time this network, an ONNX file that takes photos as U2-Net does"
    flag("--beside", type=Path, metavar="FILE", help=what)
    cases, what = ["portrait", "worst"], "prediction: a subject of usual size, or a photo that is uncertain everywhere"
    flag("--drawn", nargs="+", choices=cases, default=cases, help=what)
    flag("--working-size", type=int, default=1024, help="long side of the photo as the student sees it")
    flag("--train", action="store_true", help="measure training steps instead of prediction")
    what = "estimate the peak memory of a training step on a GPU, for both stages, on any machine; see --amp"
    flag("--memory", action="store_true", help=what)
    what = "images per training step; 0 = 1 on a CPU, 4 on a GPU, and 1, 2, 4, 8 with --memory"
    flag("--batch-size", type=int, default=0, help=what)
    what = "training: the teacher's stage; the student's, with the frozen teacher (also compiled, or with gradient "
    what += "checkpointing), without a teacher, or with the student frozen too (--freeze-encoder-epochs)"
    flag("--options", nargs="*", default=list(OPTIONS)[:3], choices=OPTIONS, help=what)
    what = "training: also time steps that the loader feeds, from ROOT/train or the word synthetic"
    flag("--dataset", default="", metavar="ROOT", help=what)
    workers = min(12, usable_cores() - 1)
    flag("--num-workers", type=int, default=workers, help="loader processes for --dataset (default: %(default)s)")
    flag("--steps", type=int, default=20, help="timed steps for --dataset (default: %(default)s)")
    what = "measure the loader on ROOT/train, or on 12-megapixel photos that it makes"
    flag("--loader", nargs="?", const="", metavar="ROOT", help=what)
    what = "training: also the host's time, the kernels, how busy the GPU is, and the peak memory next to its estimate"
    flag("--profile", action="store_true", help=what)
    add_device(flag)
    flag("--amp", default="auto", choices=["auto", "bf16", "fp16", "off"])
    flag("--repeats", type=int, default=3, help="timed runs of each part (default: %(default)s)")
    flag("--json", type=Path, metavar="F", help="also write the rows to this file")
    flags = parser.parse_args(argv)
    if flags.checkpoint and (flags.train or flags.memory or flags.variants or flags.loader is not None):
        parser.error("--checkpoint measures prediction: leave --train, --memory, --loader and --variants out")
    if flags.steps < 1 or flags.repeats < 1 or flags.num_workers < 0:
        parser.error("give at least 1 with --steps and --repeats, and at least 0 with --num-workers")
    return flags


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    flags = parse(argv)
    if flags.json:
        make_folder(flags.json.parent, "choose another --json")
    cases = network_cases(flags) if flags.loader is None else loader_cases(flags.loader or None)
    rows = measure_rows(cases)
    if flags.json:
        write_json(flags.json, rows)
    return 0


def network_cases(flags: argparse.Namespace) -> Iterator[tuple[dict, Callable[[], dict]]]:
    """Rows of prediction, of training steps or of their memory. Raises UserError."""
    if flags.memory:
        print("estimated; the CUDA context, workspaces and fragmentation take 1.5 to 3 GB more")
        for name in flags.variants or VARIANT_NAMES:
            yield from memory_cases(VARIANT_NAMES[name], flags)
        return
    device = choose_device(flags.device)
    precision = choose_precision(flags.amp, device)
    print(f"{describe(device)}, {str(precision).removeprefix('torch.')}, torch {torch.__version__}")
    if flags.photos or flags.checkpoint:
        yield from checkpoint_cases(flags, device, precision)
        return
    for name in flags.variants or ("tiny", "base"):
        cases = training_cases if flags.train else prediction_cases
        yield from cases(VARIANT_NAMES[name], flags, device, precision)


def measure_rows(cases: Iterable[tuple[dict, Callable[[], dict]]]) -> list[dict[str, Any]]:
    """Run each case, (labels, call), and print the table. Ctrl-C prints the rows so far."""
    rows: list[dict[str, Any]] = []
    try:
        for labels, call in cases:
            print(*labels.values(), "...", file=sys.stderr, flush=True)
            try:
                rows.append(labels | call())
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                rows.append(labels | {"error": "out of memory"})
            gc.collect()  # only now is the error gone, whose traceback holds the network
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
    finally:
        if rows:
            print(pd.DataFrame(rows).to_string(index=False, na_rep="-", float_format=short))
    return rows


def short(value: float) -> str:
    """Three digits, without an exponent for what is large."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main())
