"""The two-stage schedule: a run's progress, the stage of an epoch, and the learning rate and loss weights of a step.

In the first epochs the teacher and its decoder learn to reproduce the true alpha. Then the teacher is frozen, and
student, decoder and refiner learn to predict alpha from the photo. Each stage has its own learning-rate schedule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from config import Config
from training.optimization import learning_rate_at


@dataclass
class Progress:
    """What a run has done, in plain Python values, saved as they are.

    train.py writes it at each step and epoch, training.checkpoint.restore when a run resumes, and
    its is_record when the validation photos have changed.
    """

    epoch: int = 0  # epochs finished
    teacher_epochs: int = 0  # of them, those of the first stage
    batch: int = 0  # batches done in the current epoch
    step: int = 0  # optimizer steps
    epoch_seconds: float = 0.0
    total_seconds: float = 0.0
    best_score: float = math.inf
    best_epoch: int = 0
    validated_photos: str = ""  # fingerprint of those that the best score was measured on
    rows: list[dict[str, Any]] = field(default_factory=list)  # of training_log.csv


class Schedule:
    """What `config` asks for at the epoch and batch that `progress` has reached."""

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
    def wants_teacher_stage(self) -> bool:
        """Whether the current epoch belongs to the teacher. Never again once the student has started, even if a resumed
        run has more teacher epochs; run.in_teacher_stage says which stage the run has entered."""
        return self.progress.teacher_epochs == self.progress.epoch < self.teacher_epochs

    @property
    def student_is_frozen(self) -> bool:
        """Whether the student encoder is frozen in this epoch of its own stage."""
        return self.progress.epoch - self.progress.teacher_epochs < self.config.freeze_encoder_epochs

    @property
    def aligns(self) -> bool:
        """Whether the alignment loss pulls the student's features toward a trained teacher's."""
        return bool(self.progress.teacher_epochs and self.config.weight_alignment)

    @property
    def step_in_stage(self) -> int:
        """The current step (0-based) of its stage.

        Counted from epochs and batches, not from the steps made: a run that resumes with twice the processes makes half
        as many steps per epoch, and its schedules must still end with its last epoch.
        """
        first_epoch = 0 if self.wants_teacher_stage else self.progress.teacher_epochs
        in_epoch = self.progress.batch // self.config.accumulation_steps
        return (self.progress.epoch - first_epoch) * self.steps_per_epoch + in_epoch

    @property
    def stage_steps(self) -> int:
        epochs = self.teacher_epochs if self.wants_teacher_stage else self.config.epochs - self.progress.teacher_epochs
        return self.steps_per_epoch * epochs

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
