"""Photos and videos in, mattes out.

    python predict.py                                       test_data/ -> test_results/, with the newest checkpoint
    python predict.py --input holiday cat.jpg list.txt --output mattes
    python predict.py --input cat.jpg --kind cutout         the subject alone, on nothing
    python predict.py --input cat.jpg --kind composite --background beach.jpg
    torchrun --nproc-per-node 8 predict.py --input holiday  the files shared over 8 processes

Outputs are named as their inputs, folders included (cat.jpg -> cat.png). Where two inputs of a folder would share an
output, both keep their suffix in it (cat.jpg.png, cat.webp.png); in the folder of its input an output is called
cat_alpha.png (or _cutout ...). No input is ever overwritten, nor the output of another input that is still there.
manifest.json, beside the outputs, says what was done.

Exit codes: 0 all done, 1 some inputs failed (each is named), 2 nothing could start, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from common import distributed, photos
from common.devices import DeviceError, choose_device, choose_precision
from common.files import FileError
from common.photos import PhotoError
from config import OUTPUT as RUNS
from inference import loading
from inference.jobs import Job, JobError, Naming, plan_jobs
from inference.manifest import Manifest, failure_row, summary, unknown_row
from inference.network_clock import NetworkClock
from inference.photo_stages import PhotoStages, Predictor
from inference.pipeline import Stages, run_overlapped, stop_on_signals
from inference.rendering import KINDS, Style, read_background
from inference.video import CODECS
from inference.video_stages import FRAMES_SUFFIX, VIDEO_BITS, VideoJob
from matting import predict_mattes
from models.checkpoint import MODEL_FILE, CheckpointError, find_model

INTERRUPTED = 130
VIDEO_SUFFIXES = {"mkv": ".mkv", "mp4": ".mp4", "png": FRAMES_SUFFIX}
USUAL_VIDEO = {"alpha": "mkv", "cutout": "png", "foreground": "mp4", "composite": "mp4"}


class StartError(ValueError):
    """Nothing can be done; the message is one sentence."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = parse_options(argv)
    try:
        with stop_on_signals():
            device = choose_device(options.device)
            distributed.setup(device, distributed.LONG_PATIENCE_MINUTES)
            options.checkpoint = find_model(options.checkpoint, RUNS)
            predictor, clock = load_predictor(options, device)
            background = read_background(options.background) if options.kind == "composite" else None
            style = Style(options.kind, options.bits, background)
            stages = PhotoStages(predictor, options.output, style, options.max_pixels, clock)
            manifest = Manifest(options.output, distributed.rank())
            jobs, skipped = share_jobs(options, manifest)
            return matte_all(jobs, skipped, stages, manifest, options)
    except (StartError, JobError, PhotoError, FileError, CheckpointError, DeviceError) as error:
        if distributed.is_main():
            print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped before the first file.", file=sys.stderr)
        return INTERRUPTED
    finally:
        distributed.shutdown()


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    files = parser.add_argument_group("files")
    files.add_argument(
        "--input",
        type=Path,
        nargs="+",
        metavar="PATH",
        default=[Path("test_data")],
        help="photos, videos, folders (all below them too), .txt lists of these (default: test_data)",
    )
    files.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        default=Path("test_results"),
        help="folder for the outputs (default: %(default)s)",
    )
    files.add_argument(
        "--checkpoint",
        type=Path,
        metavar="C",
        help=f"{MODEL_FILE}, its run folder, or an .onnx of export.py (default: the newest in {RUNS}/)",
    )
    files.add_argument(
        "--skip-existing",
        action="store_true",
        help="finish a job: leave out what is done of the "
        "same inputs, with the same --kind, --bits, --background and checkpoint",
    )
    files.add_argument(
        "--max-pixels",
        type=int,
        metavar="N",
        default=photos.MAX_PIXELS,
        help="refuse larger photos (default: %(default)s)",
    )
    look = parser.add_argument_group("what to write")
    look.add_argument(
        "--kind",
        choices=KINDS,
        default="alpha",
        help="alpha: the matte, grey. cutout: the subject in "
        "its own colours on nothing. foreground: those colours alone. composite: the subject on a "
        "background (default: %(default)s)",
    )
    look.add_argument(
        "--background",
        metavar="B",
        help="for a composite: red, #00ff00, a photo's path, or blur for the photo's own out of focus (default: white)",
    )
    look.add_argument(
        "--format",
        choices=("png", "webp"),
        default="png",
        help="of a cutout, foreground or composite (default: png); a matte is always PNG",
    )
    look.add_argument(
        "--bits",
        type=int,
        choices=(8, 16),
        default=8,
        help="a channel, in PNG (default: 8); a video file always holds 8",
    )
    look.add_argument(
        "--video",
        choices=VIDEO_SUFFIXES,
        help="of a video make a .mkv (FFV1: lossless, large), a .mp4 "
        "(mp4v: plays everywhere, lossy) or a folder of PNG (default: mkv for alpha, png for cutout, "
        "else mp4)",
    )
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    machine.add_argument(
        "--precision",
        choices=("auto", "bf16", "fp16", "off"),
        default="auto",
        help="of the network; off is float32 (default: the fastest that the device has)",
    )
    machine.add_argument(
        "--max-memory", type=int, metavar="MB", help="for the tiles refined at once (default: a share of what is free)"
    )
    machine.add_argument(
        "--workers",
        type=int,
        metavar="N",
        default=1,
        help="photos read ahead, and photos written "
        "behind the network; each takes memory, 0 does one step after the other (default: 1)",
    )
    machine.add_argument("--timing", action="store_true", help="one step after the other, and say what each took")
    options = parser.parse_args(argv)
    complain_about(options, parser)
    options.video = options.video or USUAL_VIDEO[options.kind]
    options.background = options.background or "white"
    options.workers = 0 if options.timing else options.workers
    return options


