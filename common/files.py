"""Complete files or none, one folder walk, and files matched by name.

with atomic_write("run/log.csv") as temporary:
    table.to_csv(temporary)
photos = list_files("photos", (".jpg", ".png"))
for name, (images, alphas) in match_by_name("im", "gt", (".jpg", ".png")).items(): ...
"""

from __future__ import annotations

import json
import os
import secrets
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

TEMPORARY_FILES = ".part-*"  # as a pattern; a kill can leave one, as large as the file itself
_MADE_BY_SYSTEMS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "Thumbs.db", "desktop.ini")


class FileError(OSError):
    """A file that cannot be written or a folder that cannot be listed; str() is one sentence."""


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Give a hidden temporary path next to `path`; at the end it is on the disk (fsync) and renamed to `path`.

    The temporary has the target's suffix and is removed on any exception, Ctrl-C included. An OSError in the
    block (disk full, no permission) becomes a FileError that names `path`.
    """
    path = Path(path)
    temporary = path.with_name(f".part-{secrets.token_hex(6)}{path.suffix}")  # short, however long the name
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except FileError:
        raise
    except OSError as error:
        reason = error.strerror or str(error).partition("\n")[0].rstrip(". ")
        raise FileError(f"{path} cannot be written ({reason}): make room or use another folder.") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_json(path: str | Path, value: Any) -> None:
    """Raises FileError, and ValueError for NaN and infinity, which JSON does not have."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def walk(
    root: str | Path, on_error: Callable[[OSError], object] | None = None
) -> Iterator[tuple[Path, list[str], list[str]]]:
    """os.walk from the top, sorted, without what is hidden; linked folders are followed, each once.

    Gives (folder, names of its folders, names of its files); what is taken out of the folders is not entered. A
    folder that cannot be listed goes to `on_error`, or raises FileError where there is none.
    """

    def refuse(error: OSError) -> None:
        raise FileError(f"{error.filename} cannot be listed ({error.strerror}): name a folder to read.")

    seen = set()
    for folder, folders, names in os.walk(root, onerror=on_error or refuse, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link back up: without this the walk would go round in it
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        yield Path(folder), folders, sorted(name for name in names if not is_hidden(name))


def is_hidden(name: str) -> bool:
    """Whether a file or folder is one that people do not see: .git, ._cat.jpg, __MACOSX."""
    return name.startswith(".") or name in _MADE_BY_SYSTEMS


def list_files(
    root: str | Path, suffixes: Sequence[str], on_error: Callable[[OSError], object] | None = None
) -> list[Path]:
    """Files under a folder with one of these suffixes, in any case; sorted. See walk for the rest."""
    found = [
        folder / name
        for folder, _, names in walk(root, on_error)
        for name in names
        if name.lower().endswith(tuple(suffixes))
    ]
    return sorted(found, key=lambda path: path.as_posix())


def count_others(
    root: str | Path, suffixes: Sequence[str], on_error: Callable[[OSError], object] | None = None
) -> Counter[str]:
    """How many files list_files leaves out, by suffix in lower case ("" for none). See walk for the rest."""
    names = (name.lower() for _, _, names in walk(root, on_error) for name in names)
    return Counter(Path(name).suffix for name in names if not name.endswith(tuple(suffixes)))


def say_others(others: Counter[str]) -> str:
    """ "3 files left out: 2 .jxl, 1 without suffix", or "" for none."""
    counts = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in sorted(others.items()))
    return f"{others.total()} {'file' if others.total() == 1 else 'files'} left out: {counts}" if counts else ""


def files_by_name(folder: str | Path, suffixes: Sequence[str]) -> dict[str, list[Path]]:
    """The files below a folder by name: the path below it without its suffix, with / on every system; sorted.

    Only the last suffix goes, so cat.v2.jpg is cat.v2. Names are composed (NFC), since macOS writes an e with
    an accent as two characters where others write one. Raises FileError.
    """
    found: dict[str, list[Path]] = {}
    for path in list_files(folder, suffixes):
        name = unicodedata.normalize("NFC", path.relative_to(folder).with_suffix("").as_posix())
        found.setdefault(name, []).append(path)
    return found


def match_by_name(
    first: str | Path, second: str | Path, suffixes: Sequence[str]
) -> dict[str, tuple[list[Path], list[Path]]]:
    """The files of both folders for each name of either, sorted: a pair is a name with one file in each.

    What has no file on one side, or more than one, is for the caller to refuse or name. Raises FileError.
    """
    firsts, seconds = files_by_name(first, suffixes), files_by_name(second, suffixes)
    return {name: (firsts.get(name, []), seconds.get(name, [])) for name in sorted(firsts.keys() | seconds.keys())}
