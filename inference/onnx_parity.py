"""Does an exported network compute what PyTorch computes, also at sizes and batches that were not traced?

onnx_parity.check(model, [network_file, refiner_file], tolerance=1e-4)     # prints a table, or raises UserError
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from common.errors import UserError
from data.synthetic.dataset import render_sample
from inference.onnx_model import COARSE, IMAGE, REFINED, open_session
from models import MattingNetwork

# wide (the traced one), so small that Swin's last maps are smaller than half a window, square, upright, not of 32s
SIZES = ((192, 256), (64, 96), (256, 256), (320, 192), (201, 355))
BATCHES = (1, 2)
# The refiner divides by the distance of two colours: where an untrained student separates nothing, it amplifies a
# rounding error of the coarse matte a hundred times. Given the same matte it agrees as closely as the student does.
CARRIED = 10


class Difference(NamedTuple):
    """Largest |ONNX - PyTorch| over a batch: of the whole network, and of the refiner alone on a random alpha."""

    batch: int
    size: tuple[int, int]
    coarse: float
    refined: float
    refiner: float  # 0 where the model has none
    unsure: float  # share of pixels with 0 < coarse < 1; if it is 0, agreement proves little


def check(model: MattingNetwork, files: Sequence[Path], tolerance: float) -> None:
    """Print a table of differences. Raises UserError if one is above the tolerance or not a number.

    files: the network's, and the refiner's if the model has one. The refined matte of the whole network may differ by
    CARRIED times the tolerance.
    """
    print(
        f"largest |onnxruntime - PyTorch float32|, allowed {tolerance:g}, refined {CARRIED * tolerance:g}\n"
        f"{'size':>9} {'batch':>5} {'coarse':>9} {'refined':>9} {'refiner':>9} {'unsure':>7}"
    )
    found = []
    for batch, (height, width), coarse, refined, refiner, unsure in compare(model, files):
        row = f"{height:>4}x{width:<4} {batch:>5} {coarse:>9.1e} {refined:>9.1e} {refiner:>9.1e} {unsure:>7.0%}"
        print(row, flush=True)
        found += [coarse, refined / CARRIED, refiner]
    worst = float(np.max(found))  # NaN comes through
    if not worst <= tolerance:
        raise UserError(f"onnxruntime and PyTorch differ by {worst:.2g}, more than {tolerance:g}: nothing was written.")


@torch.inference_mode()
def compare(model: MattingNetwork, files: Sequence[Path]) -> Iterator[Difference]:
    """Run the files on the CPU with onnxruntime alone, and the model there in float32."""
    try:
        network, *refiner = [open_session(str(file)) for file in files]
    except Exception as error:  # onnxruntime raises a different class for each way a graph can be wrong
        reason = str(error).splitlines()[0]
        raise UserError(f"onnxruntime {onnxruntime.__version__} cannot load the exported graph ({reason}).") from error
    for size, batch in product(SIZES, BATCHES):
        image, alone = sample_images(batch, size), 0.0
        coarse = model.working_alpha(image)
        refined = coarse if model.refiner is None else model.refiner(image, coarse)
        mattes = network.run([COARSE, REFINED], {IMAGE: image.numpy()})
        if model.refiner is not None:
            # a random matte: with a model that is sure everywhere the refiner would not be tested
            random = torch.rand(coarse.shape, generator=torch.Generator().manual_seed(batch))
            matte = refiner[0].run([REFINED], {IMAGE: image.numpy(), COARSE: random.numpy()})[0]
            alone = largest_difference(model.refiner(image, random), matte)
        unsure = ((coarse > 0) & (coarse < 1)).float().mean().item()
        errors = largest_difference(coarse, mattes[0]), largest_difference(refined, mattes[1])
        yield Difference(batch, size, *errors, alone, unsure)


def largest_difference(expected: Tensor, exported: np.ndarray) -> float:
    if tuple(expected.shape) != exported.shape:
        raise UserError(f"onnxruntime returns shape {exported.shape}, PyTorch {tuple(expected.shape)}.")
    return float(np.abs(expected.numpy() - exported).max())


def sample_images(batch: int, size: tuple[int, int]) -> Tensor:
    """Synthetic photos, (batch, 3, *size) in [0, 1], in which a trained model finds a subject."""
    height, width = size
    photos = [render_sample(0, "val", index, max(size)).image[:height, :width] for index in range(batch)]
    return torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2).clamp(0, 1).contiguous()  # (N, 3, H, W)
