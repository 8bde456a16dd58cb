"""Score whole sets over the ranks of a torchrun launch: a model on a dataset, or one folder against another.

    means = validate(model, dataset)       # {"coarse_image_sad": 9.1, ..., "refined_edge_grad": 4.2}

Every rank scores its share and gets all rows in the order of the photos, so the totals of any number of
ranks are those of one process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from tqdm import tqdm

from common.photos import PhotoError
from evaluation.scoring import Failure, Wanted, match_files, score_all, score_files, score_matte
from evaluation.tables import by_matte, figure_names, summarize

if TYPE_CHECKING:  # torch takes seconds to import, and scoring a folder of mattes never needs it
    import torch

    from models import MattingNetwork


QUICK = Wanted(full=False)


class Column(NamedTuple):
    """One matte a photo: which field of matting.Mattes, of which model, under which name."""

    label: str
    model: MattingNetwork
    field: str


class Scores(NamedTuple):
    """Of all ranks, in the order of the photos: rows as score_tables takes them, and what failed."""

    rows: list[dict[str, Any]]
    failures: list[Failure]


class _Key(NamedTuple):
    """Where a scored matte belongs: the photo's index, and what its row says beside the figures."""

    index: int
    row: dict[str, Any]

    def __str__(self) -> str:
        return self.row["name"]


def validate(
    model: MattingNetwork,
    dataset: Any,
    *,
    workers: int = 0,
    wanted: Wanted = QUICK,
    precision: torch.dtype | None = None,
) -> dict[str, float]:
    """Mean figures of a model's coarse and refined mattes: "coarse_image_sad" ... "refined_edge_grad".

    dataset[i] is a dict of image uint8 (3, H, W), alpha float32 (1, H, W), name. workers: threads that score
    beside the network; 0 takes turns. precision: as for matting.predict_mattes. Under torchrun every rank
    calls this and gets the same means. Photos that cannot be scored are named on stderr and left out; those
    without an edge band are left out of the edge figures, which are 0 if there is no other. Raises
    ValueError if nothing could be scored.
    """
    columns = [Column("coarse", model, "coarse_alpha"), Column("refined", model, "refined_alpha")]
    was_training = model.training
    model.eval()
    try:
        scores = score_dataset(columns, dataset, wanted, workers, progress=False, precision=precision, threads=True)
    finally:
        model.train(was_training)
    report_failures(scores.failures)
    if not scores.rows:
        raise ValueError("no validation photo could be scored: look at the set with python -m data.check.")
    means = {f"{column.label}_{figure}": 0.0 for column in columns for figure in figure_names(scores.rows)}
    for label, rows in by_matte(scores.rows).items():
        means |= {f"{label}_{figure}": summary.mean for figure, summary in summarize(rows).items()}
    return means


def score_dataset(
    columns: Sequence[Column],
    dataset: Any,
    wanted: Wanted,
    workers: int,
    progress: bool = True,
    precision: torch.dtype | None = None,
    threads: bool = False,
) -> Scores:
    """Predict each photo of this rank's share once a model, score every column, gather from all ranks.

    With two columns or more, a row's "difference" is the mean |difference| of the photo's first two mattes.
    """
    shard = range(rank(), len(dataset), world_size())
    failures: list[tuple[int, Failure]] = []
    tasks = _predicted(columns, dataset, shard, wanted, failures, precision)
    outcomes = score_all(score_matte, tasks, workers, threads)
    return _gather(_with_bar(outcomes, len(shard) * len(columns), progress), failures)


def _predicted(
    columns: Sequence[Column],
    dataset: Any,
    shard: Iterable[int],
    wanted: Wanted,
    failures: list[tuple[int, Failure]],
    precision: torch.dtype | None,
) -> Iterator[tuple[_Key, tuple]]:
    """Tasks for score_all; what cannot be read, or is too large to predict, goes to failures."""
    for index in shard:
        try:
            item = dataset[index]
        except (ValueError, OSError) as error:
            failures.append((index, Failure(_name(dataset, index), str(error))))
            continue
        try:
            mattes = predict_columns(columns, item["image"], precision)
        except PhotoError as error:
            failures.append((index, Failure(item["name"], str(error))))
            continue
        true = item["alpha"][0].numpy()  # (H, W)
        image = item["image"].permute(1, 2, 0).numpy() if wanted.composite else None  # (H, W, 3)
        row = {"name": item["name"], "index": index}
        if len(columns) > 1:
            first, second = list(mattes.values())[:2]
            row["difference"] = float(np.abs(first - second).mean(dtype=np.float64))
        for label, pred in mattes.items():
            yield _Key(index, {"matte": label, **row}), (pred, true, image, wanted)


