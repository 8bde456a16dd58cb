"""Prediction by part: the encoder alone, the decoder, the refiner on the whole photo or on its uncertain tiles, all."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common.devices import autocast
from common.errors import UserError
from common.resize import resize_alpha, resize_to_working_size
from config import Config, Variant
from data.synthetic.dataset import render_sample
from experiments.measuring import clock_of, matrix_peak, measure
from matting import predict_mattes, refine_uncertain
from models import MattingNetwork, Refiner, build_model
from models.checkpoint import MODEL_FILE, STARTER, find_model, load_model
from models.octaves import climb

WHOLE_LIMIT = 2048  # pixels; the refiner on a whole photo of twice that needs 7 GB
EDGE_BAND = 8  # pixels of the working size over which a coarse matte is unsure at each side of an edge


def prediction_cases(
    variant: Variant, flags: argparse.Namespace, device: torch.device, precision: torch.dtype
) -> Iterator[tuple[dict, Callable[[], dict]]]:
    """The label of each row and what measures it, for every size and photo.

    Encoder and decoder have random weights, the refiner the starter model's: what it leaves uncertain at one octave is
    what the next one costs.
    """
    model = build_model(backbone=variant.backbone, image_size=flags.working_size).to(device).eval()
    model.refiner = load_model(STARTER / MODEL_FILE, device).refiner
    yield from model_cases(variant.name, model.to(memory_format=torch.channels_last), flags, precision)


def checkpoint_cases(
    flags: argparse.Namespace, device: torch.device, precision: torch.dtype
) -> Iterator[tuple[dict, Callable[[], dict]]]:
    """The same of flags.checkpoint, at its own working size. Raises UserError."""
    model = load_model(find_model(flags.checkpoint, Config.output), device)
    if model.refiner is None:
        raise UserError(f"{flags.checkpoint} has no refiner to measure: name a checkpoint of TSR-Matte.")
    yield from model_cases(flags.checkpoint.name, model, flags, precision)


def model_cases(
    name: str, model: MattingNetwork, flags: argparse.Namespace, precision: torch.dtype
) -> Iterator[tuple[dict, Callable[[], dict]]]:
    print(
        f"{name}: working size {model.image_size}; student {millions(model.student):.1f} M, decoder "
        f"{millions(model.decoder):.2f} M, refiner {millions(model.refiner):.3f} M parameters; "
        f"matrix peak {matrix_peak(model.device, precision, clock_of(model.device)) / 1e12:.2f} TFLOP/s"
    )
    for size in flags.sizes:
        for photo in flags.drawn:
            label = {"variant": name, "size": size, "photo": photo}
            yield label, partial(measure_case, model, size, photo, flags.repeats, precision)


def measure_case(model: MattingNetwork, size: int, photo: str, repeats: int, precision: torch.dtype) -> dict[str, Any]:
    """Seconds and peak megabytes of each part on one photo, and the share of its tiles that is refined."""
    device, refiner = model.device, model.refiner
    assert refiner is not None
    image, coarse = (tensor.to(device) for tensor in photo_and_coarse(size, photo, model.image_size))
    view = resize_to_working_size(image, model.image_size)[None].float() / 255  # (1, 3, s, s)
    shares: list[float] = []

    def refine_whole(photo: Tensor, alpha: Tensor) -> Tensor:
        return refiner(photo[None].float() / 255, alpha)

    def refine_tiles(photo: Tensor, alpha: Tensor) -> Tensor:
        refined, share = refine_uncertain(refiner, photo, alpha[0])
        shares.append(share)
        return refined[None]

    with torch.inference_mode(), autocast(device, precision):
        features = model.student(view)
        calls: dict[str, Callable[[], object]] = {
            "encoder": lambda: model.student(view),
            "decoder": lambda: model.decoder(features),
            "refiner whole": lambda: climb(image, coarse, refine_whole),
            "refiner tiles": lambda: climb(image, coarse, refine_tiles),
            "all": lambda: predict_mattes(GivenCoarse(model, coarse), image, precision=precision),
        }
        if size > WHOLE_LIMIT:
            del calls["refiner whole"]
        parts = {name: measure(call, device, repeats, clock_of(device)) for name, call in calls.items()}
    row: dict[str, Any] = {"tiles": shares[-1]}
    for name, part in parts.items():
        row |= {f"{name} s": part.seconds, f"{name} MB": part.megabytes}
    return row | {"all/encoder": parts["all"].seconds / parts["encoder"].seconds}


class GivenCoarse:
    """The network in prediction with a given coarse matte (1, 1, s, s): the student works, but its own matte, with
    random weights, would be uncertain everywhere."""

    def __init__(self, model: MattingNetwork, coarse: Tensor) -> None:
        self.model, self.coarse = model, coarse
        self.image_size, self.device = model.image_size, model.device
        self.refiner: Refiner | None = model.refiner

    def coarse_alpha(self, image: Tensor) -> Tensor:
        self.model.coarse_alpha(image)
        return self.coarse


def photo_and_coarse(size: int, photo: str, working_size: int) -> tuple[Tensor, Tensor]:
    """A photo, uint8 (3, S, S), and the coarse matte (1, 1, s, s) of a student that sees it at its working size s.

    portrait: the truth, blurred over the uncertain band. worst: uncertain everywhere.
    """
    sample = render_sample(3, "val", 5, size)  # of its truth 7 to 13 % is soft; of a real subject 8 %
    image = torch.from_numpy((sample.image * 255).astype(np.uint8)).permute(2, 0, 1).contiguous()
    if photo == "worst":
        return image, torch.full((1, 1, working_size, working_size), 0.5)
    view = resize_alpha(torch.from_numpy(sample.alpha)[None, None], (working_size, working_size))
    kernel = 2 * EDGE_BAND + 1
    return image, F.avg_pool2d(view, kernel, stride=1, padding=EDGE_BAND, count_include_pad=False).clamp(0, 1)


def millions(part: torch.nn.Module | None) -> float:
    """Parameters of a part in millions."""
    return sum(parameter.numel() for parameter in part.parameters()) / 1e6 if part else 0.0
