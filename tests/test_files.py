"""Complete files or none, the folder walk, and names that match."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import pytest

from common.files import (
    FileError,
    atomic_write,
    count_others,
    files_by_name,
    list_files,
    match_by_name,
    say_others,
    walk,
    write_json,
)

links = pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def below(root: Path, paths: list[Path]) -> list[str]:
    return [path.relative_to(root).as_posix() for path in paths]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_atomic_write_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    with pytest.raises(error), atomic_write(path) as temporary:
        assert temporary.parent == path.parent and temporary.name.startswith(".") and temporary.suffix == ".png"
        temporary.write_bytes(b"half")
        raise error
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.png"]


def test_what_is_renamed_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    rename, sync = os.replace, os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (done.append("fsync"), sync(number)))
    monkeypatch.setattr(os, "replace", lambda source, target: (done.append("rename"), rename(source, target)))
    write_json(tmp_path / "a.json", {"é": [1, None]})
    assert done == ["fsync", "rename"]
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"é": [1, None]}


def test_failures_name_the_file_and_leave_nothing(tmp_path: Path) -> None:
    full = pytest.raises(FileError, match=r"a\.txt cannot be written \(No space left on device\): make room")
    with full, atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise OSError(28, "No space left on device")
    named_once = pytest.raises(FileError, match=r"inner\.txt cannot be written \(No such file")
    with named_once, atomic_write(tmp_path / "outer.txt"), atomic_write(tmp_path / "no" / "inner.txt") as temporary:
        temporary.write_text("text")
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert os.listdir(tmp_path) == []


def test_list_files(tmp_path: Path) -> None:
    touch(tmp_path, "b/x.JPG", "a.png", "a.jpg", "a.Tiff", ".part-1.png", "notes.txt", "b/.hidden/y.png", "png")
    touch(tmp_path, "folder.jpg/z.png", "__MACOSX/c.jpg", "@eaDir/a.jpg", "._a.jpg", "Thumbs.db")
    suffixes = (".jpg", ".png", ".tiff")
    found = ["a.Tiff", "a.jpg", "a.png", "b/x.JPG", "folder.jpg/z.png"]
    assert below(tmp_path, list_files(tmp_path, suffixes)) == found
    with pytest.raises(FileError, match="missing cannot be listed"):
        list_files(tmp_path / "missing", suffixes)
    unlisted: list[OSError] = []
    assert list_files(tmp_path / "missing", suffixes, unlisted.append) == [] and len(unlisted) == 1


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b/a.JXL", "c.jxl", "README", ".hidden", "Thumbs.db")
    assert say_others(count_others(tmp_path, (".jpg",))) == "3 files left out: 1 without suffix, 2 .jxl"
    assert say_others(count_others(tmp_path / "b", (".jpg",))) == "1 file left out: 1 .jxl"
    assert say_others(count_others(tmp_path / "b", (".jpg", ".jxl"))) == ""


@links
def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/a.png")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "loop").symlink_to(tmp_path / "root")
    assert below(tmp_path, list_files(tmp_path / "root", (".png",))) == ["root/linked/a.png"]


def test_what_is_taken_out_of_the_walk_is_not_entered(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.png", "output/y.png")
    seen = []
    for folder, folders, names in walk(tmp_path):
        folders[:] = [name for name in folders if name != "output"]
        seen.append((folder.name, names))
    assert seen == [(tmp_path.name, []), ("a", ["x.png"])]


def test_names_match_across_suffixes_folders_and_accents(tmp_path: Path) -> None:
    touch(tmp_path, "im/deep/cat.v2.JPG", "im/only.jpg", "gt/deep/cat.v2.png", "gt/deep/cat.v2.tif", "gt/notes.txt")
    for side, form in (("im", "NFC"), ("gt", "NFD")):
        touch(tmp_path, f"{side}/{unicodedata.normalize(form, 'café')}.png")
    found = match_by_name(tmp_path / "im", tmp_path / "gt", (".jpg", ".png", ".tif"))
    assert list(found) == ["café", "deep/cat.v2", "only"]
    assert [(len(first), len(second)) for first, second in found.values()] == [(1, 1), (1, 2), (1, 0)]
    assert below(tmp_path, files_by_name(tmp_path / "gt", (".png",))["deep/cat.v2"]) == ["gt/deep/cat.v2.png"]
