"""manifest.json: all that is in the folder, whatever run made it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from common.errors import UserError
from inference.jobs import Job
from inference.manifest import PROGRAM, failure_row, job_row, read_manifest, write_manifest

ROW = {"input": "a.jpg", "source": "/a.jpg", "output": "a.png"}
ODD_ROWS: list[object] = [5, [5], [None], ["ab"], [{}], [{"input": "a"}], *([ROW | {k: 5}] for k in ROW)]
ODD_ROWS.append([ROW | {"output": "a\0.png"}])


def job(name: str) -> Job:
    return Job(Path("in", f"{name}.jpg"), Path(f"{name}.png"))


def rows_in(folder: Path) -> list[dict]:
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]


def test_rows_of_earlier_runs_stay_while_their_outputs_do(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.png").write_bytes(b"")
    rows = [*(job_row(job(name), run=1) for name in "cab"), failure_row(job("x"), UserError("x.jpg is broken."))]
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


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", "{}", '{"program": "another"}', "\x00\xff", "[" * 100_000),
        *(json.dumps({"program": PROGRAM, "files": rows}) for rows in ODD_ROWS),
    ],
    ids=range(6 + len(ODD_ROWS)),
)
def test_a_foreign_manifest_is_not_overwritten(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match="would be overwritten"):
        read_manifest(tmp_path)
    assert (tmp_path / "manifest.json").read_text(encoding="latin-1") == content


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_a_manifest_that_is_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "manifest.json")
    with pytest.raises(UserError, match="move it"):
        read_manifest(tmp_path)


def test_a_name_that_is_no_text_comes_back_as_it_was(tmp_path):
    name = os.fsdecode(b"\xc4\xe3.png") if os.name != "nt" else "a.png"
    (tmp_path / name).write_bytes(b"")
    write_manifest(tmp_path, {}, [{"input": "x", "output": name}], {})
    assert set(read_manifest(tmp_path)) == {name}
