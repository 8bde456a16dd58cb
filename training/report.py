"""The reports after each epoch: a printed line, the log, curves, previews, TensorBoard events."""

from __future__ import annotations

import importlib.util
import shlex
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from tqdm import tqdm

from common.errors import UserError
from common.processes import is_main, print_once, world_size
from metrics import DECIDES, DRAWN
from models.checkpoint import MODEL_FILE
from training.errors import resume_hint
from training.log import is_validated, shipped_matte, validation_column, write_log
from training.optimization import unscaled_learning_rate
from training.run import Run
from training.schedule import START, TEACHER


def summary(row: dict[str, Any], epochs: int, is_best: bool) -> str:
    """The line that is printed for a row of training_log.csv."""
    skipped = f"  {row['skipped_steps']} steps skipped, not finite" if row["skipped_steps"] else ""
    loss = f"loss {row['loss']:.4f}  {row['images_per_second']:.1f} images/s  " if "loss" in row else ""
    start = f"epoch {row['epoch']}/{epochs}  {loss}"
    if not is_validated(row):
        return f"{start}{'teacher' if row['stage'] == TEACHER else 'not validated'}{skipped}"
    return f"{start}val {figures_of(row)}{skipped}{'  best' if is_best else ''}"


def figures_of(row: dict[str, Any]) -> str:
    """The figures of a validated row in words, with those of the coarse matte in brackets."""
    matte = shipped_matte([row])

    def figure(name: str) -> str:
        coarse = f" (coarse {row[validation_column('coarse', name)]:.4g})" if matte != "coarse" else ""
        return f"{DRAWN[name]} {row[validation_column(matte, name)]:.4g}{coarse}"

    return "  ".join(figure(name) for name in DRAWN if validation_column(matte, name) in row)  # there may be no edge


class Report:
    """Prints a line per epoch and writes the log, curves, preview and TensorBoard events.

    If one cannot be written, it prints a sentence that says why, and the run continues.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.events: Any = None
        if run.config.tensorboard and is_main():
            from torch.utils.tensorboard import SummaryWriter

            self.events = SummaryWriter(str(run.folder))
        self._artist = ThreadPoolExecutor(1)
        self._drawing: Future | None = None
        self._rows: list[dict[str, Any]] | None = None  # to draw
        self._preview: list[dict[str, Any]] | None = None
        self._started, self._start_position = time.monotonic(), self._position()
        if run.progress.rows:
            self._write_log()  # a kill may have come between the saving and the log
        if run.progress.epoch >= run.config.epochs:
            print_once(f"All {run.progress.epoch} epochs of this run are done: give a larger --epochs to train longer.")

    def row(self) -> dict[str, Any]:
        """What training_log.csv says of the epoch so far, before its validation; every rank must come here."""
        run, progress = self.run, self.run.progress
        images = progress.batch * run.config.batch_size * world_size()
        return {
            "epoch": progress.epoch + 1,
            "stage": progress.stage,
            "step": progress.step,
            "learning_rate": unscaled_learning_rate(run.optimizer),
            "seconds": progress.epoch_seconds,
            "images_per_second": images / max(progress.epoch_seconds, 1e-9),
            "skipped_steps": run.meter.read_bad_steps()[0],
            **run.meter.means(),
        }

    @staticmethod
    def start_row() -> dict[str, Any]:
        """The row before the first step, of what the checkpoint of --init-from can do."""
        zeros = dict.fromkeys(("step", "learning_rate", "seconds", "images_per_second", "skipped_steps"), 0)
        return {"epoch": 0, "stage": START, **zeros}

    def write(self, is_best: bool) -> None:
        """The line of the epoch that ended, the log, the curves and a preview; rank 0 alone does this."""
        if not is_main():
            return
        run, rows = self.run, self.run.progress.rows
        print_once(summary(rows[-1], run.config.epochs, is_best) + self._time_left())
        if self.events:
            for name, value in rows[-1].items():
                if name != "stage":
                    self.events.add_scalar(name, value, rows[-1]["step"])
            self.events.flush()
        self._write_log()
        if is_best:
            _try("preview", self._predict_preview)
        self._rows = list(rows)
        if not self._drawing or self._drawing.done():  # else the next epoch, or the end, draws these too
            self._drawing = self._artist.submit(self._draw)

    def _predict_preview(self) -> None:
        from training import pictures

        self._preview = pictures.preview_rows(self.run.average.network, self.run.validation.values())

    def _draw(self) -> None:
        """Curves and preview; in a thread, since drawing them takes as long as some training steps."""
        from common.plots import preview as draw_preview
        from training import pictures

        folder, rows, self._rows = self.run.folder, self._rows, None
        if rows:
            _try("curves", lambda: pictures.draw_curves(folder / "curves.png", rows))
        preview, self._preview = self._preview, None
        if preview:
            _try("preview", lambda: draw_preview(folder / "preview.png", preview))

    def close(self) -> None:
        """Wait until all is drawn."""
        self._artist.submit(self._draw)
        self._artist.shutdown()

    def _position(self) -> float:
        """Epochs done, with the part of the current one: a resumed run may start in the middle."""
        return self.run.progress.epoch + self.run.progress.batch / self.run.schedule.batches_per_epoch

    def _time_left(self) -> str:
        """By the epochs of this process so far, with their validations."""
        done, left = self._position() - self._start_position, self.run.config.epochs - self.run.progress.epoch
        if not done or not left:
            return ""
        minutes = round((time.monotonic() - self._started) / done * left / 60)
        return f"  about {minutes // 60} h {minutes % 60:02d} min left"

    def finished(self) -> None:
        """The best epoch, its figures, its file, and what to do with it."""
        run = self.run
        decides = validation_column(shipped_matte(run.progress.rows), DECIDES)
        best = [row for row in run.progress.rows if row.get(decides) == run.progress.best_score]
        if best and is_main() and (run.folder / MODEL_FILE).is_file():
            checkpoint = shlex.quote(str(run.folder / MODEL_FILE))
            print_once(
                f"Best: {figures_of(best[-1])}, epoch {run.progress.best_epoch} of {run.progress.epoch}\n{checkpoint}\n"
                f"Next: python predict.py --checkpoint {checkpoint} --input PHOTOS"
            )

    def interrupted(self) -> None:
        run = self.run
        print_once(
            f"Stopped after {run.progress.epoch} epochs and {run.progress.batch} of {run.schedule.batches_per_epoch} "
            f"batches, all saved. Resume with: {resume_hint(run.folder)}"
        )

    def _write_log(self) -> None:
        if is_main():
            _try("log", lambda: write_log(self.run.folder, self.run.progress.rows))


def _try(what: str, write: Callable[[], None]) -> None:
    try:
        write()
    except (OSError, ValueError) as error:  # a full disk, a broken photo: no reason to lose a run
        print_once(f"The {what} could not be made: {error}")


def require_tensorboard() -> None:
    """Raises UserError if the package is missing, before anything is made."""
    if importlib.util.find_spec("tensorboard") is None:
        raise UserError(
            "--tensorboard needs the package tensorboard: pip install tensorboard, or leave it out "
            "(training_log.csv holds the same figures)."
        )


def epoch_bar(run: Run) -> tqdm:
    """Shown only by rank 0, and only where a person looks."""
    return tqdm(
        total=run.schedule.batches_per_epoch,
        initial=run.progress.batch,
        desc=f"epoch {run.progress.epoch + 1}/{run.config.epochs}",
        unit="batch",
        leave=False,
        dynamic_ncols=True,
        disable=None if is_main() else True,
    )
