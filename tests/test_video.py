"""Videos: every frame, in order, at the rate of the source, and files whole or not at all."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import predict_fixtures
import pytest
import torch
from predict_fixtures import contents, load_once, save, stop_at

from common.interrupt import EXIT_CODE
from common.photos import PhotoError
from inference import video_reader
from inference.video import write_video
from inference.video_reader import VideoReader, matroska_size
from matting import predict_alpha

run, model_file = predict_fixtures.run, predict_fixtures.model_file  # pytest finds fixtures by name in the module

RATE = 24000 / 1001
DATA = Path(__file__).parent / "data"


def frames(count: int = 5, height: int = 36, width: int = 48) -> list[np.ndarray]:
    return [np.random.default_rng(i).integers(0, 256, (height, width, 3), dtype=np.uint8) for i in range(count)]


def read_all(path: Path) -> list[np.ndarray]:
    return list(VideoReader(path))


def clip(path: Path, pictures: list[np.ndarray], rate: float = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_video(path, rate) as append:
        for picture in pictures:
            append(picture)
    return path


def row_of(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"][0]


@pytest.mark.parametrize("rate", [RATE, 12.5, 60])
@pytest.mark.parametrize("channels", [1, 3])
def test_mkv_keeps_every_level_and_the_rate(tmp_path, rate, channels):
    pictures = [picture[..., 0] if channels == 1 else picture for picture in frames()]
    path = clip(tmp_path / "a.mkv", pictures, rate)
    assert VideoReader(path).rate == pytest.approx(rate, abs=1e-2)
    for found, expected in zip(read_all(path), pictures, strict=True):
        assert np.array_equal(found[..., 0] if channels == 1 else found, expected)


def test_odd_sizes_lose_nothing(tmp_path):
    pictures = frames(2, 35, 47)
    found = read_all(clip(tmp_path / "a.mkv", pictures))
    assert found[0].shape == (36, 48, 3) and np.array_equal(found[1][:35, :47], pictures[1])


def test_a_video_that_fails_leaves_nothing(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="stop"), write_video(tmp_path / "a.mkv", 25) as append:
        append(frames(1)[0])
        raise ValueError("stop")
    with pytest.raises(PhotoError, match="not written completely"), write_video(tmp_path / "a.mkv", 25):
        pass  # no frame: what a full disk looks like, as OpenCV does not say
    assert not list(tmp_path.iterdir())


def test_a_video_that_cannot_be_written_is_a_sentence(run, tmp_path, capsys, monkeypatch):
    source = clip(tmp_path / "in" / "walk.mkv", frames(2))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "walk.frames").write_bytes(b"a file where the folder of frames should be")
    assert run("--input", source, "--output", tmp_path / "out", "--video", "png") == 2
    assert "walk.frames, which predict.py did not write: move that" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["walk.frames"]
    monkeypatch.setattr(cv2.VideoWriter, "isOpened", lambda self: False)
    assert run("--input", source, "--output", tmp_path / "out") == 1
    assert "walk.mkv cannot be written as a video of 48 x 36 at " in capsys.readouterr().err


def test_alpha_video_is_the_matte_of_each_frame(run, model_file, tmp_path):
    source = clip(tmp_path / "in" / "walk.mkv", frames())
    assert run("--input", source, "--output", tmp_path) == 0
    model = load_once(model_file, torch.device("cpu"))
    found = read_all(tmp_path / "walk.mkv")
    for matte, frame in zip(found, frames(), strict=True):
        expected = predict_alpha(model, torch.from_numpy(frame).permute(2, 0, 1))[0].numpy()
        assert np.abs(matte[..., 0] / 255 - expected).max() < 0.5001 / 255
    row = row_of(tmp_path)
    assert (row["frames"], row["frame_rate"]) == (5, pytest.approx(RATE, abs=1e-2))


def test_png_frames_and_the_other_kinds(run, tmp_path):
    source = clip(tmp_path / "in" / "walk.mp4", frames())
    assert run("--input", source, "--output", tmp_path / "cutout", "--kind", "cutout") == 0
    assert set(contents(tmp_path / "cutout")) == {f"walk.frames/00000{number}.png" for number in range(1, 6)}
    assert cv2.imread(str(tmp_path / "cutout/walk.frames/000001.png"), cv2.IMREAD_UNCHANGED).shape == (36, 48, 4)
    assert run("--input", source, "--output", tmp_path / "red", "--kind", "composite", "--background", "red") == 0
    assert len(read_all(tmp_path / "red" / "walk.mp4")) == 5
    assert VideoReader(tmp_path / "red" / "walk.mp4").rate == pytest.approx(RATE, abs=1e-2)


def test_16_bits_fit_no_video_file_and_do_fit_frames(run, tmp_path):
    """cv2.VideoWriter takes uint16 without a word and reads it as another picture."""
    source = clip(tmp_path / "in" / "walk.mkv", [cv2.GaussianBlur(frame, (0, 0), 5) for frame in frames(2)])
    flags = ("--input", source, "--kind", "foreground")
    for bits in (8, 16):
        assert run(*flags, "--output", tmp_path / str(bits), "--bits", bits) == 0
    for deep, plain in zip(read_all(tmp_path / "16/walk.mp4"), read_all(tmp_path / "8/walk.mp4"), strict=True):
        assert np.abs(deep.astype(int) - plain).mean() < 1
    assert row_of(tmp_path / "16")["notes"][-1] == "a video holds 8 bits: --video png keeps 16"
    assert "a video holds 8 bits" not in str(row_of(tmp_path / "8")["notes"])
    assert run(*flags, "--output", tmp_path / "png", "--bits", 16, "--video", "png") == 0
    assert cv2.imread(str(tmp_path / "png/walk.frames/000001.png"), cv2.IMREAD_UNCHANGED).dtype == np.uint16
    assert "a video holds 8 bits" not in str(row_of(tmp_path / "png")["notes"])


@pytest.mark.parametrize("form", ["mkv", "png"])
def test_a_video_that_is_interrupted_leaves_nothing_and_is_done_again(run, tmp_path, monkeypatch, form):
    source = clip(tmp_path / "in" / "walk.mkv", frames(12))
    flags = ("--input", source, "--output", tmp_path / "out", "--video", form)
    with monkeypatch.context() as patch:
        calls = stop_at(patch, 4)
        assert run(*flags) == EXIT_CODE and 4 <= len(calls) < 12
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["manifest.json"]
    for bits in (8, 16) if form == "png" else (8, 8):  # the second time the first output is there
        assert run(*flags, "--bits", bits) == 0
        assert len(contents(tmp_path / "out")) == (12 if form == "png" else 1)
    calls = stop_at(monkeypatch, -1)
    assert run(*flags, "--bits", bits, "--skip-existing") == 0 and calls == []


def test_a_video_cut_short_is_done_as_far_as_it_goes_and_named(run, tmp_path, capsys):
    whole = clip(tmp_path / "whole.mkv", frames(20)).read_bytes()
    save(tmp_path / "in" / "photo.png")
    (tmp_path / "in" / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    assert run("--input", tmp_path / "in", "--output", tmp_path / "out") == 1
    assert "cut.mkv is cut short, only " in capsys.readouterr().err
    assert set(contents(tmp_path / "out")) == {"cut.mkv", "photo.png"}
    assert 0 < len(read_all(tmp_path / "out" / "cut.mkv")) < 20


def test_a_missing_rate_is_said(tmp_path, monkeypatch):
    real = cv2.VideoCapture

    class WithoutRate:
        """Stands before a cv2.VideoCapture. Not a subclass: OpenCV frees those at a wrong address (found with
        PYTHONMALLOC=debug), and the process crashes much later."""

        def __init__(self, *arguments) -> None:
            self.capture = real(*arguments)

        def __getattr__(self, name: str):
            return getattr(self.capture, name)

        def get(self, what: int) -> float:
            return 0.0 if what in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_POS_MSEC) else self.capture.get(what)

    path = clip(tmp_path / "a.mkv", frames(2))
    monkeypatch.setattr(video_reader.cv2, "VideoCapture", WithoutRate)
    assert VideoReader(path).rate == video_reader.DEFAULT_RATE and VideoReader(path).notes


def length(path: Path) -> float:
    """Seconds."""
    return len(read_all(path)) / VideoReader(path).rate


def test_a_recording_of_a_browser_keeps_its_time(run, tmp_path, capsys):
    """It claims 1000 frames per second; its frames' own times, 20 to 50 ms apart, end after 2.07 s."""
    assert run("--input", DATA / "browser.webm", "--output", tmp_path) == 0
    assert length(tmp_path / "browser.mkv") == pytest.approx(2.07, abs=0.1)
    row = row_of(tmp_path)
    assert row["frames"] == 60 and 25 < row["frame_rate"] < 33 and "the frame rate varies" in row["notes"]
    assert capsys.readouterr().out.count("sound is not carried over") == 1


