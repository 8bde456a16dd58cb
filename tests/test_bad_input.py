"""Bad input never costs the good: predict.py goes on, names the file and its reason, and exits with 1."""

from __future__ import annotations

import builtins
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import predict_fixtures
import pytest
from make_mixed_folder import BROKEN, GOOD, ROOT, make_mixed_folder
from predict_fixtures import contents, picture, save

import predict
from common import decoding
from common.photos import read_alpha

run, model_file = predict_fixtures.run, predict_fixtures.model_file  # pytest finds fixtures by name in the module


@pytest.fixture
def failure(run, tmp_path, capsys) -> Callable[..., str]:
    """Matte a folder in which only `name` cannot be done; returns what stderr says of it."""

    def call(name: str, *flags: object) -> str:
        for good in ("a.jpg", "z.jpg"):  # one before and one after it
            save(tmp_path / "in" / good)
        assert run("--input", tmp_path / "in", "--output", tmp_path / "out", *flags) == 1
        assert set(contents(tmp_path / "out")) == {"a.png", "z.png"}
        said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("failed: ")]
        rows = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))["files"]
        errors = [row for row in rows if "error" in row]
        assert len(said) == len(errors) == 1 and len(rows) == 3
        assert Path(errors[0]["input"]) == tmp_path / "in" / name and errors[0]["output"] is None
        assert said == [f"failed: {errors[0]['error']}"]
        assert name in said[0] and said[0].endswith(".")
        return said[0]

    return call


@pytest.mark.skipif(os.name == "nt", reason="whole paths are short there")
def test_an_output_name_that_is_too_long_is_named(run, tmp_path, capsys):
    save(tmp_path / "in" / "a.jpg")
    name = 249 * "x"
    for suffix in (".jpg", ".png"):  # so that each keeps its own, and .png comes to that
        save(tmp_path / "in" / f"{name}{suffix}")
    assert run("--input", tmp_path / "in", "--output", tmp_path / "out", "--skip-existing") == 1
    assert {"a.png"} == set(contents(tmp_path / "out"))
    assert f"{name}.jpg.png cannot be written (File name too long): shorten its name" in capsys.readouterr().err


def test_a_link_to_nothing_is_named(failure, tmp_path):
    (tmp_path / "in").mkdir()
    try:
        (tmp_path / "in" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    except OSError:
        pytest.skip("no links here")
    assert "No such file" in failure("gone.jpg")


def test_an_unreadable_file_is_named(failure, tmp_path, monkeypatch):
    save(tmp_path / "in" / "locked.jpg")

    def refuse(path, *arguments, **options):  # chmod would not stop root, which is what tests often run as
        if Path(path).name == "locked.jpg":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return builtins.open(path, *arguments, **options)

    monkeypatch.setattr(decoding, "open", refuse, raising=False)
    assert "Permission denied" in failure("locked.jpg")


def test_max_pixels_is_the_limit(failure, tmp_path):
    save(tmp_path / "in" / "large.png", picture(0, 40, 50))
    assert "limit of 1000" in failure("large.png", "--max-pixels", 1000)


@pytest.mark.parametrize(
    ("module", "name", "error", "said"),
    [
        (predict, "predict_alpha", RuntimeError("CUDA out of memory. Tried 7 PiB"), "large.png does not fit in memory"),
        (decoding, "_decode_8_bit", MemoryError(), "large.png does not fit in memory: scale it down"),
        (predict, "render", KeyError("odd\nsecond line"), "large.png could not be done (KeyError: "),
    ],
)
def test_what_fails_at_one_photo_costs_one_file(failure, tmp_path, monkeypatch, module, name, error, said):
    save(tmp_path / "in" / "large.png", picture(0, 40, 50))
    real = getattr(module, name)

    def fail(*arguments, **options):
        for argument in arguments:
            pixels = getattr(argument, "image", argument)  # of a Photo
            if 50 in getattr(pixels, "shape", ()) or getattr(pixels, "size", None) == (50, 40):
                raise error
        return real(*arguments, **options)

    monkeypatch.setattr(module, name, fail)
    assert said in failure("large.png")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_full_disk_fails_one_file_and_leaves_no_half_of_it(failure, tmp_path, monkeypatch, workers):
    save(tmp_path / "in" / "b.png", picture(0, 40, 50))
    write_bytes = Path.write_bytes

    def fill_up(path: Path, data: bytes) -> int:
        if read_size(data) == (50, 40):
            write_bytes(path, data[:20])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_bytes(path, data)

    monkeypatch.setattr(Path, "write_bytes", fill_up)
    assert "No space left" in failure("b.png", "--workers", workers)


def read_size(data: bytes) -> tuple[int, int]:
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def test_a_manifest_that_cannot_be_written_is_said(run, tmp_path, monkeypatch, capsys):
    source = save(tmp_path / "in" / "a.jpg")

    write_text = Path.write_text

    def fill_up(path: Path, text: str, **options) -> int:
        if is_full or (tmp_path / "out" / "a.png").exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_text(path, text, **options)

    monkeypatch.setattr(Path, "write_text", fill_up)
    for is_full, code in ((True, 2), (False, 1)):  # at the start, at the end
        assert run("--input", source, "--output", tmp_path / "out") == code
        assert "manifest.json cannot be written (No space left on device)" in capsys.readouterr().err
        assert (tmp_path / "out" / "a.png").exists() == (not is_full)


def test_an_output_folder_inside_that_cannot_be_made_is_named(run, tmp_path, capsys):
    save(tmp_path / "in" / "sub" / "a.jpg")
    save(tmp_path / "in" / "b.jpg")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").write_text("a file")
    assert run("--input", tmp_path / "in", "--output", tmp_path / "out") == 1
    assert (tmp_path / "out" / "b.png").exists()
    assert "sub cannot be made" in capsys.readouterr().err


def test_extreme_shapes_and_broken_exif_are_no_errors(run, tmp_path):
    save(tmp_path / "in" / "dot.png", picture(0, 1, 1))
    save(tmp_path / "in" / "line.png", picture(0, 20_000, 1))
    save(tmp_path / "in" / "thread.png", picture(0, 1, 20_000))
    save(tmp_path / "in" / "exif.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert run("--input", tmp_path / "in", "--output", tmp_path / "out", "--kind", "cutout") == 0
    shapes = {name: read_alpha(tmp_path / "out" / name).shape for name in contents(tmp_path / "out")}
    assert shapes == {"dot.png": (1, 1), "line.png": (20_000, 1), "thread.png": (1, 20_000), "exif.png": (24, 36)}
    rows = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))["files"]
    assert [row["notes"] for row in rows if row["input"].endswith("exif.jpg")] == [["broken EXIF ignored"]]


def test_a_folder_of_everything(run, tmp_path, capsys):
    """Small photos in every format, and every kind of broken file, each of which is named."""
    broken = make_mixed_folder(tmp_path / "in", ROOT / "test_data", long_side=48)
    assert run("--input", tmp_path / "in", "--output", tmp_path / "out") == 1
    said = capsys.readouterr().err
    assert all(f"failed: {path} " in said for path in broken)
    assert said.count("failed: ") == len(broken) == len(BROKEN) == 20
    assert len([name for name in contents(tmp_path / "out") if name.endswith(".png")]) == len(GOOD)
    assert np.ptp(read_alpha(next((tmp_path / "out").glob("*.png")))) > 0
