"""manifest.json: all that is in the folder, whatever run made it, and however that ended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.photos import PhotoError
from inference.jobs import Job
from inference.manifest import Manifest

SETTINGS = {"kind": "alpha", "bits": 8}


def job(name: str, folder: str = "in") -> Job:
    return Job(Path(folder, f"{name}.jpg"), Path(f"{name}.png"))


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


def test_what_is_begun_is_ours_and_not_done(tmp_path):
    killed = Manifest(tmp_path)
    for name in "abc":
        killed.begin(job(name), SETTINGS)
    killed.add(job("a").names | SETTINGS)
    touch(tmp_path, "a", "b")  # b without its row, c not written at all
    following = Manifest(tmp_path)
    assert [following.is_done(job(name), SETTINGS) for name in "abc"] == [True, False, False]
    assert {name: Path(source).name for name, source in following.sources.items()} == {
        "a.png": "a.jpg",
        "b.png": "b.jpg",
        "c.png": "c.jpg",
    }
    following.close()
    following.write([], {}, others_are_done=True)  # a run that has only other inputs
    assert names_in(tmp_path) == ["in/a.jpg", "in/b.jpg"]  # b.png is still known as ours, and
    assert not Manifest(tmp_path).is_done(job("b"), SETTINGS)
    last = Manifest(tmp_path)
    last.begin(job("b"), SETTINGS)
    last.add(job("b").names | SETTINGS)
    finish(last)
    assert Manifest(tmp_path).is_done(job("b"), SETTINGS)
    assert "begun" not in (tmp_path / "manifest.json").read_text(encoding="utf-8")


def test_done_is_of_the_same_input_and_settings(tmp_path):
    manifest = Manifest(tmp_path)
    manifest.add(job("a").names | SETTINGS)
    manifest.add(row("old", kind="alpha"))  # of a version that kept less
    touch(tmp_path, "a", "old", "unknown")
    finish(manifest)
    after = Manifest(tmp_path)
    assert after.is_done(job("a"), SETTINGS) and not after.is_done(job("a", "elsewhere"), SETTINGS)
    assert not after.is_done(job("a"), SETTINGS | {"bits": 16})
    assert after.is_done(job("old"), SETTINGS) and not after.is_done(job("old"), SETTINGS | {"kind": "cutout"})
    assert not after.is_done(job("old", "elsewhere"), SETTINGS)
    assert after.is_done(job("unknown"), SETTINGS) and not after.is_done(job("gone"), SETTINGS)


def test_an_input_is_known_from_another_current_folder(tmp_path, monkeypatch):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "one")
    manifest = Manifest(tmp_path)
    manifest.add(job("a", ".").names | SETTINGS)
    touch(tmp_path, "a")
    finish(manifest)
    assert Manifest(tmp_path).is_done(job("a", "../one"), SETTINGS)
    monkeypatch.chdir(tmp_path / "two")
    assert not Manifest(tmp_path).is_done(job("a", "."), SETTINGS)  # the same words, another file


def test_what_is_begun_over_anothers_output_is_mixed(tmp_path):
    """Of folders of frames only those are gone on with that hold one kind."""
    (tmp_path / "a.png").mkdir()
    for settings, agrees in ((SETTINGS, True), (SETTINGS, True), ({"bits": 16}, False), ({"bits": 16}, False)):
        manifest = Manifest(tmp_path)
        assert manifest.agrees(job("a"), settings) is agrees
        manifest.begin(job("a"), settings)
        manifest.close()


def test_a_killed_run_loses_no_row(tmp_path):
    killed = Manifest(tmp_path, rank=1)
    for name in "ab":
        killed.add(row(name))
    with open(tmp_path / ".manifest-rank1.jsonl", "a", encoding="utf-8") as journal:
        journal.write('{"input": "in/c.jpg", "outp')  # killed in the middle of a line
    touch(tmp_path, "a", "b", "c")
    killed_too = Manifest(tmp_path, rank=1)
    assert set(killed_too.earlier) == {"a.png", "b.png"}
    killed_too.add(row("d"))  # not at the end of that half line
    touch(tmp_path, "d")
    following = Manifest(tmp_path)
    assert set(following.earlier) == {"a.png", "b.png", "d.png"}
    following.add(row("c"))
    finish(following)
    assert names_in(tmp_path) == ["in/a.jpg", "in/b.jpg", "in/c.jpg", "in/d.jpg"]
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
