"""The course of a run: what has been done of it, which of its two stages it is in, and how fast each learns.

First the teacher and the decoder learn, for the teacher's epochs; then the teacher is frozen, and the student and the
refiner learn. Each stage has a learning-rate schedule of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from training.optimization import learning_rate_at


@dataclass
class Progress:
    """What a run has done; saved and restored as it is. Each list and number is a plain Python value."""

    epoch: int = 0  # epochs finished
    taught: int = 0  # of them, those at the start in which the teacher learned
    batch: int = 0  # batches done in the current epoch
    step: int = 0  # optimizer steps
    sums: dict[str, float] = field(default_factory=dict)  # this rank's loss terms added up over the current epoch
    bad_steps: int = 0  # steps skipped for a non-finite gradient, in the current epoch
    bad_in_a_row: int = 0
    epoch_seconds: float = 0.0
    total_seconds: float = 0.0
    best_sad: float = math.inf
    best_epoch: int = 0
    rows: list[dict] = field(default_factory=list)  # of training_log.csv


class Course:
    """Where `progress`, which the trainer moves, stands in the run that `config` asks for."""

    def __init__(self, config: Any, progress: Progress, batches_per_epoch: int, has_teacher: bool) -> None:
        self.config, self.progress, self.batches_per_epoch = config, progress, batches_per_epoch
        self.has_teacher = has_teacher

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.batches_per_epoch / self.config.accumulation_steps)

    @property
    def total_steps(self) -> int:
        return self.config.epochs * self.steps_per_epoch

    @property
    def teacher_epochs(self) -> int:
        """How many of the first epochs are the teacher's. The last one is always the student's."""
        return min(self.config.teacher_epochs, self.config.epochs - 1) if self.has_teacher else 0

    @property
    def teaches(self) -> bool:
        """Whether this epoch is the teacher's. Once the student has begun it stays so, however many epochs follow."""
        return self.progress.taught == self.progress.epoch < self.teacher_epochs

    @property
    def student_begins(self) -> bool:
        """Whether the next batch is the first after the teacher's epochs."""
        return not self.teaches and self.progress.batch == 0 and 0 < self.progress.taught == self.progress.epoch

    @property
    def student_rests(self) -> bool:
        """Whether the student encoder does not learn: in the teacher's epochs, and in its own epochs of rest."""
        return self.teaches or self.progress.epoch - self.progress.taught < self.config.freeze_encoder_epochs

    @property
    def needs_teacher(self) -> bool:
        """Whether a batch goes through the teacher: to teach it, or for features that a loss asks for."""
        return self.teaches or bool(self.progress.taught and self.config.weight_alignment)

    @property
    def place(self) -> int:
        """Which of stage_steps the current batch ends (0-based).

        Counted from the place in the run, not from the steps made: a run that goes on with twice the processes makes
        half the steps an epoch, and still has its schedules end where its epochs end.
        """
        in_epoch = max(0, math.ceil(self.progress.batch / self.config.accumulation_steps) - 1)
        first = 0 if self.teaches else self.progress.taught
        return (self.progress.epoch - first) * self.steps_per_epoch + in_epoch

    @property
    def stage_steps(self) -> int:
        """Steps of the teacher's epochs, or of the student's."""
        return self.steps_per_epoch * (
            self.teacher_epochs if self.teaches else self.config.epochs - self.progress.taught
        )

    @property
    def learning_rate(self) -> float:
        """Peak group's rate of the step that the current batch ends."""
        return learning_rate_at(self.place, self.stage_steps, self.config.learning_rate, self.config.lr_schedule)

    @property
    def alignment_share(self) -> float:
        """Of the weight of the teacher's pull, which fades to nothing at the end of the run."""
        return 1.0 - self.place / self.stage_steps
