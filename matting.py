"""predict_alpha(model, image): the one road from a photo to its matte, at native resolution.

The student sees the photo at the model's working size. Its coarse alpha is interpolated to native size, and the
refiner corrects it there, tile by tile, only where it can change anything. Prediction, evaluation, validation, the
web page and the benchmark all come through here, so a number that is reported belongs to the picture that is shipped.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from common.devices import autocast, choose_precision
from common.resize import resize_to_working_size
from models import MattingNetwork
from models.matting_network import resize_alpha
from models.refiner import Refiner, uncertainty

GATE = 1 / 510  # half a grey level: |attention * delta| below it cannot change an 8-bit matte
TILE = 192  # pixels; smaller skips more, larger wastes less on halos (estimated from tile counts)
CPU_TILE_MEMORY = 64 * 2**20  # tensors under 32 MB, whose pages malloc keeps; larger ones are zeroed anew, 2x slower
BYTES_PER_CHANNEL = 20  # peak activations of the refiner, a pixel and channel, in float32; checked by a test


class Mattes(NamedTuple):
    """Both mattes of a photo, float32 (1, H, W) in [0, 1], and the share of tiles that the refiner had to see."""

    coarse_alpha: Tensor
    refined_alpha: Tensor
    refined_share: float


def predict_alpha(model: MattingNetwork, image: Tensor, **options) -> Tensor:
    """Alpha matte of a photo. image: uint8 (3, H, W) RGB, any size; returns float32 (1, H, W) in [0, 1].

    Options are those of predict_mattes.
    """
    return predict_mattes(model, image, **options).refined_alpha


@torch.inference_mode()
def predict_mattes(
    model: MattingNetwork,
    image: Tensor,
    *,
    precision: torch.dtype | None = None,
    max_memory: int | None = None,
    gated: bool = True,
    tile: int = TILE,
) -> Mattes:
    """Coarse and refined matte of one photo, uint8 (3, H, W), on the model's device.

    model: a MattingNetwork, or an onnx_model.OnnxMatting, which has the same image_size, device, coarse_alpha and
    refiner.

    precision: autocast type, by default the fastest that the device has natively. max_memory: bytes for a batch of
    tiles, by default a share of what the device has free. Beside it, 11 bytes a pixel of the photo are held (photo,
    coarse, refined). gated=False refines the whole photo at once, for comparison.
    """
    device = model.device
    precision = choose_precision("auto", device) if precision is None else precision
    image = image.to(device, non_blocking=True)
    with autocast(device, precision):
        view = resize_to_working_size(image, model.image_size)  # (3, h, w)
        coarse = model.coarse_alpha(view[None].float() / 255)  # (1, 1, h, w)
        coarse = resize_alpha(coarse, image.shape[-2:])  # (1, 1, H, W)
        if model.refiner is None:
            return Mattes(coarse[0], coarse[0], 0.0)
        if not gated:
            return Mattes(coarse[0], model.refiner(image[None].float() / 255, coarse)[0], 1.0)
        refined, share = refine_uncertain(model.refiner, image, coarse[0], tile=tile, max_memory=max_memory)
    return Mattes(coarse[0], refined, share)


def refine_uncertain(
    refiner: Refiner, image: Tensor, coarse: Tensor, *, tile: int = TILE, max_memory: int | None = None
) -> tuple[Tensor, float]:
    """Refine the tiles in which the coarse alpha is uncertain enough to matter.

    image: uint8 (3, H, W); coarse: float32 (1, H, W), same device. Returns the refined alpha (1, H, W) and the share
    of tiles that were refined. Each tile is computed in a window that reaches a receptive field further; at the
    photo's border the window is moved inward, not cut, so that all windows have one size, can go in one batch, and
    end where the photo ends: inside a refined tile the result is that of the whole photo.
    """
    height, width = coarse.shape[-2:]
    refined = coarse.clone()
    tiles = list(_uncertain_tiles(coarse, tile) if refiner.use_attention else _all_tiles(coarse, tile))
    halo = refiner.receptive_radius
    window = (min(height, tile + 2 * halo), min(width, tile + 2 * halo))
    batch = _tiles_per_batch(refiner, window, coarse.device, max_memory)
    for start in range(0, len(tiles), batch):
        group = tiles[start : start + batch]
        corners = [
            (min(max(y - halo, 0), height - window[0]), min(max(x - halo, 0), width - window[1])) for y, x in group
        ]
        photos = torch.stack([image[:, y : y + window[0], x : x + window[1]] for y, x in corners])
        mattes = torch.stack([coarse[:, y : y + window[0], x : x + window[1]] for y, x in corners])
        results = refiner(photos.float() / 255, mattes)  # (n, 1, *window)
        for (y, x), (top, left), result in zip(group, corners, results, strict=True):
            bottom, right = min(y + tile, height), min(x + tile, width)
            refined[:, y:bottom, x:right] = result[:, y - top : bottom - top, x - left : right - left]
    count = -(-height // tile) * -(-width // tile)
    return refined, len(tiles) / count


def _uncertain_tiles(coarse: Tensor, tile: int) -> Iterator[tuple[int, int]]:
    """Corners (y, x) of the tiles whose largest attention reaches the gate; one transfer from the device a photo."""
    rows = []
    for y in range(0, coarse.shape[-2], tile):  # a row of tiles at a time: no second map of the photo's size
        attention = uncertainty(coarse[0, y : y + tile]).amax(0)  # (W,)
        attention = torch.nn.functional.pad(attention, (0, -len(attention) % tile))
        rows.append(attention.view(-1, tile).amax(1))  # (tiles in a row,)
    for y, x in (torch.stack(rows) >= GATE).nonzero().tolist():
        yield y * tile, x * tile


def _all_tiles(coarse: Tensor, tile: int) -> Iterator[tuple[int, int]]:
    """Corners of every tile: without attention the refiner may change any pixel."""
    return itertools.product(range(0, coarse.shape[-2], tile), range(0, coarse.shape[-1], tile))


def _tiles_per_batch(refiner: Refiner, window: tuple[int, int], device: torch.device, max_memory: int | None) -> int:
    if max_memory is None:
        max_memory = torch.cuda.mem_get_info(device)[0] // 4 if device.type == "cuda" else CPU_TILE_MEMORY
    a_tile = window[0] * window[1] * refiner.channels * BYTES_PER_CHANNEL
    return max(1, min(max_memory // a_tile, 64))
