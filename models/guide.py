"""A guide: a frozen network of timm whose features pull the student's own. In training only; nothing of it is shipped.

For a student that starts from random weights (Li et al., Locality Guidance for Improving Vision Transformers on Tiny
Datasets, ECCV 2022). It needs no truth, so photos without masks can teach too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.errors import UserError
from common.resize import resize
from models.backbone_weights import download_weights, read_weights
from models.encoder import STRIDES

MAGNIFICATION = 2  # the guide sees the student's view at this multiple of its size: its features are twice as coarse
GUIDED = (1, 2, 3)  # f2, f3 and f4: f1 is too local to need a guide


class Guide(nn.Module):
    """The frozen network, and 1 x 1 convolutions from the student's features to its own, which learn.

    f2, f3 and f4 each follow the deepest map that is at least as fine in the photo.
    """

    def __init__(self, name: str, student_channels: Sequence[int], *, weights_file: str = "", pretrained: bool = True):
        """name: any convolutional network of timm with ImageNet weights; they come from the hub, or from the file.

        pretrained=False: the weights will come from a saved state. Raises UserError.
        """
        super().__init__()
        self.network: Any = _create_network(name, weights_file, pretrained).requires_grad_(False)
        maps = self._maps(torch.zeros(1, 3, 64, 64))
        strides = [64 // m.shape[-1] for m in maps]
        self.followed = [
            max(i for i, stride in enumerate(strides) if stride <= MAGNIFICATION * STRIDES[level]) for level in GUIDED
        ]
        self.projections = nn.ModuleList(
            nn.Conv2d(student_channels[level], maps[i].shape[1], 1)
            for level, i in zip(GUIDED, self.followed, strict=True)
        )
        self.mean: Tensor
        self.std: Tensor
        cfg = self.network.pretrained_cfg
        self.register_buffer("mean", torch.tensor(cfg["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(cfg["std"]).view(1, 3, 1, 1), persistent=False)

    def forward(
        self, features: Sequence[Tensor], image: Tensor, size: tuple[int, int]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """For losses.guide_loss: the student's f2, f3 and f4, projected, and the guide's maps at their sizes, float32.

        features: f1 ... f4 of the student's view of (h, w) = size; image: the crop (N, 3, H, W) in [0, 1].
        """
        with torch.no_grad():
            large = resize(image, (MAGNIFICATION * size[0], MAGNIFICATION * size[1]))
            targets = self._maps((large - self.mean) / self.std)
        with torch.autocast(device_type=image.device.type, enabled=False):
            own = [project(features[level].float()) for level, project in zip(GUIDED, self.projections, strict=True)]
            maps = [targets[index].float() for index in self.followed]
            sizes = [x.shape[-2:] for x in own]
            return own, [F.adaptive_avg_pool2d(m, size) for m, size in zip(maps, sizes, strict=True)]

    def _maps(self, x: Tensor) -> list[Tensor]:
        return self.network.forward_intermediates(x, intermediates_only=True)


def _create_network(name: str, weights_file: str, pretrained: bool) -> Any:
    if not timm.is_model(name):
        raise UserError(f"{name} is no network of timm: name one such as tf_efficientnet_lite2 with --guide.")
    network: Any = timm.create_model(name, pretrained=False, num_classes=0).eval()
    try:
        network.forward_intermediates(torch.zeros(1, 3, 64, 64), intermediates_only=True)
    except (AttributeError, AssertionError, RuntimeError) as error:
        raise UserError(
            f"{name} has no feature maps of photos of any size: name a convolutional network such as "
            "tf_efficientnet_lite2 with --guide."
        ) from error
    if pretrained:
        weights_file = weights_file or download_weights(name)
        state = read_weights(weights_file)
        shapes = {key: value.shape for key, value in state.items()}
        lacking = [key for key, value in network.state_dict().items() if shapes.get(key) != value.shape]
        if lacking:
            raise UserError(
                f"{weights_file} lacks {len(lacking)} weights of {name}, such as {lacking[0]}: name a file of its "
                "weights in timm's naming with --guide-weights."
            )
        network.load_state_dict(state, strict=False)  # a classifier is left over
    return network
