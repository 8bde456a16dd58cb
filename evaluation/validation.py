"""Score models on data sets, with the photos shared over the ranks of a torchrun launch.

    scores = validate(model, dataset)       # {"coarse_image_sad": 9.1, ..., "refined_edge_grad": 4.2}
    final_figures(scores)["image_mad"]      # of the model's matte: the refined one where it has a refiner

Every rank scores its share and gets all rows in the order of the photos, so the totals of any number of
ranks are those of one process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch

import matting
from common.devices import is_out_of_memory
from common.errors import UserError
from common.photos import PhotoError
from common.pool import bounded_map, process_pool
from common.processes import rank, world_size
from evaluation.scales import TRUTH_FAULT
from evaluation.scoring import MetricOptions, Scores, Task, fail, report_failures, score_all, score_matte
from evaluation.tables import by_matte, summarize
from matting import MattingModel
from metrics import UNITS
from models import MattingNetwork

READ_AHEAD = 2  # photos, while the network predicts
QUICK = MetricOptions(full=False)
COARSE, REFINED = "coarse", "refined"  # matting.Mattes has coarse_alpha and refined_alpha
FIGURES = [f"{region}_{metric}" for region in ("image", "edge") for metric in UNITS]


class MatteSource(NamedTuple):
    """One matte of each photo: its label, the model that predicts it, and which of the model's mattes it is."""

    label: str
    model: MattingModel
    which: str  # COARSE or REFINED


def validate(
    model: MattingNetwork,
    dataset: Any,
    *,
    workers: int = 0,
    options: MetricOptions = QUICK,
    precision: torch.dtype | None = None,
) -> dict[str, float]:
    """Mean figures of a model's mattes: "coarse_image_sad" ... "coarse_edge_grad"; with a refiner "refined_..." too.

    dataset[i] is a dict of image uint8 (3, H, W), alpha float32 (1, H, W), name, and, where part of the truth is not
    known, unknown bool (1, H, W). workers: threads that score while the network predicts, and others read the next
    photos; 0 takes turns. precision: as for matting.predict_mattes. Under torchrun every rank calls this and gets the
    same means. Photos that cannot be scored are named on stderr and left out; those without an edge band are left out
    of the edge figures, which are 0 if there is no other. Raises UserError if nothing could be scored.
    """
    sources = [MatteSource(COARSE, model, COARSE)]
    if model.refiner is not None:
        sources.append(MatteSource(REFINED, model, REFINED))
    was_training, was_benchmark = model.training, torch.backends.cudnn.benchmark
    model.eval()
    torch.backends.cudnn.benchmark = False  # photos have many sizes, and each new one would be searched for
    try:
        scores = score_dataset(sources, dataset, options, workers, precision=precision, threads=True)
    finally:
        model.train(was_training)
        torch.backends.cudnn.benchmark = was_benchmark
    report_failures(scores.failures)
    if not scores.rows:
        raise UserError("no validation photo could be scored: look at the set with python -m data.check.")
    return {
        f"{label}_{figure}": mean
        for label, rows in by_matte(scores.rows).items()
        for figure, mean in summarize(rows)["mean"].fillna(0.0).items()
    }


def final_figures(scores: Mapping[str, float]) -> dict[str, float]:
    """The figures of the matte that the model ships, "image_sad" ...: of the refined matte if there is one, else of the
    coarse one.

    scores: of validate, or means over several sets. Figures of one set, which its name precedes, are ignored: a set
    may be called refined.
    """
    refined, coarse = (
        {figure: scores[f"{matte}_{figure}"] for figure in FIGURES if f"{matte}_{figure}" in scores}
        for matte in (REFINED, COARSE)
    )
    return refined or coarse


def score_dataset(
    sources: Sequence[MatteSource],
    dataset: Any,
    options: MetricOptions,
    workers: int,
    *,
    precision: torch.dtype | None = None,
    threads: bool = False,
) -> Scores:
    """Predict each photo of this rank's share once per model, score every matte, gather from all ranks.

    With two mattes or more, a row's "difference" is the mean |difference| of the photo's first two. workers: processes,
    or threads.
    """
    shard = range(rank(), len(dataset), world_size())
    make_pool = ThreadPoolExecutor if threads else process_pool  # NumPy and OpenCV release the interpreter lock
    with (
        make_pool(workers) if workers else nullcontext() as pool,
        ThreadPoolExecutor(READ_AHEAD) if workers else nullcontext() as readers,
    ):
        tasks = _predicted(sources, dataset, shard, options, precision, readers)
        return score_all(tasks, len(shard) * len(sources), pool, 2 * workers)


def _predicted(
    sources: Sequence[MatteSource],
    dataset: Any,
    shard: Iterable[int],
    options: MetricOptions,
    precision: torch.dtype | None,
    readers: Executor | None,
) -> Iterator[Task]:
    """Tasks for score_all; that of a photo that cannot be read, or is too large to predict, fails."""
    for index, item in bounded_map(readers, dataset.__getitem__, shard, READ_AHEAD):
        if isinstance(item, (ValueError, OSError)):
            yield Task({"name": _name(dataset, index), "index": index}, fail, (item,))
            continue
        if isinstance(item, Exception):
            raise item
        try:
            mattes = predict_sources(sources, item["image"], precision)
        except PhotoError as error:
            yield Task({"name": item["name"], "index": index}, fail, (error,))
            continue
        truth = item["alpha"][0].numpy()  # (H, W)
        known = ~item["unknown"][0].numpy() if "unknown" in item else None  # (H, W)
        image = item["image"].permute(1, 2, 0).numpy() if options.composite else None  # (H, W, 3)
        row = {"name": item["name"], "index": index, TRUTH_FAULT: item.get(TRUTH_FAULT)}
        if len(sources) > 1:
            first, second = list(mattes.values())[:2]
            row["difference"] = float(np.abs(first - second).mean(dtype=np.float64))
        for label, matte in mattes.items():
            yield Task({"matte": label, **row}, score_matte, (matte, truth, known, image, options))


def predict_sources(
    sources: Sequence[MatteSource], image: torch.Tensor, precision: torch.dtype | None = None
) -> dict[str, np.ndarray]:
    """Label -> matte float32 (H, W) of a photo uint8 (3, H, W); each model runs once, through predict_mattes.

    Raises PhotoError if the photo does not fit in memory: the others may.
    """
    models = {id(source.model): source.model for source in sources}
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
    alphas = {source.label: getattr(mattes[id(source.model)], f"{source.which}_alpha") for source in sources}
    return {label: alpha[0].float().cpu().numpy() for label, alpha in alphas.items()}


def _name(dataset: Any, index: int) -> str:
    """The name of a photo that cannot be read: its file's where the data set knows it."""
    return dataset.pairs[index].name if hasattr(dataset, "pairs") else f"photo {index}"