def test_a_pause_lasts_as_long_as_in_the_source(run, tmp_path):
    """12 frames 0.1 s apart, but for a pause of 2.5 s behind the sixth. Its header says 3.3 frames per second."""
    assert run("--input", DATA / "pause.mp4", "--output", tmp_path / "file") == 0
    found = read_all(tmp_path / "file" / "pause.mkv")
    assert len(found) == 36 and VideoReader(tmp_path / "file" / "pause.mkv").rate == pytest.approx(10)
    assert all(np.array_equal(picture, found[5]) for picture in found[6:30])
    assert not np.array_equal(found[30], found[5])
    assert row_of(tmp_path / "file")["notes"][0] == "the frame rate varies"
    assert "24 pictures are repeated to keep the time" in row_of(tmp_path / "file")["notes"]
    assert run("--input", DATA / "pause.mp4", "--output", tmp_path / "png", "--video", "png") == 0
    assert len(contents(tmp_path / "png")) == row_of(tmp_path / "png")["frames"] == 12


def test_sound_that_outlasts_the_pictures_is_no_damage(run, tmp_path):
    """3 s of pictures and 5 s of sound: OpenCV makes 50 frames of the 30."""
    assert run("--input", DATA / "sound.mkv", "--output", tmp_path) == 0
    assert row_of(tmp_path)["frames"] == 30
    assert run("--input", DATA / "sound.mkv", "--output", tmp_path, "--skip-existing") == 0


