"""The options of benchmark.py."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.command import add_device, new_parser
from common.processes import usable_cores
from config import VARIANTS

VARIANT_NAMES = {variant.name.removeprefix("Swin").lower(): variant for variant in VARIANTS}
OPTIONS: dict[str, dict[str, Any]] = {  # what to vary: settings of config.py
    "teacher": {},  # the teacher's stage; all others are the student's
    "frozen-teacher": {},
    "no-teacher": {"use_teacher": False},
    "frozen-student": {"use_teacher": False, "freeze_encoder_epochs": 1},
    "compile": {"compile": True},
    "checkpointing": {"gradient_checkpointing": True},
}


def benchmark_options(description: str | None, argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = new_parser(description)
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
