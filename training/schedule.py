"""The two-stage schedule: what has been done of a run, which stage it is in, and how fast each stage learns.

First the teacher and its decoder learn to give back the true alpha, for the teacher's epochs. Then the teacher is
frozen, and student, decoder and refiner learn the photo. Each stage has its own learning-rate schedule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from config import Config
from training.optimization import learning_rate_at


@dataclass
class Progress:
    """What a run has done, in plain Python values; saved and restored as it is. Only train.py writes it."""

    epoch: int = 0  # epochs finished
    teacher_epochs: int = 0  # of them, those of the first stage
    batch: int = 0  # batches done in the current epoch
    step: int = 0  # optimizer steps
    epoch_seconds: float = 0.0
    total_seconds: float = 0.0
    best_score: float = math.inf
    best_epoch: int = 0
    validation_fingerprint: str = ""  # of the set that the best score was measured on
    rows: list[dict[str, Any]] = field(default_factory=list)  # of training_log.csv


class Schedule:
    """Answers for the epoch and batch that `progress` stands at, in the run that `config` asks for."""

    def __init__(self, config: Config, progress: Progress, batches_per_epoch: int) -> None:
        self.config, self.progress, self.batches_per_epoch = config, progress, batches_per_epoch

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.batches_per_epoch / self.config.accumulation_steps)

    @property
    def total_steps(self) -> int:
        return self.config.epochs * self.steps_per_epoch

    @property
    def teacher_epochs(self) -> int:
        """Epochs of the first stage. The last epoch is always the student's."""
        return min(self.config.teacher_epochs, self.config.epochs - 1) if self.config.use_teacher else 0

    @property
    def is_teacher_stage(self) -> bool:
        """Whether this epoch is the teacher's. Once the student has started it stays so, however many epochs follow."""
        return self.progress.teacher_epochs == self.progress.epoch < self.teacher_epochs

    @property
    def student_is_frozen(self) -> bool:
        """Whether the student encoder rests in this epoch of its own stage."""
        return self.progress.epoch - self.progress.teacher_epochs < self.config.freeze_encoder_epochs

    @property
    def aligns(self) -> bool:
        """Whether the student's features are drawn toward a trained teacher's."""
        return bool(self.progress.teacher_epochs and self.config.weight_alignment)

    @property
    def step_in_stage(self) -> int:
        """The current step (0-based) of its stage.

        Counted from epochs and batches, not from the steps made: a run that resumes with twice the processes makes
        half the steps an epoch, and its schedules still end where its epochs end.
        """
        first_epoch = 0 if self.is_teacher_stage else self.progress.teacher_epochs
        in_epoch = self.progress.batch // self.config.accumulation_steps
        return (self.progress.epoch - first_epoch) * self.steps_per_epoch + in_epoch

    @property
    def stage_steps(self) -> int:
        epochs = self.teacher_epochs if self.is_teacher_stage else self.config.epochs - self.progress.teacher_epochs
        return self.steps_per_epoch * epochs

    @property
    def learning_rate(self) -> float:
        """Learning rate of the current step, for groups of scale 1."""
        return learning_rate_at(
            self.step_in_stage, self.stage_steps, self.config.learning_rate, self.config.lr_schedule
        )

    @property
    def loss_weights(self) -> dict[str, float]:
        """The config's; the alignment fades to nothing at the end of the run."""
        weights = self.config.loss_weights
        weights["alignment"] *= 1.0 - self.step_in_stage / self.stage_steps
        return weights
