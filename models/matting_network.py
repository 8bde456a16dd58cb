"""The wiring of TSR-Matte: twin Swin encoders, one decoder, one refiner."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.decoder import Decoder
from models.encoder import PADDING_MULTIPLE, Encoder
from models.refiner import Refiner

SATURATION_MARGIN = 0.01


class MattingOutput(NamedTuple):
    """All that training needs. While the teacher learns, the coarse matte is its own, and the refined one the same."""

    coarse_logits: Tensor  # (N, 1, h, w) at the student's size
    coarse_alpha: Tensor  # (N, 1, H, W) at the photo's size
    refined_alpha: Tensor  # (N, 1, H, W); the coarse alpha itself where there is no refiner
    features: list[Tensor]  # f1 .. f4 of the encoder that made the matte
    teacher_features: list[Tensor] | None = None  # of the frozen teacher, in training


def saturating_sigmoid(logits: Tensor, margin: float = SATURATION_MARGIN) -> Tensor:
    """clamp((1 + 2e) sigmoid(z) - e, 0, 1) in float32: reaches 0 and 1 at |z| > 4.6, so that sure can mean sure.

    A plain sigmoid never gets there and attention would never vanish. Where it clamps, the cross-entropy on the
    logits keeps the gradient alive.
    """
    return ((1.0 + 2.0 * margin) * logits.float().sigmoid() - margin).clamp(0.0, 1.0)


def resize_alpha(alpha: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, 1, h, w) -> (N, 1, *size), bilinear, antialiased where it shrinks; the same tensor where nothing changes."""
    if tuple(alpha.shape[-2:]) == tuple(size):
        return alpha
    shrinks = size[0] < alpha.shape[-2] or size[1] < alpha.shape[-1]
    return F.interpolate(alpha, size=size, mode="bilinear", align_corners=False, antialias=shrinks)


def pad(x: Tensor) -> Tensor:
    """Replicate the right and bottom border up to a multiple of 32, which Swin's stages halve without a remainder."""
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % PADDING_MULTIPLE, 0, -height % PADDING_MULTIPLE), mode="replicate")


class MattingNetwork(nn.Module):
    """TSR-Matte; without a refiner it is TwinSwin-Matte. Parts are built by build_model and passed in."""

    def __init__(
        self, *, student: Encoder, decoder: Decoder, refiner: Refiner | None, teacher: Encoder | None, image_size: int
    ) -> None:
        super().__init__()
        self.student = student
        self.decoder = decoder
        self.refiner = refiner
        self.teacher = teacher
        self.image_size = image_size  # working size: the photo's long side as the student sees it

    def forward(self, image: Tensor, alpha: Tensor | None = None, student_image: Tensor | None = None) -> MattingOutput:
        """image (N, 3, H, W), true alpha (N, 1, H, W) in training, and the student's own, smaller view of the image.

        The student sees `student_image` where it is given (native-resolution training), the refiner always `image`.
        With the true alpha, a teacher that learns gives the alpha back through the decoder, and nothing else happens;
        a frozen one adds its features to what the student makes of the photo.
        """
        view = image if student_image is None else student_image
        truth = None if self.teacher is None or alpha is None else resize_alpha(alpha, view.shape[-2:])
        teaches = truth is not None and not self.teacher_is_frozen
        logits, features = (
            self.matte_features(self.teacher, truth) if teaches else self.matte_features(self.student, view)
        )
        coarse = resize_alpha(saturating_sigmoid(logits), image.shape[-2:])  # (N, 1, H, W)
        refined = coarse if self.refiner is None or teaches else self.refiner(image, coarse)
        targets = None if truth is None or teaches else self.teacher(pad(truth))
        return MattingOutput(logits, coarse, refined, features, targets)

    @property
    def teacher_is_frozen(self) -> bool:
        return not next(self.teacher.parameters()).requires_grad

    def start_student_as_teacher(self) -> None:
        """Give the student the teacher's weights: it has learned what subjects look like, and the decoder reads it.

        The first layer sees a photo as the teacher sees an alpha: its weights are spread over the three colours.
        """
        state = self.teacher.state_dict()
        for name, own in self.student.state_dict().items():
            if own.shape != state[name].shape:
                state[name] = state[name].expand(own.shape) / own.shape[1]
        self.student.load_state_dict(state)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def matte_features(self, encoder: Encoder, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Encode and decode at any size: padded to a multiple of 32 by replication, the logits cropped back."""
        height, width = x.shape[-2:]
        features = encoder(pad(x))  # f_i: (N, C_i, H/s, W/s)
        return self.decoder(features)[..., :height, :width], features

    def coarse_alpha(self, image: Tensor) -> Tensor:
        """The student's matte alone, (N, 3, h, w) -> (N, 1, h, w): what native-resolution prediction starts from."""
        return saturating_sigmoid(self.matte_features(self.student, image)[0])
