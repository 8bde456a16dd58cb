"""manifest.json: all that is in the folder, whatever run made it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.photos import PhotoError
from inference.jobs import Job
from inference.manifest import failure_row, job_row, read_manifest, write_manifest


def job(name: str) -> Job:
    return Job(Path("in", f"{name}.jpg"), Path(f"{name}.png"))


def rows_in(folder: Path) -> list[dict]:
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]


def test_rows_of_earlier_runs_stay_while_their_outputs_do(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.png").write_bytes(b"")
    rows = [*(job_row(job(name), run=1) for name in "cab"), failure_row(job("x"), PhotoError("x.jpg is broken."))]
    write_manifest(tmp_path, {"done": 3}, rows, read_manifest(tmp_path))
    assert [row["input"] for row in rows_in(tmp_path)] == ["in/a.jpg", "in/b.jpg", "in/c.jpg", "in/x.jpg"]
    (tmp_path / "c.png").unlink()
    earlier = read_manifest(tmp_path)
    assert set(earlier) == {"a.png", "b.png", "c.png"}
    write_manifest(tmp_path, {}, [job_row(job("b"), run=2)], earlier)
    assert [(row["output"], row["run"]) for row in rows_in(tmp_path)] == [("a.png", 1), ("b.png", 2)]


def test_an_input_is_known_from_another_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_manifest(tmp_path, {}, [job_row(job("a"))], {})
    monkeypatch.chdir(tmp_path.parent)
    assert Path(read_manifest(tmp_path)["a.png"]["source"]) == (tmp_path / "in" / "a.jpg").resolve()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"program": "another"}', "\x00\xff"])
def test_a_foreign_manifest_is_not_overwritten(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content, encoding="latin-1")
    with pytest.raises(PhotoError, match="would be overwritten"):
        read_manifest(tmp_path)
    assert (tmp_path / "manifest.json").read_text(encoding="latin-1") == content
