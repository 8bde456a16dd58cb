"""Films: every frame at its time, in its colours, with its sound, and files complete or not at all."""

from __future__ import annotations

import os
import sys
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np
import predict_fixtures
import pytest
from make_film import frames, make_film, times
from predict_fixtures import contents, manifest_of, save, stop_at

from common.errors import UserError
from common.interrupt import EXIT_CODE
from common.photos import read_photo, to_uint8
from common.pool import bounded_map
from inference.rendering import Style
from inference.video import matte_video
from inference.video_reader import Film

run, model_file = predict_fixtures.run, predict_fixtures.model_file  # pytest finds fixtures by name in the module

DATA = Path(__file__).parent / "data"
RED, GREEN = (200, 30, 40), (30, 150, 60)


def matte(source: Path, target: Path, kind: str = "alpha", bits: int = 8, alpha: float | None = None) -> dict:
    """matte_video with a network that takes the red for the alpha, or has one alpha; the row of the manifest."""

    def predict(image: np.ndarray) -> np.ndarray:
        red = to_uint8(image)[..., 0] / np.float32(255)
        return red if alpha is None else np.full_like(red, alpha)

    target.parent.mkdir(exist_ok=True)
    return matte_video(source, target, Style(kind, bits), predict, partial(bounded_map, None, ahead=1))


def read(path: Path, bits: int = 8) -> list[np.ndarray]:
    return [frame.photo.image for frame in Film(path, bits)]


def halves(height: int = 48, width: int = 64) -> np.ndarray:
    """Red on the left, green on the right."""
    picture = np.empty((height, width, 3), np.uint8)
    picture[:, : width // 2], picture[:, width // 2 :] = RED, GREEN
    return picture


def off(picture: np.ndarray) -> int:
    """Levels by which halves() differs from what it was, away from its edges."""
    height, width = picture.shape[:2]
    found = picture[height // 2, [width // 4, width * 3 // 4]].astype(int)
    return int(np.abs(found - [RED, GREEN]).max())


@pytest.mark.parametrize("suffix", [".mkv", ".frames"])
@pytest.mark.parametrize(("kind", "bits"), [("alpha", 8), ("alpha", 16), ("foreground", 8), ("cutout", 16)])
def test_lossless_formats_keep_every_level(tmp_path, suffix, kind, bits):
    source = make_film(tmp_path / "a.mkv", frames(2, 35, 47), pixels="gbrp16le" if bits > 8 else "bgr0")
    row = matte(source, tmp_path / f"out{suffix}", kind, bits)
    assert (row["frames"], row["width"], row["height"], row["frame_rate"]) == (2, 47, 35, 10)
    if suffix == ".mkv":
        found = next(iter(Film(tmp_path / "out.mkv", bits))).photo
        image, alpha = found.image, found.alpha
    else:
        stored = cv2.imread(str(tmp_path / "out.frames" / "000001.png"), cv2.IMREAD_UNCHANGED)
        assert stored.dtype == (np.uint16 if bits > 8 else np.uint8)
        photo = read_photo(tmp_path / "out.frames" / "000001.png")
        image, alpha = photo.image, photo.alpha
    red = frames(1, 35, 47)[0][..., 0]
    if kind == "alpha":
        assert np.array_equal(to_uint8(image)[..., 0], red) and image.dtype == (np.uint16 if bits > 8 else np.uint8)
    elif kind == "cutout":
        assert np.array_equal(np.rint(alpha * 255), red)
    else:
        assert image.shape == (35, 47, 3)


@pytest.mark.parametrize(
    ("suffix", "codec", "pixels"),
    [(".mp4", "h264", "yuv420p"), (".mov", "prores", "yuv444p12le"), (".webm", "vp9", "yuv420p")],
)
def test_formats_for_players_and_editors(tmp_path, suffix, codec, pixels):
    source = make_film(tmp_path / "a.mkv", [halves(47, 63)] * 3, pixels="bgr0")
    matte(source, tmp_path / f"out{suffix}", "foreground", alpha=1)
    with av.open(str(tmp_path / f"out{suffix}")) as film:
        stream = film.streams.video[0]
        assert (stream.codec_context.codec.canonical_name, next(film.decode(stream)).format.name) == (codec, pixels)
    picture = read(tmp_path / f"out{suffix}")[1]
    assert picture.shape == ((48, 64, 3) if suffix == ".mp4" else (47, 63, 3)) and off(picture) <= 4
    if suffix == ".mp4":  # what a browser needs to begin stands in front
        data = (tmp_path / "out.mp4").read_bytes()
        assert data.index(b"moov") < data.index(b"mdat")


def test_prores_holds_transparency(tmp_path):
    source = make_film(tmp_path / "a.mkv", [halves()] * 2, pixels="bgr0")
    matte(source, tmp_path / "out.mov", "cutout")
    photo = next(iter(Film(tmp_path / "out.mov"))).photo
    assert np.allclose(photo.alpha[24, [16, 48]], [200 / 255, 30 / 255], atol=0.01)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".mov", ".webm"])
