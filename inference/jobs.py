"""What predict.py has to do: which files, and which output belongs to each.

Output names are those of the inputs, relative to the folder that all inputs share: the one folder given, or the
deepest that holds all that was given. Below it they depend on what lies next to a file on the disk and not on what else
is in the list: cat.jpg becomes cat.png; where the folder also has a cat.webp, the two become cat.jpg.png and
cat.webp.png. So a job that is repeated gives the same names. In the folder of its input an output is called
cat_alpha.png, and a file of such a name, next to a cat.*, is taken for an output, not for an input.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from common.errors import UserError
from common.files import walk
from common.photos import SUFFIXES as PHOTO_SUFFIXES

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".3gp", ".avi", ".mkv", ".webm", ".mts", ".ts", ".wmv")
OUTPUT_SUFFIXES = (".png", ".webp", ".mkv", ".mp4")


@dataclass(frozen=True)
class Job:
    """One input and its output, a path below the output folder. `refusal`: why it cannot be done at all. `is_done`:
    the output is there, newer than what it is made of."""

    source: Path
    output: Path
    is_video: bool = False
    refusal: str | None = None
    is_done: bool = False


@dataclass(frozen=True)
class Naming:
    """How outputs are called. Suffixes with their dot; kinds: all that an output in its input's folder may have added
    to its stem, the first being what is added now ("alpha": cat_alpha.png)."""

    photo_suffix: str
    video_suffix: str
    kinds: tuple[str, ...]


def plan_jobs(
    inputs: Sequence[Path],
    output: Path,
    naming: Naming,
    owners: Mapping[str, str] | None = None,
    is_done: Callable[[Path, Path], bool] = lambda source, target: False,
) -> list[Job]:
    """The jobs of `inputs` (files, folders, .txt lists), in the order given, folders sorted, nothing twice.

    owners: outputs of earlier runs, below `output`, each with the full path of its input. They are no inputs, and one
    whose input is still there is not overwritten by that of another. is_done(input, output): whether an output that is
    there can stay. Raises UserError if there is nothing to do.
    """
    named = [path for given in inputs for path in _expand_list(given)]
    own = {os.path.realpath(output / path): source for path, source in (owners or {}).items()}
    names = _Names(_shared_folder(named), output, naming, own)
    found: dict[str, Job] = {}
    for path in named:
        for source, refusal in _find(path, output, own):
            if source == path or not names.is_output(source):
                job = Job(source, names.output_of(source), _is_video(source), refusal)
                found.setdefault(os.path.abspath(source), job)
    jobs = list(found.values())
    if all(job.refusal for job in jobs):
        places = ", ".join(map(str, inputs[:3])) + (" ..." if len(inputs) > 3 else "")
        nothing = f"{places} holds no photo or video: name files, folders or .txt lists of them."
        raise UserError((jobs[0].refusal if jobs else None) or nothing)
    return _check_outputs(jobs, output, own, is_done)


def is_up_to_date(target: Path, parts: Sequence[str | Path]) -> bool:
    """Whether the output is there, and no older than any file that it is made of."""
    try:
        return os.stat(target).st_mtime_ns >= max(os.stat(path).st_mtime_ns for path in parts)
    except OSError:
        return False


def _check_outputs(
    jobs: list[Job], output: Path, own: Mapping[str, str], is_done: Callable[[Path, Path], bool]
) -> list[Job]:
    """Refuse what would write over another job's output, of this run or of an earlier one, or over a file that may be
    somebody's input; mark what is done."""
    folders = {os.path.realpath(job.source.parent) for job in jobs}
    taken: dict[Path, Path] = {}
    checked = []
    for job in jobs:
        if job.refusal is None:
            target = output / job.output
            owner = own.get(os.path.realpath(target))
            if job.output in taken:  # only by odd names: x.dat and x.dat.png, or links
                rival = f"{job.source} would have the same output as {taken[job.output]}"
                job = replace(job, refusal=f"{rival}: rename one, or give each its own --output.")
            elif owner is not None and os.path.lexists(target) and _is_another(owner, job.source):
                would = f"{job.source} would overwrite {target}, the output of {owner}"
                job = replace(job, refusal=f"{would}: choose another --output.")
            elif owner in (None, os.path.realpath(job.source)) and is_done(job.source, target):
                job = replace(job, is_done=True)
            elif owner is None and (os.path.isdir(target) or _is_in(folders, target)):
                would = f"{job.source} would overwrite {target}, which is in no manifest.json of predict.py"
                job = replace(job, refusal=f"{would}: move that, choose another --output, or use --skip-existing.")
        if job.refusal is None:
            taken[job.output] = job.source
        checked.append(job)
    return checked


def _is_in(folders: Collection[str], target: Path) -> bool:
    return os.path.lexists(target) and os.path.realpath(target.parent) in folders


def _is_another(owner: str, source: Path) -> bool:
    """Whether `owner` is there and another file. As the disk says: links and, on some systems, letters in another case
    lead to one file."""
    try:
        return not os.path.samefile(owner, source)
    except OSError:
        return os.path.exists(owner) and os.path.realpath(source) != owner


