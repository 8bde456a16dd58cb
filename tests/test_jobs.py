"""Which output belongs to which input: never two to one, and always the same."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import pytest

from common.errors import UserError
from inference.jobs import Job, Naming, plan_jobs

NAMING = Naming(photo_suffix=".png", video_suffix=".mkv", kinds=("alpha", "cutout"))


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def outputs(root: Path, jobs: list[Job]) -> dict[str, str]:
    return {job.source.relative_to(root).as_posix(): job.output.as_posix() for job in jobs}


def test_names_that_would_be_the_same_keep_their_suffixes(tmp_path):
    touch(tmp_path / "in", "a.jpg", "b.jpg", "b.PNG", "B.webp", "c.jpg", "c.png", "c.jpg.png", "c.mp4", "d.e.f.jpg")
    jobs = plan_jobs([tmp_path / "in"], tmp_path / "out", NAMING)
    assert outputs(tmp_path / "in", jobs) == {
        "a.jpg": "a.png",
        "b.jpg": "b.jpg.png",
        "b.PNG": "b.PNG.png",
        "B.webp": "B.webp.png",
        "c.jpg": "c.jpg.png",
        "c.png": "c.png.png",
        "c.jpg.png": "c.jpg.png.png",
        "c.mp4": "c.mkv",
        "d.e.f.jpg": "d.e.f.png",
    }


def test_no_two_outputs_are_alike_whatever_the_names(tmp_path):
    source = random.Random(0)
    pieces = ("a", "b", ".jpg", ".png", ".mp4", ".mkv", "_alpha")
    names = {
        "".join(source.choices(pieces, k=4)) + source.choice((".jpg", ".png", ".webp", ".mp4", ".mkv"))
        for _ in range(300)
    }
    touch(tmp_path, *(name for name in names if not name.startswith(".")))
    for output in (tmp_path / "out", tmp_path):
        jobs = [job for job in plan_jobs([tmp_path], output, NAMING) if job.refusal is None]
        assert len({job.output for job in jobs}) == len(jobs) > 100
        assert not {output / job.output for job in jobs} & {job.source for job in jobs}


def test_names_do_not_depend_on_what_else_is_done(tmp_path):
    touch(tmp_path / "in", "a.jpg", "a.png", "b.jpg")
    whole = outputs(tmp_path / "in", plan_jobs([tmp_path / "in"], tmp_path / "out", NAMING))
    for name, output in whole.items():
        twice = [tmp_path / "in" / name, tmp_path / "in" / "." / name]
        assert outputs(tmp_path / "in", plan_jobs(twice, tmp_path / "out", NAMING)) == {name: output}


def test_several_inputs_are_named_from_the_folder_they_share(tmp_path):
    touch(tmp_path, "one/a.jpg", "two/a.jpg", "two/sub/b.jpg")
    jobs = plan_jobs([tmp_path / "one" / "a.jpg", tmp_path / "two"], tmp_path / "out", NAMING)
    assert outputs(tmp_path, jobs) == {
        "one/a.jpg": "one/a.png",
        "two/a.jpg": "two/a.png",
        "two/sub/b.jpg": "two/sub/b.png",
    }


def test_outputs_are_no_inputs(tmp_path):
    touch(tmp_path, "a.jpg", "results/a.png", "a_alpha.png")
    jobs = plan_jobs([tmp_path], tmp_path / "results", NAMING)  # a folder of results inside
    assert {job.source.name for job in jobs} == {"a.jpg", "a_alpha.png"}
    jobs = plan_jobs([tmp_path], tmp_path, NAMING, {"a_alpha.png": "a.jpg", "results/a.png": "a.jpg"})
    assert outputs(tmp_path, jobs) == {"a.jpg": "a_alpha.png"}


def test_what_is_called_as_an_output_is_none_only_next_to_its_input(tmp_path):
    touch(tmp_path, "a.jpg", "a_cutout.png", "b_alpha.png", "c_alpha.jpg", "c.jpg", "d.mp4", "d_alpha.mkv")
    jobs = plan_jobs([tmp_path], tmp_path, NAMING)
    assert {job.source.name for job in jobs} == {"a.jpg", "b_alpha.png", "c_alpha.jpg", "c.jpg", "d.mp4"}
    assert {job.source.name for job in jobs if job.refusal} == {"d.mp4"}  # d_alpha.mkv may be somebody's
    named = plan_jobs([tmp_path / "a_cutout.png"], tmp_path, NAMING)
    assert outputs(tmp_path, named) == {"a_cutout.png": "a_cutout_alpha.png"}


def test_frames_of_an_earlier_run_are_no_inputs(tmp_path):
    touch(tmp_path, "a.mp4", "a_alpha.frames/000001.png")
    jobs = plan_jobs([tmp_path], tmp_path, NAMING, {"a_alpha.frames": str(tmp_path / "a.mp4")})
    assert outputs(tmp_path, jobs) == {"a.mp4": "a_alpha.mkv"}


def test_a_folder_that_is_not_ours_is_not_replaced_by_frames(tmp_path):
    touch(tmp_path, "in/a.mp4", "out/a.frames/mine.txt")
    naming = Naming(".png", ".frames", ("alpha",))
    assert "would overwrite" in plan_jobs([tmp_path / "in"], tmp_path / "out", naming)[0].refusal
    owners = {"a.frames": str(tmp_path / "in" / "a.mp4")}
    assert plan_jobs([tmp_path / "in"], tmp_path / "out", naming, owners)[0].refusal is None


def test_what_is_done_is_marked_and_needs_no_refusal(tmp_path):
    touch(tmp_path, "a.jpg", "a_alpha.png", "b.jpg")
    jobs = plan_jobs([tmp_path], tmp_path, NAMING, is_done=lambda source, target: target.exists())
    assert [(job.source.name, job.is_done, job.refusal) for job in jobs] == [
        ("a.jpg", True, None),
        ("b.jpg", False, None),
    ]


def test_an_input_that_would_be_overwritten_is_refused(tmp_path):
    touch(tmp_path, "one/x.jpg", "x.png", "y.jpg", "y_alpha.png")
    jobs = plan_jobs([tmp_path / "y.jpg"], tmp_path, NAMING)
    assert "would overwrite" in jobs[0].refusal
    jobs = plan_jobs([tmp_path / "one"], tmp_path, NAMING)
    assert jobs[0].refusal is None  # x.png is nobody's input in this run
    jobs = plan_jobs([tmp_path / "one" / "x.jpg", tmp_path / "one" / "z.jpg"], tmp_path / "one", NAMING)
    assert [job.refusal is None for job in jobs] == [True, False]  # the missing z.jpg only


def test_the_output_of_another_input_that_is_there_is_not_overwritten(tmp_path):
    touch(tmp_path, "one/a.jpg", "two/a.jpg", "two/b.jpg", "out/a.png")
    written = {"a.png": str(tmp_path / "one" / "a.jpg"), "b.png": str(tmp_path / "one" / "b.jpg")}

    def refusals(folder: str) -> dict[str, str | None]:
        jobs = plan_jobs([tmp_path / folder], tmp_path / "out", NAMING, written)
        return {job.source.name: job.refusal for job in jobs}

    assert refusals("one") == {"a.jpg": None}  # once more
    two = refusals("two")
    assert two["b.jpg"] is None  # the other's output is gone
    assert f"two{os.sep}a.jpg would overwrite" in two["a.jpg"] and f"one{os.sep}a.jpg: choose ano" in two["a.jpg"]
    (tmp_path / "one" / "a.jpg").rename(tmp_path / "one" / "moved.jpg")
    assert refusals("two") == {"a.jpg": None, "b.jpg": None}


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_an_input_is_the_same_by_another_way(tmp_path):
    touch(tmp_path, "one/a.jpg", "out/a.png")
    (tmp_path / "link").symlink_to(tmp_path / "one")
    jobs = plan_jobs([tmp_path / "link"], tmp_path / "out", NAMING, {"a.png": str(tmp_path / "one" / "a.jpg")})
    assert [job.refusal for job in jobs] == [None]


LONG = 400 * "x" + ".jpg"


@pytest.mark.parametrize("name", [LONG, f"{LONG}/a.jpg", LONG.replace(".jpg", ".txt")])
def test_a_name_that_is_too_long_is_one_refusal(tmp_path, name):
    touch(tmp_path, "a.jpg")
    jobs = plan_jobs([tmp_path / name, tmp_path / "a.jpg"], tmp_path / "out", NAMING)
    assert [job.refusal is None for job in jobs] == [False, True]
    assert name in jobs[0].refusal and jobs[0].refusal.endswith(".")


@pytest.mark.skipif(os.name == "nt", reason="whole paths are short there")
def test_an_output_name_that_is_too_long_ends_nothing_here(tmp_path):
    """Storing it names the file, as for any output that cannot be written."""
    name = 250 * "x" + ".jpg"  # and _alpha.png
    touch(tmp_path, name)
    assert [job.refusal for job in plan_jobs([tmp_path], tmp_path, NAMING)] == [None]


@pytest.mark.skipif(os.name == "nt", reason="os.path does not go by os.stat there")
def test_a_folder_that_may_not_be_entered_is_one_refusal(tmp_path, monkeypatch):
    touch(tmp_path, "a.jpg", "locked/b.jpg")
    real = os.stat, os.lstat

    def refuse(which: int):  # chmod would not stop root, which is what tests often run as
        def stat(path, *arguments, **options):
            if "locked" in str(path):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return real[which](path, *arguments, **options)

        return stat

    monkeypatch.setattr(os, "stat", refuse(0))
    monkeypatch.setattr(os, "lstat", refuse(1))
    jobs = plan_jobs([tmp_path / "locked" / "b.jpg", tmp_path / "a.jpg"], tmp_path / "out", NAMING)
    assert [job.refusal is None for job in jobs] == [False, True]
    assert "b.jpg cannot be read (Permission denied)" in jobs[0].refusal


def test_a_folder_named_like_a_photo_that_is_given_alone_is_refused(tmp_path):
    (tmp_path / "x.jpg").mkdir()
    with pytest.raises(UserError, match=r"x\.jpg is a folder, not a photo"):
        plan_jobs([tmp_path / "x.jpg"], tmp_path / "out", NAMING)


def test_a_folder_below_that_cannot_be_listed_is_one_refusal(tmp_path, monkeypatch):
    touch(tmp_path, "a.jpg", "locked/b.jpg")
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "locked":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    refused, fine = sorted(plan_jobs([tmp_path], tmp_path / "out", NAMING), key=lambda job: job.refusal is None)
    assert fine.source.name == "a.jpg" and fine.refusal is None
    assert refused.refusal == f"{tmp_path / 'locked'} cannot be listed (Permission denied): check its permissions."


def test_of_two_inputs_with_one_output_the_second_is_refused(tmp_path):
    """A name without a suffix that is known keeps it, and so may another."""
    touch(tmp_path, "x.dat", "x.dat.png")
    first, second = plan_jobs([tmp_path / "x.dat", tmp_path / "x.dat.png"], tmp_path / "out", NAMING)
    assert first.refusal is None and "would have the same output as" in second.refusal


def test_a_folder_named_like_a_photo_is_looked_into(tmp_path):
    touch(tmp_path, "album.jpg/a.jpg")
    (tmp_path / "x.jpg").mkdir()
    jobs = plan_jobs([tmp_path], tmp_path / "out", NAMING)
    assert [(job.source.name, job.refusal is None) for job in jobs] == [("a.jpg", True), ("x.jpg", False)]


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_in_a_circle_end(tmp_path):
    touch(tmp_path, "sub/a.jpg")
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    assert len(plan_jobs([tmp_path], tmp_path / "out", NAMING)) == 1


@pytest.mark.parametrize("content", [b"\xff\xfe\x00\x80", "a.jpg".encode("utf-16-le")])
def test_a_list_that_is_no_text_is_said(tmp_path, content):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(UserError, match="cannot be read as a list"):
        plan_jobs([tmp_path / "list.txt"], tmp_path / "out", NAMING)
