"""Score mattes, in this process or in several: from arrays or from files, one bad file never stops the rest.

wanted = Wanted(dis=True)
for key, figures in score_all(score_files, [("cat", ("pred/cat.png", "gt/cat.png", None, wanted))], workers=4):
    ...
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from common.photos import read_alpha, read_photo, to_uint8
from data.pairs import match_images
from evaluation.dis_metrics import dis_scores
from inference.foreground import estimate_colors, native_foreground
from metrics import composite_error, grad_aim, matting_metrics


class Wanted(NamedTuple):
    """Which figures to compute."""

    full: bool = True  # conn and grad_aim too; training goes without
    dis: bool = False
    composite: bool = False  # needs the photo


class Failure(NamedTuple):
    """A file that could not be scored, and why."""

    name: str
    reason: str


def score_matte(pred: np.ndarray, true: np.ndarray, image: np.ndarray | None, wanted: Wanted) -> dict[str, Any]:
    """Figures of one matte by name, float32 (H, W) against float32 (H, W); image is uint8 (H, W, 3).

    "soft_share" is the share of pixels of the truth strictly between 0 and 1. Raises ValueError for sizes
    that differ and for alphas outside [0, 1].
    """
    figures: dict[str, Any] = matting_metrics(pred, true, with_conn=wanted.full)
    if wanted.full:
        figures["image_grad_aim"] = grad_aim(pred, true)
    if wanted.composite:
        figures |= composite_error(image, pred, true, shipped_foreground)
    if wanted.dis:
        figures |= dis_scores(pred, true)
    figures["soft_share"] = float(np.mean((true > 0) & (true < 1)))
    return figures


def shipped_foreground(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The subject's colours, uint8 (H, W, 3), as predict.py writes them: the halo that is measured is the one shipped.

    The first use on a machine compiles for about a minute.
    """
    return native_foreground(image, alpha, estimate_colors(image, alpha))


def score_files(pred: Path, true: Path, photo: Path | None, wanted: Wanted) -> dict[str, Any]:
    """score_matte of files; raises PhotoError or ValueError with one sentence where they do not serve."""
    image = to_uint8(read_photo(photo).image) if wanted.composite else None
    return score_matte(read_alpha(pred), read_alpha(true), image, wanted)


def score_all(
    function: Callable[..., dict], tasks: Iterable[tuple[Any, tuple]], workers: int, threads: bool = False
) -> Iterator[tuple[Any, dict | Failure]]:
    """Yield (key, figures or Failure) for each (key, arguments) of tasks, in their order.

    With workers, tasks is read only a little ahead, so that mattes of many megapixels do not pile up.
    """
    if workers == 0:
        for key, arguments in tasks:
            yield key, _outcome(key, lambda arguments=arguments: function(*arguments))
        return
    waiting: deque = deque()
    with _pool(workers, threads) as pool:
        for key, arguments in tasks:
            waiting.append((key, pool.submit(function, *arguments)))
            if len(waiting) > 2 * workers:
                done, future = waiting.popleft()
                yield done, _outcome(done, future.result)
        for done, future in waiting:
            yield done, _outcome(done, future.result)


def _pool(workers: int, threads: bool) -> Executor:
    """Processes score most at a time, and start by spawn, which is the same on every system and safe beside CUDA.

    Threads start at once and need no copy of a matte: for short sets, as a training validates on after each epoch.
    """
    if threads:
        return ThreadPoolExecutor(workers)  # NumPy and OpenCV release the interpreter while they compute
    return ProcessPoolExecutor(workers, get_context("spawn"), initializer=cv2.setNumThreads, initargs=(1,))


def _outcome(key: Any, result: Callable[[], dict]) -> dict | Failure:
    try:
        return result()
    except (ValueError, OSError) as error:  # a PhotoError is a ValueError
        return Failure(str(key), str(error))


def match_files(first: Path, second: Path) -> tuple[list[tuple[str, Path, Path]], list[Failure]]:
    """Pairs (name, file of first, file of second) by path without suffix, sorted; and what has no partner."""
    pairs, failures = [], []
    for name, found in match_images(first, second).items():
        for folder, paths in zip((first, second), found, strict=True):
            if len(paths) != 1:
                reason = "has more than one file" if paths else "has no file"
                failures.append(Failure(name, f"{folder} {reason} of this name."))
        if len(found[0]) == len(found[1]) == 1:
            pairs.append((name, found[0][0], found[1][0]))
    return pairs, failures
