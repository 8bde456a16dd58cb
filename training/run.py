"""A training run between its steps: when to save, validate, report and stop. The steps themselves are trainer.py's."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from common import distributed
from common.distributed import print_once
from common.interrupt import Interrupt
from evaluation.validation import validate
from models.checkpoint import MODEL_FILE, save_model, save_training_state
from training.report import Report
from training.run_folder import RunError
from training.trainer import Trainer

SCORE = "refined_image_sad"  # decides which epoch is the best
SCORING_THREADS = 4  # beside a network on a GPU
UNSAVED_SECONDS = 60  # training that a kill during validation may cost


class Run:
    """Takes a trainer from where it is to the last epoch. `config` is any object with config.Config's fields."""

    def __init__(self, config: Any, folder: Path, trainer: Trainer, loader: DataLoader, validation: Dataset) -> None:
        self.config, self.folder, self.trainer = config, folder, trainer
        self.loader, self.validation = loader, validation
        self.report = Report(folder, config.epochs, config.tensorboard and distributed.is_main(), print_once)
        self.stop = Interrupt(config.max_hours)
        self.saved = self.marked = time.monotonic()
        self.bar: tqdm | None = None

    def fit(self) -> None:
        """Epochs until the last, a request to stop, the time limit or the early stop.

        Raises NonFiniteError, and RunError where photos or files end it.
        """
        progress = self.trainer.progress
        if progress.rows and distributed.is_main():
            self.report.write_log(progress.rows)  # a kill may have come between the saving and the log
        if progress.epoch >= self.config.epochs:
            print_once(f"All {progress.epoch} epochs of this run are done: give a larger --epochs to go on.")
        with self.stop.listening():
            if self.config.init_from and not progress.step and not progress.rows:
                self._finish_epoch()  # what the checkpoint can do before anything changes it
            while progress.epoch < self.config.epochs and not self._stops_early():
                stopped = self._train_epoch()
                if not stopped:
                    self._finish_epoch()
                    stopped = progress.epoch < self.config.epochs and distributed.any_rank([self.stop.wanted()])[0]
                if stopped:
                    print_once(
                        f"Stopped after {progress.epoch} epochs and {progress.batch} of "
                        f"{self.trainer.batches_per_epoch} batches, all saved. "
                        f"Go on with: python train.py --resume {self.folder}"
                    )
                    return

    def _train_epoch(self) -> bool:
        """The rest of the current epoch; True where it was stopped, with the state saved."""
        progress, total = self.trainer.progress, self.trainer.batches_per_epoch
        self.loader.sampler.set_epoch(progress.epoch, start_batch=progress.batch)
        self.marked = time.monotonic()
        with tqdm(
            total=total,
            initial=progress.batch,
            desc=f"epoch {progress.epoch + 1}/{self.config.epochs}",
            unit="batch",
            leave=False,
            dynamic_ncols=True,
            disable=None if distributed.is_main() else True,
        ) as self.bar:  # None: only where a person looks
            stopped = self.trainer.train_one_epoch(self._batches(), self._after_step)
        if stopped and not self._save_state():
            raise RunError("The run was stopped, but its last steps are not saved (see above).")
        return stopped

    def _batches(self) -> Iterator[dict]:
        """The loader's batches; an error of its own (a killed worker, broken files only) becomes one sentence."""
        try:
            yield from self.loader
        except (RuntimeError, ValueError, OSError) as error:
            if "DataLoader worker (pid" in str(error):  # killed: train.py says why that happens
                raise
            reason = str(error).strip().splitlines()[-1]  # a worker sends its whole traceback
            raise RunError(
                f"The photos could not be loaded ({reason}): mend this, then go on with: "
                f"python train.py --resume {self.folder}"
            ) from error

    def _after_step(self) -> bool:
        """At each step's border: show, save when it is time, and say whether to stop. No reading of the device."""
        progress, now = self.trainer.progress, time.monotonic()
        progress.epoch_seconds += now - self.marked
        progress.total_seconds += now - self.marked
        self.marked = now
        self.bar.update(progress.batch - self.bar.n)
        if progress.sums and progress.step % self.config.log_interval == 0:
            self.bar.set_postfix(loss=f"{progress.sums['loss'] / progress.batch:.4f}", skipped=progress.bad_steps)
        due = self.config.save_every_minutes and now - self.saved > 60 * self.config.save_every_minutes
        stop, save = distributed.any_rank([self.stop.wanted(), bool(due)])
        if save and not stop:
            self._save_state()
        return stop

    def _finish_epoch(self) -> None:
        """Validate the averaged weights, add the row, keep the best, write every file of the run."""
        trainer, progress, course = self.trainer, self.trainer.progress, self.trainer.course
        if progress.batch and distributed.any_rank([time.monotonic() - self.saved > UNSAVED_SECONDS])[0]:
            self._save_state()
        images = progress.batch * self.config.batch_size * distributed.world_size()
        row = {
            "epoch": progress.epoch + bool(progress.batch),
            "step": progress.step,
            "learning_rate": course.learning_rate if progress.batch else 0.0,
            "seconds": progress.epoch_seconds,
            "images_per_second": images / max(progress.epoch_seconds, 1e-9),
            "skipped_steps": progress.bad_steps,
            **trainer.mean_losses(),
        }
        scores = {} if progress.batch and course.teaches else self._validate()  # the student has not begun yet
        row |= {f"val_{name}": value for name, value in scores.items()}
        progress.rows.append(row)
        better = bool(scores) and scores[SCORE] < progress.best_sad and self._save_best(scores)
        if better:
            progress.best_sad, progress.best_epoch = scores[SCORE], row["epoch"]
        if progress.batch:
            trainer.end_epoch()
        self._save_state()
        if distributed.is_main():
            self.report.write(progress.rows, better, trainer.average.network, self.validation)

    def _validate(self) -> dict[str, float]:
        """Figures of the averaged weights, the same on every rank. Raises RunError where no photo can be scored."""
        device = self.trainer.device
        workers = 0 if device.type == "cpu" else min(SCORING_THREADS, os.cpu_count() or 1)  # a CPU has no "beside"
        try:
            scores = validate(
                self.trainer.average.network, self.validation, workers=workers, precision=self.trainer.precision
            )
        except ValueError as error:
            raise RunError(
                f"The validation failed: {error} Then go on with: python train.py --resume {self.folder}"
            ) from error
        return {name: float(value) for name, value in scores.items()}

    def _save_best(self, scores: dict[str, float]) -> bool:
        """Write best.safetensors; every rank must come here. A best that is not written does not count as one, or no
        later epoch would be kept that is worse than it."""
        written = True
        if distributed.is_main():
            try:
                save_model(
                    self.folder / MODEL_FILE,
                    self.trainer.average.network,
                    scores=scores,
                    model_options=self.config.model_options,
                    config=self.config.as_dict(),
                )
            except (OSError, SafetensorError) as error:  # for a full disk safetensors raises its own
                print_once(
                    f"This epoch's weights are the best, but {self.folder / MODEL_FILE} could not be written "
                    f"({str(error).splitlines()[0]}): make room in {self.folder}."
                )
                written = False
        return distributed.broadcast_object(written)

    def _save_state(self) -> bool:
        """Write last.pt; every rank must come here. A disk that is full costs the saving, not the run."""
        state, written = self.trainer.state_dict(), True
        if distributed.is_main():
            try:
                save_training_state(self.folder, state)
            except (OSError, RuntimeError) as error:  # torch's zip writer raises RuntimeError for a full disk
                print_once(
                    f"The state could not be saved, the one before it stays ({str(error).splitlines()[0]}): "
                    f"make room in {self.folder}."
                )
                written = False
        self.saved = time.monotonic()
        return distributed.broadcast_object(written)

    def _stops_early(self) -> bool:
        patience, progress = self.config.early_stop_epochs, self.trainer.progress
        if patience and progress.rows and progress.epoch - max(progress.best_epoch, progress.taught) >= patience:
            print_once(f"No better validation SAD for {patience} epochs: stopped early.")
            return True
        return False
