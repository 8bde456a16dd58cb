"""Photos and videos in, mattes out.

    python predict.py                                       test_data/ -> test_results/, by the newest or starter model
    python predict.py --input holiday cat.jpg list.txt --output mattes
    python predict.py --input cat.jpg --kind cutout --output cut.png
    python predict.py --input cat.jpg --kind composite --background beach.jpg
    torchrun --nproc-per-node 8 predict.py --input holiday  the files shared over 8 processes

Outputs are named like their inputs, folders included (cat.jpg -> cat.png); files of a folder that would share an output
keep their suffix (cat.jpg.png, cat.webp.png). An input is never overwritten, nor anything else that predict.py did not
write. An output appears when it is complete. manifest.json, next to the outputs, says what was made, and how.

Exit codes: 0 all done, 1 some inputs failed (each is named), 2 nothing could start, 130 stopped by Ctrl-C, SIGTERM or a
closed terminal.
"""

from __future__ import annotations

from inference.options import VIDEO_SUFFIXES, predict_options

if __name__ == "__main__":
    predict_options(__doc__)  # --help and wrong flags are answered before the imports that take seconds

import argparse
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from common import distributed
from common.command import command
from common.devices import choose_device, choose_precision, is_out_of_memory
from common.errors import UserError
from common.files import digest, locked, say_others
from common.interrupt import EXIT_CODE, Interrupt, Stopped
from common.photos import read_photo
from common.pool import bounded_map
from common.processes import print_once
from config import Config
from inference import loading, video
from inference.inputs import Inputs
from inference.jobs import Job, plan_jobs
from inference.manifest import Manifest, Row, new_row
from inference.media import PHOTO, VIDEO
from inference.rendering import (
    Predictor,
    Style,
    notes_on,
    predict_matte,
    read_background,
    render,
    write_rendered,
)
from matting import predict_alpha
from models.checkpoint import find_model

RUNS = Config.output  # folder of the run folders
NAMED = 5  # files at most of which a closing line gives the names


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = predict_options(__doc__, argv)
    interrupt = Interrupt()
    try:
        with ExitStack() as stack:
            stack.enter_context(interrupt.listening())
            stack.callback(distributed.shutdown)
            device = choose_device(options.device)
            distributed.setup(device, distributed.LONG_PATIENCE_MINUTES)
            options.checkpoint = find_model(options.checkpoint, RUNS)
            print_once(f"checkpoint: {options.checkpoint}")
            predictor = partial(
                predict_alpha,
                loading.load(options.checkpoint, device),
                precision=choose_precision(options.precision, device),
                max_memory=None if options.max_memory is None else options.max_memory * 2**20,
                detail=options.detail,
            )
            background = read_background(options.background) if options.background else None
            style = Style(options.kind, options.bits, background)
            plan = make_plan(options, stack)
            start = time.perf_counter()
            rows = matte_all(plan, predictor, style, options, interrupt)
            return report(plan, rows, time.perf_counter() - start, options, interrupt)
    except KeyboardInterrupt:  # a second Ctrl-C
        raise UserError("Stopped at once: outputs are complete, manifest.json is not.", EXIT_CODE) from None


class Plan(NamedTuple):
    """What is to be done, and the settings that rows of manifest.json name; the rest is for rank 0 alone."""

    jobs: list[Job]
    settings: Row
    manifest: Manifest | None = None
    left_out: tuple[str, ...] = ()  # for the closing lines


def make_plan(options: argparse.Namespace, stack: ExitStack) -> Plan:
    """Rank 0 looks, since folders change meanwhile, and locks the output folder for as long as `stack` lasts.

    Raises UserError on every rank.
    """
    plan, error = None, None
    if distributed.is_main():
        try:
            stack.enter_context(locked(options.output, "another predict.py"))
            manifest = Manifest(options.output, settings_of(options))
            inputs = Inputs(options.input, options.output, manifest.row_of)
            suffixes = {PHOTO: f".{options.format}", VIDEO: VIDEO_SUFFIXES[options.video]}
            jobs = plan_jobs(inputs, manifest, suffixes, options.output_name)
            if not options.skip_existing:
                jobs = [replace(job, is_done=False) for job in jobs]
            manifest.announce((job.source, job.output) for job in jobs if not (job.refusal or job.is_done))
            left_out = say_others(inputs.others), say_others(inputs.dropped, "input")
            plan = Plan(jobs, manifest.settings, manifest, left_out)
        except UserError as problem:
            error = str(problem)
    error, *shared = distributed.broadcast_object((error, *(plan[:2] if plan else ())))
    if error:
        raise UserError(error)
    return plan or Plan(*shared)


