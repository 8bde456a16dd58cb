"""Files and folders: complete outputs or none, one folder walk, one matching of folders by name.

with atomic_write("cat.png") as temporary:
    temporary.write_bytes(data)
list_files("photos", (".jpg", ".png"))                # [Path("photos/a.jpg"), Path("photos/b/c.png")]
match_by_name([Path("im"), Path("gt")], SUFFIXES)     # {"cat": [[Path("im/cat.jpg")], [Path("gt/cat.png")]]}
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import stat
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import filelock

from common.errors import UserError, reason_and_cure

TEMPORARY_FILES = ".part-*"  # as a pattern; a kill can leave one, as large as the file itself
MADE_BY_SYSTEMS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "Thumbs.db", "desktop.ini")


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a hidden, empty file in the folder of `path`, with its suffix; at the end it is renamed to `path`.

    It reaches the disk (fsync) before the rename, so not even a power cut leaves half a file. Any exception, Ctrl-C
    included, removes it and leaves the old file. Its mode is that of any new file, whatever wrote it. An OSError in the
    block (disk full, no permission) becomes a UserError.
    """
    path = Path(path)
    temporary = path.with_name(f".part-{secrets.token_hex(6)}{path.suffix}")  # short, however long the name
    try:
        with open(temporary, "xb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        if stat.S_IMODE(os.stat(temporary).st_mode) != mode:  # safetensors replaces the file by one of mode 600
            with suppress(OSError):  # where file systems have no modes
                os.chmod(temporary, mode)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path} cannot be written {reason_and_cure(error)}.") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def atomic_folder(path: str | Path, replace: bool = False) -> Iterator[Path]:
    """As atomic_write, for a folder. path must not exist, or with `replace` may be a folder, which is replaced."""
    path = Path(path)
    if path.exists() and not replace:
        raise UserError(f"{path} is there already: remove it, or name a new folder.")
    temporary = path.with_name(f".part-{secrets.token_hex(6)}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if replace:
            shutil.rmtree(path, ignore_errors=True)
        os.rename(temporary, path)
    except OSError as error:
        raise UserError(f"{path} cannot be made {reason_and_cure(error)}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def locked(folder: Path, who: str) -> Iterator[None]:
    """Make a folder and keep it for this process; a kill frees it. Raises UserError if `who` has it."""
    make_folder(folder, "choose another")
    lock = filelock.FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise UserError(f"{folder} is in use by {who}: wait until it has ended, or choose another folder.") from error
    except NotImplementedError:  # a file system without locks
        pass
    except OSError as error:
        raise UserError(f"{folder} cannot be used {reason_and_cure(error)}.") from error
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes no file that is open
            (folder / ".lock").unlink()
        lock.release()


def digest(path: str | Path) -> str:
    """12 digits that tell a file's content from any other."""
    with open(path, "rb") as file:
        found = hashlib.sha256()
        while block := file.read(2**20):
            found.update(block)
    return found.hexdigest()[:12]


def state_of(path: str | Path) -> list[int] | None:
    """Bytes and time (ns) of a file, by which another one in its place is known; None if it is not there."""
    with suppress(OSError):
        status = os.stat(path)
        return [status.st_size, status.st_mtime_ns]
    return None


def is_another_file(first: str | Path, second: str | Path) -> bool:
    """Whether both exist and are two, as the disk says: on some systems letters in another case are the same."""
    with suppress(OSError):
        return not os.path.samefile(first, second)
    return False


def make_folder(folder: str | Path, cure: str) -> None:
    """Make a folder and those above it. Raises UserError; cure: what to do then."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error.strerror}): {cure}.") from error


def write_json(path: str | Path, value: Any) -> None:
    """Write plain values as indented JSON. Raises UserError, and ValueError for NaN and infinity.

    A name that is no text (from an old zip) is written with JSON's own escapes, and read back as it was.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_write(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def walk(
    root: str | Path, *, skip: str | Path | None = None, on_error: Callable[[OSError], None] | None = None
) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield (folder, names of folders in it, names of files in it) for root and all below it, names sorted.

    Hidden files and folders, and those that systems make, are skipped, and so is the folder `skip` unless it is root
    itself. Linked folders are followed, each once. A folder that cannot be listed is given to on_error; without it,
    UserError names it.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be listed ({error.strerror}): name a folder to read.") from error

    seen = set() if skip is None or os.path.realpath(skip) == os.path.realpath(root) else {os.path.realpath(skip)}
    for folder, folders, names in os.walk(root, onerror=on_error or refuse, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link back up would lead round and round
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        yield Path(folder), list(folders), sorted(name for name in names if not is_hidden(name))


def is_hidden(name: str) -> bool:
    """Whether a file or folder is one that people do not see: .git, ._cat.jpg, __MACOSX."""
    return name.startswith(".") or name in MADE_BY_SYSTEMS


def list_files(root: str | Path, suffixes: Sequence[str], **options: Any) -> list[Path]:
    """Files under a folder with one of these suffixes (lower case, with their dot), sorted; options as in walk."""
    files = (folder / name for folder, _, names in walk(root, **options) for name in names)
    return sorted((f for f in files if f.name.lower().endswith(tuple(suffixes))), key=lambda path: path.as_posix())


def count_others(root: str | Path, suffixes: Sequence[str], **options: Any) -> Counter[str]:
    """How many files list_files leaves out, by suffix in lower case ("" for none); options as in walk."""
    names = (name.lower() for _, _, names in walk(root, **options) for name in names)
    return Counter(Path(name).suffix for name in names if not name.endswith(tuple(suffixes)))


def say_others(others: Counter[str], what: str = "file") -> str:
    """ "3 files left out: 2 .jxl, 1 without suffix", or "" for none."""
    counts = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in sorted(others.items()) if count)
    total = sum(others.values())
    return f"{total} {what}{'' if total == 1 else 's'} left out: {counts}" if total else ""


def match_by_name(folders: Sequence[Path], suffixes: Sequence[str]) -> dict[str, list[list[Path]]]:
    """By name, sorted: the files of that name in each folder, which may be none, one or, a fault, several.

    A name is the path below the folder without its last suffix, with / on every system (cat.v2.jpg is cat.v2). Names
    are composed (NFC), since macOS writes an accented e as two characters. Raises UserError as list_files.
    """
    found: dict[str, list[list[Path]]] = {}
    for position, folder in enumerate(folders):
        for path in list_files(folder, suffixes):
            name = os.path.splitext(str(path))[0][len(str(folder)) + 1 :].replace(os.sep, "/")
            found.setdefault(unicodedata.normalize("NFC", name), [[] for _ in folders])[position].append(path)
    return dict(sorted(found.items()))
