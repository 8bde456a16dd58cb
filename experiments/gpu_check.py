"""Whether a GPU does all that training needs, and how fast: within 15 minutes, without a network.

    make gpu-check                                every step below, one after the other; logs in gpu_check/
    make gpu-check DRY=1                          the same commands, tiny, on a CPU: before a GPU is paid for
    python -m experiments.gpu_check profile       only the steps named

A step that fails or takes too long is named, and the others go on. What a step prints at its end is shown, so the
figures stand on the screen: images per second, kernels of a step, the share of the time in which the GPU computes, and
the peak of its memory next to the estimate of benchmark.py --memory.

Exit codes: 0 all done, 1 some steps failed (each is named).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

from common.command import command, new_parser
from common.devices import choose_device, choose_precision, describe, synchronize
from common.files import make_folder
from config import Config
from experiments.benchmark_loader import write_large_photos
from experiments.benchmark_memory import NoLoader, estimate_peak, fake_batch
from experiments.benchmark_training import build_run
from train import train_step

FOLDER = Path("gpu_check")  # logs, photos and runs
PATIENCE_OF_DRY_RUNS = 10  # times the limit: a CPU may be slow, and other work may share it


class Scale(NamedTuple):
    """How large the check is."""

    device: str
    size: int  # pixels
    batch: int
    repeats: int
    workers: int
    photos: int
    shape: tuple[int, int]  # of a photo, H x W; those of DIS5K are about as large


FULL = Scale("cuda", 1024, 4, 20, 12, 64, (2513, 3111))
DRY = Scale("cpu", 64, 2, 1, 1, 4, (300, 400))


class Step(NamedTuple):
    """seconds: the limit; lines: how many of the last ones are shown."""

    name: str
    seconds: int
    lines: int
    arguments: Sequence[object]


def steps_of(scale: Scale, root: Path, runs: Path) -> list[Step]:
    """What is to be run, in order; what matters most, and what other steps need, comes first."""
    train: tuple[object, ...] = (
        "train.py",
        "--dataset",
        root,
        "--no-pretrained",
        "--image-size",
        scale.size,
        "--device",
        scale.device,
    )
    train += ("--batch-size", scale.batch, "--num-workers", scale.workers, "--epochs", 2, "--output")
    bench: tuple[object, ...] = (
        "benchmark.py",
        "--train",
        "--sizes",
        scale.size,
        "--device",
        scale.device,
        "--variants",
        "tiny",
    )
    bench += ("--batch-size", scale.batch, "--repeats", scale.repeats, "--options")
    fed = ("--dataset", root, "--num-workers", scale.workers, "--steps", scale.repeats)
    return [
        Step("tests", 180, 8, ("-m", "pytest", "tests/test_cuda.py", "-rs", "-p", "no:cacheprovider")),
        Step("train", 90, 6, (*train, runs / "train")),  # both stages, the trial of the batch, validation, saving
        Step("fp16", 60, 6, (*train, runs / "fp16", "--amp", "fp16" if scale.device == "cuda" else "off")),
        Step("stop", 45, 3, (*train, runs / "stopped", "--max-hours", 0.0005)),  # within the first epoch
        Step("resume", 60, 6, (*train, runs / "stopped", "--resume", "--max-hours", 0)),
        Step("profile", 90, 8, ("-m", "experiments.gpu_check", "--measure", *(["--dry"] if scale == DRY else []))),
        Step("parts", 90, 8, (*bench, "frozen-teacher", *fed)),
        Step("checkpointing", 60, 8, (*bench, "checkpointing")),
        Step("loader", 60, 8, ("benchmark.py", "--loader", root)),
        Step("compile", 150, 8, (*bench, "compile")),
    ]


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    flags = parse(argv)
    scale = DRY if flags.dry else FULL
    if flags.measure:
        measure_steps(scale)
        return 0
    root, runs = FOLDER / ("dry_photos" if flags.dry else "photos"), FOLDER / f"runs_{time.strftime('%Y%m%d_%H%M%S')}"
    make_folder(FOLDER, "run it in a folder that can be written")
    make_photos(root, scale)
    failed = []
    for step in steps_of(scale, root, runs):
        if step.name in (flags.steps or [step.name]):
            limit = step.seconds * (PATIENCE_OF_DRY_RUNS if flags.dry else 1)
            if not run_step(step, limit):
                failed.append(step.name)
    print(f"failed: {', '.join(failed)}" if failed else "all done")
    return 1 if failed else 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = new_parser(__doc__)
    names = [step.name for step in steps_of(FULL, FOLDER, FOLDER)]
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"of {', '.join(names)} (default: all)")
    parser.add_argument("--dry", action="store_true", help="tiny, on a CPU")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)  # the step named profile
    flags = parser.parse_args(argv)
    if unknown := set(flags.steps) - set(names):
        parser.error(f"there is no step {', '.join(sorted(unknown))}: name some of {', '.join(names)}")
    return flags


def run_step(step: Step, limit: float) -> bool:
    """Whether it ended well; says how it went. Its whole output goes to a log."""
    log, start = FOLDER / f"{step.name}.log", time.perf_counter()
    with open(log, "w", encoding="utf-8") as output:
        try:
            command_line = [sys.executable, *map(str, step.arguments)]
            code = subprocess.run(command_line, stdout=output, stderr=subprocess.STDOUT, timeout=limit).returncode
            outcome = "done" if code == 0 else f"FAILED with code {code}"
        except subprocess.TimeoutExpired:
            code, outcome = -1, "FAILED, it takes too long"
    print(f"=== {step.name}: {outcome}, {time.perf_counter() - start:.0f} of {limit:.0f} s; {log}", flush=True)
    print(*log.read_text(encoding="utf-8", errors="replace").splitlines()[-step.lines :], sep="\n", flush=True)
    return code == 0


def make_photos(root: Path, scale: Scale) -> None:
    """A data set of four drawn pairs, and links to them; 8 pairs to validate."""
    if (root / "val").is_dir():
        return
    write_large_photos(root / "train", 4, scale.shape)
    for split, count in (("train", scale.photos), ("val", min(8, scale.photos))):
        for folder, suffix in (("im", ".jpg"), ("gt", ".png")):
            (root / split / folder).mkdir(parents=True, exist_ok=True)
            for number in range(4 if split == "train" else 0, count):
                drawn = root / "train" / folder / f"photo_{number % 4}{suffix}"
                os.link(drawn, root / split / folder / f"photo_{number}{suffix}")


def measure_steps(scale: Scale) -> None:
    """Print, for both stages: a step's time, that of the host, kernels, how busy the GPU is, and the peak memory.

    Nothing in a step waits for the GPU: where the host's time is near the whole, launching kernels is the limit.
    """
    device = choose_device(scale.device)
    precision, is_cuda = choose_precision("auto", device), device.type == "cuda"
    torch.backends.cudnn.benchmark = True  # as training has it
    print(f"{describe(device)}, {precision}, torch {torch.__version__}, CUDA {torch.version.cuda}")
    loader: Any = NoLoader()
    config = Config(image_size=scale.size, batch_size=scale.batch, pretrained=False, max_student_downscale=1)
    config = replace(config, epochs=10**6)  # no measured step is the last
    for stage in ("teacher", "student"):
        run = build_run(config, stage, device, precision, loader)
        batch = fake_batch(config)
        for name in ("image", "alpha", "unknown"):
            batch[name].random_(0, 2 if name == "unknown" else 256)
            batch[name] = batch[name].pin_memory() if is_cuda else batch[name]
        for _ in range(3):
            train_step(run, [batch])
        synchronize(device)
        if is_cuda:
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        for _ in range(scale.repeats):
            train_step(run, [batch])
        host = (time.perf_counter() - start) / scale.repeats
        synchronize(device)
        whole = (time.perf_counter() - start) / scale.repeats
        peak = torch.cuda.max_memory_allocated() / 2**30 if is_cuda else 0.0
        with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_cuda else [])]) as trace:
            train_step(run, [batch])
            synchronize(device)
        kernels = [event for event in trace.events() if str(event.device_type).endswith("CUDA")]
        busy = sum(event.time_range.elapsed_us() for event in kernels) / 1e6
        estimate = estimate_peak(config, stage, precision) / 2**30
        print(
            f"{stage}: {scale.batch / whole:.1f} images/s, {whole * 1e3:.1f} ms a step, host {host * 1e3:.1f} ms, "
            f"{len(kernels)} kernels, busy {busy / whole:.0%}, peak {peak:.2f} GB (estimated {estimate:.2f})"
        )


if __name__ == "__main__":
    sys.exit(main())
