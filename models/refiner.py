"""Full-resolution dilated residual refiner; the mask-guided attention 4 x (1 - x) limits it to uncertain pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

DILATIONS = (1, 2, 4)
COLOUR_RADIUS = 6  # pixels; the blur of a matte of stride 4 at twice its size, where 12 was no better
COLOUR_DOUBT = 0.01  # squared colour distance at which the estimate trusts the photo as much as the coarse alpha
TRUST_GAIN = 4.0  # lets the trust in the colours go from 0 to 1 within some hundred small steps
RESIDUAL_SCALE = 0.3  # of each block's mixing layer at the start, so that blocks begin near the identity
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601

Borders = tuple[bool, bool, bool, bool]  # which sides of a window are the photo's own: left, right, top, bottom
WHOLE_PHOTO: Borders = (True, True, True, True)


def crop(x: Tensor, pixels: int, borders: Borders) -> Tensor:
    """x (..., H, W) without so many pixels at each side that is not the photo's border."""
    left, right, top, bottom = (0 if border else pixels for border in borders)
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


def convolve(layer: nn.Conv2d, x: Tensor, borders: Borders) -> Tensor:
    """A 3x3 convolution that sees zeros beyond the photo's borders; at the other sides its output is shorter."""
    if all(borders):
        return layer(x)
    x = F.pad(x, [layer.dilation[0] * border for border in borders])
    return F.conv2d(x, layer.weight, layer.bias, dilation=layer.dilation)


def uncertainty(alpha: Tensor) -> Tensor:
    """Mask-guided attention 4 x (1 - x): 1 where alpha is 0.5, 0 where it is 0 or 1. Any shape, [0, 1] to [0, 1]."""
    return 4.0 * alpha * (1.0 - alpha)


def gradient_map(image: Tensor) -> Tensor:
    """Sobel gradient magnitude of the luma, scaled to about [0, 1]. (N, 3, H, W) in [0, 1] -> (N, 1, H, W)."""
    red, green, blue = image.split(1, dim=1)
    luma = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue  # plain numbers: a tensor would be copied to the device
    luma = F.pad(luma, (1, 1, 1, 1), mode="replicate")  # (N, 1, H+2, W+2)
    smooth_y = luma[:, :, :-2] + 2 * luma[:, :, 1:-1] + luma[:, :, 2:]  # (N, 1, H, W+2)
    smooth_x = luma[..., :-2] + 2 * luma[..., 1:-1] + luma[..., 2:]  # (N, 1, H+2, W)
    dx = smooth_y[..., 2:] - smooth_y[..., :-2]
    dy = smooth_x[:, :, 2:] - smooth_x[:, :, :-2]
    return (dx.square() + dy.square() + 1e-12).sqrt() / 4.0


def box_mean(x: Tensor, radius: int) -> Tensor:
    """Mean over a square window of 2 radius + 1 pixels, borders replicated. (N, C, H, W), same shape."""
    width = 2 * radius + 1
    x = F.pad(x, (radius,) * 4, mode="replicate")
    return _window_sum(_window_sum(x, -1, width), -2, width) / width**2


def _window_sum(x: Tensor, dim: int, width: int) -> Tensor:
    """Sums of `width` neighbours along dim, from sums of 1, 2, 4 ... of them: on a CPU 8 times faster than pooling.

    Each sum is made in the same order wherever it stands, so a tile's are those of the whole photo.
    """
    count = x.shape[dim] - width + 1
    total, start, size = None, 0, 1
    while size <= width:
        if width & size:
            part = x.narrow(dim, start, count)
            total, start = part if total is None else total + part, start + size
        if 2 * size <= width:
            x = x.narrow(dim, 0, x.shape[dim] - size) + x.narrow(dim, size, x.shape[dim] - size)
        size *= 2
    assert total is not None
    return total


def colour_alpha(image: Tensor, coarse_alpha: Tensor, radius: int = COLOUR_RADIUS) -> Tensor:
    """The alpha with which a pixel is a mix of the subject's and the scene's colours around it, (N, 1, H, W) in [0, 1].

    F and B are means of the photo in a window, weighted by coarse^2 and (1 - coarse)^2. The compositing equation
    I = a F + (1 - a) B then has the least-squares solution a = (I - B).(F - B) / |F - B|^2, the projection onto the
    line of colours. Where F and B look alike it says nothing, and the estimate falls back to the coarse alpha.
    A blurred coarse matte knows on which side the subject is, the photo knows where the edge is: this joins the two
    before anything is learned.
    """
    weights = torch.cat([coarse_alpha.square(), (1.0 - coarse_alpha).square()], dim=1)  # (N, 2, H, W)
    subject, scene = weights.split(1, dim=1)
    means = box_mean(torch.cat([subject * image, scene * image, weights], dim=1), radius)  # (N, 8, H, W)
    foreground = means[:, :3] / (means[:, 6:7] + 1e-4)
    background = means[:, 3:6] / (means[:, 7:] + 1e-4)
    line = foreground - background  # (N, 3, H, W)
    along = ((image - background) * line).sum(1, keepdim=True)  # (N, 1, H, W)
    length = line.square().sum(1, keepdim=True)
    return ((along + COLOUR_DOUBT * coarse_alpha) / (length + COLOUR_DOUBT)).clamp(0.0, 1.0)


