"""Prediction by part: encoder alone (the floor), + decoder, + refiner whole, + refiner gated."""

from __future__ import annotations

import argparse

import numpy as np
import torch
from torch import Tensor

from common.devices import autocast
from common.resize import resize_to_working_size
from config import Variant
from data.synthetic.dataset import render_sample
from experiments.measuring import Measured, matrix_peak, measure, megabytes
from matting import predict_mattes, refine_uncertain
from models import MattingNetwork, build_model
from models.matting_network import resize_alpha

WHOLE_LIMIT = 4096  # pixels; above it the refiner over the whole photo would need tens of gigabytes
EDGE_BAND = 8  # pixels of the working size over which a coarse matte is unsure at each side of an edge


def measure_prediction(
    variant: Variant, flags: argparse.Namespace, device: torch.device, precision: torch.dtype
) -> list[dict]:
    """Print a table and return its rows, one a size and case."""
    model = build_model(backbone=variant.backbone, image_size=flags.working_size)
    model = model.to(device=device, memory_format=torch.channels_last).eval()
    flops = matrix_peak(device, precision)
    print(
        f"\n{variant.name}: student {count(model.student):.1f} M, decoder {count(model.decoder):.2f} M, refiner "
        f"{count(model.refiner):.3f} M parameters; working size {flags.working_size}; matrix peak "
        f"{flops / 1e12:.2f} TFLOP/s\nseconds (ratio to the encoder alone), peak memory in MB in brackets"
    )
    columns = ("size", "photo", "tiles", "encoder", "+ decoder", "refiner whole", "refiner gated", "gated/whole", "all")
    print("  ".join(f"{column:>20}" for column in columns))
    rows = []
    for size in flags.sizes:
        for case in flags.photos:
            row = measure_case(model, size, case, flags, device, precision)
            rows.append({"variant": variant.name, "size": size, "photo": case, **row})
            print("  ".join(f"{cell:>20}" for cell in cells(rows[-1])))
    return rows


def measure_case(
    model: MattingNetwork, size: int, case: str, flags: argparse.Namespace, device: torch.device, precision: torch.dtype
) -> dict:
    """One photo: seconds and peak bytes of each part."""
    image, view_coarse = photo_and_coarse(size, case, flags.working_size)
    image, view_coarse = image.to(device), view_coarse.to(device)
    coarse = resize_alpha(view_coarse, (size, size))[0]
    view = resize_to_working_size(image, flags.working_size)[None].float() / 255
    with torch.inference_mode(), autocast(device, precision):
        features = model.student(view)
        parts = {
            "encoder": measure(lambda: model.student(view), device, flags.repeats),
            "decoder": measure(lambda: model.decoder(features), device, flags.repeats),
            "gated": measure(lambda: refine_uncertain(model.refiner, image, coarse), device, flags.repeats),
        }
        if size <= WHOLE_LIMIT:
            parts["whole"] = measure(
                lambda: model.refiner(image[None].float() / 255, coarse[None]), device, flags.repeats
            )
    rehearsed, shares = Rehearsed(model, view_coarse), []
    parts["all"] = measure(
        lambda: shares.append(predict_mattes(rehearsed, image, precision=precision).refined_share), device, 1
    )
    return (
        {"refined_share": shares[0]}
        | {f"{name}_seconds": part.seconds for name, part in parts.items()}
        | {f"{name}_bytes": part.peak for name, part in parts.items()}
    )


class Rehearsed:
    """Stands where a MattingNetwork stands in prediction: its student works, and its coarse matte, which random
    weights would leave uncertain everywhere, is the one that is given."""

    def __init__(self, model: MattingNetwork, coarse: Tensor) -> None:
        self.model, self.coarse = model, coarse
        self.image_size, self.device, self.refiner = model.image_size, model.device, model.refiner

    def coarse_alpha(self, image: Tensor) -> Tensor:
        self.model.coarse_alpha(image)
        return self.coarse


def photo_and_coarse(size: int, case: str, working_size: int) -> tuple[Tensor, Tensor]:
    """A synthetic portrait (3, S, S) with the coarse matte (1, 1, s, s) that a student would give at its working size
    (the truth, blurred over the uncertain band), or the worst case: the same photo, unsure everywhere."""
    sample = render_sample(3, "val", 5, min(size, 1024))  # 14 % of its pixels unsure; a real subject, about 8 %
    image = torch.from_numpy((sample.image * 255).astype(np.uint8)).permute(2, 0, 1)
    alpha = torch.from_numpy(sample.alpha)[None, None]
    image = torch.nn.functional.interpolate(image[None].float(), size=(size, size), mode="bilinear")[0].byte()
    if case == "worst":
        return image, torch.full((1, 1, working_size, working_size), 0.5)
    view = resize_alpha(alpha, (working_size, working_size))
    kernel = 2 * EDGE_BAND + 1
    blurred = torch.nn.functional.avg_pool2d(view, kernel, stride=1, padding=kernel // 2, count_include_pad=False)
    return image, blurred.clamp(0, 1)


def cells(row: dict) -> list[str]:
    floor = row["encoder_seconds"]

    def cell(name: str) -> str:
        part = Measured(row[f"{name}_seconds"], row[f"{name}_bytes"]) if f"{name}_seconds" in row else None
        return "-" if part is None else f"{part.seconds:.3f} ({part.seconds / floor:.2f}x) [{megabytes(part.peak)}]"

    ratio = f"{row['gated_seconds'] / row['whole_seconds']:.2f}" if "whole_seconds" in row else "-"
    return [
        str(row["size"]),
        row["photo"],
        f"{row['refined_share']:.0%}",
        cell("encoder"),
        cell("decoder"),
        cell("whole"),
        cell("gated"),
        ratio,
        cell("all"),
    ]


def count(part: torch.nn.Module) -> float:
    """Parameters in millions."""
    return sum(parameter.numel() for parameter in part.parameters()) / 1e6
