"""The teacher: an encoder that sees the true alpha. It is trained first, then frozen, and never shipped."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.decoder import Decoder
from models.encoder import Encoder
from models.matting_network import MattingNetwork, MattingOutput, decode, saturating_sigmoid


class TeacherAutoencoder(nn.Module):
    """Alpha in, alpha out: encoder and decoder of the network's own shapes. The first stage trains it."""

    def __init__(self, *, encoder: Encoder, decoder: Decoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, alpha: Tensor) -> MattingOutput:
        """(N, 1, H, W) in [0, 1] -> its reconstruction, as coarse logits and alpha of the same size."""
        features = self.encoder(alpha)
        logits = decode(self.decoder, features, (alpha.shape[-2], alpha.shape[-1]))  # (N, 1, H, W)
        return MattingOutput(logits, saturating_sigmoid(logits), None, features)

    @torch.no_grad()
    def targets(self, alpha: Tensor) -> list[Tensor]:
        """What the student's features are aligned with: f1 .. f4 of the true alpha, without gradients."""
        return self.encoder(alpha)

    def start_student(self, network: MattingNetwork) -> None:
        """Give a student with random weights those of the teacher, and the decoder that reads them.

        The first layer sees a photo as the teacher sees an alpha: its weights are spread over the three colours.
        """
        state = self.encoder.state_dict()
        for name, own in network.student.state_dict().items():
            if own.shape != state[name].shape:
                state[name] = state[name].expand(own.shape) / own.shape[1]
        network.student.load_state_dict(state)
        network.decoder.load_state_dict(self.decoder.state_dict())
