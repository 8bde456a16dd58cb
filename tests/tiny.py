"""A network of a few thousand weights in the real wiring, for tests of training; as a script, train.py with it.

python -m tests.tiny --dataset synthetic --no-pretrained --image-size 32 ...
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from torch import Tensor, nn

import train
from config import Config
from models import MattingNetwork, Refiner
from models.decoder import Decoder
from training.trainer import Trainer

CHANNELS = (8, 8, 16, 16)
FLAGS = (
    "--dataset",
    "synthetic",
    "--no-pretrained",
    "--image-size",
    "32",
    "--batch-size",
    "2",
    "--val-samples",
    "2",
    "--device",
    "cpu",
    "--num-workers",
    "0",
)


class TinyEncoder(nn.Module):
    """Four strided convolutions with the face of models.Encoder, and a dropout that draws from torch's generator."""

    def __init__(self, in_channels: int, drop: float = 0.0) -> None:
        super().__init__()
        self.channels = CHANNELS
        widths = (in_channels, *CHANNELS)
        self.stages = nn.ModuleList(
            nn.Conv2d(widths[i], widths[i + 1], stride, stride=stride) for i, stride in enumerate((4, 2, 2, 2))
        )
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for stage in self.stages:
            x = self.drop(torch.tanh(stage(x)))
            features.append(x)
        return features

    def set_gradient_checkpointing(self) -> None:
        """Nothing to save in a network this small."""


def build_tiny(
    *, image_size: int = 32, use_refiner: bool = True, use_teacher: bool = False, drop_path: float = 0.0, **_
) -> MattingNetwork:
    """Takes what models.build_model takes."""
    return MattingNetwork(
        student=TinyEncoder(3, drop_path),
        teacher=TinyEncoder(1, drop_path) if use_teacher else None,
        decoder=Decoder(CHANNELS, channels=(8, 8, 8)),
        refiner=Refiner(16, 16, blocks=1) if use_refiner else None,
        image_size=image_size,
    )


def tiny_trainer(batches_per_epoch: int = 4, precision: torch.dtype = torch.float32, **settings) -> Trainer:
    """A Trainer of the tiny network on the CPU; settings are fields of Config."""
    settings = dict(pretrained=False, image_size=32, batch_size=2, max_student_downscale=1, log_interval=1) | settings
    torch.manual_seed(0)
    model = build_tiny(use_teacher=settings.get("use_teacher", True), drop_path=settings.get("drop_path", 0.0))
    nn.init.normal_(model.refiner.head.weight, std=0.1)  # past the start, where every part has a gradient
    return Trainer(model, Config(**settings), torch.device("cpu"), precision, batches_per_epoch)


def random_batch(seed: int, size: int = 2) -> dict:
    """A batch as the loader gives it."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "image": torch.randint(0, 256, (size, 3, 32, 32), generator=generator, dtype=torch.uint8),
        "alpha": torch.randint(0, 256, (size, 1, 32, 32), generator=generator, dtype=torch.uint8),
        "name": [f"photo_{seed}_{i}" for i in range(size)],
    }


def main(argv: Sequence[str] | None = None) -> int:
    train.build_model = build_tiny
    return train.main(argv)


if __name__ == "__main__":
    sys.exit(main())
