"""predict.py from end to end, with a small random network."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import predict_fixtures
import pytest
import torch
from make_mixed_folder import by_opencv
from PIL import Image, ImageCms
from predict_fixtures import contents, load_once, picture, save, stop_at

import predict
from common.interrupt import EXIT_CODE
from common.photos import read_alpha
from matting import predict_alpha
from models import checkpoint
from models.checkpoint import MODEL_FILE

run, model_file = predict_fixtures.run, predict_fixtures.model_file  # pytest finds fixtures by name in the module
ROOT = Path(predict.__file__).resolve().parent
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def manifest_of(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))


def rows_of(folder: Path) -> dict[str, dict]:
    return {Path(row["input"]).name: row for row in manifest_of(folder)["files"]}


def flat_mattes(value: float):
    """In place of the network: the same alpha everywhere."""

    def predict_flat(model, image, **options) -> torch.Tensor:
        return torch.full((1, *image.shape[-2:]), value)

    return predict_flat


def test_no_flags_takes_test_data_and_the_newest_checkpoint(run, model_file, tmp_path, monkeypatch):
    monkeypatch.chdir(model_file.parent.parent.parent)
    save(Path("test_data/cat.jpg"))
    assert run(named=False) == 0
    assert read_alpha("test_results/cat.png").shape == (24, 36)


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
    assert rows_of(tmp_path)["moving.webp"]["notes"] == ["animated: first frame used"]


def test_tree_is_kept_and_lists_are_read(run, tmp_path, monkeypatch):
    for name in ("a.jpg", "sub/a.jpg", "sub/deep/b.v1.PNG", "sub/.hidden.jpg"):
        save(tmp_path / "in" / name)
    assert run("--input", tmp_path / "in", "--output", tmp_path / "out") == 0
    assert set(contents(tmp_path / "out")) == {"a.png", "sub/a.png", "sub/deep/b.v1.png"}
    monkeypatch.chdir(tmp_path)
    Path("list.txt").write_text("# chosen\nin/sub/a.jpg\n\nin/sub/deep\nin/sub/a.jpg\n", encoding="utf-8")
    assert run("--input", "list.txt", "--output", "listed") == 0
    assert set(contents(tmp_path / "listed")) == {"a.png", "deep/b.v1.png"}


def test_same_folder_in_and_out_harms_nothing(run, tmp_path):
    folder = tmp_path / "in"
    for name in ("a.jpg", "b.jpg", "b.png", "sub/c.png"):
        save(folder / name)
    before = contents(folder)
    for _ in range(2):  # the second time, the outputs of the first are there
        assert run("--input", folder, "--output", folder) == 0
    assert run("--input", folder, "--output", folder, "--kind", "cutout") == 0
    after = contents(folder)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {
        *("a_alpha.png", "b.jpg_alpha.png", "b.png_alpha.png", "sub/c_alpha.png"),
        *("a_cutout.png", "b.jpg_cutout.png", "b.png_cutout.png", "sub/c_cutout.png"),
    }


def test_a_file_that_is_not_ours_is_not_overwritten(run, tmp_path, capsys):
    save(tmp_path / "a.jpg")
    true_alpha = save(tmp_path / "a_alpha.png", picture(1))
    before = true_alpha.read_bytes()
    assert run("--input", tmp_path, "--output", tmp_path) == 1
    assert true_alpha.read_bytes() == before
    assert "a.jpg would overwrite" in capsys.readouterr().err
    assert not (tmp_path / "a_alpha_alpha.png").exists()  # its name is that of an output


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_skip_existing_finishes_an_interrupted_job_byte_for_byte(run, tmp_path, monkeypatch, capsys, workers):
    for number in range(20):
        save(tmp_path / "in" / f"{number:02d}.jpg", picture(number))
    flags = ("--input", tmp_path / "in", "--workers", workers)
    assert run(*flags, "--output", tmp_path / "whole") == 0

    with monkeypatch.context() as patch:
        calls = stop_at(patch, 4)
        assert run(*flags, "--output", tmp_path / "out") == EXIT_CODE
    assert "stopped: finish with --skip-existing" in capsys.readouterr().out
    done = contents(tmp_path / "out")
    assert len(calls) == len(done) == 4  # the fourth was begun, so it is finished; no other is begun
    manifest = manifest_of(tmp_path / "out")
    assert manifest["stopped"] and sorted(row["output"] for row in manifest["files"]) == sorted(done)

    times = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in done}
    assert run(*flags, "--output", tmp_path / "out", "--skip-existing") == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in done} == times
    manifest = manifest_of(tmp_path / "out")
    assert (manifest["done"], manifest["skipped"], len(manifest["files"])) == (16, 4, 20)
    assert all(row["seconds"] for row in manifest["files"])  # those of the first run too


def test_skip_existing_does_again_what_is_older_than_its_input_or_the_checkpoint(
    run, model_file, tmp_path, monkeypatch
):
    monkeypatch.setattr(predict, "predict_alpha", flat_mattes(1.0))
    source = save(tmp_path / "in" / "a.jpg")
    retrained = tmp_path / "other" / model_file.name
    retrained.parent.mkdir()
    retrained.write_bytes(model_file.read_bytes())
    hour = 3600 * 10**9

    def skipped() -> int:
        flags = ("--input", source, "--output", tmp_path, "--skip-existing", "--checkpoint", retrained)
        assert run(*flags, named=False) == 0
        return manifest_of(tmp_path)["skipped"]

    assert (skipped(), skipped()) == (0, 1)
    for path in (source, retrained):
        written = (tmp_path / "a.png").stat().st_mtime_ns
        os.utime(path, ns=(written + hour, written + hour))
        assert skipped() == 0
        os.utime(path, ns=(written - hour, written - hour))
        assert skipped() == 1


def test_skip_existing_does_again_what_is_of_another_kind_or_background(run, tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "predict_alpha", flat_mattes(1.0))
    source, beach = save(tmp_path / "in" / "a.jpg"), save(tmp_path / "beach.jpg")
    flags = ("--input", source, "--output", tmp_path / "out", "--skip-existing")

    def skipped(*more: object) -> int:
        assert run(*flags, *more) == 0
        return manifest_of(tmp_path / "out")["skipped"]

    assert [skipped(), skipped(), skipped("--kind", "cutout"), skipped("--kind", "cutout")] == [0, 1, 0, 1]
    composite = ("--kind", "composite", "--background", beach)
    assert (skipped(*composite), skipped(*composite)) == (0, 1)
    later = (tmp_path / "out" / "a.png").stat().st_mtime_ns + 10**9
    os.utime(beach, ns=(later, later))
    assert skipped(*composite) == 0


def test_a_second_job_leaves_the_mattes_of_the_first(run, tmp_path, capsys):
    save(tmp_path / "one" / "a.jpg")
    for name in "ab":
        save(tmp_path / "two" / f"{name}.jpg", picture(1))
    assert run("--input", tmp_path / "one", "--output", tmp_path / "out") == 0
    before = (tmp_path / "out" / "a.png").read_bytes()
    for flags in ((), ("--skip-existing",)):
        assert run("--input", tmp_path / "two", "--output", tmp_path / "out", *flags) == 1
        said = capsys.readouterr().err
        assert f"two{os.sep}a.jpg would overwrite" in said and "choose another --output" in said
        assert (tmp_path / "out" / "a.png").read_bytes() == before
        assert (tmp_path / "out" / "b.png").exists()
    assert run("--input", tmp_path / "one", "--output", tmp_path / "out") == 0  # its own, again
    shutil.rmtree(tmp_path / "one")
    assert run("--input", tmp_path / "two", "--output", tmp_path / "out", "--skip-existing") == 0
    assert (tmp_path / "out" / "a.png").read_bytes() != before


KILLED = """
import os, signal, sys, time
from pathlib import Path
import predict

