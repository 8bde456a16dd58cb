"""Score mattes against their truths, in threads and on any number of ranks, and take the means.

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
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from common.distributed import all_gather_objects
from common.errors import UserError
from common.pool import bounded_map
from common.processes import is_main
from common.truth import is_soft
from metrics import IN_TRAINING, METRICS, REGIONS, Truth, composite_error, content_hash, matting_metrics

DIS = "dis_"  # how the names of dis_metrics begin
F_CURVE = "dis_f_curve"  # the F curve of one image: max F of a set is not the mean of each image's maximum
Row = dict[str, Any]  # of one matte: "index" and "name" of its photo, "matte", and its figures by name
TRUTH_FAULTS, MATTE_FAULTS = "truth_faults", "matte_faults"  # in a row: lists of Fault


class MetricOptions(NamedTuple):
    """Which figures to compute."""

    full: bool = True  # those of training alone if not
    dis: bool = False
    composite: bool = False  # needs the photo


@dataclass(frozen=True)
class Job:
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
            from evaluation.dis_metrics import dis_scores  # train.py scores without it

            row |= dis_scores(truth.fill(matte), truth.alpha)
        rows.append(row | about)
    return rows


def shipped_foreground(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The subject's colours, uint8 (H, W, 3), as predict.py writes them: the halo that is measured is the one shipped.

    The first use on a machine compiles for about a minute.
    """
    from inference.foreground import estimate_colours, native_foreground  # train.py scores without it

    return native_foreground(image, alpha, estimate_colours(image, alpha))


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


def by_matte(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each matte, in the order of their first appearance."""
    parts: dict[str, list[Row]] = {}
    for row in rows:
        parts.setdefault(row["matte"], []).append(row)
    return parts


def metric_of(figure: str) -> str:
    """The row of metrics.METRICS: "sad" of "image_sad", and "dis_s" of itself; "" for what is no figure."""
    region, _, name = figure.partition("_")
    name = name if region in REGIONS else figure
    return name if name in METRICS else ""


def figure_names(rows: Sequence[Row]) -> list[str]:
    """Names of the figures in these rows ("image_sad", ...): image before edge before dis."""
    names = dict.fromkeys(name for row in rows for name in row if metric_of(name))
    return [name for start in ("image_", "edge_", DIS) for name in names if name.startswith(start)]


def summarize(rows: Sequence[Row]) -> pd.DataFrame:
    """One line per figure ("image_sad", ...) of one matte: mean, median, worst, over the photos that have it.

    worst lists the (name, value) of up to three photos.
    """
    figures = pd.DataFrame(rows).set_index("name").sort_index()
    summary = {}
    for name in figure_names(rows):
        values = figures[name].dropna()
        worst = values.sort_values(ascending=METRICS[metric_of(name)].higher_is_better, kind="stable")[:3]
        summary[name] = {"mean": values.mean(), "median": values.median(), "worst": list(worst.items())}
    if F_CURVE in rows[0]:
        from evaluation.dis_metrics import dis_means

        for name, mean in dis_means(rows).items():
            summary[name]["mean"] = mean
    return pd.DataFrame.from_dict(summary, orient="index")