@pytest.mark.parametrize("stamps", [range(0, 500, 100), (0, 40, 100, 500, 520, 2000), (700, 800, 900)])
def test_times_are_kept(tmp_path, suffix, stamps):
    source = make_film(tmp_path / "a.mkv", frames(len(stamps)), stamps=stamps)
    row = matte(source, tmp_path / f"out{suffix}")
    assert times(tmp_path / f"out{suffix}") == pytest.approx(
        [(stamp - stamps[0]) / 1000 for stamp in stamps], abs=0.002
    )
    assert row["frame_rate"] == pytest.approx((len(stamps) - 1) * 1000 / (stamps[-1] - stamps[0]), abs=0.01)


def test_recordings_that_are_joined_go_on(tmp_path):
    """The times of the second begin at 0 again."""
    parts = [make_film(tmp_path / name, frames(5), codec="libx264") for name in ("a.ts", "b.ts")]
    (tmp_path / "joined.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    assert matte(tmp_path / "joined.ts", tmp_path / "out.mkv")["frames"] == 10
    assert times(tmp_path / "out.mkv") == pytest.approx([number / 10 for number in range(10)], abs=0.002)


def test_a_film_that_was_trimmed_has_the_frames_that_players_show(tmp_path):
    whole = make_film(tmp_path / "whole.mp4", frames(30), codec="libx264", options={"bf": "0"})
    with av.open(str(whole)) as film, av.open(str(tmp_path / "a.mp4"), "w") as trimmed:
        copy = trimmed.add_stream_from_template(film.streams.video[0])
        for packet in film.demux():
            if packet.size:
                packet.pts, packet.dts, packet.stream = (
                    packet.pts - 20 * packet.duration,
                    packet.dts - 20 * packet.duration,
                    copy,
                )
                trimmed.mux(packet)
    row = matte(tmp_path / "a.mp4", tmp_path / "out.mkv")
    assert row["frames"] == 10 and "error" not in row


@pytest.mark.parametrize("angle", [0, 90, 180, -90])
def test_turned_films_come_upright_with_their_pixel_shape(tmp_path, angle):
    picture = frames(1)[0]
    source = make_film(
        tmp_path / "a.mov", [picture] * 2, codec="qtrle", pixels="rgb24", angle=angle, shape=Fraction(4, 3)
    )
    expected = np.rot90(picture, angle // 90)
    assert np.array_equal(read(source)[0], expected)
    row = matte(source, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as film:
        stream = film.streams.video[0]
        assert stream.sample_aspect_ratio == (Fraction(3, 4) if angle % 180 else Fraction(4, 3))
        assert (row["width"], row["height"]) == (stream.width, stream.height) == expected.shape[1::-1]
    assert "its pixels are not square" in str(matte(source, tmp_path / "out.frames")["notes"])


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv444p10le"])
@pytest.mark.parametrize(
    ("matrix", "full", "size"),
    [(1, 0, (48, 64)), (5, 0, (48, 64)), (1, 1, (48, 64)), (9, 0, (48, 64)), (2, 0, (48, 64)), (2, 0, (720, 1280))],
)
def test_colours_are_converted_by_what_the_film_says(tmp_path, pixels, matrix, full, size):
    """matrix 2: it says nothing, and players go by its size."""
    meant = matrix if matrix != 2 else 1 if size[0] == 720 else 5
    source = make_film(tmp_path / "a.mkv", [halves(*size)], pixels=pixels, matrix=matrix, stored=meant, full=full)
    assert off(read(source)[0]) <= 3
    for suffix in (".mkv", ".mp4", ".mov"):
        matte(source, tmp_path / f"out{suffix}", "foreground", alpha=1)
        assert off(read(tmp_path / f"out{suffix}")[0]) <= 6


def test_what_screens_cannot_show_is_converted(tmp_path):
    """203 cd/m2 in PQ, which is the white of a text: level 148 as it stands."""
    grey, wide = np.full((48, 64, 3), 148, np.uint8), {"pixels": "yuv444p10le", "matrix": 9, "primaries": 9}
    source = make_film(tmp_path / "a.mkv", [grey], **wide, transfer=16)
    assert "HDR converted to BT.709" in matte(source, tmp_path / "out.mp4", "foreground", alpha=1)["notes"]
    with av.open(str(tmp_path / "out.mp4")) as film:
        frame = next(film.decode(video=0))
        assert (frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range) == (1, 1, 1, 1)
    level = read(tmp_path / "out.mp4")[0][24, 32]
    assert level.max() - level.min() <= 3 and level[0] > 160
    for transfer, note in ((18, "HDR"), (14, "wide colours")):
        assert Film(make_film(tmp_path / "b.mkv", [grey], **wide, transfer=transfer)).notes == [
            f"{note} converted to BT.709"
        ]


def test_unknown_codes_of_colours_are_no_fault(tmp_path):
    for number in (0, 3, 17, 21):
        source = make_film(tmp_path / "a.mkv", [halves()], primaries=number, transfer=number)
        assert off(read(source)[0]) <= 4


def test_a_film_of_half_frames_has_no_combs(tmp_path):
    """A bar that moves by its width from one half frame to the next."""
    fields = [np.where(np.arange(96) // 12 == number, 220, 30).astype(np.uint8) for number in range(8)]
    pictures = [np.empty((64, 96, 3), np.uint8) for _ in range(4)]
    for number, picture in enumerate(pictures):
        picture[::2], picture[1::2] = fields[2 * number][:, None], fields[2 * number + 1][:, None]
    source = make_film(tmp_path / "a.mkv", pictures, codec="mpeg2video", pixels="yuv422p", rate=25, interlaced=True)
    assert "interlaced: deinterlaced" in matte(source, tmp_path / "out.mkv")["notes"]
    assert len(times(tmp_path / "out.mkv")) == 4
    combs = [np.abs(np.diff(picture[16:48].astype(int), axis=0)).mean() for picture in (pictures[1], read(source)[1])]
    assert combs[0] > 40 and combs[1] < combs[0] / 4


@pytest.mark.parametrize(
    ("suffix", "kept"),
    [(".mkv", ["aac", "flac"]), (".mp4", ["aac", "flac"]), (".mov", ["aac"]), (".webm", []), (".frames", [])],
)
def test_sound_is_copied_where_the_file_can_hold_it(tmp_path, suffix, kept):
    source = make_film(tmp_path / "a.mkv", frames(5), sounds=("aac", "flac"), seconds=2)
    row = matte(source, tmp_path / f"out{suffix}")
    assert row["frames"] == 5 and "error" not in row  # sound that outlasts the pictures is no damage
    left_out = [f"audio ({name}) is left out: {suffix} cannot hold it" for name in ("aac", "flac") if name not in kept]
    assert [note for note in row["notes"] if "left out" in note] == left_out
    if not kept:
        return
    packets = []
    for path in (source, tmp_path / f"out{suffix}"):
        with av.open(str(path)) as film:
            assert path == source or [sound.codec_context.name for sound in film.streams.audio] == kept
            packets.append([bytes(packet) for packet in film.demux(film.streams.audio[0]) if packet.size])
    assert packets[0] == packets[1]


def test_a_size_that_changes_midway_is_scaled_and_said(tmp_path):
    """5 frames of 64 x 48 and 5 of another size."""
    row = matte(DATA / "resized.mp4", tmp_path / "out.mkv")
    assert row["frames"] == 10 and row["notes"] == ["its size changes: shown as 64 x 48"]
    assert {picture.shape for picture in read(tmp_path / "out.mkv")} == {(48, 64, 3)}


def test_a_recording_of_a_browser_keeps_its_time(tmp_path):
    """It claims 1000 frames per second; its frames' own times, 20 to 50 ms apart, end after 2.03 s."""
    row = matte(DATA / "browser.webm", tmp_path / "out.mp4")
    assert times(tmp_path / "out.mp4")[-1] == pytest.approx(2.033, abs=0.01)
    assert row["frames"] == 60 and 25 < row["frame_rate"] < 33
    assert "the frame rate varies" in str(matte(DATA / "browser.webm", tmp_path / "out.frames")["notes"])


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [(".avi", "mjpeg"), (".mkv", "libx264"), (".mp4", "libx264"), (".webm", "libvpx-vp9"), (".flv", "libx264")],
)
def test_a_film_cut_short_is_done_as_far_as_it_goes_and_named(tmp_path, suffix, codec):
    path = make_film(tmp_path / f"a{suffix}", frames(30), codec=codec)
    assert "error" not in matte(path, tmp_path / "whole.mkv")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    row = matte(path, tmp_path / "out.mkv")
    assert 5 < row["frames"] < 20 and row["error"].startswith(f"{path} is cut short, only {row['frames']} frames ")
    assert len(times(tmp_path / "out.mkv")) == row["frames"]


def test_damage_in_the_middle_is_named(tmp_path):
    path = make_film(tmp_path / "a.avi", frames(30), codec="mjpeg")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 200] = bytes(200)
    path.write_bytes(data)
    row = matte(path, tmp_path / "out.mkv")
    assert 28 <= row["frames"] <= 30 and " is damaged: " in row["error"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"Dear Sir, enclosed\n",
        bytes(5000),
        b"export const a: number = 1;\n",
        b"ffconcat version 1.0\nfile 'a.mkv'\n",
    ]
    + [b"#EXTM3U\n#EXTINF:10,\na.mkv\n#EXT-X-ENDLIST\n", cv2.imencode(".jpg", frames(1)[0])[1].tobytes()],
)
def test_what_is_no_film_is_one_sentence(tmp_path, data):
    """Lists of other files among them, which FFmpeg would read too."""
    make_film(tmp_path / "a.mkv", frames(2))
    (tmp_path / "b.mp4").write_bytes(data)
    with pytest.raises(UserError) as caught:
        Film(tmp_path / "b.mp4")
    assert str(caught.value).startswith(f"{tmp_path / 'b.mp4'} ") and str(caught.value).endswith(".")


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="names are text there")
def test_a_name_that_is_no_text_is_as_good_as_any(tmp_path):
    path = make_film(tmp_path / "a.mkv", frames(2)).rename(tmp_path / os.fsdecode(b"\xc4\xe3.mkv"))
    assert matte(path, tmp_path / os.fsdecode(b"\xc4\xe4.mp4"))["frames"] == 2


@pytest.mark.skipif(os.name == "nt", reason="no limits there")
@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".frames"])
def test_a_full_disk_leaves_nothing(tmp_path, suffix):
    import resource

    source, limits = make_film(tmp_path / "in" / "a.mkv", frames(20)), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    try:
        with pytest.raises(UserError, match="out"):
            matte(source, tmp_path / "out" / f"a{suffix}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list((tmp_path / "out").iterdir())


def test_a_film_too_large_for_a_codec_is_a_sentence(tmp_path):
    source = make_film(tmp_path / "a.mkv", [np.zeros((16, 17000, 3), np.uint8)])
    with pytest.raises(UserError, match="cannot be written as 17000 x 16 .*try --video png"):
        matte(source, tmp_path / "out.mp4")
    with pytest.raises(UserError, match="out.avi is of a kind that is not written"):
        matte(source, tmp_path / "out.avi")


@pytest.mark.parametrize("form", ["mkv", "mp4", "png"])
def test_a_film_that_is_interrupted_leaves_nothing_and_is_done_again(run, tmp_path, monkeypatch, form):
    source = make_film(tmp_path / "in" / "walk.mkv", frames(12))
    flags = ("--input", source, "--output", tmp_path / "out", "--video", form)
    with monkeypatch.context() as patch:
        calls = stop_at(patch, 4)
        assert run(*flags) == EXIT_CODE and 4 <= len(calls) < 12
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["manifest.json"]
    for _ in range(2):  # the second time the first output is there
        assert run(*flags) == 0
        assert len(contents(tmp_path / "out")) == (12 if form == "png" else 1)
    calls = stop_at(monkeypatch, -1)
    assert run(*flags, "--skip-existing") == 0 and calls == []


def test_films_among_photos(run, tmp_path, capsys):
    save(tmp_path / "in" / "photo.png")
    whole = make_film(tmp_path / "in" / "walk.mp4", frames(20), codec="libx264")
    (tmp_path / "in" / "cut.mp4").write_bytes(whole.read_bytes()[:200])
    assert run("--input", tmp_path / "in", "--output", tmp_path / "out") == 1
    assert "cut.mp4 cannot be read as a video (no frame in it)" in capsys.readouterr().err
    assert set(contents(tmp_path / "out")) == {"walk.mkv", "photo.png"}
    row = next(row for row in manifest_of(tmp_path / "out")["files"] if row["output"] == "walk.mkv")
    assert (row["frames"], row["frame_rate"]) == (20, 10)


def test_a_folder_of_frames_that_cannot_be_written_is_a_sentence(tmp_path):
    source = make_film(tmp_path / "in" / "walk.mkv", frames(2))
    (tmp_path / "walk.frames").write_bytes(b"a file where the folder of frames should be")
    with pytest.raises(UserError, match=r"walk.frames cannot be made \(Not a directory\): "):
        matte(source, tmp_path / "walk.frames")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "walk.frames"]
