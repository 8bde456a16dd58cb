"""Score a folder of mattes against a folder of true alphas, matched by name. Needs no torch."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from common.pool import process_pool
from common.processes import rank, world_size
from data.pairs import images_by_name
from evaluation.scoring import Failure, MetricOptions, Scores, StartError, Task, score_all, score_files


class Folders(NamedTuple):
    """Folders of files with the same names."""

    predictions: Path
    truths: Path
    unknown: Path | None = None  # masks, white where the truth is not known; a truth need not have one
    photos: Path | None = None  # for composites


def score_folders(folders: Folders, options: MetricOptions, workers: int) -> Scores:
    """Scores of all ranks together. Raises StartError where no names agree, or two photos or masks share one."""
    pairs, failures = match_files(folders.predictions, folders.truths)
    if not pairs:
        raise StartError(
            f"{folders.predictions} and {folders.truths} share no file name: cat.png is scored against cat.png."
        )
    names = {name for name, *_ in pairs}
    masks, photos = _one_by_name(folders.unknown), _one_by_name(folders.photos)
    failures += [Failure(name, f"{masks[name]} belongs to no pair.") for name in sorted(masks.keys() - names)]
    if folders.photos:
        missing = sorted(names - photos.keys())
        failures += [Failure(name, f"{folders.photos} has no photo of this name.") for name in missing]
        pairs = [pair for pair in pairs if pair[0] in photos]
    shard = list(enumerate(pairs))[rank() :: world_size()]
    tasks = [
        Task(
            {"matte": str(folders.predictions), "name": name, "index": index},
            score_files,
            (prediction, truth, masks.get(name), photos.get(name), options),
        )
        for index, (name, prediction, truth) in shard
    ]
    with process_pool(workers) if workers else nullcontext() as pool:
        scores = score_all(tasks, len(shard), pool, 2 * workers)
    return Scores(scores.rows, failures + scores.failures)


def match_files(first: Path, second: Path) -> tuple[list[tuple[str, Path, Path]], list[Failure]]:
    """Pairs (name, file of first, file of second) by path without suffix, sorted; and what has no partner."""
    files = [images_by_name(first), images_by_name(second)]
    pairs, failures = [], []
    for name in sorted(files[0].keys() | files[1].keys()):
        found = [names.get(name, []) for names in files]
        for folder, paths in zip((first, second), found, strict=True):
            if len(paths) != 1:
                reason = "has more than one file" if paths else "has no file"
                failures.append(Failure(name, f"{folder} {reason} of this name."))
        if len(found[0]) == len(found[1]) == 1:
            pairs.append((name, found[0][0], found[1][0]))
    return pairs, failures


def _one_by_name(folder: Path | None) -> dict[str, Path]:
    """The images below a folder by name; none without a folder."""
    found = images_by_name(folder) if folder else {}
    for paths in found.values():
        if len(paths) > 1:
            raise StartError(f"{paths[0]} and {paths[1].name} share a name: rename or remove one of them.")
    return {name: paths[0] for name, paths in found.items()}
