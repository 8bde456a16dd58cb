"""manifest.json: all that is in the folder, whatever run made it, and however that ended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from photos import PhotoError
from prediction.manifest import Manifest


def row(name: str, **more: object) -> dict:
    return {"input": f"in/{name}.jpg", "output": f"{name}.png", **more}


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / f"{name}.png").write_bytes(b"")


def names_in(folder: Path) -> list[str]:
    return [entry["input"] for entry in json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]]


def finish(manifest: Manifest) -> None:
    manifest.close()
    manifest.write(manifest.rows, {}, others_are_done=True)


def test_rows_of_earlier_runs_stay_while_their_outputs_do(tmp_path):
    first = Manifest(tmp_path)
    for name in "abc":
        first.add(row(name, run=1))
    first.add({"input": "in/x.jpg", "output": None, "error": "x.jpg is broken."})
    touch(tmp_path, "a", "b", "c")
    finish(first)
    assert names_in(tmp_path) == ["in/a.jpg", "in/b.jpg", "in/c.jpg", "in/x.jpg"]
    (tmp_path / "c.png").unlink()
    second = Manifest(tmp_path)
    assert set(second.earlier) == {"a.png", "b.png", "c.png"}
    second.add(row("b", run=2))
    finish(second)
    rows = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))["files"]
    assert [(entry["output"], entry["run"]) for entry in rows] == [("a.png", 1), ("b.png", 2)]


def test_a_killed_run_loses_no_row(tmp_path):
    killed = Manifest(tmp_path, rank=1)
    for name in "ab":
        killed.add(row(name))
    with open(tmp_path / ".manifest-rank1.jsonl", "a", encoding="utf-8") as journal:
        journal.write('{"input": "in/c.jpg", "outp')  # killed in the middle of a line
    touch(tmp_path, "a", "b", "c")
    following = Manifest(tmp_path)
    assert set(following.earlier) == {"a.png", "b.png"}
    following.add(row("c"))
    finish(following)
    assert names_in(tmp_path) == ["in/a.jpg", "in/b.jpg", "in/c.jpg"]
    assert not list(tmp_path.glob(".manifest*"))


def test_journals_of_ranks_at_work_are_left_alone(tmp_path):
    first, second = Manifest(tmp_path, rank=0), Manifest(tmp_path, rank=1)
    second.add(row("b"))
    first.add(row("a"))
    touch(tmp_path, "a", "b")
    first.close()
    first.write(first.rows, {"stopped": "stopped"}, others_are_done=False)
    assert names_in(tmp_path) == ["in/a.jpg", "in/b.jpg"]  # what rank 1 has done so far
    assert [path.name for path in tmp_path.glob(".manifest*")] == [".manifest-rank1.jsonl"]
    second.close()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"program": "another"}', "\x00\xff"])
def test_a_foreign_manifest_is_not_overwritten(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content, encoding="latin-1")
    with pytest.raises(PhotoError, match="would be overwritten"):
        Manifest(tmp_path)
    assert (tmp_path / "manifest.json").read_text(encoding="latin-1") == content
