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

from experiments.options import VARIANT_NAMES, benchmark_options

if __name__ == "__main__":
    benchmark_options(__doc__)  # --help and wrong flags are answered before the imports that take seconds

import argparse
import gc
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pandas as pd
import torch

from common.command import command
from common.devices import choose_device, choose_precision, describe, is_out_of_memory
from common.files import make_folder, write_json
from experiments.benchmark_loader import loader_cases
from experiments.benchmark_memory import memory_cases
from experiments.benchmark_prediction import checkpoint_cases, prediction_cases
from experiments.benchmark_training import training_cases


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    flags = benchmark_options(__doc__, argv)
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
