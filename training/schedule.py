"""The two-stage schedule: a run's progress, and the learning rate and loss weights that its settings ask for there.

In the first epochs the teacher and its decoder learn to reproduce the true alpha. Then the teacher is frozen, and
student, decoder and refiner learn to predict alpha from the photo. Each stage has its own learning-rate schedule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from config import Config
from training.optimization import learning_rate_at

START, TEACHER, STUDENT = "start", "teacher", "student"  # in the log; START: before the first step, with --init-from


@dataclass
class Progress:
    """What a run has done, in plain Python values, saved as they are."""

    stage: str = STUDENT  # TEACHER or STUDENT; Run.enter_stage changes it
    stage_start: int = 0  # epochs finished when the stage began
    epoch: int = 0  # epochs finished
    batch: int = 0  # batches done in the current epoch
    step: int = 0  # optimizer steps
    epoch_seconds: float = 0.0
    best_score: float = math.inf
    best_epoch: int = 0
    validated_photos: str = ""  # fingerprint of those that the best score was measured on
    rows: list[dict[str, Any]] = field(default_factory=list)  # of training_log.csv


@dataclass(frozen=True)
class Schedule:
    """What `config` asks for at the epoch and batch that `progress` has reached."""

    config: Config
    progress: Progress
    batches_per_epoch: int

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.batches_per_epoch / self.config.accumulation_steps)

    @property
    def total_steps(self) -> int:
        return self.config.epochs * self.steps_per_epoch

    @property
    def stage_is_over(self) -> bool:
        """Whether the teacher has had its epochs. It gets no more once the student has started, even if a resumed run
        is given more."""
        return self.progress.stage == TEACHER and self.progress.epoch >= self.config.first_stage_epochs

    @property
    def student_is_frozen(self) -> bool:
        """Whether the student encoder is frozen in this epoch of its own stage."""
        return self.progress.epoch - self.progress.stage_start < self.config.freeze_encoder_epochs

    @property
    def step_in_stage(self) -> int:
        """The current step (0-based) of its stage.

        Counted from epochs and batches, not from the steps made: a run that resumes with twice the processes makes half
        as many steps per epoch, and its schedules must still end with its last epoch.
        """
        in_epoch = self.progress.batch // self.config.accumulation_steps
        return (self.progress.epoch - self.progress.stage_start) * self.steps_per_epoch + in_epoch

    @property
    def stage_steps(self) -> int:
        is_teacher = self.progress.stage == TEACHER
        last_epoch = self.config.first_stage_epochs if is_teacher else self.config.epochs
        return (last_epoch - self.progress.stage_start) * self.steps_per_epoch

    @property
    def learning_rate(self) -> float:
        """Learning rate of the current step, for parts of scale 1 (the decoder)."""
        return learning_rate_at(
            self.step_in_stage, self.stage_steps, self.config.learning_rate, self.config.lr_schedule
        )

    @property
    def loss_weights(self) -> dict[str, float]:
        """Loss weights of the current step: the config's, with the alignment's fading to 0 by the end of the run."""
        weights = self.config.loss_weights
        weights["alignment"] *= 1.0 - self.step_in_stage / self.stage_steps
        return weights
