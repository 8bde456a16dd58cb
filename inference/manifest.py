"""manifest.json in the output folder: what predict.py wrote there, from which files and by which settings.

It is written when a run starts, with what is going to be written, and when it ends: so a kill costs no knowledge.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import state_of, write_json

NAME = "manifest.json"
PROGRAM = "TSR-Matte predict.py"
Row = dict[str, Any]


def new_row(source: Path, output: Path, settings: Row) -> Row:
    """input: as it was given, relative to the current folder; source: the full path; state: its bytes and time."""
    place = {"input": source.as_posix(), "source": os.path.realpath(source), "output": output.as_posix()}
    return {**place, "state": state_of(source), **settings}


class Manifest:
    """The outputs of earlier runs, and the settings of this one: kind, bits, background, checkpoint, detail."""

    def __init__(self, folder: Path, settings: Row) -> None:
        """Raises UserError if the manifest.json in the folder is not as predict.py writes it."""
        self.folder, self.settings, self.path = folder, settings, folder / NAME
        self.real_folder = cache(os.path.realpath)
        self.rows: dict[str, Row] = {}
        if not os.path.lexists(self.path):
            return
        try:
            content = json.loads(self.path.read_text(encoding="utf-8") if self.path.is_file() else "")  # pipes block
            texts = [row[key] or "" for row in content["files"] for key in ("input", "source", "output")]
            if content["program"] != PROGRAM or any("\0" in text for text in texts):  # a TypeError for what is no text
                raise ValueError(content["program"])
            self.rows = {self._place(folder / row["output"]): row for row in content["files"] if row["output"]}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            cure = "move it, or choose another --output"
            raise UserError(f"{self.path} is not as predict.py wrote it, and would be overwritten: {cure}.") from error

    def _place(self, path: Path) -> str:
        return os.path.join(self.real_folder(os.path.dirname(os.path.abspath(path))), path.name)

    def row_of(self, path: Path) -> Row | None:
        """The row of a file, or folder of frames, that predict.py wrote and nobody has replaced since; else None."""
        row = self.rows.get(self._place(path))
        is_there = row is not None and os.path.lexists(path)
        return row if is_there and row.get("bytes", 0) in (0, os.lstat(path).st_size) else None  # type: ignore[union-attr]

    def is_up_to_date(self, row: Row | None, source: Path) -> bool:
        """Whether an output was made by this run's settings from the file as it is now, and completely."""
        wanted = {"state": state_of(source), "error": None, **self.settings}
        return row is not None and all(row.get(key) == value for key, value in wanted.items())

    def announce(self, jobs: Iterable[tuple[Path, Path]]) -> None:
        """Write what this run will write where nothing is yet: (input, output). Raises UserError."""
        new = {self._place(self.folder / output): new_row(source, output, self.settings) for source, output in jobs}
        self.rows = new | {place: row for place, row in self.rows.items() if os.path.lexists(place)}
        self.write({"stopped": "this run has not ended, or was killed"}, list(self.rows.values()))

    def write(self, header: Row, rows: list[Row]) -> None:
        """Write `header` and `rows`, with those of earlier runs whose outputs are still there. Raises UserError."""
        kept = {row["output"]: row for place, row in self.rows.items() if os.path.lexists(place)}
        files = sorted(
            (kept | {row["output"] or row["input"]: row for row in rows}).values(), key=lambda row: row["input"]
        )
        write_json(self.path, {"program": PROGRAM, **header, "files": files})