class DilatedInception(nn.Module):
    """Three 3x3 convolutions side by side that look 1, 2 and 4 pixels far, mixed and added back."""

    def __init__(self, channels: int, branch_channels: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Conv2d(channels, branch_channels, 3, padding=d, dilation=d) for d in DILATIONS)
        self.mix = nn.Conv2d(len(DILATIONS) * branch_channels, channels, 1)

    def forward(self, x: Tensor, borders: Borders = WHOLE_PHOTO) -> Tensor:
        reach = max(DILATIONS)
        views = [crop(x, reach - dilation, borders) for dilation in DILATIONS]
        pairs = zip(self.branches, views, strict=True)
        seen = [convolve(branch, view, borders) for branch, view in pairs]  # type: ignore[arg-type]  # all Conv2d
        mixed = self.mix(torch.cat(seen, dim=1).relu_())
        return torch.relu_(crop(x, reach, borders) + mixed)


class Refiner(nn.Module):
    """refined = clamp(coarse + 4 coarse (1 - coarse) delta, 0, 1), delta in [-1, 1] from a small dilated network.

    It sees the photo, its gradient map, the coarse alpha, and an estimate of alpha from the colours nearby. Its two
    outputs are what to add, and how far to trust the estimate:
    delta = tanh(rest + TRUST_GAIN trust (estimate - coarse)).

    No downsampling, and no normalization: either would make a pixel depend on more than its receptive field, and a
    tile of a photo would no longer agree with the whole photo. The last layer starts at zero, so delta is 0 and the
    refined matte is the coarse one, bit for bit, at step 0 (smart initialization). The four switches exist for
    experiments/ablation.py. Without attention every tile must be refined.

    Input: image (N, 3, H, W) and coarse alpha (N, 1, H, W), both in [0, 1]. Output: refined alpha (N, 1, H, W), of a
    window of the photo receptive_radius shorter at each side that is not the photo's border: what lies there depends
    on pixels outside. Each layer computes only what the next ones need.
    """

    def __init__(
        self,
        channels: int = 32,
        branch_channels: int = 16,
        blocks: int = 3,
        *,
        use_attention: bool = True,
        use_colours: bool = True,
        use_octaves: bool = True,
        smart_init: bool = True,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.use_attention = use_attention
        self.use_colours = use_colours
        self.use_octaves = use_octaves  # MattingNetwork and matting.py read it
        self.gradient_checkpointing = False
        self.stem = nn.Conv2d(5 + use_colours, channels, 3, padding=1)
        inceptions = [DilatedInception(channels, branch_channels) for _ in range(blocks)]
        self.blocks = nn.Sequential(*inceptions)
        self.head = nn.Conv2d(channels, 1 + use_colours, 3, padding=1)
        for layer in self.modules():  # no normalization will correct the scale: it must be right from the start
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # each has one
        for block in inceptions:
            block.mix.weight.data *= RESIDUAL_SCALE
        if smart_init:
            nn.init.zeros_(self.head.weight)
        self.input_radius = COLOUR_RADIUS if use_colours else 1  # pixels that the window of colours or Sobel reaches
        # pixels to each side that can change a pixel: inputs, stem, blocks, head
        self.receptive_radius = self.input_radius + 1 + blocks * max(DILATIONS) + 1

    def forward(self, image: Tensor, coarse_alpha: Tensor, borders: Borders = WHOLE_PHOTO) -> Tensor:
        correction = self.delta(image, coarse_alpha, borders)
        coarse_alpha = crop(coarse_alpha, self.receptive_radius, borders)
        if self.use_attention:
            correction = uncertainty(coarse_alpha) * correction
        return (coarse_alpha + correction).clamp(0.0, 1.0)

    @property
    def device(self) -> torch.device:
        return self.stem.weight.device

    def delta(self, image: Tensor, coarse_alpha: Tensor, borders: Borders = WHOLE_PHOTO) -> Tensor:
        """The bounded correction before attention, float32 (N, 1, H, W) in [-1, 1], of the size of forward's output."""
        inputs = [2.0 * image - 1.0, gradient_map(image), 2.0 * coarse_alpha - 1.0]
        if self.use_colours:
            with torch.no_grad():  # no gradient to the coarse matte through the estimate; it has its own losses
                estimate = colour_alpha(image, coarse_alpha)
            inputs.append(2.0 * estimate - 1.0)
        x = crop(torch.cat(inputs, dim=1), self.input_radius, borders)  # (N, 6, H, W)
        # half weights (export.py --half) do half sums; image and mattes come in float32 and stay so
        x = x.to(self.stem.weight.dtype).contiguous(memory_format=torch.channels_last)
        x = torch.relu(convolve(self.stem, x, borders))  # (N, channels, H, W)
        for block in self.blocks:
            if self.gradient_checkpointing and self.training:  # nothing in it is random
                x = checkpoint(block, x, borders, use_reentrant=False, preserve_rng_state=False)
            else:
                x = block(x, borders)
        delta, *trust = convolve(self.head, x, borders).float().split(1, dim=1)  # (N, 1, H, W) each
        if self.use_colours:
            delta = delta + TRUST_GAIN * trust[0] * crop(estimate - coarse_alpha, self.receptive_radius, borders)
        return torch.tanh(delta)
