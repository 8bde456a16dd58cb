"""Swin encoder: the box that appears twice in the figure, as student (photo) and as teacher (true alpha)."""

from __future__ import annotations

import os
from typing import Any

import huggingface_hub
import safetensors.torch
import timm
import torch
import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformerStage
from torch import Tensor, nn

from common import hub
from common.errors import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
STRIDES = (4, 8, 16, 32)
HUB_FILE = "model.safetensors"
OWN_PREFIX = "student.swin."  # where a checkpoint of this project keeps its backbone
PADDING_MULTIPLE = STRIDES[-1]  # patch merging halves exactly only for multiples of the last stride


def pad(x: Tensor) -> Tensor:
    """Replicate the right and bottom border up to a multiple of 32, which Swin's stages halve without a remainder."""
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % PADDING_MULTIPLE, 0, -height % PADDING_MULTIPLE), mode="replicate")


class Encoder(nn.Module):
    """Hierarchical Swin Transformer (Liu et al., ICCV 2021) with one feature map per stage.

    The stages of timm's Swin put out their raw residual stream, whose scale grows with depth; as in Swin's own
    detection code each stage gets its own LayerNorm, so that the decoder and the alignment see comparable values.

    Input: (N, in_channels, H, W) in [0, 1], H and W multiples of 32. Output: [f1, f2, f3, f4], f_i of shape
    (N, channels[i], H / STRIDES[i], W / STRIDES[i]), in channels_last memory (no copy: Swin computes in NHWC).
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
        self.swin = _create_swin(backbone, in_channels, pretrained, weights_file, drop_path)
        self.channels: tuple[int, ...] = tuple(self.swin.feature_info.channels())
        self.norms = nn.ModuleList(nn.LayerNorm(c) for c in self.channels)
        mean, std = (IMAGENET_MEAN, IMAGENET_STD) if in_channels == 3 else ((0.5,), (0.5,))
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        stages = self.swin((x - self.mean) / self.std)  # 4 x (N, H/s, W/s, C)
        return [norm(f).permute(0, 3, 1, 2) for norm, f in zip(self.norms, stages, strict=True)]  # (N, C, H/s, W/s)

    def set_gradient_checkpointing(self) -> None:
        """Trade a second forward of each block for not keeping its activations.

        By block, not by stage as timm's feature extractor would: while a stage of 18 blocks is recomputed, it holds the
        activations of all of them.
        """
        for stage in self.swin.modules():
            if isinstance(stage, SwinTransformerStage):
                stage.grad_checkpointing = True


def _create_swin(backbone: str, in_channels: int, pretrained: bool, weights_file: str | None, drop_path: float) -> Any:
    """timm's feature extractor; always_partition and strict_img_size let one set of weights take any size."""
    options: dict[str, Any] = dict(
        features_only=True, in_chans=in_channels, drop_path_rate=drop_path, strict_img_size=False, always_partition=True
    )
    if pretrained and not weights_file:
        weights_file = _download_weights(backbone)
    if not weights_file:
        return timm.create_model(backbone, pretrained=False, **options)
    state = _read_backbone_weights(weights_file)
    names = set(state)
    try:
        swin = timm.create_model(backbone, pretrained=True, pretrained_cfg_overlay={"state_dict": state}, **options)
    except (RuntimeError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{weights_file} does not hold weights of {backbone} ({reason}): name a file for this MODEL_IDX."
        ) from error
    # for features_only timm loads what fits and leaves the rest random; only the downsampling has two namings
    wanted = [name.replace("layers_", "layers.") for name, _ in swin.named_parameters() if "downsample" not in name]
    missing = [name for name in wanted if name not in names]
    if missing:
        raise UserError(
            f"{weights_file} lacks {len(missing)} weights of {backbone}, such as "
            f"{missing[0]}: name a file for this MODEL_IDX."
        )
    surplus = [name for name in names.difference(wanted) if ".blocks." in name and name.endswith((".weight", ".bias"))]
    if surplus:  # a deeper one holds all that a shallower one wants
        raise UserError(
            f"{weights_file} holds {len(surplus)} weights that {backbone} has no place for, "
            f"such as {min(surplus)}: name a file for this MODEL_IDX."
        )
    return swin


def _download_weights(backbone: str) -> str:
    """timm's ImageNet weights of the backbone, from the hub's cache on this machine or, once, from the hub."""
    repository = str(getattr(timm.get_pretrained_cfg(backbone), "hf_hub_id", ""))
    cached = huggingface_hub.try_to_load_from_cache(repository, HUB_FILE)
    if isinstance(cached, str):
        return cached
    try:
        return str(hub.download(repository, HUB_FILE))
    except UserError as error:
        raise UserError(
            f"The ImageNet weights of {backbone} could not be downloaded. {error} "
            "Or give a local file with --backbone-weights FILE, or "
            "start from scratch with --no-pretrained (with --init-from only the teacher needs them: "
            "--no-use-teacher leaves it out)."
        ) from error


def _read_backbone_weights(path: str) -> dict:
    """State dict in timm's or the official Swin naming (timm's filter maps the latter), or the student's of a
    best.safetensors. Runs no code from the file."""
    if not os.path.isfile(path):
        raise UserError(f"{path} does not exist: name a .safetensors or .pth file of the backbone.")
    try:
        state = (
            safetensors.torch.load_file(path)
            if path.endswith(".safetensors")
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # pickle, zip and safetensors each raise their own classes for a broken file
        raise UserError(
            f"{path} is not a readable weight file ({type(error).__name__}): download it "
            "again, or convert it to .safetensors."
        ) from error
    if isinstance(state, dict):
        state = state.get("model", state.get("state_dict", state))
    if isinstance(state, dict) and any(name.startswith(OWN_PREFIX) for name in state):
        state = {
            name.removeprefix(OWN_PREFIX).replace("layers_", "layers."): value
            for name, value in state.items()
            if name.startswith(OWN_PREFIX)
        }
    if not isinstance(state, dict) or not state:  # for an empty one timm would ask the hub
        raise UserError(f"{path} holds no weights by name: name a .safetensors or .pth file of the backbone.")
    return state
