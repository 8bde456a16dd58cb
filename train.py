"""Train TSR-Matte.

    python train.py                                            the dataset and settings of config.py
    python train.py --dataset synthetic --epochs 3             the drawn set, nothing to download
    python train.py --resume                                   resume the newest run, exactly where it stopped
    python train.py --recipe fine-tune --init-from checkpoints/RUN/best.safetensors --dataset mine
    torchrun --nproc-per-node 8 train.py                       one process per GPU

Writes a run folder in checkpoints/: config.json, training_log.csv, curves.png, preview.png, last.pt, best.safetensors.
SIGTERM, Ctrl-C and a closed terminal stop it at the next step (during validation, after it), with everything saved.
Exit codes: 0 finished or stopped cleanly; 1 stopped by an error, or memory ran out; 2 could not start, also where the
batch does not fit the GPU; 130 stopped at once, by a second Ctrl-C.
"""

from __future__ import annotations

from training.flags import parse_flags

if __name__ == "__main__":
    parse_flags(__doc__)  # --help and wrong flags are answered before the imports that take seconds

import argparse
import contextlib
import math
import random
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from common import distributed
from common.command import command
from common.devices import autocast
from common.errors import UserError, after_start
from common.interrupt import Stopped
from common.processes import is_main, own_cores, print_once, rank
from data.loader import groups
from training import setup
from training.checkpoint import capture, restore, save_best, save_training_state, saved_state
from training.errors import explained, explained_batches, resume_hint
from training.log import is_validated
from training.optimization import clip_gradients, set_learning_rate
from training.report import Report, epoch_bar
from training.run import Run
from training.schedule import STUDENT, TEACHER, Progress

if TYPE_CHECKING:
    from evaluation.validation import Validation

TRIED_ON = ("cuda", "mps")  # where a batch that does not fit fails within seconds; on a CPU a step may take a minute
SCORING_THREADS = 16  # alongside a network on a GPU, at most
UNSAVED_SECONDS = 60  # training that a kill during validation may cost


@command
def main(argv: Sequence[str] | None = None) -> int:
    flags = parse_flags(__doc__, argv)
    run = None
    try:
        with explained():
            run = prepare(flags)
        with run.interrupt.listening():  # also while it ends: torchrun's SIGTERM must not cut short what it says
            with after_start(), explained():
                fit(run)
            distributed.shutdown()  # not after an error: it would wait for the other processes
            return 0
    finally:
        if run and run.lock:
            run.lock.release()


def prepare(flags: argparse.Namespace) -> Run:
    """The run that the flags ask for, ready for its next step. Raises UserError."""
    config, resumed = setup.choose_settings(flags)
    device, precision = setup.start_process(config, resumed)
    state = saved_state(resumed)
    if state is None:
        setup.check_dataset(config)
    loader, validation = setup.build_data(config, device)
    networks = setup.build_networks(config, state)
    for part in filter(None, networks):
        part.to(device).to(memory_format=torch.channels_last)  # in place
    torch.manual_seed(config.seed + rank())  # equal weights, but each rank draws its own drop paths
    run = Run(config, device, precision, networks, loader, validation)
    if resumed and state:
        restore(run, state, resumed)
    if device.type in TRIED_ON:
        from training.trial import check_memory

        check_memory(run)
    setup.open_folder(run, resumed)
    setup.announce(run)
    return run


def fit(run: Run) -> None:
    """Both stages, epoch by epoch, to the last epoch, an interrupt, the time limit or the early stop."""
    config, progress = run.config, run.progress
    with contextlib.closing(Report(run)) as report:
        if config.init_from and not progress.rows and not progress.step:
            # what the checkpoint can do before anything changes it
            add_row(run, report, report.start_row(), validates=True)
        while progress.epoch < config.epochs and not stops_early(run):
            if run.schedule.stage_is_over:
                run.enter_stage(STUDENT)
            try:
                train_one_epoch(run, report)
            except Stopped:
                save_state(run, required=True)
                report.interrupted()
                return
            finish_epoch(run, report)
            if progress.epoch < config.epochs and distributed.any_rank([run.interrupt.wanted()])[0]:
                report.interrupted()
                return
        report.finished()


def train_one_epoch(run: Run, report: Report) -> None:
    """The rest of the current epoch. Raises Stopped where it is interrupted, between two steps."""
    config, progress = run.config, run.progress
    run.start_epoch()
    run.loader.sampler.set_epoch(progress.epoch, start_batch=progress.batch)  # type: ignore[attr-defined]
    marked = saved = time.monotonic()
    with epoch_bar(run) as bar:
        for batches in groups(
            run.interrupt.awaited(explained_batches(run.loader, run.folder)), config.accumulation_steps
        ):
            train_step(run, batches)
            bar.update(len(batches))
            if progress.step % config.log_interval == 0:  # reading waits for the device
                run.meter.check(config.max_bad_steps)
                bar.set_postfix(loss=f"{run.meter.read_loss():.4f}")
            now = time.monotonic()
            progress.epoch_seconds += now - marked
            marked = now
            late = bool(config.save_every_minutes) and now - saved > 60 * config.save_every_minutes
            interrupted, save_due = distributed.any_rank([run.interrupt.wanted(), late])
            if interrupted:
                raise Stopped
            if validates_within(run):
                add_row(run, report, report.row(), validates=True)
                marked = saved = time.monotonic()
            elif save_due:
                save_state(run)
                saved = time.monotonic()
    run.meter.check(config.max_bad_steps)
    if distributed.any_rank([time.monotonic() - saved > UNSAVED_SECONDS])[0]:
        save_state(run)