def _expand_list(path: Path) -> list[Path]:
    """The lines of a .txt list, relative to the current folder as any argument; blank lines and # are skipped."""
    if path.suffix.lower() != ".txt" or not os.path.isfile(path):
        return [path]
    try:
        text = path.read_text(encoding="utf-8-sig")
        if "\0" in text:  # UTF-16 may come this far, and no name holds one
            raise ValueError("it holds zero bytes")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a list ({error}): write one path a line, in UTF-8.") from error
    return [Path(line.strip()) for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def _find(path: Path, output: Path, own: Collection[str]) -> list[tuple[Path, str | None]]:
    """The photos and videos that a path stands for, each with its refusal or None. os.path is asked, since Path's own
    is_dir and exists raise for a name that is too long and in a folder that may not be entered."""
    if os.path.isdir(path):
        found = sorted(_walk(path, output, own), key=lambda entry: entry[0].as_posix())
        if not found and _is_media(path.name):
            return [(path, f"{path} is a folder, not a photo: name the files in it, or rename it.")]
        return found
    if os.path.realpath(path) in own:
        return []
    try:
        os.lstat(path)
    except FileNotFoundError:
        return [(path, f"{path} does not exist: check its name.")]
    except OSError as error:
        return [(path, f"{path} cannot be read ({error.strerror}): check its name and permissions.")]
    return [(path, None)]  # whatever its suffix: it was named, and what it holds counts


def _walk(root: Path, output: Path, own: Collection[str]) -> Iterator[tuple[Path, str | None]]:
    """All photos and videos below a folder but outputs; what cannot be listed is a refusal, since the other folders
    can be done. An output folder inside `root` is left out."""
    unlisted: list[OSError] = []
    for folder, folders, files in walk(root, skip=output, on_error=unlisted.append):
        if os.path.realpath(folder) in own:  # a folder of frames
            continue
        media = [folder / name for name in files if _is_media(name)]
        yield from ((path, None) for path in media if os.path.realpath(path) not in own)
        if not media and not folders and folder != root and _is_media(folder.name):
            yield folder, f"{folder} is a folder, not a photo: rename it."
    for error in unlisted:
        yield Path(error.filename), f"{error.filename} cannot be listed ({error.strerror}): check its permissions."


def _shared_folder(named: Iterable[Path]) -> str:
    """The folder that names are relative to: the one folder given, or the deepest that holds all that was given."""
    try:
        return os.path.commonpath({os.path.abspath(path if os.path.isdir(path) else path.parent) for path in named})
    except ValueError as error:
        raise UserError("The inputs lie on different drives: run predict.py once for each.") from error


class _Names:
    """Output names; see the module's first lines."""

    def __init__(self, root: str, output: Path, naming: Naming, own: Collection[str]) -> None:
        self.root, self.output, self.naming, self.own = root, output, naming, own
        self.inputs_in = cache(self._inputs_in)
        self.long_names_in = cache(self._long_names_in)

    def output_of(self, source: Path) -> Path:
        folder, name = os.path.split(os.path.abspath(source))
        is_long = not _is_media(name) or name in self.long_names_in(folder)
        added = f"_{self.naming.kinds[0]}" if self._is_in_place(folder) else ""
        return Path(
            os.path.relpath(folder, self.root), (name if is_long else Path(name).stem) + added + self._suffix(name)
        )

    def is_output(self, path: Path) -> bool:
        folder, name = os.path.split(os.path.abspath(path))
        return self._is_in_place(folder) and _is_media(name) and name not in self.inputs_in(folder)

    def _is_in_place(self, folder: str) -> bool:
        return os.path.realpath(folder) == os.path.realpath(self.output / os.path.relpath(folder, self.root))

    def _inputs_in(self, folder: str) -> list[str]:
        """The photos and videos in a folder that are not outputs."""
        try:
            listed = sorted(filter(_is_media, os.listdir(folder)), key=len)
        except OSError:  # then its files fail one by one, each with its reason
            return []
        names = [name for name in listed if os.path.realpath(os.path.join(folder, name)) not in self.own]
        if not self._is_in_place(folder):
            return names
        stems = {*names, *(Path(name).stem for name in names)}
        return [name for name in names if not self._is_output_of(stems, name)]

    def _is_output_of(self, stems: Collection[str], name: str) -> bool:
        stem, _, kind = Path(name).stem.rpartition("_")
        return kind in self.naming.kinds and stem in stems and name.lower().endswith(OUTPUT_SUFFIXES)

    def _long_names_in(self, folder: str) -> set[str]:
        """The inputs in a folder whose short output name is another's too, short or long."""
        names = self.inputs_in(folder)
        shared = Counter(map(self._short, names))
        long_names, outputs = set(), set()
        for name in names:  # shortest first: x.jpg.png is longer than x.jpg, whose long name it would take
            if shared[self._short(name)] > 1 or self._short(name) in outputs:
                long_names.add(name)
                outputs.add((name + self._suffix(name)).casefold())
        return long_names

    def _short(self, name: str) -> str:
        """Case folded: A.jpg and a.png would be one file on many systems."""
        return (Path(name).stem + self._suffix(name)).casefold()

    def _suffix(self, name: str) -> str:
        return self.naming.video_suffix if _is_video(Path(name)) else self.naming.photo_suffix


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def _is_media(name: str) -> bool:
    return name.lower().endswith(PHOTO_SUFFIXES + VIDEO_SUFFIXES) and not name.startswith(".")
