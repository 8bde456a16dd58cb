"""Score a folder of mattes against a folder of true alphas, matched by name."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.errors import UserError
from common.photos import read_alpha, read_photo, to_uint8
from common.processes import print_once, rank, world_size
from data.alpha_faults import DOUBTFUL, alpha_faults
from data.faults import Fault
from data.pairs import match_images, read_unknown, say_left_out
from evaluation.scoring import (
    MATTE_FAULTS,
    TRUTH_FAULTS,
    Failure,
    Job,
    MetricOptions,
    Row,
    Scores,
    score_all,
    score_photo,
    thread_pool,
)
from metrics import Truth

NOTED = (*DOUBTFUL, "alpha_noisy", "alpha_empty", "alpha_full", "alpha_inverted")  # of a truth


class Folders(NamedTuple):
    """Folders of files with the same names; or the files of one name in them."""

    predictions: Path
    truths: Path
    unknown: Path | None = None  # masks, white where the truth is not known; a truth need not have one
    photos: Path | None = None  # for composites; there may be others too


def score_folders(folders: Folders, options: MetricOptions, workers: int) -> Scores:
    """Scores of all ranks together. Raises UserError if a folder cannot be listed or no names agree."""
    for folder in filter(None, folders):
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder: name the folder that holds the files.")
    matches, failures = match_files(folders)
    if not matches:
        raise UserError(
            f"{folders.predictions} and {folders.truths} share no file name: cat.png is scored against cat.png."
        )
    label = str(folders.predictions)
    every = enumerate(matches)
    jobs = [Job(index, name, partial(score_files, label, files, options)) for index, (name, files) in every]
    jobs = jobs[rank() :: world_size()]
    with thread_pool(workers) as pool:
        scores = score_all(jobs, len(jobs), pool, 2 * workers)
    return Scores(scores.rows, failures + scores.failures)


def match_files(folders: Folders) -> tuple[list[tuple[str, Folders]], list[Failure]]:
    """(name, its files), sorted by name, and the names that lack a file or have two of a kind.

    Says which files of the folders are left out, as they are no photos. Raises UserError if one cannot be listed.
    """
    given = {kind: folder for kind, folder in folders._asdict().items() if folder}
    for folder in given.values():
        if left_out := say_left_out(folder):
            print_once(left_out)
    matches, failures = [], []
    for name, paths_by_folder in match_images(*given.values()).items():
        files = dict(zip(given, paths_by_folder, strict=True))
        if not any(paths for kind, paths in files.items() if kind != "photos"):
            continue
        missing = [kind for kind, paths in files.items() if not paths and kind != "unknown"]
        twice = [kind for kind, paths in files.items() if len(paths) > 1]
        if missing or twice:
            reason = "has no file" if missing else "has more than one file"
            failures.append(Failure(name, f"{given[(missing + twice)[0]]} {reason} of this name."))
        else:
            matches.append((name, Folders(**{kind: paths[0] for kind, paths in files.items() if paths})))
    return matches, failures


def score_files(label: str, files: Folders, options: MetricOptions) -> list[Row]:
    """The row of one matte. Raises UserError, in one sentence, for files that cannot be read or do not fit together,
    and for a truth of a wrong scale."""
    image = None if files.photos is None else to_uint8(read_photo(files.photos).image)
    alpha = read_alpha(files.truths)
    known = None if files.unknown is None else read_unknown(files.unknown, alpha.shape) == 0
    faults = truth_faults(alpha, files.truths, known)
    matte = read_alpha(files.predictions)
    (row,) = score_photo({label: matte}, Truth(alpha, known), image, options)
    return [row | {TRUTH_FAULTS: faults, MATTE_FAULTS: alpha_faults(matte, files.predictions)}]


def truth_faults(alpha: np.ndarray, path: str | Path, known: np.ndarray | None = None) -> list[Fault]:
    """What may be wrong with a truth. Raises UserError, in one sentence, where its scale is certainly wrong."""
    if known is not None and not known.any():
        return []
    faults = [fault for fault in alpha_faults(alpha, path, known) if fault.kind in NOTED]
    if certain := [fault for fault in faults if fault.kind == "alpha_scale"]:
        raise UserError(certain[0].sentence)
    return faults