def test_a_size_that_changes_midway_is_a_fault_said_once(run, tmp_path, capsys):
    """5 frames of 64 x 48 and 5 of another size, which OpenCV does not give."""
    assert run("--input", DATA / "resized.mp4", "--output", tmp_path) == 1
    assert capsys.readouterr().err.count("changes its size after frame 5,") == 1
    assert len(read_all(tmp_path / "resized.mkv")) == 10


@pytest.mark.parametrize("stretch", [slice(2, 5), slice(5, 8)], ids=["inside", "at the end"])
def test_a_picture_that_stands_still_is_no_fault(tmp_path, stretch):
    pictures = frames(8)
    pictures[stretch] = [pictures[stretch.start]] * 3
    reader = VideoReader(clip(tmp_path / "a.mkv", pictures))
    assert len(list(reader)) == 8 and reader.resized_after == 0 and not reader.notes


@pytest.mark.parametrize("suffix", [".avi", ".mkv"])
def test_what_is_cut_short_is_known_from_the_container(tmp_path, suffix):
    """AVI counts its frames, MKV says how long the file is."""
    path = tmp_path / f"a{suffix}"
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"FFV1"), 10, (48, 36))
    for frame in frames(20):
        writer.write(frame)
    writer.release()
    assert not VideoReader(path).is_cut_short
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    reader = VideoReader(path)
    assert reader.is_cut_short or len(list(reader)) < 0.9 * reader.promised


@pytest.mark.parametrize("head", [b"", b"\x1a\x45\xdf\xa3", b"\x1a\x45\xdf\xa3\x18\x53\x80\x67", b"RIFF"])
def test_a_header_that_says_nothing_is_no_length(head):
    assert matroska_size(head) == matroska_size(head + bytes(20)) == 0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_a_pipe_named_like_a_video_is_refused(tmp_path):
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(PhotoError, match="is a pipe"):
        VideoReader(tmp_path / "a.mp4")


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="names are text there")
def test_a_name_that_is_no_text_is_refused(tmp_path):
    """OpenCV ends the process over it."""
    path = tmp_path / os.fsdecode(b"\xc4\xe3.mkv")
    path.write_bytes(clip(tmp_path / "a.mkv", frames(2)).read_bytes())
    with pytest.raises(PhotoError, match="no text"):
        VideoReader(path)
    with pytest.raises(PhotoError, match="no text"), write_video(path, 25):
        pass
