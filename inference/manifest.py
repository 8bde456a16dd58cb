"""manifest.json in the output folder: a row for every output there, and for every input that failed in the last run.

It is written once, at the end of a run. The next run reads from it which outputs it may replace, and whose they are.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from common.devices import is_out_of_memory
from common.errors import UserError
from common.files import write_json
from common.photos import Photo
from inference.jobs import Job
from inference.rendering import NO_SUBJECT, Style, has_subject

NAME = "manifest.json"
PROGRAM = "TSR-Matte predict.py"
Row = dict[str, Any]


def read_manifest(folder: Path) -> dict[str, Row]:
    """Make the output folder; return the rows of earlier runs by output, a path below the folder.

    Raises UserError if the folder cannot be made, or holds somebody else's manifest.json.
    """
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.path.lexists(path):
            return {}
        if not path.is_file():
            raise ValueError("no file")  # reading a pipe would wait forever
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["program"] != PROGRAM:
            raise ValueError(content["program"])
        for row in content["files"]:
            _check(row)
        return {row["output"]: row for row in content["files"] if row["output"] is not None}
    except OSError as error:
        raise UserError(
            f"{folder} cannot be used for output ({error.strerror or error}): choose another with --output."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path} is not as predict.py wrote it, and would be overwritten: move it, or choose another --output."
        ) from error


def _check(row: Row) -> None:
    """Raise KeyError, TypeError, AttributeError or ValueError for a row that job_row and failure_row do not write."""
    texts = [row["input"], row.get("source", ""), "" if row["output"] is None else row["output"]]
    if not all(isinstance(text, str) and "\0" not in text for text in texts):
        raise ValueError(texts)


def write_manifest(folder: Path, header: Row, rows: list[Row], earlier: dict[str, Row]) -> Path:
    """Write `header` and `rows`, with those rows of earlier runs whose outputs are still there. Raises UserError."""
    written = {row["output"] for row in rows}
    kept = [row for output, row in earlier.items() if output not in written and os.path.exists(folder / output)]
    content = {"program": PROGRAM, **header, "files": sorted(kept + rows, key=lambda row: row["input"])}
    write_json(folder / NAME, content)
    return folder / NAME


def job_row(job: Job, **more: Any) -> Row:
    """The row of an output. `input` is as it was given, relative to the current folder; `source` is the full path."""
    source = os.path.realpath(job.source)
    return {"input": job.source.as_posix(), "source": source, "output": job.output.as_posix(), **more}


def photo_row(job: Job, photo: Photo, alpha: np.ndarray, style: Style, *, seconds: float) -> Row:
    """The row of a photo. seconds: from its reading to its writing, with its waiting for the network."""
    notes = [*photo.notes, *([] if has_subject(alpha) else [NO_SUBJECT])]
    height, width = alpha.shape
    return job_row(job, kind=style.kind, width=width, height=height, seconds=round(seconds, 4), notes=notes)


def failure_row(job: Job, error: Exception) -> Row:
    """The row of an input that could not be done, with one sentence why."""
    if isinstance(error, UserError):
        reason = str(error)
    elif is_out_of_memory(error):
        reason = f"{job.source} does not fit in memory: scale it down, or lower --max-memory."
    else:
        first_line = (str(error).strip().splitlines() or [""])[0]
        reason = f"{job.source} could not be done ({type(error).__name__}: {first_line})."
    return {"input": job.source.as_posix(), "output": None, "error": reason}