def complain_about(options: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """End with exit code 2 where options do not go together."""
    if options.workers < 0 or options.max_pixels < 1 or (options.max_memory is not None and options.max_memory < 1):
        parser.error("--workers must not be negative, --max-pixels and --max-memory must be positive")
    if options.background and options.kind != "composite":
        parser.error("--background belongs to --kind composite")
    if options.format == "webp" and (options.kind == "alpha" or options.bits == 16):
        parser.error("--format webp holds neither a matte of its own nor 16 bits: leave it out")
    if options.video in ("mkv", "mp4") and options.bits > VIDEO_BITS:
        parser.error(
            f"--bits {options.bits} does not go with --video {options.video}: a video holds {VIDEO_BITS} bits:"
            " use --video png"
        )
    if options.video in ("mkv", "mp4") and options.kind == "cutout":
        parser.error(f"--video {options.video} holds no transparency: use --video png")


def load_predictor(options: argparse.Namespace, device: torch.device) -> tuple[Predictor, NetworkClock | None]:
    """The one call that all else makes, from a photo, uint8 (3, H, W), to its mattes; with a clock for --timing.

    Raises CheckpointError, DeviceError.
    """
    precision = choose_precision(options.precision, device)
    model = loading.load(options.checkpoint, device)
    max_memory = None if options.max_memory is None else options.max_memory * 2**20
    predictor = partial(predict_mattes, model, precision=precision, max_memory=max_memory)
    return predictor, NetworkClock(model) if options.timing and not loading.is_onnx(options.checkpoint) else None


def share_jobs(options: argparse.Namespace, manifest: Manifest) -> tuple[list[Job], list[Job]]:
    """This rank's jobs, and all that are skipped. Rank 0 looks for both, since folders change while ranks work."""
    planned: Any = None
    if distributed.is_main():
        photo_suffix = ".png" if options.kind == "alpha" else f".{options.format}"
        naming = Naming(photo_suffix, VIDEO_SUFFIXES[options.video], in_place=f"_{options.kind}")
        try:
            jobs = plan_jobs(options.input, options.output, naming, manifest.sources)
            skipped = {
                job for job in jobs if options.skip_existing and manifest.is_done(job, settings_of(job, options))
            }
            planned = [job for job in jobs if job not in skipped], list(skipped)
        except JobError as error:
            planned = str(error)
    planned = distributed.broadcast_object(planned)
    if isinstance(planned, str):
        raise StartError(planned)
    jobs, skipped = planned
    return jobs[distributed.rank() :: distributed.world_size()], skipped


def settings_of(job: Job, options: argparse.Namespace) -> dict[str, Any]:
    """What an output depends on besides its input and its own suffix, for its row. Paths are in full: what they are
    relative to is the current folder, which may be another next time."""
    background = options.background if options.kind == "composite" else None
    if background is not None and os.path.isfile(background):
        background = os.path.realpath(background)
    bits = VIDEO_BITS if job.output.suffix in CODECS else options.bits
    return {
        "kind": options.kind,
        "bits": bits,
        "background": background,
        "checkpoint": os.path.realpath(options.checkpoint),
    }


def matte_all(
    jobs: list[Job], skipped: list[Job], photo_stages: PhotoStages, manifest: Manifest, options: argparse.Namespace
) -> int:
    """Do this rank's jobs, and on rank 0 the manifest and the report of all; returns the exit code."""
    start = time.perf_counter()
    stopped = ""  # why, where it ends early
    try:
        with tqdm(total=len(jobs), unit="file", disable=not distributed.is_main()) as bar:

            def done(job: Job, outcome: Any) -> None:
                manifest.add(failure_row(job, outcome) if isinstance(outcome, Exception) else outcome)
                bar.update()

            run_overlapped(jobs, stages_of_all(photo_stages, manifest, options), done, options.workers)
        manifest.close()
        rows = distributed.all_gather_objects(manifest.rows)
    except KeyboardInterrupt:
        stopped = "stopped"
    except RuntimeError as error:
        if not distributed.is_lost_peer(error):
            raise
        stopped = "another process is gone"
    if stopped:
        manifest.close()
        rows = manifest.rows
    failures = [row for row in rows if "error" in row]
    if distributed.is_main():
        header = {
            "checkpoint": str(options.checkpoint),
            "done": len(rows) - len(failures),
            "failed": len(failures),
            "skipped": len(skipped),
            "stopped": stopped,
            "seconds": round(time.perf_counter() - start, 3),
        }
        print(summary(header, rows if options.timing else []))
        rows += [unknown_row(job) for job in skipped if job.output.as_posix() not in manifest.earlier]
        try:
            print(manifest.write(rows, header, others_are_done=not stopped))
        except FileError as error:
            failures.append({"error": str(error)})
        for row in failures:
            print(f"failed: {row['error']}", file=sys.stderr)
    return INTERRUPTED if stopped == "stopped" else 1 if failures or stopped else 0


def stages_of_all(photo_stages: PhotoStages, manifest: Manifest, options: argparse.Namespace) -> Stages:
    """Of photos and videos: a video is read, matted and written in its middle stage, frame by frame.

    The manifest hears of an output in the main thread, and only just before it can be written: an input that cannot be
    read, or does not fit in memory, leaves the row of an older output as it is.
    """

    def load(job: Job) -> Any:
        if job.refusal is not None:
            raise PhotoError(job.refusal)
        if job.is_video:
            keep_frames = options.skip_existing and manifest.agrees(job, settings_of(job, options))
            return VideoJob(job, photo_stages, keep_frames=keep_frames)
        return photo_stages.load(job)

    def compute(job: Job, loaded: Any) -> Any:
        if job.is_video:
            manifest.begin(job, settings_of(job, options))
            return loaded.run(workers=options.workers, show_bar=distributed.is_main())
        matted = photo_stages.compute(job, loaded)
        manifest.begin(job, settings_of(job, options))
        return matted

    def store(job: Job, result: Any) -> dict[str, Any]:
        return (result if job.is_video else photo_stages.store(job, result)) | settings_of(job, options)

    return Stages(load, compute, store)


if __name__ == "__main__":
    sys.exit(main())
