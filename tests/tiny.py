"""A network of a few thousand weights in the real wiring, for tests of training; as a script, train.py with it.

python -m tests.tiny --dataset synthetic --no-pretrained --image-size 32 ...
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import train
from config import Config
from data.loader import groups
from models import MattingNetwork, Refiner, TeacherAutoencoder
from models.decoder import Decoder
from models.encoder import pad
from training import setup
from training.report import Report
from training.run import Networks, Run
from training.schedule import STUDENT

CHANNELS = (8, 8, 16, 16)
MACHINE = ("--no-pretrained", "--image-size", "32", "--device", "cpu", "--num-workers", "0")
FLAGS = ("--dataset", "synthetic", "--batch-size", "2", "--val-samples", "2", *MACHINE)


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
        features, x = [], pad(x, 32)
        for stage in self.stages:
            x = F.pad(x, (0, x.shape[-1] % 2, 0, x.shape[-2] % 2))  # odd maps are halved rounding up, as in Swin
            x = self.drop(torch.tanh(stage(x)))
            features.append(x)
        return features

    def set_gradient_checkpointing(self) -> None:
        """Nothing to save in a network this small."""


def build_tiny(
    *, image_size: int = 32, use_refiner: bool = True, drop_path: float = 0.0, smart_init: bool = True, **_
) -> MattingNetwork:
    """Takes what models.build_model takes."""
    return MattingNetwork(
        student=TinyEncoder(3, drop_path),
        decoder=Decoder(CHANNELS, channels=(8, 8, 8)),
        refiner=Refiner(16, 16, blocks=1, smart_init=smart_init) if use_refiner else None,
        image_size=image_size,
    )


def build_tiny_teacher(network: MattingNetwork, *, drop_path: float = 0.0, **_) -> TeacherAutoencoder:
    """Takes what models.build_teacher takes."""
    return TeacherAutoencoder(encoder=TinyEncoder(1, drop_path), decoder=copy.deepcopy(network.decoder))


def use_tiny_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let training/setup.py build these in place of Swins."""
    monkeypatch.setattr(setup, "build_model", build_tiny)
    monkeypatch.setattr(setup, "build_teacher", build_tiny_teacher)


def tiny_run(batches_per_epoch: int = 4, precision: torch.dtype = torch.float32, **settings) -> Run:
    """A Run of the tiny networks on the CPU; settings are fields of Config. Batches come from the test."""
    settings = dict(pretrained=False, image_size=32, batch_size=2, max_student_downscale=1, log_interval=1) | settings
    config = Config(**settings)
    torch.manual_seed(0)
    network = build_tiny(drop_path=config.drop_path, use_refiner=config.use_refiner)
    if network.refiner:
        nn.init.normal_(network.refiner.head.weight, std=0.1)  # past the start, where every part has a gradient
    has_teacher = config.first_stage_epochs > 0
    teacher = build_tiny_teacher(network, drop_path=config.drop_path) if has_teacher else None
    loader = Batches(batches_per_epoch)
    run = Run(config, torch.device("cpu"), precision, Networks(network, teacher), loader, validation={})
    run.folder = Path("nowhere")
    run.start_epoch()
    return run


class Batches(list):
    """A list of batches with what train.py asks of a loader's sampler."""

    def __init__(self, batches_per_epoch: int) -> None:
        super().__init__()
        self.batches_per_epoch = batches_per_epoch
        self.sampler = self

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """The test fills in the batches that are to come."""


def train_on(run: Run, *batches: dict) -> Tensor:
    """Steps on these batches; the weights of what was trained."""
    for group in groups(batches, run.config.accumulation_steps):
        train.train_step(run, group)
    return weights(run.model)


def train_epoch(run: Run, *batches: dict) -> None:
    """An epoch of these batches through train.py's own loop; it ends as finish_epoch ends it, but without a file."""
    if run.schedule.stage_is_over:
        run.enter_stage(STUDENT)
    run.loader[:] = batches
    train.train_one_epoch(run, Report(run))
    train.close_epoch(run)


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def random_batch(seed: int, size: int = 2, side: int = 32) -> dict:
    """A batch as the loader gives it."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "image": torch.randint(0, 256, (size, 3, side, side), generator=generator, dtype=torch.uint8),
        "alpha": torch.randint(0, 256, (size, 1, side, side), generator=generator, dtype=torch.uint8),
        "unknown": (torch.rand(size, 1, side, side, generator=generator) < 0.1).to(torch.uint8),
        "name": [f"photo_{seed}_{i}" for i in range(size)],
    }


def main(argv: Sequence[str] | None = None) -> int:
    setup.build_model, setup.build_teacher = build_tiny, build_tiny_teacher
    return train.main(argv)


if __name__ == "__main__":
    sys.exit(main())
