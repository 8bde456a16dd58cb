"""predict.py from end to end, with a small random network."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import predict_fixtures
import pytest
import torch
from make_mixed_folder import by_opencv
from PIL import Image, ImageCms
from predict_fixtures import contents, flat_mattes, load_once, manifest_of, picture, save

import predict
from common.photos import read_alpha
from matting import predict_alpha
from models import checkpoint
from models.checkpoint import MODEL_FILE

run, model_file = predict_fixtures.run, predict_fixtures.model_file  # pytest finds fixtures by name in the module
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def rows_of(folder: Path) -> dict[str, dict]:
    return {Path(row["input"]).name: row for row in manifest_of(folder)["files"]}


def test_no_flags_takes_test_data_and_the_newest_checkpoint_and_names_it(run, model_file, monkeypatch, capsys):
    monkeypatch.chdir(model_file.parent.parent.parent)
    save(Path("test_data/cat.jpg"))
    assert run(named=False) == 0
    assert read_alpha("test_results/cat.png").shape == (24, 36)
    assert capsys.readouterr().out.splitlines()[0] == f"checkpoint: {Path('checkpoints', 'run', MODEL_FILE)}"


@pytest.mark.parametrize("bits", [8, 16])
def test_matte_is_that_of_predict_alpha_rounded_and_never_stretched(run, model_file, tmp_path, bits):
    save(tmp_path / "in" / "cat.png", picture(1, 40, 70))
    assert run("--input", tmp_path / "in", "--output", tmp_path, "--bits", bits) == 0
    model = load_once(model_file, torch.device("cpu"))
    expected = predict_alpha(model, torch.from_numpy(picture(1, 40, 70)).permute(2, 0, 1))[0].numpy()
    assert 0 < expected.min() < expected.max() < 1  # a stretched matte would reach both ends
    assert np.abs(read_alpha(tmp_path / "cat.png") - expected).max() <= 0.5001 / (2**bits - 1)


def test_own_alpha_is_multiplied_in(run, tmp_path):
    alpha = np.random.default_rng(1).integers(0, 256, (24, 36), dtype=np.uint8)
    save(tmp_path / "in" / "plain.png")
    save(tmp_path / "in" / "clear.png", np.dstack([picture(), alpha]))
    assert run("--input", tmp_path / "in", "--output", tmp_path, "--bits", 16) == 0
    expected = read_alpha(tmp_path / "plain.png") * (alpha / 255)
    assert np.abs(read_alpha(tmp_path / "clear.png") - expected).max() < 2e-5


def test_every_kind_has_its_channels_bits_and_profile(run, tmp_path):
    source = save(tmp_path / "in" / "cat.jpg", icc_profile=PROFILE)
    for kind, mode in (("alpha", "L"), ("cutout", "RGBA"), ("foreground", "RGB"), ("composite", "RGB")):
        assert run("--input", source, "--output", tmp_path / kind, "--kind", kind) == 0
        with Image.open(tmp_path / kind / "cat.png") as written:
            assert (written.mode, written.size) == (mode, (36, 24))
            assert written.info.get("icc_profile") == (None if kind == "alpha" else PROFILE)
    assert run("--input", source, "--output", tmp_path, "--kind", "cutout", "--bits", 16) == 0
    assert cv2.imread(str(tmp_path / "cat.png"), cv2.IMREAD_UNCHANGED).dtype == np.uint16
    assert run("--input", source, "--output", tmp_path, "--kind", "cutout", "--format", "webp") == 0
    assert Image.open(tmp_path / "cat.webp").mode == "RGBA"


def test_cutout_has_the_matte_as_straight_alpha(run, tmp_path):
    source = save(tmp_path / "in" / "cat.png")
    run("--input", source, "--output", tmp_path / "alpha")
    run("--input", source, "--output", tmp_path / "cutout", "--kind", "cutout")
    assert np.array_equal(
        np.asarray(Image.open(tmp_path / "cutout" / "cat.png"))[..., 3],
        np.asarray(Image.open(tmp_path / "alpha" / "cat.png")),
    )


@pytest.mark.parametrize("background", ["red", "#ff0000", "photo", "blur"])
def test_composite_of_an_empty_matte_is_the_background(run, tmp_path, monkeypatch, background):
    monkeypatch.setattr(predict, "predict_alpha", flat_mattes(0.0))
    source = save(tmp_path / "in" / "cat.png", np.full((24, 36, 3), 90, np.uint8))
    red = save(tmp_path / "beach.png", np.full((50, 40, 3), (255, 0, 0), np.uint8))
    flag = red if background == "photo" else background
    assert run("--input", source, "--output", tmp_path, "--kind", "composite", "--background", flag) == 0
    expected = (90, 90, 90) if background == "blur" else (255, 0, 0)
    assert (np.asarray(Image.open(tmp_path / "cat.png")) == expected).all()


def test_orientation_16_bits_and_animation(run, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "in" / "turned.jpg", exif=exif)
    (tmp_path / "in" / "deep.tif").write_bytes(by_opencv(picture(), ".tif"))
    save(tmp_path / "in" / "moving.webp", save_all=True, append_images=[Image.fromarray(picture(1))])
    assert run("--input", tmp_path / "in", "--output", tmp_path) == 0
    assert read_alpha(tmp_path / "turned.png").shape == (36, 24)
    assert read_alpha(tmp_path / "deep.png").shape == (24, 36)
    assert rows_of(tmp_path)["moving.webp"]["notes"] == ["frames left out: 1"]


def test_tree_is_kept(run, tmp_path):
    for name in ("a.jpg", "sub/a.jpg", "sub/deep/b.v1.PNG", "sub/.hidden.jpg"):
        save(tmp_path / "in" / name)
    assert run("--input", tmp_path / "in", "--output", tmp_path / "out") == 0
    assert set(contents(tmp_path / "out")) == {"a.png", "sub/a.png", "sub/deep/b.v1.png"}


def test_manifest_says_what_a_person_wants_to_know(run, tmp_path, monkeypatch):
    source = save(tmp_path / "in" / "a.jpg")
    monkeypatch.setattr(predict, "predict_alpha", flat_mattes(0.3))
    assert run("--input", source, "--output", tmp_path) == 0
    row = rows_of(tmp_path)["a.jpg"]
    assert (row["output"], row["kind"], row["width"], row["height"]) == ("a.png", "alpha", 36, 24)
    assert row["seconds"] >= 0 and row["notes"] == ["no subject found"]
    assert read_alpha(tmp_path / "a.png").max() < 0.31  # an empty matte stays empty


@pytest.mark.parametrize(
    "flags",
    [
        ["--kind", "alpha", "--format", "webp"],
        ["--kind", "cutout", "--format", "webp", "--bits", "16"],
        ["--background", "red"],
        ["--kind", "cutout", "--video", "mp4"],
        ["--bits", "16", "--video", "webm"],
        ["--bits", "16", "--kind", "foreground", "--video", "mp4"],
        ["--max-memory", "0"],
        ["--workers", "-1"],
    ],
)
def test_options_that_do_not_go_together_are_refused(run, flags):
    with pytest.raises(SystemExit) as stopped:
        run(*flags)
    assert stopped.value.code == 2


def test_start_errors_are_one_sentence_and_exit_code_2(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = save(Path("in/a.jpg"))
    Path("empty").mkdir()
    Path("in/readme.md").write_text("no photo")
    Path("taken").write_text("a file")
    Path("foreign").mkdir()
    Path("foreign/manifest.json").write_text('{"name": "somebody else\'s"}')
    for flags in (
        ["--input", "nothing.jpg"],
        ["--input", "empty"],
        ["--input", source, "--output", "taken/out"],
        ["--input", source, "--output", "foreign"],
        ["--input", source, "--checkpoint", "no.safetensors"],
        ["--input", source, "--device", "cuda:77"],
        ["--input", source, "--kind", "composite", "--background", "no such colour"],
        ["--input", source, "--kind", "composite", "--background", 400 * "x"],
        ["--input", 400 * "x"],
    ):
        assert run(*flags, named="--checkpoint" not in flags) == 2
        message = capsys.readouterr().err.strip()
        assert len(message.splitlines()) == 1 and message.endswith("."), message
    assert Path("foreign/manifest.json").read_text() == '{"name": "somebody else\'s"}'
    monkeypatch.setattr(checkpoint, "STARTER", tmp_path / "starter")
    assert run("--input", source, named=False) == 2  # no checkpoints/ here
    assert "train.py" in capsys.readouterr().err


def test_what_a_folder_leaves_out_is_counted(run, tmp_path, capsys):
    save(tmp_path / "in" / "a.jpg")
    for name in ("b.JXL", "sub/c.jxl", "d.raw", "notes", ".hidden.jxl", "Thumbs.db", "__MACOSX/e.jxl"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"x")
    said = "4 files left out: 1 without suffix, 2 .jxl, 1 .raw"
    assert run("--input", tmp_path / "in", "--output", tmp_path / "in" / "out") == 0
    assert said in capsys.readouterr().out.splitlines()
    assert run("--input", tmp_path / "in", "--output", tmp_path / "in") == 0  # here the manifest lies among the photos
    assert run("--input", tmp_path / "in", "--output", tmp_path / "in") == 0
    assert capsys.readouterr().out.splitlines().count(said) == 2


def test_the_closing_lines_count_what_was_left_out(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(predict, "predict_alpha", flat_mattes(0.3))
    frames = [Image.fromarray(picture(number)) for number in range(3)]
    for name in ("a.gif", "b.tif", "c.webp"):
        save(Path("in") / name, picture(9), save_all=True, append_images=frames)
    save(Path("in/d.png"), np.dstack([picture(), np.zeros((24, 36), np.uint8)]))
    Path("list.txt").write_text("# mine\nin\nin/d.png\n# not this: x.jpg\n", encoding="utf-8")
    assert run("--input", "list.txt", "--output", "out") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-6:-1] == [
        "3 inputs left out: 2 commented out in list.txt, 1 named twice",
        "frames left out: 6 (in/a.gif, in/c.webp)",
        "no subject found: 4 (in/a.gif, in/b.tif, in/c.webp, in/d.png)",
        "pages left out: 3 (in/b.tif)",
        "an alpha channel that is empty is ignored: 1 (in/d.png)",
    ]


def test_a_subject_that_the_photo_itself_hides_is_said(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(predict, "predict_alpha", flat_mattes(1.0))
    source = save(tmp_path / "a.png", np.dstack([picture(), np.full((24, 36), 90, np.uint8)]))
    assert run("--input", source, "--output", tmp_path / "out") == 0
    assert "the subject lies where the photo itself is transparent: 1" in capsys.readouterr().out


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
@pytest.mark.parametrize("name", ["x.jpg", "x.mp4", "x.txt", "x"])
def test_a_pipe_is_not_waited_for(run, tmp_path, capsys, name):
    os.mkfifo(tmp_path / name)
    assert run("--input", tmp_path / name, save(tmp_path / "a.jpg"), "--output", tmp_path / "out") == 1
    assert f"failed: {tmp_path / name} is a pipe" in capsys.readouterr().err
    assert (tmp_path / "out" / "a.png").exists()


def test_names_of_any_kind_are_matted(run, tmp_path, monkeypatch):
    """On a stdout that holds 256 letters, as a log file on Windows."""
    names = ["\u732b.jpg", *([os.fsdecode(b"\xc4\xe3.jpg")] if os.name == "posix" and sys.platform != "darwin" else [])]
    for name in names:
        save(tmp_path / "in" / name)
        (tmp_path / "in" / f"broken {name}").write_bytes(b"")
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, io.TextIOWrapper(io.BytesIO(), encoding="cp1252"))
    assert run("--input", tmp_path / "in", "--output", tmp_path / "\u732b") == 1
    sys.stderr.flush()
    assert "\\u732b.jpg is empty" in sys.stderr.buffer.getvalue().decode("cp1252")
    assert {Path(name).stem for name in names} == {path.stem for path in (tmp_path / "\u732b").glob("*.png")}
    rows = json.loads((tmp_path / "\u732b" / "manifest.json").read_text(encoding="utf-8"))["files"]
    assert {Path(row["input"]).name for row in rows} == {*names, *(f"broken {name}" for name in names)}