network, calls = predict.predict_alpha, []

def die_at_the_third(*arguments, **options):
    calls.append(1)
    if len(calls) == 3:
        while len(list(Path(sys.argv[1]).glob("p*_alpha.png"))) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    return network(*arguments, **options)

predict.predict_alpha = die_at_the_third
predict.main(["--input", sys.argv[1], "--output", sys.argv[1], "--device", "cpu", "--checkpoint", sys.argv[2]])
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_job_in_place_is_finished_after_sigkill(run, model_file, tmp_path):
    """No manifest.json tells the mattes from the photos then."""
    folder = tmp_path / "in"
    for number in range(1, 5):
        save(folder / f"p{number}.jpg", picture(number))
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), str(model_file)],
        cwd=ROOT,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert killed.returncode == -signal.SIGKILL and not (folder / "manifest.json").exists()
    assert run("--input", folder, "--output", folder, "--skip-existing") == 0
    mattes = {f"p{number}_alpha.png" for number in range(1, 5)}
    assert set(contents(folder)) == mattes | {f"p{number}.jpg" for number in range(1, 5)}
    manifest = manifest_of(folder)
    assert (manifest["done"], manifest["skipped"]) == (2, 2)
    assert {row["output"] for row in manifest["files"]} == mattes
    assert run("--input", folder, "--output", folder) == 0  # now all are known as outputs


