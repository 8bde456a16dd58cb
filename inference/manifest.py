"""manifest.json in the output folder: a row for every output there, and for every input that failed in the last run.

While a run goes on, its rows are also appended to a hidden journal, where the next run finds them if this one is
killed: a "begun" row before an output is written, the real one after it. Photos being written when the process is
killed may thus be there without their real rows; they are known as outputs, and done again. (A power cut may take more:
the journal is flushed, not forced to the disk.)

Rows are plain dicts with at least "input" and "output" (a path below the folder, or None). Those of outputs have the
other names of jobs.Job.names too, and the settings that they were made with.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from common.devices import is_out_of_memory
from common.files import FileError, atomic_write
from common.photos import PhotoError
from inference.jobs import Job, is_same_file

NAME = "manifest.json"
PROGRAM = "TSR-Matte predict.py"


class Manifest:
    """The rows of an output folder. Each rank of a launch appends to a journal of its own; rank 0 writes the file."""

    def __init__(self, folder: Path, rank: int = 0) -> None:
        """Make the folder and read what earlier runs left, `earlier`: output -> row.

        Raises PhotoError where the folder cannot be made or written to, or holds somebody else's manifest.json.
        """
        self.folder = folder
        self.rows: list[dict[str, Any]] = []
        journal = folder / f".manifest-rank{rank}.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.earlier = self._read()
            self._journal = open(journal, "a", encoding="utf-8")  # noqa: SIM115 - open for the whole run
            self._journal.write("\n")  # a run that was killed may have left half a line
        except OSError as error:
            raise PhotoError(
                f"{folder} cannot be used for output ({error.strerror or error}): choose another with --output."
            ) from error

    @property
    def sources(self) -> dict[str, str]:
        """Output -> the full path of its input, of what earlier runs left."""
        return {output: _source(row) for output, row in self.earlier.items()}

    def agrees(self, job: Job, settings: dict[str, Any]) -> bool:
        """Whether what there is of the job's output, whole or not, is of its input and was made with `settings`, as
        far as is known: what no row says, or an old row does not yet, is not held against it."""
        row = self.earlier.get(job.output.as_posix())
        if row is None:
            return True
        return (
            is_same_file(_source(row), job.source)
            and "mixed" not in row
            and all(row.get(name, value) == value for name, value in settings.items())
        )

    def is_done(self, job: Job, settings: dict[str, Any]) -> bool:
        """Whether the output is there and whole, and agrees() with what is wanted."""
        path = self.folder / job.output
        if job.refusal is not None or not os.path.exists(path):
            return False
        row = self.earlier.get(job.output.as_posix())
        if row is None:
            return os.path.isfile(path)  # files appear whole, folders of frames do not
        return "begun" not in row and "error" not in row and self.agrees(job, settings)

    def begin(self, job: Job, settings: dict[str, Any]) -> None:
        """Say in the journal that the job's output is about to be written.

        "mixed" marks one that is begun over another's: in a folder of frames, those of both may come to lie.
        """
        mixed = {} if self.agrees(job, settings) else {"mixed": True}
        self._append({**job.names, **settings, "begun": True, **mixed})

    def add(self, row: dict[str, Any]) -> None:
        """Note a row, at once in the journal too."""
        self.rows.append(row)
        self._append(row)

    def _append(self, row: dict[str, Any]) -> None:
        with suppress(OSError):  # a full disk: the row is still in `rows`, and the photo's own error says it
            self._journal.write(json.dumps(row) + "\n")
            self._journal.flush()

    def close(self) -> None:
        """Close this rank's journal; nothing is added after it."""
        with suppress(OSError):
            self._journal.close()

    def write(self, rows: list[dict[str, Any]], header: dict[str, Any], *, others_are_done: bool) -> Path:
        """Write manifest.json: `header`, then `rows` and the earlier rows whose outputs are still there.

        A begun row is among them only where no real one followed and its output is there all the same, left by a run
        that was killed or whole from before: without any row it would no longer be known as ours. Called by rank 0
        alone, which then removes the journals; those of ranks that may still be at work stay. Raises PhotoError.
        """
        path = self.folder / NAME
        written = {row["output"] for row in rows}
        kept = [
            row
            for output, row in self._read().items()
            if output not in written and os.path.exists(self.folder / output)
        ]
        rows = sorted(kept + rows, key=lambda row: row["input"])
        with atomic_write(path) as temporary:
            text = json.dumps({"program": PROGRAM, **header, "files": rows}, indent=1)
            temporary.write_text(text + "\n", encoding="utf-8")
        for journal in self._journals() if others_are_done else [Path(self._journal.name)]:
            with suppress(OSError):
                journal.unlink()
        return path

    def _journals(self) -> list[Path]:
        return sorted(self.folder.glob(".manifest-rank*.jsonl"))

    def _read(self) -> dict[str, dict[str, Any]]:
        """Output -> row, of manifest.json and of the journals. A last line may be cut short, where a run was killed."""
        rows: list[dict[str, Any]] = []
        path = self.folder / NAME
        if path.exists():
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
                if content["program"] != PROGRAM:
                    raise KeyError("program")
                rows += content["files"]
            except (ValueError, KeyError, TypeError) as error:
                raise PhotoError(
                    f"{path} was not written by predict.py and would be overwritten: move it, or choose "
                    "another --output."
                ) from error
        for journal in self._journals():
            for line in journal.read_text(encoding="utf-8").splitlines():
                with suppress(json.JSONDecodeError):
                    rows.append(json.loads(line))
        return {row["output"]: row for row in rows if row["output"] is not None}


def _source(row: dict[str, Any]) -> str:
    """Full path of a row's input; rows of older versions have it only as it was given."""
    return os.path.realpath(row.get("source", row["input"]))


def failure_row(job: Job, error: Exception) -> dict[str, Any]:
    """The row of an input that could not be done."""
    if isinstance(error, (PhotoError, FileError)):
        reason = str(error)
    elif is_out_of_memory(error):
        reason = f"{job.source} does not fit in memory: scale it down, or lower --max-memory."
    else:
        first_line = (str(error).strip().splitlines() or [""])[0]
        reason = f"{job.source} could not be done ({type(error).__name__}: {first_line})."
    return {"input": job.source.as_posix(), "output": None, "error": reason}


def unknown_row(job: Job) -> dict[str, Any]:
    """The row of an output that was skipped, and of which no earlier row is left."""
    return {**job.names, "notes": ["was there before"]}


def summary(header: dict[str, Any], timed: list[dict[str, Any]]) -> str:
    """One line, and one a part of the photos in `timed`: its mean seconds."""
    rate = header["done"] / max(header["seconds"], 1e-3)
    lines = [
        f"{header['done']} done, {header['failed']} failed, {header['skipped']} skipped, {rate:.2f} files/s"
        + (f"; {header['stopped']}: finish with --skip-existing" if header["stopped"] else "")
    ]
    seconds = [row["seconds"] for row in timed if "encode" in row.get("seconds", {})]
    for part in seconds[0] if seconds else []:
        lines.append(f"  {part:8} {sum(spent[part] for spent in seconds) / len(seconds):8.3f} s a photo")
    return "\n".join(lines)
