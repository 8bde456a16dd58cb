"""A run's folder: created once, extended by a log row per epoch, found again to resume."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import socket
import tempfile
import threading
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import TEMPORARY_FILES, write_json
from training.log import LOG_FILE

CONFIG_FILE = "config.json"
STATE_FILE = "last.pt"
PREVIOUS_STATE_FILE = "last.previous.pt"
LOCK_FILE = ".lock"  # which process trains here, on which host
RENEW_SECONDS, STALE_SECONDS = 30, 300


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
    """The named run (a path, or its name under `output`), or for an empty name the one written last. Raises UserError.

    A run that was killed before it saved a state counts too, so that no older run is resumed by mistake; one with a log
    but no state, such as a released model's folder, does not.
    """
    if not run:
        runs = [file.parent for file in Path(output).glob(f"*/{CONFIG_FILE}") if not _is_released(file.parent)]
        if not runs:
            raise UserError(f"{output} holds no run: start one without --resume.")
        return max(runs, key=lambda folder: max(file.stat().st_mtime for file in _saved(folder, CONFIG_FILE)))
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
    return (folder / LOG_FILE).is_file() and not _saved(folder)


def _saved(folder: Path, *more: str) -> list[Path]:
    """The files of its state, and others by name, that are there."""
    files = [folder / name for name in (STATE_FILE, PREVIOUS_STATE_FILE, *more)]
    return [file for file in files if file.is_file()]


def read_settings(folder: Path) -> tuple[dict[str, Any], str]:
    """The settings in a run's config.json, and the file's name for messages. Raises UserError."""
    path = folder / CONFIG_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("it holds no settings by name")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} cannot be read ({error}): repair it, or copy the one of a run with the same settings."
        ) from error
    return values, str(path)


def write_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Write config.json if the settings have changed: resuming alone must not make a run newer."""
    path = folder / CONFIG_FILE
    if not path.is_file() or json.loads(path.read_text(encoding="utf-8")) != settings:
        write_json(path, settings)


class Lock:
    """Marks a run's folder as this process's, until release. Raises UserError if another process trains there.

    A thread renews the file's time. A lock that has not been renewed for STALE_SECONDS is taken over, from whichever
    host; on this host so is one whose process is gone.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK_FILE
        self._released = threading.Event()
        for _ in range(2):
            try:
                with open(self.path, "x", encoding="utf-8") as file:
                    file.write(f"{socket.gethostname()} {os.getpid()}\n")
                break
            except FileExistsError:
                self._take_over()
        else:
            raise UserError(f"{self.path} cannot be written: delete it, if nothing trains there.")
        threading.Thread(target=self._renew, daemon=True).start()

    def _take_over(self) -> None:
        host, _, process = self.path.read_text(encoding="utf-8", errors="replace").strip().rpartition(" ")
        is_here = host == socket.gethostname()
        if process.isdecimal() and (_runs(int(process)) if is_here else _age(self.path) < STALE_SECONDS):
            raise UserError(
                f"Process {process} on {host or 'another host'} trains in {self.path.parent} now: stop it first. If it "
                f"is gone, its lock is taken over {STALE_SECONDS // 60} minutes after its last sign of life."
            )
        self.path.unlink(missing_ok=True)

    def _renew(self) -> None:
        while not self._released.wait(RENEW_SECONDS):
            with contextlib.suppress(OSError):  # a file server that is away for a moment
                os.utime(self.path)

    def release(self) -> None:
        self._released.set()
        self.path.unlink(missing_ok=True)


def _age(path: Path) -> float:
    """Seconds since the file was written, by the clock of its file system: hosts' clocks differ."""
    with tempfile.NamedTemporaryFile(prefix=".part-", dir=path.parent) as now:
        return os.stat(now.name).st_mtime - path.stat().st_mtime


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