def test_it_waits_long_for_a_rank_that_has_more_to_do(run, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(predict.distributed, "setup", lambda *arguments: asked.append(arguments))
    assert run("--input", save(tmp_path / "in" / "a.jpg"), "--output", tmp_path) == 0
    assert asked == [(torch.device("cpu"), 7 * 24 * 60)]


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
        ["--bits", "16", "--video", "mkv"],
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
        assert (
            run(*flags, named="--checkpoint" not in flags) == 2
            if "--device" not in flags
            else predict.main([*map(str, flags), "--checkpoint", str(tmp_path)]) == 2
        )
        message = capsys.readouterr().err.strip()
        assert len(message.splitlines()) == 1 and message.endswith("."), message
    assert Path("foreign/manifest.json").read_text() == '{"name": "somebody else\'s"}'
    monkeypatch.setattr(checkpoint, "STARTER", tmp_path / "starter")
    assert run("--input", source, named=False) == 2  # no checkpoints/ here
    assert "train.py" in capsys.readouterr().err


def start(model_file: Path, *arguments: object, launcher: tuple[str, ...] = ()) -> subprocess.Popen:
    command = [sys.executable, *launcher, str(ROOT / "predict.py"), "--checkpoint", str(model_file), "--device", "cpu"]
    return subprocess.Popen(
        [*command, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals to send")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_leaves_complete_files_and_a_manifest(model_file, tmp_path, number):
    for index in range(400):
        save(tmp_path / "in" / f"{index:03d}.jpg", picture(index, 96, 128))
    process = start(model_file, "--input", tmp_path / "in", "--output", tmp_path / "out")
    while not list((tmp_path / "out").glob("*.png")):
        assert process.poll() is None, process.stdout.read()
    process.send_signal(number)
    said = process.communicate(timeout=300)[0]
    assert process.returncode == EXIT_CODE, said
    assert "--skip-existing" in said and "Traceback" not in said
    written = sorted((tmp_path / "out").glob("*.png"))
    assert 0 < len(written) < 400
    assert [row["output"] for row in manifest_of(tmp_path / "out")["files"]] == [path.name for path in written]
    assert {read_alpha(path).shape for path in written} == {(96, 128)}
    assert not list((tmp_path / "out").glob(".*"))


def test_ranks_share_the_list_and_write_one_manifest(model_file, tmp_path):
    for number in range(5):
        save(tmp_path / "in" / f"{number}.jpg", picture(number))
    (tmp_path / "in" / "broken.jpg").write_bytes(b"no photo")
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    process = start(model_file, "--input", tmp_path / "in", "--output", tmp_path / "out", launcher=launcher)
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 1 and said.count("failed: ") == 1, said
    assert set(contents(tmp_path / "out")) == {f"{number}.png" for number in range(5)}
    manifest = manifest_of(tmp_path / "out")
    assert (manifest["done"], manifest["failed"], len(manifest["files"])) == (5, 1, 6)


def test_the_checkpoint_that_is_used_is_said(run, model_file, tmp_path, monkeypatch, capsys):
    """The newest by its file's time, which a copy changes: so it is named."""
    monkeypatch.chdir(model_file.parent.parent.parent)
    source = save(tmp_path / "in" / "a.jpg")
    assert run("--input", source, "--output", tmp_path / "out", named=False) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"checkpoint: {Path('checkpoints', 'run', MODEL_FILE)}"


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
