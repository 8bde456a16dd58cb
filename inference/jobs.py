"""What predict.py has to do: which files, and which output belongs to each.

Output names are those of the inputs, relative to the folder that all inputs share: the one folder given, or the
deepest that holds all that was given. Below it they depend on what lies on the disk beside a file and not on what else
is in the list: cat.jpg becomes cat.png; where the folder also has a cat.webp, the two become cat.jpg.png and
cat.webp.png. So a job that is cut short or repeated gives the same names, and one that is split does where its parts
share the same folder. Where they do not, two inputs may come to one name: the second is refused.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from common.photos import SUFFIXES as PHOTO_SUFFIXES

VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm")


class JobError(ValueError):
    """Nothing can be done; the message is one sentence."""


@dataclass(frozen=True)
class Job:
    """One input and its output, a path below the output folder. `refusal`: why it cannot be done at all."""

    source: Path
    output: Path
    is_video: bool = False
    refusal: str | None = None

    @property
    def names(self) -> dict[str, str]:
        """What its row in the manifest says of its files. `input` is as it was given, which means another file in
        another current folder; `source` is the same in full, and output a path below the output folder."""
        return {
            "input": self.source.as_posix(),
            "source": os.path.realpath(self.source),
            "output": self.output.as_posix(),
        }


@dataclass(frozen=True)
class Naming:
    """How outputs are called. Suffixes with their dot; `in_place` is what is added to the stem where an output lies
    in the folder of its input ("_alpha"), so that an input is never overwritten."""

    photo_suffix: str
    video_suffix: str
    in_place: str


@dataclass(frozen=True)
class Found:
    """A file to be done, or one that was named or found and cannot be: then `refusal` says why."""

    path: Path
    refusal: str | None = None


def plan_jobs(
    inputs: Sequence[Path], output: Path, naming: Naming, written: Mapping[str, str] | None = None
) -> list[Job]:
    """The jobs of `inputs` (files, folders, .txt lists), in the order given, folders sorted, nothing twice.

    `written`: outputs of earlier runs, below `output`, each with the input that it is of. In a folder that is both
    input and output they are no inputs, and one whose input is still there is not overwritten by that of another.
    Raises JobError where there is nothing to do.
    """
    named = [path for given in inputs for path in _expand_list(given)]
    own = {os.path.realpath(output / path): source for path, source in (written or {}).items()}
    found: dict[str, Found] = {}
    for entry in (entry for path in named for entry in _find(path, output)):
        if os.path.realpath(entry.path) not in own:
            found.setdefault(os.path.abspath(entry.path), entry)
    entries = list(found.values())
    if all(entry.refusal for entry in entries):
        places = ", ".join(map(str, inputs[:3])) + (" ..." if len(inputs) > 3 else "")
        raise JobError(
            entries[0].refusal
            if entries
            else f"{places} holds no photo or video: name files, folders or .txt lists of them."
        )
    names = _Names(_shared_folder(named), output, naming, own)
    jobs = [Job(entry.path, names.of(entry.path), _is_video(entry.path), entry.refusal) for entry in entries]
    return _refuse_clashes(jobs, output, own)


def is_same_file(first: str | Path, second: str | Path) -> bool:
    """As the disk says where both are there: links and, on some systems, letters in another case lead to one file."""
    try:
        return os.path.samefile(first, second)
    except OSError:
        return os.path.realpath(first) == os.path.realpath(second)


def _refuse_clashes(jobs: list[Job], output: Path, own: Mapping[str, str]) -> list[Job]:
    """Refuse what would write over another job's output, of this run or of an earlier one, or over a file that may be
    somebody's input. `own`: full paths of earlier outputs, each with its input."""
    folders = {os.path.realpath(job.source.parent) for job in jobs}
    taken: dict[Path, Path] = {}
    checked = []
    for job in jobs:
        if job.refusal is None and job.output in taken:  # only by odd names: x.dat and x.dat.png, or links
            job = replace(
                job,
                refusal=f"{job.source} would have the same output as {taken[job.output]}: rename one, "
                "or give each its own --output.",
            )
        elif job.refusal is None:
            job = replace(job, refusal=_overwriting(job, output / job.output, folders, own))
        if job.refusal is None:
            taken[job.output] = job.source
        checked.append(job)
    return checked


def _overwriting(job: Job, target: Path, folders: Collection[str], own: Mapping[str, str]) -> str | None:
    """Why the job's output, where there already is such a file, must stay; None where it need not."""
    if not os.path.lexists(target):
        return None
    owner = own.get(os.path.realpath(target))
    if owner is None and os.path.realpath(target.parent) in folders:
        return (
            f"{job.source} would overwrite {target}, which predict.py has not written: move that, or choose "
            "another --output."
        )
    if owner is not None and os.path.exists(owner) and not is_same_file(owner, job.source):
        return f"{job.source} would overwrite {target}, the output of {owner}: choose another --output."
    return None


