"""Score mattes against their truths, from arrays or files, in any number of processes and ranks. Needs no torch.

    arguments = Path("cat.png"), Path("gt/cat.png"), None, None, MetricOptions(dis=True)
    figures = score_files(*arguments)
    with process_pool(4) as pool:
        scores = score_all([Task({"index": 0, "name": "cat", "matte": "mine"}, score_files, arguments)], 1, pool, 8)

One bad file never stops the rest: it becomes a Failure.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from common.errors import UserError
from common.photos import read_alpha, read_photo, to_uint8
from common.pool import bounded_map
from common.processes import is_main, world_size
from evaluation.dis_metrics import dis_scores
from evaluation.scales import MATTE_FAULT, TRUTH_FAULT, check_matte, check_truth
from inference.foreground import estimate_colours, native_foreground
from metrics import composite_error, fill_unknown, grad_aim, matting_metrics

Row = dict[str, Any]  # of one matte: "index" and "name" of its photo, "matte", and its figures by name


class MetricOptions(NamedTuple):
    """Which figures to compute."""

    full: bool = True  # conn and grad_aim too; training goes without
    dis: bool = False
    composite: bool = False  # needs the photo


class Task(NamedTuple):
    """One matte to score: its row without figures, and the function and arguments that give them."""

    row: Row
    function: Callable[..., dict[str, Any]]
    arguments: tuple

    def figures(self) -> dict[str, Any]:
        return self.function(*self.arguments)


class Failure(NamedTuple):
    """A file that could not be scored, and why."""

    name: str
    reason: str


class Scores(NamedTuple):
    """Of all ranks, in the order of the photos."""

    rows: list[Row]
    failures: list[Failure]


def score_matte(
    prediction: np.ndarray,
    truth: np.ndarray,
    known: np.ndarray | None,
    image: np.ndarray | None,
    options: MetricOptions,
) -> dict[str, Any]:
    """Figures of one matte by name. prediction and truth: float32 (H, W) in [0, 1].

    known: bool (H, W), False where the truth is not known, or None where all of it is; see metrics.py. image:
    uint8 (H, W, 3), for options.composite. "soft_share" is the share of the known pixels whose truth is strictly
    between 0 and 1; "unknown_pixels" is how many were left out. Raises UserError for sizes that differ, alphas
    outside [0, 1], and a truth of which nothing is known.
    """
    prediction = fill_unknown(prediction, truth, known)
    if known is not None and not known.any():
        raise UserError("every pixel of its true alpha is marked as unknown.")
    figures: dict[str, Any] = matting_metrics(prediction, truth, known, with_conn=options.full)
    if options.full:
        figures["image_grad_aim"] = grad_aim(prediction, truth, known)
    if options.composite and image is not None:
        figures |= composite_error(image, prediction, truth, shipped_foreground, known)
    if options.dis:
        figures |= dis_scores(prediction, truth)
    is_soft = (truth > 0) & (truth < 1)
    figures["soft_share"] = float(np.mean(is_soft if known is None else is_soft[known]))
    figures["unknown_pixels"] = 0 if known is None else int(np.count_nonzero(~known))
    return figures


def shipped_foreground(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The subject's colours, uint8 (H, W, 3), as predict.py writes them: the halo that is measured is the one shipped.

    The first use on a machine compiles for about a minute.
    """
    return native_foreground(image, alpha, estimate_colours(image, alpha))


def score_files(
    prediction: Path, truth: Path, unknown: Path | None, photo: Path | None, options: MetricOptions
) -> dict[str, Any]:
    """score_matte of files; unknown is white where the truth is not known.

    Raises PhotoError or ValueError, in one sentence, for files that cannot be read or do not fit together, and for a
    truth of a wrong scale.
    """
    image = None if photo is None else to_uint8(read_photo(photo).image)
    alpha = read_alpha(truth)
    known = None if unknown is None else read_alpha(unknown) < 0.5
    if known is not None and known.shape != alpha.shape:
        raise UserError(f"{unknown} is {known.shape} and {truth} {alpha.shape} (height, width): the sizes must agree.")
    truth_fault = check_truth(alpha, truth, known)
    matte = read_alpha(prediction)
    faults = {TRUTH_FAULT: truth_fault, MATTE_FAULT: check_matte(matte, prediction)}
    return faults | score_matte(matte, alpha, known, image, options)


def score_all(tasks: Iterable[Task], total: int, executor: Executor | None, ahead: int) -> Scores:
    """Score this rank's `total` tasks, at most `ahead` at a time, and gather the scores of all ranks.

    They are sorted by photo, so that any number of ranks adds the same numbers in the same order.
    """
    done: list[tuple[Row, dict[str, Any] | Failure]] = []
    outcomes = bounded_map(executor, Task.figures, tasks, ahead)
    # leave=False, disable=None: one bar for the whole launch, and only on a terminal
    hidden = None if is_main() else True
    for task, outcome in tqdm(outcomes, total=total, desc="evaluate", unit="matte", leave=False, disable=hidden):
        if isinstance(outcome, (ValueError, OSError)):  # a PhotoError is a ValueError
            outcome = Failure(task.row["name"], str(outcome))
        elif isinstance(outcome, Exception):
            raise outcome
        done.append((task.row, outcome))
    if world_size() > 1:
        from common import distributed  # imports torch

        done = distributed.all_gather_objects(done)
    done.sort(key=lambda scored: scored[0]["index"])
    failures = [figures for _, figures in done if isinstance(figures, Failure)]
    return Scores([row | figures for row, figures in done if not isinstance(figures, Failure)], failures)


def fail(error: Exception) -> dict[str, Any]:
    """The function of a task that failed before it could be scored."""
    raise error


def report_failures(failures: Sequence[Failure]) -> None:
    """Name each on stderr, once for all ranks."""
    for name, reason in failures if is_main() else ():
        print(f"failed: {name}: {reason}", file=sys.stderr)
