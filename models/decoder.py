"""U-Net decoder: f4 .. f1 in, logits of the coarse alpha out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUPS = 8
PRIOR_LOGIT = -1.0  # a photo is more background than subject


class Fuse(nn.Module):
    """Bring the deeper map up to the finer one, add its lateral projection, and mix with two convolutions.

    GroupNorm, not BatchNorm: the result of a photo must not depend on its batch, its process or the resume point.
    """

    def __init__(self, deep_channels: int, lateral_channels: int, channels: int) -> None:
        super().__init__()
        self.up = nn.Conv2d(deep_channels, channels, 1)
        self.lateral = nn.Conv2d(lateral_channels, channels, 1)
        self.mix = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.GroupNorm(GROUPS, channels),
            nn.ReLU(True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.GroupNorm(GROUPS, channels),
        )

    def forward(self, deep: Tensor, lateral: Tensor) -> Tensor:
        # projecting before upsampling does the 1x1 convolution on a quarter of the pixels
        deep = F.interpolate(self.up(deep), scale_factor=2, mode="bilinear", align_corners=False)
        lateral = self.lateral(lateral)
        x = deep[..., : lateral.shape[-2], : lateral.shape[-1]] + lateral  # an odd map was padded before it was halved
        return torch.relu(x + self.mix(x))


class Decoder(nn.Module):
    """Input: [f1 .. f4] of an Encoder. Output: logits (N, 1, H, W) of the coarse alpha at the encoder's input size.

    The last map has stride 4 and the logits are interpolated from it: detail finer than that is the refiner's work.
    """

    def __init__(self, feature_channels: Sequence[int], channels: Sequence[int] = (64, 96, 128)) -> None:
        super().__init__()
        c1, c2, c3, c4 = feature_channels
        d1, d2, d3 = channels
        self.decode3 = Fuse(c4, c3, d3)
        self.decode2 = Fuse(d3, c2, d2)
        self.decode1 = Fuse(d2, c1, d1)
        self.head = nn.Conv2d(d1, 1, 3, padding=1)
        self.head.bias.data.fill_(PRIOR_LOGIT)  # type: ignore[union-attr]  # a convolution with a bias

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        f1, f2, f3, f4 = features
        x = self.decode3(f4, f3)  # (N, 128, H/16, W/16)
        x = self.decode2(x, f2)  # (N, 96, H/8, W/8)
        x = self.decode1(x, f1)  # (N, 64, H/4, W/4)
        logits = self.head(x)  # (N, 1, H/4, W/4)
        return F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)  # (N, 1, H, W)