def _expand_list(path: Path) -> list[Path]:
    """The lines of a .txt list, relative to the current folder as any argument; blank lines and # are skipped."""
    if path.suffix.lower() != ".txt" or not os.path.isfile(path):
        return [path]
    try:
        text = path.read_text(encoding="utf-8-sig")
        if "\0" in text:  # UTF-16 may come this far, and no name holds one
            raise ValueError("it holds zero bytes")
    except (OSError, ValueError) as error:
        raise JobError(f"{path} cannot be read as a list ({error}): write one path a line, in UTF-8.") from error
    return [Path(line.strip()) for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def _find(path: Path, output: Path) -> Iterator[Found]:
    """The photos and videos that a path stands for. Asked of os.path: Path's own is_dir and exists raise for a name
    that is too long and in a folder that may not be entered, which would end the others too."""
    if not os.path.isdir(path):
        yield Found(path, _missing(path))  # whatever its suffix: it was named, and what it holds counts
        return
    found = list(_walk(path, output))
    if not found and _is_media(path.name):
        yield Found(path, f"{path} is a folder, not a photo: name the files in it, or rename it.")
    yield from sorted(found, key=lambda entry: entry.path.as_posix())


def _missing(path: Path) -> str | None:
    """Why there is no such file; None where there is one."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return f"{path} does not exist: check its name."
    except OSError as error:
        return f"{path} cannot be read ({error.strerror}): check its name and permissions."
    return None


def _walk(root: Path, output: Path) -> Iterator[Found]:
    """As photos.list_images, with videos; what cannot be listed is a refusal, since the other folders can be done.

    A folder named like a photo is looked into as any other, and refused where no photo is in it. An output folder
    inside `root` is left out; where it is `root`, plan_jobs tells outputs from inputs.
    """
    unlisted: list[OSError] = []
    seen = set()
    skipped = os.path.realpath(output)
    for folder, folders, names in os.walk(root, onerror=unlisted.append, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen or (real == skipped and Path(folder) != root):
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        media = [Path(folder, name) for name in names if _is_media(name) and not name.startswith(".")]
        yield from map(Found, media)
        if not media and not folders and Path(folder) != root and _is_media(Path(folder).name):
            yield Found(Path(folder), f"{folder} is a folder, not a photo: rename it.")
    for error in unlisted:
        yield Found(
            Path(error.filename), f"{error.filename} cannot be listed ({error.strerror}): check its permissions."
        )


def _shared_folder(named: Iterable[Path]) -> str:
    """The folder that names are relative to: the one folder given, or the deepest that holds all that was given."""
    folders = {os.path.abspath(path if os.path.isdir(path) else path.parent) for path in named}
    try:
        return os.path.commonpath(folders)
    except ValueError as error:
        raise JobError("The inputs lie on different drives: run predict.py once for each.") from error


class _Names:
    """Output names; see the module's first lines."""

    def __init__(self, root: str, output: Path, naming: Naming, own: Collection[str]) -> None:
        self.root = root
        self.output = output
        self.naming = naming
        self.own = own
        self.siblings = cache(self._siblings)

    def of(self, source: Path) -> Path:
        folder, name = os.path.split(os.path.abspath(source))
        below = os.path.relpath(folder, self.root)
        in_place = os.path.realpath(folder) == os.path.realpath(self.output / below)
        short = self._short(name)
        shared, long_names = self.siblings(folder)
        is_long = shared[short] > 1 or short in long_names or not _is_media(name)
        stem = name if is_long else Path(name).stem
        return Path(below, stem + (self.naming.in_place if in_place else "") + self._suffix(name))

    def _siblings(self, folder: str) -> tuple[Counter[str], set[str]]:
        """How often each short name occurs in a folder, and the long names of those that occur more than once."""
        try:
            names = [
                name
                for name in os.listdir(folder)
                if _is_media(name)
                and not name.startswith(".")
                and os.path.realpath(os.path.join(folder, name)) not in self.own
            ]
        except OSError:  # then its files fail one by one, each with its reason
            names = []
        shared = Counter(map(self._short, names))
        long_names: set[str] = set()
        for name in sorted(names, key=len):  # x.jpg.png is longer than x.jpg, whose long name it would take
            if shared[self._short(name)] > 1 or self._short(name) in long_names:
                long_names.add((name + self._suffix(name)).casefold())
        return shared, long_names

    def _short(self, name: str) -> str:
        """Case folded: A.jpg and a.png would be one file on many systems."""
        return (Path(name).stem + self._suffix(name)).casefold()

    def _suffix(self, name: str) -> str:
        return self.naming.video_suffix if _is_video(Path(name)) else self.naming.photo_suffix


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def _is_media(name: str) -> bool:
    return name.lower().endswith(PHOTO_SUFFIXES + VIDEO_SUFFIXES)
