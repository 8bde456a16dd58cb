"""The photos and videos that predict.py is given: files, folders, patterns, .txt lists of these."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from common.errors import UserError
from common.files import walk
from inference.manifest import NAME as MANIFEST
from inference.media import PHOTO, is_named_as_media, kind_of


class Input(NamedTuple):
    path: Path
    kind: str  # PHOTO or VIDEO
    refusal: str = ""  # why it cannot be done


class Inputs:
    """files: in the order given, those of a folder sorted, none twice. root: the folder that all of them share.

    dropped: inputs that were named and are not among the files, by reason; others: files of folders that are neither
    photo nor video, by suffix.
    """

    def __init__(self, given: Sequence[Path], output: Path, is_output: Callable[[Path], object]) -> None:
        """output: a folder that is not looked into, unless it is given. is_output: of an earlier run, and no input.

        Raises UserError.
        """
        self.output, self.is_output = output, is_output
        self.dropped, self.others = Counter[str](), Counter[str]()
        named = [path for each in given for path in self._expand(each)]
        folders = {os.path.abspath(path if os.path.isdir(path) else path.parent) for path in named}
        try:
            self.root = os.path.commonpath(folders) if folders else ""
        except ValueError as error:
            raise UserError("The inputs lie on different drives: run predict.py once for each.") from error
        files: dict[str, Input] = {}
        for path in named:
            for found in self._find(path):
                if files.setdefault(os.path.abspath(found.path), found) is not found and found.path == path:
                    self.dropped["named twice"] += 1
        self.files = list(files.values())
        self._stems = cache(self._read_stems)

    def named_alike(self, source: Path) -> list[Path]:
        """The other photos and videos in a file's folder with the same stem, in any case; outputs are none."""
        folder = os.path.dirname(os.path.abspath(source))
        stem = source.stem if is_named_as_media(source.name) else source.name
        return [path for path in self._stems(folder).get(stem.casefold(), ()) if path.name != source.name]

    def _read_stems(self, folder: str) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        with suppress(OSError):  # a folder that cannot be listed: its files fail one by one, each with its reason
            for path in (Path(folder, name) for name in os.listdir(folder) if is_named_as_media(name)):
                if not self.is_output(path):
                    found.setdefault(path.stem.casefold(), []).append(path)
        return found

    def _expand(self, path: Path) -> list[Path]:
        """The lines of a list, relative to the current folder, or the files of a pattern that no shell has expanded."""
        if glob.has_magic(str(path)) and not os.path.lexists(path):
            return [Path(name) for name in sorted(glob.glob(str(path), recursive=True))] or [path]
        if path.suffix.lower() != ".txt" or not os.path.isfile(path):
            return [path]
        try:
            text = path.read_text(encoding="utf-8-sig")
            if "\0" in text:  # UTF-16 may come this far, and no name holds one
                raise ValueError("it holds zero bytes")
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read as a list ({error}): write one path a line, in UTF-8.") from error
        lines = [line if os.path.lexists(line) else line.strip() for line in text.split("\n") if line.strip()]
        wanted = [line for line in lines if not line.startswith("#") or os.path.lexists(line)]
        self.dropped[f"commented out in {path}"] += len(lines) - len(wanted)
        return list(map(Path, wanted))

    def _find(self, path: Path) -> Iterator[Input]:
        """What a path stands for. os.path is asked, since Path's own is_dir and exists raise for a name that is too
        long and in a folder that may not be entered."""
        if os.path.isdir(path):
            yield from self._walk(path)
        elif self.is_output(path):
            self.dropped["written by an earlier run"] += 1
        else:
            refusal = ""
            try:
                os.lstat(path)
            except FileNotFoundError:
                refusal = f"{path} does not exist: check its name."
            except OSError as error:
                refusal = f"{path} cannot be read ({error.strerror}): check its name and permissions."
            yield Input(path, kind_of(path) or PHOTO, refusal)  # whatever its suffix: it was named

    def _walk(self, root: Path) -> Iterator[Input]:
        """The photos and videos below a folder. One that holds none, or that cannot be listed, is refused."""
        unlisted: list[OSError] = []
        found = False
        for folder, folders, names in walk(root, skip=self.output, on_error=unlisted.append):
            if self.is_output(folder):  # the frames of a video
                continue
            for name in names:
                path = folder / name
                if is_named_as_media(name) and (kind := kind_of(path)):
                    if not self.is_output(path):
                        found = True
                        yield Input(path, kind)
                elif not self.is_output(path) and name != MANIFEST:
                    self.others[path.suffix.lower()] += 1
            if not (names or folders) and is_named_as_media(folder.name):
                found = True
                yield Input(folder, PHOTO, f"{folder} is a folder, not a photo: name the files in it, or rename it.")
        for error in unlisted:
            path = Path(error.filename)
            yield Input(path, PHOTO, f"{path} cannot be listed ({error.strerror}): check its permissions.")
        if not found and not unlisted:
            yield Input(root, PHOTO, f"{root} holds no photo or video: name files, folders or .txt lists of them.")
