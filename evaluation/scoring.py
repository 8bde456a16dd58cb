"""Score mattes against their truths, in threads and on any number of ranks.

    job = Job(0, "cat", lambda: score_photo({"mine": matte}, Truth(alpha), None, MetricOptions(dis=True)))
    with thread_pool(4) as pool:
        rows, failures = score_all([job], 1, pool, 8)

One bad file never stops the rest: it becomes a Failure. Threads suffice: NumPy and OpenCV release Python's lock.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from common.distributed import all_gather_objects
from common.errors import UserError
from common.pool import bounded_map
from common.processes import is_main
from common.truth import is_soft
from data.alpha_faults import DOUBTFUL, alpha_faults
from data.faults import Fault
from evaluation.dis_metrics import dis_scores
from metrics import IN_TRAINING, METRICS, Truth, composite_error, content_hash, matting_metrics

Row = dict[str, Any]  # of one matte: "index" and "name" of its photo, "matte", and its figures by name
TRUTH_FAULTS, MATTE_FAULTS = "truth_faults", "matte_faults"  # in a row: lists of Fault
NOTED = (*DOUBTFUL, "alpha_noisy", "alpha_empty", "alpha_full", "alpha_inverted")  # of a truth


class MetricOptions(NamedTuple):
    """Which figures to compute."""

    full: bool = True  # those of training alone if not
    dis: bool = False
    composite: bool = False  # needs the photo


class Job(NamedTuple):
    """A photo to score: its place in the order of all, and what gives the rows of its mattes."""

    index: int
    name: str
    score: Callable[[], list[Row]]


class Failure(NamedTuple):
    """A photo that could not be scored, and why."""

    name: str
    reason: str


class Scores(NamedTuple):
    """Of all ranks, in the order of the photos."""

    rows: list[Row]
    failures: list[Failure]


def score_photo(
    mattes: Mapping[str, np.ndarray], truth: Truth, image: np.ndarray | None, options: MetricOptions
) -> list[Row]:
    """A row for each matte, float32 (H, W) in [0, 1], by its label.

    image: uint8 (H, W, 3), needed for options.composite. "soft_share" is the share of the known pixels whose truth is
    soft; "unknown_pixels" is how many were left out; "photo" is the same for the same photo and truth. Raises
    ValueError for sizes that differ, alphas outside [0, 1], and a truth of which nothing is known.
    """
    if truth.known is not None and not truth.known.any():
        raise UserError("every pixel of its true alpha is marked as unknown.")
    about = {
        "soft_share": float(np.mean(is_soft(truth.alpha if truth.known is None else truth.alpha[truth.known]))),
        "unknown_pixels": 0 if truth.known is None else int(np.count_nonzero(~truth.known)),
        "photo": truth.digest + ("" if image is None else content_hash(image)),
    }
    rows = []
    for label, matte in mattes.items():
        row: Row = {"matte": label, **matting_metrics(matte, truth, METRICS if options.full else IN_TRAINING)}
        if options.composite and image is not None:
            row |= composite_error(image, matte, truth, shipped_foreground)
        if options.dis:
            row |= dis_scores(truth.fill(matte), truth.alpha)
        rows.append(row | about)
    return rows


def shipped_foreground(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The subject's colours, uint8 (H, W, 3), as predict.py writes them: the halo that is measured is the one shipped.

    The first use on a machine compiles for about a minute.
    """
    from inference.foreground import estimate_colours, native_foreground  # train.py scores without it

    return native_foreground(image, alpha, estimate_colours(image, alpha))


def truth_faults(alpha: np.ndarray, path: str | Path, known: np.ndarray | None = None) -> list[Fault]:
    """What may be wrong with a truth. Raises UserError, in one sentence, where its scale is certainly wrong."""
    if known is not None and not known.any():
        return []
    faults = [fault for fault in alpha_faults(alpha, path, known) if fault.kind in NOTED]
    if certain := [fault for fault in faults if fault.kind == "alpha_scale"]:
        raise UserError(certain[0].sentence)
    return faults


def thread_pool(workers: int) -> AbstractContextManager[Executor | None]:
    """A pool of so many threads; None for 0: all is then done where it is asked for."""
    return ThreadPoolExecutor(workers) if workers else nullcontext()


def score_all(jobs: Iterable[Job], total: int, executor: Executor | None, ahead: int) -> Scores:
    """Score this rank's `total` jobs, at most `ahead` at a time, and gather the scores of all ranks.

    They are sorted by photo, so that any number of ranks adds the same numbers in the same order.
    """
    done: list[tuple[int, list[Row] | Failure]] = []
    outcomes = bounded_map(executor, lambda job: job.score(), jobs, ahead)
    hidden = None if is_main() else True  # one bar for the whole launch; None: only on a terminal
    for job, outcome in tqdm(outcomes, total=total, desc="evaluate", unit="photo", leave=False, disable=hidden):
        if isinstance(outcome, (ValueError, OSError)):
            done.append((job.index, Failure(job.name, str(outcome))))
        elif isinstance(outcome, Exception):
            raise outcome
        else:
            done.append((job.index, [{"name": job.name, "index": job.index, **row} for row in outcome]))
    gathered = [outcome for _, outcome in sorted(all_gather_objects(done), key=lambda scored: scored[0])]
    failures = [outcome for outcome in gathered if isinstance(outcome, Failure)]
    return Scores([row for rows in gathered if not isinstance(rows, Failure) for row in rows], failures)


def report_failures(failures: Sequence[Failure]) -> None:
    """Name each on stderr, once for all ranks."""
    for name, reason in failures if is_main() else ():
        print(f"failed: {name}: {reason}", file=sys.stderr)
