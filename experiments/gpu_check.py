"""Whether a GPU does all that training needs, and how fast: within 15 minutes, without a network.

    make gpu-check                                every step below, one after the other; logs in gpu_check/
    make gpu-check DRY=1                          the same commands, tiny, on a CPU: before a GPU is paid for
    python -m experiments.gpu_check speed         only the steps named

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
from pathlib import Path
from typing import NamedTuple

from common.command import command, new_parser
from common.files import make_folder
from experiments.benchmark_loader import write_large_photos

FOLDER = Path("gpu_check")  # logs, photos and runs
PATIENCE_OF_DRY_RUNS = 10  # times the limit: a CPU may be slow, and other work may share it


class Step(NamedTuple):
    """seconds: the limit; lines: how many of the last ones are shown."""

    name: str
    seconds: int
    lines: int
    arguments: Sequence[str]


def steps_of(dry: bool, root: Path, runs: Path) -> list[Step]:
    """What is to be run, in order; what matters most, and what other steps need, comes first. Paths have no spaces."""
    device, size, batch, repeats, workers = ("cpu", 64, 2, 1, 1) if dry else ("cuda", 1024, 4, 20, 12)
    common = f"--device {device} --batch-size {batch} --num-workers {workers}"
    train = f"train.py {common} --dataset {root} --no-pretrained --image-size {size} --epochs 2 --output {runs}"
    bench = f"benchmark.py --train {common} --sizes {size} --variants tiny --repeats {repeats} --options"
    commands = [
        ("tests", 180, 8, "-m pytest tests/test_cuda.py -rs -p no:cacheprovider"),
        ("train", 90, 6, f"{train}/train"),  # both stages, the trial of the batch, validation, saving
        ("fp16", 60, 6, f"{train}/fp16 --amp {'off' if dry else 'fp16'}"),
        ("stop", 45, 3, f"{train}/stopped --max-hours 0.0005"),  # within the first epoch
        ("resume", 60, 6, f"{train}/stopped --resume --max-hours 0"),
        ("speed", 180, 8, f"{bench} teacher frozen-teacher --profile --dataset {root} --steps {repeats}"),
        ("checkpointing", 60, 8, f"{bench} checkpointing"),
        ("loader", 60, 8, f"benchmark.py --loader {root}"),
        ("compile", 150, 8, f"{bench} compile"),
    ]
    return [Step(name, seconds, lines, text.split()) for name, seconds, lines, text in commands]


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    flags = parse(argv)
    root, runs = FOLDER / ("dry_photos" if flags.dry else "photos"), FOLDER / f"runs_{time.strftime('%Y%m%d_%H%M%S')}"
    make_folder(FOLDER, "run it in a folder that can be written")
    make_photos(root, flags.dry)
    failed = []
    for step in steps_of(flags.dry, root, runs):
        if step.name in (flags.steps or [step.name]):
            limit = step.seconds * (PATIENCE_OF_DRY_RUNS if flags.dry else 1)
            if not run_step(step, limit):
                failed.append(step.name)
    print(f"failed: {', '.join(failed)}" if failed else "all done")
    return 1 if failed else 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = new_parser(__doc__)
    names = [step.name for step in steps_of(False, FOLDER, FOLDER)]
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"of {', '.join(names)} (default: all)")
    parser.add_argument("--dry", action="store_true", help="tiny, on a CPU")
    flags = parser.parse_args(argv)
    if unknown := set(flags.steps) - set(names):
        parser.error(f"there is no step {', '.join(sorted(unknown))}: name some of {', '.join(names)}")
    return flags


def run_step(step: Step, limit: float) -> bool:
    """Whether it ended well; says how it went. Its whole output goes to a log."""
    log, start = FOLDER / f"{step.name}.log", time.perf_counter()
    with open(log, "w", encoding="utf-8") as output:
        try:
            command_line = [sys.executable, *step.arguments]
            code = subprocess.run(command_line, stdout=output, stderr=subprocess.STDOUT, timeout=limit).returncode
            outcome = "done" if code == 0 else f"FAILED with code {code}"
        except subprocess.TimeoutExpired:
            code, outcome = -1, "FAILED, it takes too long"
    print(f"=== {step.name}: {outcome}, {time.perf_counter() - start:.0f} of {limit:.0f} s; {log}", flush=True)
    print(*log.read_text(encoding="utf-8", errors="replace").splitlines()[-step.lines :], sep="\n", flush=True)
    return code == 0


def make_photos(root: Path, dry: bool) -> None:
    """A data set of four drawn pairs, as large as those of DIS5K, and links to them; 8 pairs to validate."""
    if (root / "val").is_dir():
        return
    write_large_photos(root / "train", 4, (300, 400) if dry else (2513, 3111))
    for split, count in (("train", 4 if dry else 64), ("val", 4 if dry else 8)):
        for folder, suffix in (("im", ".jpg"), ("gt", ".png")):
            (root / split / folder).mkdir(parents=True, exist_ok=True)
            for number in range(4 if split == "train" else 0, count):
                drawn = root / "train" / folder / f"photo_{number % 4}{suffix}"
                os.link(drawn, root / split / folder / f"photo_{number}{suffix}")


if __name__ == "__main__":
    sys.exit(main())
