"""The parts of a run, built by training/setup.py and updated by train.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from common.interrupt import Interrupt
from config import Config
from models import Guide, MattingNetwork, TeacherAutoencoder
from training.meter import Meter
from training.optimization import AveragedNetwork
from training.schedule import Progress, Schedule
from training.stage import Stage


class Run:
    """Networks, stage, schedule and data of one run, on one rank. The folder is set once everything else is there."""

    folder: Path

    def __init__(
        self,
        config: Config,
        device: torch.device,
        precision: torch.dtype,
        network: MattingNetwork,
        teacher: TeacherAutoencoder | None,
        loader: DataLoader,
        validation: dict[str, Any],
        guide: Guide | None = None,
    ) -> None:
        """validation: data sets as evaluation.validation.validate takes them, by name."""
        self.config, self.device, self.precision = config, device, precision
        self.network, self.teacher, self.guide = network, teacher, guide
        self.loader, self.validation = loader, validation
        self.average = AveragedNetwork(network, config.ema_decay)
        self.progress = Progress()
        self.schedule = Schedule(config, self.progress, loader.sampler.batches_per_epoch)  # type: ignore[attr-defined]
        self.interrupt = Interrupt(config.max_hours)
        self.stage: Stage
        self.enter_stage(is_teacher_stage=teacher is not None)
        self.reset_meter()

    @property
    def in_teacher_stage(self) -> bool:
        """Whether the stage entered is the teacher's; schedule.wants_teacher_stage: whether this epoch's should be."""
        return self.stage.model is self.teacher

    def enter_stage(self, *, is_teacher_stage: bool) -> None:
        """Start a stage, with a new optimizer. In the student's the teacher is frozen."""
        model = self.teacher if is_teacher_stage else self.network
        if model is None:
            raise ValueError("the saved stage is the teacher's, and there is none")
        if self.teacher and not is_teacher_stage:
            self.teacher.requires_grad_(False).eval()
        guide = None if is_teacher_stage else self.guide
        self.stage = Stage(model, self.config, self.device, self.precision, guide)

    def start_student_stage(self) -> None:
        """Initialize the student and freeze the teacher.

        A student with random weights starts as a copy of its teacher and the teacher's decoder. A pretrained one keeps
        its weights and a new decoder, since one trained on alphas reads photos worse. With --init-from both keep the
        checkpoint's weights.
        """
        config = self.config
        if self.teacher and not (config.pretrained or config.backbone_weights or config.init_from):
            self.teacher.start_student(self.network)
        self.average.restart()
        self.enter_stage(is_teacher_stage=False)

    def reset_meter(self, state: dict[str, Any] | None = None) -> None:
        """A new meter for a new epoch, or the saved one of an epoch that was interrupted."""
        history = self.config.max_bad_steps * self.config.accumulation_steps
        self.meter = Meter(self.device, history, state)
