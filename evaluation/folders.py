"""Score a folder of mattes against a folder of true alphas, matched by name. Needs no torch."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from common.errors import UserError
from common.pool import process_pool
from common.processes import print_once, rank, world_size
from data.pairs import match_images, say_left_out
from evaluation.scoring import Failure, MetricOptions, Scores, Task, score_all, score_files


class Folders(NamedTuple):
    """Folders of files with the same names; or the files of one name in them."""

    predictions: Path
    truths: Path
    unknown: Path | None = None  # masks, white where the truth is not known; a truth need not have one
    photos: Path | None = None  # for composites; there may be others too


def score_folders(folders: Folders, options: MetricOptions, workers: int) -> Scores:
    """Scores of all ranks together. Raises UserError if a folder cannot be listed or no names agree."""
    matches, failures = match_files(folders)
    if not matches:
        raise UserError(
            f"{folders.predictions} and {folders.truths} share no file name: cat.png is scored against cat.png."
        )
    tasks = [
        Task({"matte": str(folders.predictions), "name": name, "index": index}, score_files, (*files, options))
        for index, (name, files) in enumerate(matches)
    ][rank() :: world_size()]
    with process_pool(workers) if workers else nullcontext() as pool:
        scores = score_all(tasks, len(tasks), pool, 2 * workers)
    return Scores(scores.rows, failures + scores.failures)


def match_files(folders: Folders) -> tuple[list[tuple[str, Folders]], list[Failure]]:
    """(name, its files), sorted by name, and the names that lack a file or have two of a kind.

    Says which files of the folders are left out, as they are no photos.
    Raises UserError if a folder cannot be listed.
    """
    given = {kind: folder for kind, folder in folders._asdict().items() if folder}
    for folder in given.values():
        if left_out := say_left_out(folder):
            print_once(left_out)
    found = match_images(*given.values())
    matches, failures = [], []
    for name, paths_by_folder in found.items():
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
