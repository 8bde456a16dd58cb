"""Score models on data sets, with the photos shared over the ranks of a torchrun launch.

    result = validate_sets(model, {"cats": dataset})       # result.figures["refined_edge_grad"], result.photos
    final_figures(result.figures)["image_mad"]             # of the model's matte: the refined one if it has a refiner

Every rank scores its share and gets all rows in the order of the photos, so the totals of any number of
ranks are those of one process.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

import matting
from common.devices import is_out_of_memory
from common.errors import UserError
from common.pool import bounded_map
from common.processes import rank, world_size
from evaluation.scoring import (
    TRUTH_FAULTS,
    Job,
    MetricOptions,
    Row,
    Scores,
    by_matte,
    report_failures,
    score_all,
    score_photo,
    summarize,
    thread_pool,
)
from matting import MattingModel
from metrics import DECIDES, TITLES, Truth
from models import MattingNetwork

QUICK = MetricOptions(full=False)
COARSE, REFINED = "coarse", "refined"  # matting.Mattes has coarse_alpha and refined_alpha
_BANDS: dict[str, bytes] = {}  # edge bands of truths, packed: to find one takes longer than to score a matte
_MOST_BANDS = 5000  # of some 10 kB each


class MatteSource(NamedTuple):
    """One matte of each photo: its label, the model that predicts it, and which of the model's mattes it is."""

    label: str
    model: MattingModel
    which: str  # COARSE or REFINED


class Validation(NamedTuple):
    """Mean figures, and of which photos. Two of them can be compared if they are of the same photos.

    figures: "coarse_image_sad" ... "refined_edge_grad"; without those of the edge where no photo has one.
    photos: how many were scored; failed: how many could not be; fingerprint: of the contents of those that were.
    """

    figures: dict[str, float]
    photos: int
    failed: int
    fingerprint: str

    @property
    def score(self) -> float:
        """What decides which epoch of a run is the best: the lowest MAD of the matte that the model ships."""
        return final_figures(self.figures)[DECIDES]


def validate_sets(model: MattingNetwork, datasets: Mapping[str, Any], **options: Any) -> Validation:
    """The means over the data sets, whatever their sizes; of several sets also each one's, after its name: "cats_...".

    options: of validate. Raises UserError if nothing of a set could be scored.
    """
    results = {name: validate(model, dataset, **options) for name, dataset in datasets.items()}
    if len(results) == 1:
        return next(iter(results.values()))
    every = [result.figures for result in results.values()]
    names = dict.fromkeys(name for figures in every for name in figures)
    figures = {name: float(np.mean([one[name] for one in every if name in one])) for name in names}
    for name, result in results.items():
        figures |= {f"{name}_{figure}": value for figure, value in result.figures.items()}
    prints = "".join(sorted(result.fingerprint for result in results.values()))
    return Validation(
        figures,
        sum(result.photos for result in results.values()),
        sum(result.failed for result in results.values()),
        hashlib.sha256(prints.encode()).hexdigest()[:16],
    )


