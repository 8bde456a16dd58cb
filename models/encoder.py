"""The encoder: the box that appears twice in the figure, as student (photo) and as teacher (true alpha)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import timm
import torch
import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformerBlock, window_partition, window_reverse
from torch import Tensor, nn

from common.resize import Size

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
STRIDES = (4, 8, 16, 32)


class Family(NamedTuple):
    """A row of the table of encoders: the networks of timm whose names start alike, with maps at strides 4 to 32.

    A new family is a row here, and its networks are rows of config.VARIANTS: name, working size, and the name in timm,
    which also says where the weights are.
    """

    name: str
    prefix: str  # of the names in timm
    multiple: int  # pixels: height and width are padded to a multiple
    options: Mapping[str, Any] = {}  # of timm.create_model


FAMILIES = (
    # Swin (Liu et al., ICCV 2021): whole patches; deeper maps round up. One set of weights takes any size.
    Family("Swin", "swin_", 4, {"strict_img_size": False, "always_partition": True}),
    # ConvNeXt (Liu et al., CVPR 2022), whose maps round down
    Family("ConvNeXt", "convnext", 32),
)


def find_family(backbone: str) -> Family:
    """The row of a network of timm. Raises ValueError for all others, such as hf-hub:..., which timm would download."""
    for family in FAMILIES:
        if backbone.startswith(family.prefix) and re.fullmatch(r"[a-z0-9_.]+", backbone):
            return family
    raise ValueError(f"{backbone!r:.60} is not the name of an encoder in models/encoder.py")


def pad(x: Tensor, multiple: int) -> Tensor:
    """Replicate the right and bottom border up to a multiple of this many pixels."""
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % multiple, 0, -height % multiple), mode="replicate")


class FittedBlock(SwinTransformerBlock):
    """timm's block, whose window is never larger than the map and does not shift in a map that it spans.

    That is how Swin was trained on ImageNet. timm fits the windows to one size of photo; always_partition takes any
    size, but fills a map of 3 x 3 up to 7 x 7. The position biases of a smaller window are part of the full table.
    """

    def _attn(self, x: Tensor) -> Tensor:  # (N, H, W, C), as what comes back
        batch, height, width, channels = x.shape
        rows, columns = _at_most(self.window_size[0], height), _at_most(self.window_size[1], width)
        shift = self.shift_size[0] * (height > rows), self.shift_size[1] * (width > columns)
        x = F.pad(x.roll((-shift[0], -shift[1]), (1, 2)), (0, 0, 0, -width % columns, 0, -height % rows))
        padded = (x.shape[1], x.shape[2])
        places = window_partition(x, (rows, columns)).flatten(1, 2)  # (N windows, rows x columns, C)
        attention: Any = self.attn
        qkv = attention.qkv(places).unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)  # (N windows, heads, places, C / heads)
        scores = (query * attention.scale) @ key.transpose(-2, -1) + self._position_bias(rows, columns)
        if any(self.shift_size):
            mask = _shift_mask(padded, (rows, columns), shift, x)[:, None]  # (windows, 1, places, places)
            scores = (scores.unflatten(0, (batch, -1)) + mask).flatten(0, 1)
        places = attention.proj((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))
        x = window_reverse(places.unflatten(1, (rows, columns)), (rows, columns), *padded)
        return x[:, :height, :width].roll(shift, (1, 2))

    def _position_bias(self, rows: int, columns: int) -> Tensor:
        """(heads, places, places) of a window of at most the full size."""
        full, attention = self.window_size, cast(Any, self.attn)
        index = attention.relative_position_index.view(*full, *full)[:rows, :columns, :rows, :columns]
        bias = attention.relative_position_bias_table[index.flatten()]
        return bias.view(rows * columns, rows * columns, -1).permute(2, 0, 1)


def _at_most(largest: int, extent: Any) -> Any:
    """The smaller one. While export.py traces, extents are tensors, and the graph has to hold for each of them."""
    return extent.clamp(max=largest) if isinstance(extent, Tensor) else min(largest, extent)


def _shift_mask(size: Size, window: Size, shift: Size, like: Tensor) -> Tensor:
    """(windows, places, places): -100 between places that are neighbours only since the map was rolled, else 0."""
    parts = [
        torch.arange(extent, device=like.device).ge(extent - side).long()
        + torch.arange(extent, device=like.device).ge(extent - step)
        for extent, side, step in zip(size, window, shift, strict=True)
    ]
    part = (3 * parts[0][:, None] + parts[1]).view(1, *size, 1)
    part = window_partition(part, window).flatten(1)  # (windows, places)
    return (part[:, None] != part[:, :, None]).to(like.dtype) * -100.0


class Encoder(nn.Module):
    """A hierarchical network of timm, with one feature map per stage.

    The stages put out their raw residual stream, whose scale grows with depth; as in Swin's own detection code each
    stage gets its own LayerNorm, so that the decoder and the alignment see comparable values.

    Input: (N, in_channels, H, W) in [0, 1], of any size; it is padded to a multiple of family.multiple pixels.
    Output: [f1, f2, f3, f4], f_i of shape (N, channels[i], H / STRIDES[i], W / STRIDES[i]), rounded up, in
    channels_last memory (no copy where the network computes in NHWC, as Swin does).
    """

    def __init__(
        self,
        backbone: str,
        *,
        in_channels: int = 3,
        pretrained: bool = False,
        weights_file: str | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.family = find_family(backbone)
        self.backbone = _create_backbone(backbone, in_channels, pretrained, weights_file, drop_path)
        for block in self.backbone.modules():
            if isinstance(block, SwinTransformerBlock):
                block.__class__ = FittedBlock  # timm's factory takes no class for its blocks
        has_batch_norm = any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in self.backbone.modules())
        if has_batch_norm or tuple(self.backbone.feature_info.reduction()) != STRIDES:
            raise ValueError(
                f"{backbone} must have strides {STRIDES}, and no running statistics: nothing averages them"
            )
        self.channels: tuple[int, ...] = tuple(self.backbone.feature_info.channels())
        self.norms = nn.ModuleList(nn.LayerNorm(c) for c in self.channels)
        mean, std = (IMAGENET_MEAN, IMAGENET_STD) if in_channels == 3 else ((0.5,), (0.5,))
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        stages = self.backbone((pad(x, self.family.multiple) - self.mean) / self.std)
        if self.backbone.output_fmt == "NCHW":
            stages = [f.permute(0, 2, 3, 1) for f in stages]  # 4 x (N, H/s, W/s, C)
        return [norm(f).permute(0, 3, 1, 2) for norm, f in zip(self.norms, stages, strict=True)]  # (N, C, H/s, W/s)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Files of before there were other families call the backbone swin."""
        for name in [name for name in state_dict if name.startswith(f"{prefix}swin.")]:
            state_dict[name.replace("swin.", "backbone.", 1)] = state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def set_gradient_checkpointing(self) -> None:
        """Trade a second forward of each block for not keeping its activations.

        By block, not by stage as timm's feature extractor would: while a stage of 18 blocks is recomputed, it holds the
        activations of all of them.
        """
        for stage in self.backbone.children():
            if hasattr(stage, "grad_checkpointing"):
                stage.grad_checkpointing = True


def _create_backbone(
    backbone: str, in_channels: int, pretrained: bool, weights_file: str | None, drop_path: float
) -> Any:
    """timm's feature extractor."""
    options: dict[str, Any] = dict(features_only=True, in_chans=in_channels, drop_path_rate=drop_path)
    options |= find_family(backbone).options
    if not (pretrained or weights_file):
        return timm.create_model(backbone, pretrained=False, **options)
    from models.backbone_weights import create_with_weights  # predict.py and a resumed run have no use for it

    return create_with_weights(backbone, weights_file, options)
