"""Photos and videos in, mattes out.

    python predict.py                                       test_data/ -> test_results/, by the newest or starter model
    python predict.py --input holiday cat.jpg list.txt --output mattes
    python predict.py --input cat.jpg --kind cutout         the subject on transparency
    python predict.py --input cat.jpg --kind composite --background beach.jpg
    torchrun --nproc-per-node 8 predict.py --input holiday  the files shared over 8 processes

Outputs are named like their inputs, folders included (cat.jpg -> cat.png). If two inputs of a folder would share an
output, both keep their suffix (cat.jpg.png, cat.webp.png). An output in the folder of its input is called
cat_alpha.png (or _cutout ...). No input is ever overwritten, nor the output of another input that still exists.
An output appears when it is complete. manifest.json, next to the outputs, says what was done.

Exit codes: 0 all done, 1 some inputs failed (each is named), 2 nothing could start, 130 stopped by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from tqdm import tqdm

from common import distributed, photos
from common.command import add_checkpoint, add_device, command, new_parser
from common.devices import choose_device, choose_precision
from common.errors import UserError
from common.files import count_others, say_others
from common.interrupt import EXIT_CODE, Interrupt, Stopped
from common.photos import read_photo
from common.pool import bounded_map
from common.processes import print_once
from config import Config
from inference import loading, video
from inference.jobs import VIDEO_SUFFIXES as VIDEO_INPUTS
from inference.jobs import Job, Naming, is_up_to_date, plan_jobs
from inference.manifest import NAME as MANIFEST
from inference.manifest import Row, failure_row, job_row, photo_row, read_manifest, write_manifest
from inference.rendering import KINDS, Predictor, Style, predict_matte, read_background, render, write_rendered
from matting import predict_alpha
from models.checkpoint import find_model

RUNS = Config.output  # folder of the run folders
VIDEO_SUFFIXES = {"mkv": ".mkv", "mp4": ".mp4", "png": video.FRAMES_SUFFIX}
USUAL_VIDEO = {"alpha": "mkv", "cutout": "png", "foreground": "mp4", "composite": "mp4"}


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = parse_options(argv)
    interrupt = Interrupt()
    try:
        with interrupt.listening():
            device = choose_device(options.device)
            distributed.setup(device, distributed.LONG_PATIENCE_MINUTES)
            options.checkpoint = find_model(options.checkpoint, RUNS)
            print_once(f"checkpoint: {options.checkpoint}")
            predictor = partial(
                predict_alpha,
                loading.load(options.checkpoint, device),
                precision=choose_precision(options.precision, device),
                max_memory=None if options.max_memory is None else options.max_memory * 2**20,
            )
            background = read_background(options.background or "white") if options.kind == "composite" else None
            style = Style(options.kind, options.bits, background)
            jobs, earlier, left_out = plan_on_rank_0(options)
            if left_out:
                print_once(left_out)
            if any(job.is_video for job in jobs):
                print_once("videos: sound is not carried over")
            start = time.perf_counter()
            rows = matte_all(jobs, predictor, style, options, interrupt)
            return report(jobs, rows, earlier, time.perf_counter() - start, options, interrupt)
    except KeyboardInterrupt:  # a second Ctrl-C
        sentence = "Stopped at once: outputs are complete, manifest.json is not updated."
        raise UserError(sentence, EXIT_CODE) from None
    finally:
        distributed.shutdown()


def matte_all(
    jobs: list[Job], predictor: Predictor, style: Style, options: argparse.Namespace, interrupt: Interrupt
) -> list[Row]:
    """Matte this rank's share of the jobs; returns a row for each that was done or failed.

    2 * workers + 1 threads each take a photo through all steps: while one has the network, the others read and write.
    """
    network = Lock()
    threads = 2 * options.workers + 1

    def predict(image: np.ndarray) -> np.ndarray:
        with network:
            interrupt.check()
            return predict_matte(predictor, image)

    def matte_photo(job: Job) -> Row:
        start = time.perf_counter()
        check(job, interrupt)
        photo = read_photo(job.source, max_pixels=options.max_pixels)
        alpha = predict(photo.image)  # float32 (H, W)
        picture = render(photo, alpha, style)
        write_rendered(options.output / job.output, picture, style, photo.icc_profile)
        return photo_row(job, photo, alpha, style, seconds=time.perf_counter() - start)

    def matte_video(job: Job) -> Row:
        check(job, interrupt)
        row = video.matte_video(job.source, options.output / job.output, style, predict, overlapped)
        return job_row(job, kind=style.kind, **row)

    rows = []
    jobs = [job for job in jobs if not job.is_done][distributed.rank() :: distributed.world_size()]
    with ThreadPoolExecutor(threads) if options.workers else nullcontext() as executor:
        overlapped = partial(bounded_map, executor, ahead=threads)
        outcomes = chain(
            overlapped(matte_photo, (job for job in jobs if not job.is_video)),
            bounded_map(None, matte_video, (job for job in jobs if job.is_video), 1),  # its frames overlap instead
        )
        for job, outcome in tqdm(outcomes, total=len(jobs), unit="file", disable=not distributed.is_main()):
            if not isinstance(outcome, Stopped):
                rows.append(failure_row(job, outcome) if isinstance(outcome, Exception) else outcome)
    return rows


def check(job: Job, interrupt: Interrupt) -> None:
    """Raise Stopped if no more should be done, UserError for a job that cannot be done."""
    interrupt.check()
    if job.refusal is not None:
        raise UserError(job.refusal)


def plan_on_rank_0(options: argparse.Namespace) -> tuple[list[Job], dict[str, Row], str]:
    """All jobs, the rows of earlier runs, and what folders hold besides. Rank 0 looks, since folders change meanwhile.

    Raises UserError on every rank.
    """
    planned: Any = None
    if distributed.is_main():
        kinds = (options.kind, *(kind for kind in KINDS if kind != options.kind))
        photo_suffix = ".png" if options.kind == "alpha" else f".{options.format}"
        naming = Naming(photo_suffix, VIDEO_SUFFIXES[options.video or USUAL_VIDEO[options.kind]], kinds)
        shared = [options.checkpoint, *filter(os.path.isfile, [options.background or ""])]

        def is_done(source: Path, target: Path) -> bool:
            row = earlier.get(target.relative_to(options.output).as_posix(), {})
            is_of_kind = row.get("kind", options.kind) == options.kind
            return options.skip_existing and is_of_kind and is_up_to_date(target, [source, *shared])

        try:
            earlier = read_manifest(options.output)
            owners = {output: str(row.get("source", row["input"])) for output, row in earlier.items()}
            jobs = plan_jobs(options.input, options.output, naming, owners, is_done)
            planned = jobs, earlier, say_others(others_in(options.input, options.output))
        except UserError as error:
            planned = str(error)
    planned = distributed.broadcast_object(planned)
    if isinstance(planned, str):
        raise UserError(planned)
    return planned


def others_in(inputs: Sequence[Path], output: Path) -> Counter[str]:
    """How many files in these folders are no photos and no videos, by suffix."""
    known = (*photos.SUFFIXES, *VIDEO_INPUTS, MANIFEST.lower())
    folders = [path for path in inputs if path.is_dir()]
    counts = [count_others(path, known, skip=output, on_error=lambda error: None) for path in folders]
    return sum(counts, Counter())


def report(
    jobs: list[Job],
    rows: list[Row],
    earlier: dict[str, Row],
    seconds: float,
    options: argparse.Namespace,
    interrupt: Interrupt,
) -> int:
    """Gather the rows of all ranks; rank 0 writes manifest.json and says what was done. Returns the exit code."""
    stopped = "stopped" if interrupt.wanted() else ""
    try:
        stopped = "stopped" if distributed.any_rank([interrupt.wanted()])[0] else ""
        rows = distributed.all_gather_objects(rows)
    except RuntimeError as error:
        if not distributed.is_lost_peer(error):
            raise
        stopped = stopped or "another process is gone"
    skipped = [job for job in jobs if job.is_done]
    failures = [row["error"] for row in rows if "error" in row]
    if distributed.is_main():
        header: Row = {
            "checkpoint": str(options.checkpoint),
            "done": len(rows) - len(failures),
            "failed": len(failures),
            "skipped": len(skipped),
            "stopped": stopped,
            "seconds": round(seconds, 3),
        }
        counts = ", ".join(f"{header[name]} {name}" for name in ("done", "failed", "skipped"))
        rate = f"{header['done'] / max(seconds, 1e-3):.2f} files/s"
        rows += [job_row(job, notes=["was there before"]) for job in skipped if job.output.as_posix() not in earlier]
        manifest = ""
        try:  # before anything is printed: a reader who leaves (| head) must not cost it
            manifest = f"\n{write_manifest(options.output, header, rows, earlier)}"
        except UserError as error:
            failures.append(str(error))
        print(f"{counts}, {rate}" + (f"; {stopped}: finish with --skip-existing" if stopped else "") + manifest)
        for reason in failures:
            print(f"failed: {reason}", file=sys.stderr)
    return EXIT_CODE if interrupt.wanted() else 1 if failures or stopped else 0


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line's options; ends the program with exit code 2 where they do not go together."""
    parser = new_parser(__doc__)
    files = parser.add_argument_group("files").add_argument
    paths = "photos, videos, folders (all below them too), .txt lists of these (default: test_data)"
    files("--input", type=Path, nargs="+", metavar="PATH", default=[Path("test_data")], help=paths)
    files("--output", type=Path, metavar="DIR", default=Path("test_results"), help="folder (default: %(default)s)")
    add_checkpoint(files)
    skip = "finish a job: skip inputs whose output, of this --kind, is newer than the files that it is made of"
    files("--skip-existing", action="store_true", help=skip)
    limit = "refuse larger photos (default: %(default)s)"
    files("--max-pixels", type=int, metavar="N", default=photos.MAX_PIXELS, help=limit)
    look = parser.add_argument_group("what to write").add_argument
    kinds = (
        "alpha: the matte, grey. cutout: the subject in its own colours on nothing. foreground: those colours alone. "
        "composite: the subject on a background (default: %(default)s)"
    )
    look("--kind", choices=KINDS, default="alpha", help=kinds)
    grounds = "of a composite: red, #00ff00, a photo's path, or blur for its own background, blurred (default: white)"
    look("--background", metavar="B", help=grounds)
    formats = "file format of a cutout, foreground or composite (default: png); a matte is always PNG"
    look("--format", choices=("png", "webp"), default="png", help=formats)
    bits = "bits per channel of a PNG (default: 8); a video file always has 8"
    look("--bits", type=int, choices=(8, 16), default=8, help=bits)
    videos = (
        "what a video becomes: .mkv (FFV1: lossless, large), .mp4 (mp4v: plays everywhere, lossy) or a folder of PNG "
        "(default: mkv for alpha, png for cutout, else mp4)"
    )
    look("--video", choices=VIDEO_SUFFIXES, help=videos)
    machine = parser.add_argument_group("machine").add_argument
    add_device(machine)
    precisions = "number type of the network; off is float32 (default: the fastest that the device has)"
    machine("--precision", choices=("auto", "bf16", "fp16", "off"), default="auto", help=precisions)
    memory = "memory for tiles, in MB (default: a share of what is free)"
    machine("--max-memory", type=int, metavar="MB", help=memory)
    workers = "photos read ahead of the network and written after it; each takes memory; 0: no threads (default: 1)"
    machine("--workers", type=int, metavar="N", default=1, help=workers)
    options = parser.parse_args(argv)
    if options.workers < 0 or options.max_pixels < 1 or (options.max_memory is not None and options.max_memory < 1):
        parser.error("--workers must not be negative, --max-pixels and --max-memory must be positive")
    if options.background and options.kind != "composite":
        parser.error("--background belongs to --kind composite")
    if options.format == "webp" and (options.kind == "alpha" or options.bits == 16):
        parser.error("--format webp holds neither a matte of its own nor 16 bits: leave it out")
    if options.video in ("mkv", "mp4") and options.bits > video.BITS:
        parser.error(f"--bits {options.bits}: a {options.video} video holds {video.BITS} bits: use --video png")
    if options.video in ("mkv", "mp4") and options.kind == "cutout":
        parser.error(f"--video {options.video} holds no transparency: use --video png")
    return options


if __name__ == "__main__":
    sys.exit(main())
