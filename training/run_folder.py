"""A run's folder: created once, extended by a log row per epoch, found again to resume."""

from __future__ import annotations

import datetime
import json
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from common.errors import UserError
from common.files import TEMPORARY_FILES, atomic_write, write_json

LOG_FILE = "training_log.csv"
CONFIG_FILE = "config.json"
STATE_FILE = "last.pt"
PREVIOUS_STATE_FILE = "last.previous.pt"
LOCK_FILE = ".lock"  # which process trains here, on which host


def create_run(output: str, name: str) -> Path:
    """Make output/<name>_<date>_<time>/; a second run in the same second gets a number."""
    stamp = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for suffix in ("", *(f"_{i}" for i in range(2, 100))):
        folder = Path(output) / f"{name}_{stamp}{suffix}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"{folder} cannot be made ({error.strerror}): choose another with --output.") from error
        return folder
    raise UserError(f"{output} already holds 99 runs of this second: start again.")


def find_run(output: str, run: str) -> Path:
    """The named run (a path, or its name under `output`), or the newest one for an empty name.

    The newest is the one whose state or settings were written last. A run that was killed before it saved a state
    counts too, so that no older run is resumed by mistake; one with a log but no state, such as a released model's
    folder, does not. Raises UserError.
    """
    if not run:
        runs = [file.parent for file in Path(output).glob(f"*/{CONFIG_FILE}") if not _is_released(file.parent)]
        if not runs:
            raise UserError(f"{output} holds no run: start one without --resume.")
        return max(runs, key=_written)
    for folder in (Path(run), Path(output) / run):
        if (folder / CONFIG_FILE).is_file():
            if _is_released(folder):
                raise UserError(
                    f"{folder} holds no {STATE_FILE}, so it cannot resume: start a new run with --init-from {folder}."
                )
            return folder
    raise UserError(
        f"{run} is not a run folder (no {CONFIG_FILE}): name one under {output}, or give --resume alone for the newest."
    )


def _is_released(folder: Path) -> bool:
    """Whether epochs were trained here, but their state is gone: training anew would write over what is left."""
    return (folder / LOG_FILE).is_file() and not any(
        (folder / name).is_file() for name in (STATE_FILE, PREVIOUS_STATE_FILE)
    )


def _written(folder: Path) -> float:
    """When the state or settings were last written, in seconds."""
    files = [folder / name for name in (CONFIG_FILE, STATE_FILE, PREVIOUS_STATE_FILE)]
    return max(file.stat().st_mtime for file in files if file.is_file())


def read_settings(folder: Path) -> tuple[dict[str, Any], str]:
    """The settings in a run's config.json, and the file's name for messages. Raises UserError."""
    path = folder / CONFIG_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} cannot be read ({error}): repair it, or copy the one of a run with the same settings."
        ) from error
    if not isinstance(values, dict):
        raise UserError(f"{path} does not hold settings by name: copy the one of a run with the same settings.")
    return values, str(path)


def write_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Write config.json if the settings have changed: resuming alone must not make a run newer."""
    path = folder / CONFIG_FILE
    if not path.is_file() or json.loads(path.read_text(encoding="utf-8")) != settings:
        write_json(path, settings)


def lock(folder: Path) -> None:
    """Mark the folder as this process's. Raises UserError if another one trains in it.

    A lock whose process is gone is taken over; whether one of another host is, nobody here can tell.
    """
    path, own = folder / LOCK_FILE, f"{socket.gethostname()} {os.getpid()}\n"
    for _ in range(2):
        try:
            with open(path, "x", encoding="utf-8") as file:
                file.write(own)
            return
        except FileExistsError:
            host, _, process = path.read_text(encoding="utf-8", errors="replace").strip().rpartition(" ")
            is_here = host == socket.gethostname()
            if not process.isdecimal() or (is_here and not _runs(int(process))):
                path.unlink(missing_ok=True)
                continue
            raise UserError(
                f"Process {process} on {host or 'another host'} trains in {folder} now: stop it first. If it is gone, "
                f"delete {path}."
            ) from None
    raise UserError(f"{path} cannot be written: delete it, if nothing trains there.")


def unlock(folder: Path) -> None:
    (folder / LOCK_FILE).unlink(missing_ok=True)


def _runs(process: int) -> bool:
    """Whether a process of this host, other than this one, is there. On Windows asking would end it: then yes."""
    if process == os.getpid():  # of this host before a restart, or of this program before
        return False
    try:
        if os.name != "nt":
            os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files of savings that a kill cut off; they can be as large as the state itself."""
    for path in folder.glob(TEMPORARY_FILES):
        path.unlink(missing_ok=True)


def write_log(folder: Path, rows: Sequence[dict]) -> None:
    """training_log.csv, whole, from the rows that the training state holds: no duplicate and no gap after a kill."""
    # Where the columns come from: "epoch" to "skipped_steps" from report.Report.row; the loss and its terms from
    # losses.py, averaged by meter.Meter; "val_..." from train.validation_scores. docs/training.md explains each.
    # Names are taken from the last row first: the row before the first step has no losses yet.
    columns = list(dict.fromkeys(name for row in reversed(rows) for name in row))
    with atomic_write(folder / LOG_FILE) as temporary:
        log = pd.DataFrame(list(rows), columns=columns)
        log.to_csv(temporary, index=False, float_format="%.6g", errors="backslashreplace")
