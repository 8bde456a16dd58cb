"""common.files: complete files or none, the walk, names matched between folders."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path

import pytest

from common.errors import UserError
from common.files import (
    atomic_folder,
    atomic_write,
    count_others,
    list_files,
    locked,
    match_by_name,
    say_others,
    walk,
    write_json,
)


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_failed_write_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    with pytest.raises(error), atomic_write(path) as temporary:
        assert temporary.parent == path.parent and temporary.name.startswith(".") and temporary.suffix == ".png"
        temporary.write_bytes(b"half")
        raise error
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.png"]


def test_the_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, calls = tmp_path / "a.bin", []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: calls.append(path.exists()) or fsync(handle))
    with atomic_write(path) as temporary:
        temporary.write_bytes(b"new")
    assert calls == [False] and path.read_bytes() == b"new"


def test_what_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.json cannot be written \(No such file or directory\): make its folder"):
        write_json(tmp_path / "missing" / "a.json", {})
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", float("nan"))
    with (
        pytest.raises(UserError, match=r"\(No space left on device\): make room"),
        atomic_write(tmp_path / "a.json") as temporary,
    ):
        temporary.write_text("half")
        raise OSError(28, "No space left on device")
    assert os.listdir(tmp_path) == []
    write_json(tmp_path / "a.json", {"größe": [1]})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"größe": [1]}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_file_has_the_mode_of_any_new_file_whatever_wrote_it(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with atomic_write(tmp_path / "a.bin") as temporary:
            temporary.unlink()
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))  # as safetensors does
        with atomic_folder(tmp_path / "b"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.bin").stat().st_mode) == 0o666 & ~umask
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o777 & ~umask


@pytest.mark.parametrize(
    ("number", "cure"), [(errno.ENOSPC, "make room"), (errno.EROFS, "permissions"), (errno.ENAMETOOLONG, "shorten")]
)
def test_only_a_full_disk_asks_for_room(tmp_path: Path, number: int, cure: str) -> None:
    with pytest.raises(UserError) as raised, atomic_write(tmp_path / "a.json"):
        raise OSError(number, os.strerror(number))
    assert cure in str(raised.value) and ("room" in str(raised.value)) == (number == errno.ENOSPC)


def test_a_folder_has_one_owner_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "out"
    with (
        locked(folder, "another predict.py"),
        pytest.raises(UserError, match=r"out is in use by another predict\.py: wait"),
        locked(folder, "another predict.py"),
    ):
        pass
    with locked(folder, "another"):
        pass
    assert os.listdir(folder) == []
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be made"), locked(tmp_path / "file" / "out", "another"):
        pass


def test_a_folder_is_complete_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "sets" / "a"
    with pytest.raises(KeyboardInterrupt), atomic_folder(path) as temporary:
        touch(temporary, "b/c.png")
        raise KeyboardInterrupt
    assert os.listdir(path.parent) == []
    with atomic_folder(path) as temporary:
        touch(temporary, "b/c.png")
        assert not path.exists()
    assert [file.name for file in list_files(path, (".png",))] == ["c.png"] and os.listdir(path.parent) == ["a"]
    with pytest.raises(UserError, match="a is there already: remove it"), atomic_folder(path):
        pass
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match="x cannot be made .*: use another file or folder"),
        atomic_folder(tmp_path / "file" / "x"),
    ):
        pass


def test_walk_skips_the_hidden_and_one_named_folder(tmp_path: Path) -> None:
    for name in ("b/.hidden/x.png", "b/y.PNG", "out/z.png", "a.png", ".part-1.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in list_files(tmp_path, (".png",), skip=tmp_path / "out")]
    assert found == ["a.png", "b/y.PNG"]
    assert list_files(tmp_path / "out", (".png",), skip=tmp_path / "out") == [tmp_path / "out" / "z.png"]
    assert list(walk(tmp_path / "b")) == [(tmp_path / "b", [], ["y.PNG"])]
    errors: list[OSError] = []
    assert list_files(tmp_path / "missing", (".png",), on_error=errors.append) == [] and len(errors) == 1


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    for name in ("root", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "elsewhere" / "a.png").touch()
    (tmp_path / "root" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "loop").symlink_to(tmp_path / "root")
    assert [path.name for path in list_files(tmp_path / "root", (".png",))] == ["a.png"]


def test_three_folders_match_by_name(tmp_path: Path) -> None:
    for name in ("im/x/cat.v2.jpg", "gt/x/cat.v2.png", "im/dog.jpg", "im/dog.png", "unknown/dog.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "gt").mkdir(exist_ok=True)
    matches = match_by_name([tmp_path / name for name in ("im", "gt", "unknown")], (".jpg", ".png"))
    assert {name: [len(paths) for paths in found] for name, found in matches.items()} == {
        "dog": [2, 0, 1],
        "x/cat.v2": [1, 1, 0],
    }


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b/a.JXL", "c.jxl", "README", ".hidden", "Thumbs.db")
    assert say_others(count_others(tmp_path, (".jpg",))) == "3 files left out: 1 without suffix, 2 .jxl"
    assert say_others(count_others(tmp_path / "b", (".jpg",))) == "1 file left out: 1 .jxl"
    assert say_others(count_others(tmp_path / "b", (".jpg", ".jxl"))) == ""