def validate(
    model: MattingNetwork,
    dataset: Any,
    *,
    workers: int = 0,
    options: MetricOptions = QUICK,
    precision: torch.dtype | None = None,
) -> Validation:
    """Mean figures of a model's coarse mattes and, with a refiner, refined mattes.

    dataset[i] is a dict of image uint8 (3, H, W), alpha float32 (1, H, W), name, and, where part of the truth is not
    known, unknown bool (1, H, W). workers: threads that read and score photos while the network predicts; 0 takes
    turns. precision: as for matting.predict_mattes. Under torchrun every rank calls this and gets the same. Photos that
    cannot be scored are named on stderr and left out. Raises UserError if nothing could be scored.
    """
    sources = [MatteSource(COARSE, model, COARSE)]
    if model.refiner is not None:
        sources.append(MatteSource(REFINED, model, REFINED))
    was_training, was_benchmark = model.training, torch.backends.cudnn.benchmark
    model.eval()
    torch.backends.cudnn.benchmark = False  # photos have many sizes, and each new one would be searched for
    try:
        scores = score_dataset(sources, dataset, options, workers, precision=precision)
    finally:
        model.train(was_training)
        torch.backends.cudnn.benchmark = was_benchmark
    report_failures(scores.failures)
    if not scores.rows:
        raise UserError("no validation photo could be scored: look at the set with python -m data.check.")
    figures = {
        f"{label}_{figure}": mean
        for label, rows in by_matte(scores.rows).items()
        for figure, mean in summarize(rows)["mean"].items()
    }
    return Validation(figures, len(scores.rows) // len(sources), len(scores.failures), fingerprint(scores.rows))


def fingerprint(rows: Sequence[Row]) -> str:
    """Of the photos and truths that were scored, wherever they lie and whatever they are called."""
    photos = {row["index"]: row["photo"] for row in rows}.values()
    return hashlib.sha256("".join(sorted(photos)).encode()).hexdigest()[:16]


def final_figures(figures: Mapping[str, float]) -> dict[str, float]:
    """The figures of the matte that the model ships, "image_sad" ...: of the refined matte if there is one, else of the
    coarse one.

    figures: of a Validation. Those of one of several sets, which its name precedes, are ignored: a set may be called
    refined.
    """
    refined, coarse = (
        {name: figures[f"{matte}_{name}"] for name in TITLES if f"{matte}_{name}" in figures}
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
) -> Scores:
    """Predict each photo of this rank's share once per model, score every matte, gather from all ranks.

    Where a model is compared with another, a row's "difference" is the mean |difference| of the first mattes that two
    models ship, else of the model's two mattes. workers: threads.
    """
    shard = range(rank(), len(dataset), world_size())
    with thread_pool(workers) as pool:
        items = bounded_map(pool, dataset.__getitem__, shard, workers)
        return score_all(_predicted(items, dataset, sources, options, precision), len(shard), pool, workers)


def _predicted(
    items: Iterable[tuple[int, Any]],
    dataset: Any,
    sources: Sequence[MatteSource],
    options: MetricOptions,
    precision: torch.dtype | None,
) -> Iterator[Job]:
    """Jobs for score_all of (index, item or what went wrong); that of a photo that does not serve fails."""
    for index, item in items:
        if isinstance(item, Exception):  # the file's name, where the data set knows it
            name = dataset.pairs[index].name if hasattr(dataset, "pairs") else f"photo {index}"
            yield Job(index, name, partial(_fail, item))
            continue
        try:
            mattes = predict_sources(sources, item["image"], precision)
        except UserError as error:  # it does not fit in memory
            yield Job(index, item["name"], partial(_fail, error))
        else:
            yield Job(index, item["name"], partial(_score_item, item, mattes, sources, options))


def _score_item(
    item: Mapping[str, Any], mattes: dict[str, np.ndarray], sources: Sequence[MatteSource], options: MetricOptions
) -> list[Row]:
    known = ~item["unknown"][0].numpy() if "unknown" in item else None  # (H, W)
    image = item["image"].permute(1, 2, 0).numpy()  # (H, W, 3)
    truth = with_edge(Truth(item["alpha"][0].numpy(), known))
    row = {TRUTH_FAULTS: item.get(TRUTH_FAULTS, [])}
    if len(sources) > 1:
        first, second = (mattes[label] for label in compared(sources))
        row["difference"] = float(np.abs(first - second).mean(dtype=np.float64))
    return [figures | row for figures in score_photo(mattes, truth, image, options)]


def compared(sources: Sequence[MatteSource]) -> tuple[str, str]:
    """The labels of the two mattes whose difference counts: those that the first two models ship, or a model's two."""
    shipped = {id(source.model): source.label for source in sources}  # a model's refined matte comes last
    labels = list(shipped.values()) if len(shipped) > 1 else [source.label for source in sources]
    return labels[0], labels[1]


def with_edge(truth: Truth) -> Truth:
    """The truth, with its edge band from an earlier validation if there was one."""
    if packed := _BANDS.get(truth.digest):
        bits = np.frombuffer(zlib.decompress(packed), np.uint8)
        truth.edge = np.unpackbits(bits, count=truth.alpha.size).view(bool).reshape(truth.alpha.shape)
    elif len(_BANDS) < _MOST_BANDS:
        _BANDS[truth.digest] = zlib.compress(np.packbits(truth.edge).tobytes(), 1)
    return truth


def predict_sources(
    sources: Sequence[MatteSource], image: torch.Tensor, precision: torch.dtype | None = None
) -> dict[str, np.ndarray]:
    """Label -> matte float32 (H, W) of a photo uint8 (3, H, W); each model runs once, through predict_mattes.

    Raises UserError if the photo does not fit in memory: the others may.
    """
    models = {id(source.model): source.model for source in sources}
    try:
        mattes = {key: matting.predict_mattes(model, image, precision=precision) for key, model in models.items()}
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        height, width = image.shape[-2:]
        raise UserError(
            f"The photo has {width} x {height} pixels, which do not fit in memory: scale it down, or "
            "choose another --device."
        ) from error
    alphas = {source.label: getattr(mattes[id(source.model)], f"{source.which}_alpha") for source in sources}
    return {label: alpha[0].float().cpu().numpy() for label, alpha in alphas.items()}


def _fail(error: Exception) -> list[Row]:
    raise error