def predict_columns(
    columns: Sequence[Column], image: torch.Tensor, precision: torch.dtype | None = None
) -> dict[str, np.ndarray]:
    """Label -> matte float32 (H, W) of a photo uint8 (3, H, W); each model runs once, through predict_mattes.

    Raises PhotoError where the photo does not fit in memory: the others may.
    """
    import matting
    from common.devices import is_out_of_memory

    models = {id(column.model): column.model for column in columns}
    try:
        mattes = {key: matting.predict_mattes(model, image, precision=precision) for key, model in models.items()}
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        height, width = image.shape[-2:]
        raise PhotoError(
            f"The photo has {width} x {height} pixels, which do not fit in memory: scale it down, or "
            "choose another --device."
        ) from error
    return {
        column.label: getattr(mattes[id(column.model)], column.field)[0].float().cpu().numpy()
        for column in columns
        if getattr(mattes[id(column.model)], column.field) is not None
    }


def _name(dataset: Any, index: int) -> str:
    """What a photo that cannot be read is called: its file's name where the data set knows it."""
    return dataset.pairs[index].name if hasattr(dataset, "pairs") else f"photo {index}"


def score_folders(predictions: Path, truths: Path, photos: Path | None, wanted: Wanted, workers: int) -> Scores:
    """Score the mattes in one folder against the truths in another; photos are needed for composites only.

    Raises ValueError, in one sentence, where a folder cannot be listed or no names agree.
    """
    pairs, failures = match_files(predictions, truths)
    if not pairs:
        raise ValueError(f"{predictions} and {truths} share no file name: cat.png is scored against cat.png.")
    images = {name: photo for name, photo, _ in match_files(photos, truths)[0]} if photos else {}
    if wanted.composite:
        failures += [Failure(name, f"{photos} has no photo of this name.") for name, *_ in pairs if name not in images]
        pairs = [pair for pair in pairs if pair[0] in images]
    shard = list(enumerate(pairs))[rank() :: world_size()]
    tasks = (
        (_Key(index, {"matte": str(predictions), "name": name}), (pred, true, images.get(name), wanted))
        for index, (name, pred, true) in shard
    )
    scores = _gather(_with_bar(score_all(score_files, tasks, workers), len(shard), True), [])
    return Scores(scores.rows, failures + scores.failures)


def report_failures(failures: Sequence[Failure]) -> None:
    """Name each on stderr, once for all ranks."""
    if rank() == 0:
        for name, reason in failures:
            print(f"failed: {name}: {reason}", file=sys.stderr)


def _with_bar(outcomes: Iterator, total: int, progress: bool) -> Iterator:
    return tqdm(outcomes, total=total, desc="evaluate", unit="matte", disable=not progress or rank() > 0)


def _gather(scored: Iterable[tuple[_Key, Any]], unread: list[tuple[int, Failure]]) -> Scores:
    """Rows and failures of all ranks, sorted by photo: the same numbers are added up in the same order."""
    outcomes = [(key.index, key.row, figures) for key, figures in scored]  # fills unread too, so it comes first
    if world_size() > 1:
        from common import distributed

        outcomes, unread = (distributed.all_gather_objects(part) for part in (outcomes, unread))
    outcomes = sorted(outcomes, key=lambda outcome: outcome[0])
    unscored = [(index, figures) for index, _, figures in outcomes if isinstance(figures, Failure)]
    rows = [row | figures for _, row, figures in outcomes if not isinstance(figures, Failure)]
    return Scores(rows, [failure for _, failure in sorted(unread + unscored)])


def rank() -> int:
    """As distributed.rank, without importing torch."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """As distributed.world_size, without importing torch."""
    return int(os.environ.get("WORLD_SIZE", "1"))
