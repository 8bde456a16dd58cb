"""manifest.json in the output folder: what predict.py wrote there, from which file and by which settings.

It is written when a run starts, with what the run is going to write, and when it ends: also after a kill the next run
knows what it may replace, and what it need not make again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import write_json

NAME = "manifest.json"
PROGRAM = "TSR-Matte predict.py"
Row = dict[str, Any]


def new_row(source: Path, output: Path, settings: Row) -> Row:
    """input: as it was given, relative to the current folder; source: the full path; state: its bytes and time."""
    place = {"input": source.as_posix(), "source": os.path.realpath(source), "output": output.as_posix()}
    return {**place, "state": _state(source), **settings}


class Manifest:
    """The outputs of earlier runs, and the settings of this one: kind, bits, background, checkpoint, detail."""

    def __init__(self, folder: Path, settings: Row) -> None:
        """Raises UserError if the manifest.json in the folder is not as predict.py writes it."""
        self.folder, self.settings, self.path = folder, settings, folder / NAME
        self.real_folder = cache(os.path.realpath)
        try:
            rows = self._read() if os.path.lexists(self.path) else []
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            cure = "move it, or choose another --output"
            raise UserError(f"{self.path} is not as predict.py wrote it, and would be overwritten: {cure}.") from error
        self.rows = {self._place(folder / row["output"]): row for row in rows if row["output"]}

    def _read(self) -> list[Row]:
        if not self.path.is_file():
            raise ValueError("no file")  # reading a pipe would wait forever
        content = json.loads(self.path.read_text(encoding="utf-8"))
        texts = [row[key] or "" for row in content["files"] for key in ("input", "source", "output")]
        if content["program"] != PROGRAM or not all(isinstance(text, str) and "\0" not in text for text in texts):
            raise ValueError(content["program"])
        return content["files"]

    def _place(self, path: Path) -> str:
        return os.path.join(self.real_folder(os.path.dirname(os.path.abspath(path))), path.name)

    def row_of(self, path: Path) -> Row | None:
        """The row of a file, or folder of frames, that predict.py wrote and nobody has replaced since; else None."""
        row = self.rows.get(self._place(path))
        if row is None or not os.path.lexists(path) or row.get("bytes", 0) not in (0, os.lstat(path).st_size):
            return None
        return row

    def is_up_to_date(self, row: Row | None, source: Path) -> bool:
        """Whether an output was made by this run's settings from the file as it is now, and completely."""
        wanted = {"state": _state(source), "error": None, **self.settings}
        return row is not None and all(row.get(key) == value for key, value in wanted.items())

    def announce(self, jobs: Iterable[tuple[Path, Path]]) -> None:
        """Write what this run will write where nothing is yet: (input, output). Raises UserError."""
        new = {self._place(self.folder / output): new_row(source, output, self.settings) for source, output in jobs}
        self.rows = new | {place: row for place, row in self.rows.items() if os.path.lexists(place)}
        self.write({"stopped": "this run has not ended, or was killed"}, list(self.rows.values()))

    def write(self, header: Row, rows: list[Row]) -> None:
        """Write `header` and `rows`, with those of earlier runs whose outputs are still there. Raises UserError."""
        written = {row["output"] for row in rows}
        kept = [r for place, r in self.rows.items() if r["output"] not in written and os.path.lexists(place)]
        files = sorted(kept + rows, key=lambda row: row["input"])
        write_json(self.path, {"program": PROGRAM, **header, "files": files})


def _state(source: Path) -> list[int] | None:
    try:
        status = os.stat(source)
        return [status.st_size, status.st_mtime_ns]
    except OSError:
        return None
