"""predict.py run again after a stop or a kill, beside other jobs, on two ranks: nothing lost, nothing overwritten."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import predict_fixtures
import pytest
import torch
from PIL import Image
from predict_fixtures import contents, flat_mattes, manifest_of, picture, save, stop_at

import predict
from common.interrupt import EXIT_CODE
from common.photos import read_alpha

run, model_file = predict_fixtures.run, predict_fixtures.model_file  # pytest finds fixtures by name in the module
ROOT = Path(predict.__file__).resolve().parent


def test_same_folder_in_and_out_harms_nothing(run, tmp_path):
    folder = tmp_path / "in"
    for name in ("a.jpg", "b.jpg", "b.png", "sub/c.png"):
        save(folder / name)
    before = contents(folder)
    made = {"a.png", "b.jpg.png", "b.png.png", "sub/c.png.png"}
    for kind in ("alpha", "alpha", "cutout"):  # the second time, the outputs of the first are there
        assert run("--input", folder, "--output", folder, "--kind", kind) == 0
        after = contents(folder)
        assert {name: after[name] for name in before} == before and set(after) - set(before) == made


def test_a_file_that_is_not_ours_is_not_overwritten(run, tmp_path, capsys):
    save(tmp_path / "in" / "a.jpg")
    true_alpha = save(tmp_path / "out" / "a.png", picture(1))
    before = true_alpha.read_bytes()
    assert run("--input", tmp_path / "in", "--output", tmp_path / "out", "--skip-existing") == 2
    assert true_alpha.read_bytes() == before
    assert "a.jpg would overwrite" in capsys.readouterr().err


def test_a_file_named_by_output(run, tmp_path, capsys):
    source = save(tmp_path / "in" / "a.jpg")
    for name, flags in (
        ("cut.png", ("--kind", "cutout")),
        ("a.jpeg", ("--kind", "composite")),
        ("b.WEBP", ("--kind", "cutout")),
    ):
        for _ in range(2):  # its own output, again
            assert run("--input", source, "--output", tmp_path / "new" / name, *flags) == 0
        assert Image.open(tmp_path / "new" / name).size == (36, 24)
    assert set(contents(tmp_path / "new")) == {"cut.png", "a.jpeg", "b.WEBP"}
    before = source.read_bytes()
    assert run("--input", source, "--output", source, "--kind", "composite") == 2 and source.read_bytes() == before
    with pytest.raises(SystemExit):
        run("--input", source, "--output", tmp_path / "cut.jpg", "--kind", "cutout")
    assert "holds no cutout" in capsys.readouterr().err


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


def test_skip_existing_does_again_what_other_files_or_settings_made(run, model_file, tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "predict_alpha", flat_mattes(1.0))
    source, beach = save(tmp_path / "in" / "a.jpg"), save(tmp_path / "beach.jpg")
    retrained = tmp_path / model_file.parent.name / model_file.name
    retrained.parent.mkdir()
    retrained.write_bytes(model_file.read_bytes())

    def is_done_again(*more: object) -> bool:
        """The second of two equal runs never is."""
        flags = ("--input", source, "--output", tmp_path / "out", "--skip-existing", "--checkpoint", retrained)
        assert run(*flags, *more, named=False) == 0
        done = manifest_of(tmp_path / "out")["done"]
        assert run(*flags, *more, named=False) == 0
        assert manifest_of(tmp_path / "out")["skipped"] == 1
        return done == 1

    composite = ("--kind", "composite", "--background")
    for more in (
        (),
        ("--bits", 16),
        ("--kind", "cutout"),
        (*composite, "red"),
        (*composite, "blue"),
        (*composite, beach),
    ):
        assert is_done_again(*more)
    for path, is_content in ((source, False), (beach, True), (retrained, True)):
        status = path.stat()
        later = status.st_mtime_ns + 10**9
        os.utime(path, ns=(later, later))
        assert is_done_again(*composite, beach) == (not is_content)
        if path != retrained:
            save(path, picture(5))
        else:
            retrained.write_bytes(retrained.read_bytes() + b" ")
        os.utime(path, ns=(0, 0))  # older than the output, and another file all the same
        assert is_done_again(*composite, beach)


def test_one_output_folder_has_one_writer(run, tmp_path, monkeypatch, capsys):
    source = save(tmp_path / "in" / "a.jpg")
    network, codes = predict.predict_alpha, []

    def start_another(*arguments: object, **options: object) -> torch.Tensor:
        if not codes:
            codes.append(None)
            codes[0] = run("--input", source, "--output", tmp_path / "out", "--kind", "cutout")
        return network(*arguments, **options)

    monkeypatch.setattr(predict, "predict_alpha", start_another)
    assert run("--input", source, "--output", tmp_path / "out", "--workers", 0) == 0
    assert codes == [2] and f"{tmp_path / 'out'} is in use by another predict.py: wait" in capsys.readouterr().err
    assert Image.open(tmp_path / "out" / "a.png").mode == "L"


KILLED = """
import os, signal, sys, time
from pathlib import Path
import predict

network, calls = predict.predict_alpha, []

def die_at_the_third(*arguments, **options):
    calls.append(1)
    if len(calls) == 3:
        while len(list(Path(sys.argv[1]).glob("p*.png"))) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    return network(*arguments, **options)

predict.predict_alpha = die_at_the_third
predict.main(["--input", sys.argv[1], "--output", sys.argv[1], "--device", "cpu", "--checkpoint", sys.argv[2]])
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_job_in_place_is_finished_after_sigkill(run, model_file, tmp_path):
    folder = tmp_path / "in"
    for number in range(1, 5):
        save(folder / f"p{number}.jpg", picture(number))
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), str(model_file)],
        cwd=ROOT,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert killed.returncode == -signal.SIGKILL
    assert run("--input", folder, "--output", folder, "--skip-existing") == 0
    mattes = {f"p{number}.png" for number in range(1, 5)}
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
    for index in range(200):
        save(tmp_path / "in" / f"{index:03d}.jpg", picture(index, 96, 128))
    process = start(model_file, "--input", tmp_path / "in", "--output", tmp_path / "out")
    while not list((tmp_path / "out").glob("*.png")):
        assert process.poll() is None, process.stdout.read()
    process.send_signal(number)
    said = process.communicate(timeout=300)[0]
    assert process.returncode == EXIT_CODE, said
    assert "--skip-existing" in said and "Traceback" not in said
    written = sorted((tmp_path / "out").glob("*.png"))
    assert 0 < len(written) < 200
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
