"""The wiring of TSR-Matte: student encoder, decoder, refiner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from common.resize import Size
from models.decoder import Decoder
from models.encoder import Encoder
from models.octaves import climb, interpolate
from models.refiner import Refiner

SATURATION_MARGIN = 0.01


class MattingOutput(NamedTuple):
    """All that training needs of a forward pass."""

    coarse_logits: Tensor  # (N, 1, h, w) at the student's size
    coarse_alpha: Tensor  # (N, 1, H, W) at the photo's size
    octaves: list[Tensor] | None  # refined alphas, ascending, the last (N, 1, H, W); None without a refiner
    features: list[Tensor]  # f1 .. f4 of the encoder

    @property
    def refined_alpha(self) -> Tensor | None:
        """(N, 1, H, W), or None without a refiner."""
        return self.octaves[-1] if self.octaves else None


def saturating_sigmoid(logits: Tensor, margin: float = SATURATION_MARGIN) -> Tensor:
    """clamp((1 + 2 margin) sigmoid(z) - margin, 0, 1) in float32: exactly 0 or 1 beyond |z| = 4.6.

    A plain sigmoid never gets there and attention would never vanish. Where it clamps, the cross-entropy on the
    logits keeps the gradient alive.
    """
    return ((1.0 + 2.0 * margin) * logits.float().sigmoid() - margin).clamp(0.0, 1.0)


def decode(decoder: Decoder, features: Sequence[Tensor], size: Size) -> Tensor:
    """Logits (N, 1, *size): the decoder's, without the padding that the encoder's input had."""
    return decoder(features)[..., : size[0], : size[1]]


class MattingNetwork(nn.Module):
    """TSR-Matte; without a refiner it is TwinSwin-Matte. Parts are built by build_model and passed in."""

    def __init__(self, *, student: Encoder, decoder: Decoder, refiner: Refiner | None, image_size: int) -> None:
        super().__init__()
        self.student = student
        self.decoder = decoder
        self.refiner = refiner
        self.image_size = image_size  # working size: the photo's long side as the student sees it

    def forward(self, image: Tensor, view: Tensor | None = None) -> MattingOutput:
        """image: (N, 3, H, W) in [0, 1], any size. view: the student's own, smaller copy of it, (N, 3, h, w)."""
        view = image if view is None else view
        features = self.student(view)  # f_i: (N, C_i, h/s, w/s)
        logits = decode(self.decoder, features, (view.shape[-2], view.shape[-1]))  # (N, 1, h, w)
        alpha = saturating_sigmoid(logits)  # (N, 1, h, w)
        size = (image.shape[-2], image.shape[-1])
        in_octaves = self.refiner is not None and self.refiner.use_octaves
        octaves = None if self.refiner is None else climb(image, alpha, self.refiner, in_octaves)  # last: (N, 1, H, W)
        return MattingOutput(logits, interpolate(alpha, size, in_octaves), octaves, features)

    def working_alpha(self, image: Tensor) -> Tensor:
        """The student's matte alone, (N, 3, h, w) -> (N, 1, h, w): what native-resolution prediction starts from."""
        return saturating_sigmoid(decode(self.decoder, self.student(image), (image.shape[-2], image.shape[-1])))

    def set_gradient_checkpointing(self) -> None:
        """Trade a second forward pass of encoder and refiner for not keeping their activations."""
        self.student.set_gradient_checkpointing()
        if self.refiner:
            self.refiner.gradient_checkpointing = True

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device