def train_step(run: Run, batches: Sequence[dict[str, Any]]) -> None:
    """One optimizer step over accumulated batches. Nothing here waits for the device."""
    config = run.config
    set_learning_rate(run.optimizer, run.schedule.learning_rate)
    for number, batch in enumerate(batches, start=1):
        with contextlib.nullcontext() if number == len(batches) else run.without_sync():
            with autocast(run.device, run.precision):
                terms = run.batch_losses(batch, student_scale(run))
            run.scaler.scale(terms["loss"] / len(batches)).backward()
        run.meter.add(terms, batch["name"])
        run.progress.batch += 1
    run.scaler.unscale_(run.optimizer)
    norm = clip_gradients(run.model.parameters(), config.gradient_clip)
    run.scaler.step(run.optimizer)  # does nothing if a gradient is not finite
    # without fp16 the scale stays 1: update() would halve it at each bad step, until it underflows
    run.scaler.update(None if run.precision == torch.float16 else 1.0)
    run.optimizer.zero_grad(set_to_none=True)
    if run.progress.stage == STUDENT:
        run.average.update()
    run.meter.add_step(norm)
    run.progress.step += 1


def student_scale(run: Run) -> int:
    """How many times smaller than the crop the student's view is, drawn per batch, alike on all ranks.

    At native-resolution prediction the student sees less than the refiner, which climbs the octaves in between.
    """
    smallest = run.config.smallest_downscale
    scales = [smallest * 2**k for k in range(run.config.max_student_downscale.bit_length())]
    return random.Random(repr((run.config.seed, run.progress.epoch, run.progress.batch))).choice(scales)


def finish_epoch(run: Run, report: Report) -> None:
    """Close the epoch, then add its row."""
    row = report.row()  # before the meter, which it reads, is emptied
    close_epoch(run)
    add_row(run, report, row, validates_after(run, row))


def close_epoch(run: Run) -> None:
    run.progress.epoch += 1
    run.progress.batch, run.progress.epoch_seconds = 0, 0.0
    run.reset_meter()


def add_row(run: Run, report: Report, row: dict[str, Any], validates: bool) -> None:
    """Add a row to the log, if it validates with the figures of the averaged weights; keep the best; save the state."""
    progress, is_best = run.progress, False
    if validates:
        result = validate_average(run)
        row |= {"val_photos": result.photos} | {f"val_{name}": value for name, value in result.figures.items()}
        is_best = is_record(progress, result)
        if is_best or math.isinf(progress.best_score):  # incomplete, but better than no weights at all
            is_best = save_best(run, result.figures) and is_best
        if is_best:
            progress.best_score, progress.best_epoch = result.score, row["epoch"]
    progress.rows.append(row)
    save_state(run)
    report.write(is_best)


def is_record(progress: Progress, result: Validation) -> bool:
    """Whether a validation is the best so far. Two are compared only if they are of the same photos, all of them."""
    if result.failed:
        print_once(
            f"{result.failed} of {result.failed + result.photos} validation photos could not be scored: this epoch "
            "cannot be the best, since its figures are of other photos."
        )
        return False
    if progress.validated_photos != result.fingerprint:
        if math.isfinite(progress.best_score):
            print_once("The validation photos have changed: the record starts anew, and with it best.safetensors.")
        progress.best_score, progress.validated_photos = math.inf, result.fingerprint
    return result.score < progress.best_score


def validates_after(run: Run, row: Mapping[str, Any]) -> bool:
    """Whether to validate for this row: not in the teacher's stage, in which the student rests; the last one always."""
    epoch = row["epoch"]
    return row["stage"] != TEACHER and (epoch % run.config.validate_every == 0 or epoch >= run.config.epochs)


def validates_within(run: Run) -> bool:
    """Whether to validate after this step, within its epoch: for sets of which an epoch takes a day."""
    every, progress = run.config.validate_every_steps, run.progress
    at_end = progress.batch >= run.schedule.batches_per_epoch
    return bool(every) and progress.stage == STUDENT and progress.step % every == 0 and not at_end


def validate_average(run: Run) -> Validation:
    """Figures of the averaged weights; the same on every rank. Raises UserError if no photo can be scored."""
    from evaluation.validation import validate_sets  # with pandas, which no step needs

    workers = 0 if run.device.type == "cpu" else min(SCORING_THREADS, own_cores())
    try:
        return validate_sets(run.average.network, run.validation, workers=workers, precision=run.precision)
    except UserError as error:
        hint = resume_hint(run.folder)
        raise UserError(f"The validation failed: {error} Then resume with: {hint}") from error


def save_state(run: Run, required: bool = False) -> None:
    """Write last.pt; every rank must come here. A full disk costs the saving, not the run, unless it is required."""
    state, error = capture(run), None
    if is_main():
        try:
            save_training_state(run.folder, state, run.config.keep_previous)
        except (UserError, OSError, RuntimeError) as problem:  # torch's zip writer raises RuntimeError for a full disk
            error = str(problem).splitlines()[0]
            print_once(f"The state of {run.folder} could not be saved, the one before it stays: {error}")
    if distributed.broadcast_object(error) and required:
        raise UserError("The run was interrupted, but its last steps are not saved (see above).")


def stops_early(run: Run) -> bool:
    patience, progress = run.config.early_stop_epochs, run.progress
    is_scored = bool(progress.rows) and is_validated(progress.rows[-1])
    if patience and is_scored and progress.epoch - max(progress.best_epoch, progress.stage_start) >= patience:
        print_once(f"No better validation score for {patience} epochs: stopped early.")
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