def settings_of(options: argparse.Namespace) -> Row:
    """What outputs depend on, besides their inputs: of files the contents count."""
    background = options.background
    if background and os.path.isfile(background):
        background = f"{background} {digest(background)}"
    checkpoint = f"{options.checkpoint.parent.name}/{options.checkpoint.name} {digest(options.checkpoint)}"
    look = {"kind": options.kind, "bits": options.bits, "background": background}
    return look | {"checkpoint": checkpoint, "detail": options.detail}


def matte_all(
    plan: Plan, predictor: Predictor, style: Style, options: argparse.Namespace, interrupt: Interrupt
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
        photo = read_photo(job.source, max_pixels=options.max_pixels)
        alpha = predict(photo.image)  # float32 (H, W)
        write_rendered(options.output / job.output, render(photo, alpha, style), style, photo.icc_profile)
        height, width = alpha.shape
        seconds = round(time.perf_counter() - start, 4)  # with its waiting for the network
        return {"width": width, "height": height, "seconds": seconds, "notes": notes_on(photo, alpha)}

    def matte(job: Job) -> Row:
        """Raises Stopped if no more should be done."""
        interrupt.check()
        if job.refusal:
            raise UserError(job.refusal)
        target = options.output / job.output
        row = new_row(job.source, job.output, plan.settings)
        row |= video.matte_video(job.source, target, style, predict, overlapped) if job.is_video else matte_photo(job)
        return row if target.is_dir() else row | {"bytes": target.stat().st_size}

    rows = []
    jobs = [job for job in plan.jobs if not job.is_done][distributed.rank() :: distributed.world_size()]
    with ThreadPoolExecutor(threads) if options.workers else nullcontext() as executor:
        overlapped = partial(bounded_map, executor, ahead=threads)
        outcomes = chain(
            overlapped(matte, (job for job in jobs if not job.is_video)),
            bounded_map(None, matte, (job for job in jobs if job.is_video), 1),  # its frames overlap instead
        )
        for job, outcome in tqdm(outcomes, total=len(jobs), unit="file", disable=not distributed.is_main()):
            if isinstance(outcome, Exception) and not isinstance(outcome, Stopped):
                row = new_row(job.source, job.output, {})
                outcome = row | {"output": None, "error": reason_of(job.source, outcome)}
            if not isinstance(outcome, Exception):
                rows.append(outcome)
    return rows


def reason_of(source: Path, error: Exception) -> str:
    """One sentence why an input could not be done."""
    if isinstance(error, UserError):
        return str(error)
    if is_out_of_memory(error):
        return f"{source} does not fit in memory: scale it down, or lower --max-memory."
    first_line = (str(error).strip().splitlines() or [""])[0]
    return f"{source} could not be done ({type(error).__name__}: {first_line})."


def report(plan: Plan, rows: list[Row], seconds: float, options: argparse.Namespace, interrupt: Interrupt) -> int:
    """Gather the rows of all ranks; rank 0 writes manifest.json and says what was done. Returns the exit code."""
    stopped = "stopped" if interrupt.wanted() else ""
    try:
        stopped = "stopped" if distributed.any_rank([interrupt.wanted()])[0] else ""
        rows = distributed.all_gather_objects(rows)
    except RuntimeError as error:
        if not distributed.is_lost_peer(error):
            raise
        stopped = stopped or "another process is gone"
    failures = [row["error"] for row in rows if "error" in row]
    if plan.manifest:
        skipped = sum(job.is_done for job in plan.jobs)
        header: Row = {"done": len(rows) - len(failures), "failed": len(failures), "skipped": skipped}
        counts = ", ".join(f"{count} {name}" for name, count in header.items())
        counts += f", {header['done'] / max(seconds, 1e-3):.2f} files/s"
        header |= {"checkpoint": str(options.checkpoint), "stopped": stopped, "seconds": round(seconds, 3)}
        lines = [counts + (f"; {stopped}: finish with --skip-existing" if stopped else "")]
        lines += [*filter(None, plan.left_out), *say_notes(rows)]
        try:  # before anything is printed: a reader who leaves (| head) must not cost it
            plan.manifest.write(header, rows)
            lines.append(str(plan.manifest.path))
        except UserError as error:
            failures.append(str(error))
        print(*lines, sep="\n")
        for reason in failures:
            print(f"failed: {reason}", file=sys.stderr)
    return EXIT_CODE if interrupt.wanted() else 1 if failures or stopped else 0


def say_notes(rows: list[Row]) -> list[str]:
    """A line for each kind of note, with its count: "no subject found" counts files, "frames left out: 2" frames."""
    names: dict[str, list[str]] = {}
    counts = Counter[str]()
    for row in rows:
        for note in row.get("notes", ()):
            text, count = re.fullmatch(r"(.*?)(?:: (\d+))?", note, re.DOTALL).groups()  # type: ignore[union-attr]
            names.setdefault(text, []).append(row["input"])
            counts[text] += int(count or 1)
    return [
        f"{text}: {counts[text]} ({', '.join(where[:NAMED])}{', ...' if len(where) > NAMED else ''})"
        for text, where in names.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
