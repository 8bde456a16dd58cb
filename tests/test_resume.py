"""Runs that stop, are killed, and go on: train.py with a network of a few thousand weights."""

from __future__ import annotations

import errno
import json
import math
import multiprocessing
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

import matting
import train
from common.files import TEMPORARY_FILES
from common.interrupt import Interrupt
from data.synthetic.dataset import SyntheticDataset
from models import checkpoint
from tests.kill_test import compare_runs, differences, kill_test, read_log
from tests.tiny import FLAGS, build_tiny, use_tiny_networks
from training import report as run_report
from training import setup
from training.checkpoint import load_training_state, save_training_state
from training.errors import RunError, resume_hint
from training.flags import config_from_flags
from training.run import Run
from training.run_folder import (
    CONFIG_FILE,
    LOCK_FILE,
    LOG_FILE,
    PREVIOUS_STATE_FILE,
    STATE_FILE,
    create_run,
    find_run,
)

posix = pytest.mark.skipif(os.name != "posix", reason="signals and fork as on Unix")


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny network; and no pictures, which would take most of the time."""
    use_tiny_networks(monkeypatch)
    for name in ("curves", "preview"):
        monkeypatch.setattr(run_report.plots, name, lambda *_: None)
    monkeypatch.setattr(run_report, "preview_rows", lambda *_: [])


def fit(output: Path, *flags: str, code: int = 0) -> Path:
    """Run train.py to its end in this process; the newest folder under output."""
    flags = flags if "--resume" in flags else (*FLAGS, *flags)
    assert train.main([*flags, "--output", str(output)]) == code
    return find_run(str(output), "")


def interrupt_at(monkeypatch: pytest.MonkeyPatch, step: int, number: int = signal.SIGTERM) -> None:
    """Send this process a signal while it makes the step of this number (from 1)."""
    make_step = train.train_step

    def make_step_and_signal(run: Run, batches: list[dict]) -> None:
        make_step(run, batches)
        if run.progress.step == step:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(train, "train_step", make_step_and_signal)


@posix
@pytest.mark.parametrize("workers, start", [("0", ()), ("2", ()), ("0", ("--backbone-weights", "swin.pth"))])
@pytest.mark.parametrize("step", [1, 3, 4])  # epochs of 3 steps: in the middle, at the border, behind it
def test_a_stopped_run_ends_as_one_that_was_not(
    workers: str,
    start: tuple[str, ...],
    step: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # 5 batches and groups of 2: a step of the tail group ends each epoch; dropout draws from torch's generator
    flags = (
        "--epochs",
        "2",
        "--train-samples",
        "11",
        "--accumulation-steps",
        "2",
        "--drop-path",
        "0.3",
        "--log-interval",
        "2",
        "--num-workers",
        workers,
        *start,
    )
    quiet = fit(tmp_path / "quiet", *flags)
    with monkeypatch.context() as patch:
        interrupt_at(patch, step, signal.SIGINT if step == 3 else signal.SIGTERM)
        stopped = fit(tmp_path / "stopped", *flags)
    assert f"python train.py --resume {stopped}" in capsys.readouterr().out
    state = load_training_state(stopped)
    assert state["progress"]["step"] == step
    assert differences(load_training_state(quiet)["network"], state["network"])  # the comparison can fail
    fit(tmp_path / "stopped", "--resume")
    assert compare_runs(quiet, stopped) == []
    assert [row["epoch"] for row in read_log(stopped)] == ["1", "2"]


def test_saving_within_an_epoch_changes_nothing_and_is_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ("--epochs", "1", "--train-samples", "8", "--log-interval", "100")
    quiet = fit(tmp_path / "quiet", *flags)
    saved = []
    monkeypatch.setattr(
        train,
        "save_training_state",
        lambda folder, state: (
            saved.append(state["ranks"][0]["meter"]["sums"].get("loss")),
            save_training_state(folder, state),
        ),
    )
    often = fit(tmp_path / "often", *flags, "--save-every-minutes", "1e-9")
    assert len(saved) == 5 and saved[:4] == sorted(saved[:4]) and len(set(saved[:4])) == 4  # fresh sums, not the log's
    assert compare_runs(quiet, often) == []


@posix
def test_real_network_resumes_within_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    flags = ("--epochs", "1", "--train-samples", "8", "--no-use-teacher", "--val-samples", "1", "--drop-path", "0.2")
    quiet = fit(tmp_path / "quiet", *flags)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2)
        stopped = fit(tmp_path / "stopped", *flags)
    fit(tmp_path / "stopped", "--resume")
    assert compare_runs(quiet, stopped) == []
    assert (stopped / "curves.png").stat().st_size > 1000 and (stopped / "preview.png").stat().st_size > 1000


@posix
def test_kills_leave_a_run_that_resumes(tmp_path: Path) -> None:
    assert (
        kill_test(
            3,
            tmp_path,
            tiny=True,
            extra=("--epochs", "1", "--train-samples", "120", "--val-samples", "1", "--no-use-teacher"),
        )
        == []
    )


def die_while_writing(folder: Path, state: dict, moment: str) -> None:
    """In a process of its own: SIGKILL with half of the file written, or between the two renames."""
    if moment == "writing":
        write = torch.save

        def write_half(value, path: Path) -> None:
            write(value, path)
            os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

        torch.save = write_half
    else:
        rename = os.replace

        def rename_and_die(source: Path, target: Path) -> None:
            rename(source, target)
            os.kill(os.getpid(), signal.SIGKILL)

        os.replace = rename_and_die
    save_training_state(folder, state)


@posix
@pytest.mark.parametrize("moment", ["writing", "renaming"])
def test_kill_within_a_saving_costs_only_that_saving(moment: str, tmp_path: Path) -> None:
    folder = fit(tmp_path, "--epochs", "1", "--train-samples", "4")
    state = load_training_state(folder)
    child = multiprocessing.get_context("fork").Process(target=die_while_writing, args=(folder, {"new": 1}, moment))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL and len(list(folder.glob(TEMPORARY_FILES))) == 1
    assert (folder / STATE_FILE).exists() == (moment == "writing")
    assert load_training_state(folder).keys() == state.keys()
    assert fit(tmp_path, "--resume", "--epochs", "2") == folder
    assert list(folder.glob(TEMPORARY_FILES)) == [] and len(read_log(folder)) == 2


def test_broken_state_falls_back_to_the_one_before(tmp_path: Path) -> None:
    save_training_state(tmp_path, {"number": 1})
    save_training_state(tmp_path, {"number": 2})
    (tmp_path / STATE_FILE).write_bytes(b"half a file")
    assert load_training_state(tmp_path) == {"number": 1}
    (tmp_path / PREVIOUS_STATE_FILE).unlink()
    with pytest.raises(checkpoint.CheckpointError, match="start a new run"):
        load_training_state(tmp_path)


def test_run_killed_before_its_first_saving_begins_again(tmp_path: Path) -> None:
    flags = ("--epochs", "1", "--train-samples", "4")
    quiet = fit(tmp_path / "quiet", *flags)
    killed = fit(tmp_path / "killed", *flags)
    for file in killed.iterdir():
        if file.name != CONFIG_FILE:
            file.unlink()
    assert fit(tmp_path / "killed", "--resume") == killed
    assert compare_runs(quiet, killed) == []


def test_log_that_a_kill_left_out_is_written_by_the_next_start(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = fit(tmp_path, "--epochs", "1", "--train-samples", "4")
    before = read_log(folder)
    (folder / "training_log.csv").unlink()
    fit(tmp_path, "--resume")
    assert read_log(folder) == before and "give a larger --epochs" in capsys.readouterr().out


def test_flags_beside_resume_hold_and_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    older = fit(tmp_path, "--epochs", "1", "--train-samples", "4")
    newest = fit(tmp_path, "--epochs", "1", "--train-samples", "4", "--seed", "5")
    assert newest != older
    os.utime(older / CONFIG_FILE, (1, 1))
    assert fit(tmp_path, "--resume", "--epochs", "3", "--weight-decay", "0.5", "--learning-rate", "1e-5") == newest
    settings = json.loads((newest / CONFIG_FILE).read_text())
    assert (settings["epochs"], settings["seed"], settings["weight_decay"]) == (3, 5, 0.5)
    state = load_training_state(newest)
    assert {g["weight_decay"] for g in state["stage"]["optimizer"]["param_groups"]} == {0.0, 0.5}
    assert len(read_log(newest)) == 3 and float(read_log(newest)[-1]["learning_rate"]) < 1e-5
    assert train.main(["--resume", older.name, "--output", str(tmp_path)]) == 0
    assert str(older) in capsys.readouterr().out


@posix
def test_division_into_batches_may_change_between_epochs_only(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt_at(patch, 5)
        folder = fit(tmp_path, "--epochs", "2", "--train-samples", "8")
    fit(tmp_path, "--resume", "--batch-size", "4", code=2)
    assert "batch_size 2, now 4" in capsys.readouterr().err
    assert json.loads((folder / CONFIG_FILE).read_text())["batch_size"] == 2
    fit(tmp_path, "--resume")
    fit(tmp_path, "--resume", "--batch-size", "4", "--epochs", "3")
    assert [row["step"] for row in read_log(folder)] == ["4", "8", "10"]


@pytest.mark.parametrize(
    "flags, sentence",
    [
        (("--resume", "nowhere"), "nowhere is not a run folder"),
        (("--resume", "--no-use-teacher"), "does not fit these settings"),
        (("--resume", "--epochs", "0"), "epochs is 0"),
    ],
)
def test_what_cannot_resume_says_why(
    flags: tuple, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    fit(tmp_path, "--epochs", "2", "--train-samples", "4")
    fit(tmp_path, *flags, code=2)
    error = capsys.readouterr().err
    assert sentence in error and "Traceback" not in error and error.count("\n") == 1


def test_settings_of_another_version_are_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = fit(tmp_path, "--epochs", "1", "--train-samples", "4")
    path = folder / CONFIG_FILE
    settings = json.loads(path.read_text())
    for text, part in (
        (json.dumps(settings | {"moon_phase": 3}), "moon_phase"),
        (json.dumps(settings | {"epochs": "ten"}), "epochs = 'ten'"),
        ("{", "cannot be read"),
    ):
        path.write_text(text)
        fit(tmp_path, "--resume", code=2)
        error = capsys.readouterr().err
        assert part in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "flags, pretrained",
    [
        ((), True),
        (("--no-use-teacher",), True),
        (("--init-from", "."), True),
        (("--init-from", ".", "--no-pretrained"), False),
        (("--recipe", "fine-tune", "--init-from", "."), False),
    ],
)
def test_fine_tuning_needs_pretrained_weights_for_a_teacher_only(
    flags: tuple, pretrained: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(setup, "build_model", lambda **options: seen.append(options["pretrained"]) or build_tiny())
    monkeypatch.setattr(setup, "build_teacher", lambda network, **options: seen.append(options["pretrained"]))
    monkeypatch.setattr(setup, "load_initial_weights", lambda *_: None)
    for state in (None, {"teacher": None}):
        setup.build_networks(config_from_flags(setup.parse_flags(None, flags)), state)
    assert any(seen) == pretrained and seen[-1] is False


def test_fine_tuning_is_measured_before_its_first_step(tmp_path: Path) -> None:
    first = fit(tmp_path / "first", "--epochs", "1", "--train-samples", "4", "--ema-decay", "0")
    second = fit(
        tmp_path / "second",
        "--epochs",
        "1",
        "--train-samples",
        "4",
        "--init-from",
        str(first),
        "--learning-rate",
        "1e-9",
    )
    rows = read_log(second)
    assert [row["epoch"] for row in rows] == ["0", "1"] and rows[0]["step"] == "0" and rows[0]["loss"] == ""
    name = "val_refined_image_sad"
    assert rows[0][name] == read_log(first)[-1][name]
    groups = load_training_state(second)["stage"]["optimizer"]["param_groups"]
    assert {g["lr_scale"] for g in groups if g["name"].startswith("student")} == {0.25}


def test_a_trained_twinswin_may_get_a_refiner_but_not_lose_one(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    few = ("--epochs", "1", "--train-samples", "4")
    twin = fit(tmp_path / "twin", *few, "--no-use-refiner") / "best.safetensors"
    row = read_log(fit(tmp_path / "tsr", *few, "--init-from", str(twin)))[0]
    assert row["epoch"] == "0"  # smart initialization: before the first step the new refiner changes nothing
    assert row["val_refined_image_sad"] == row["val_coarse_image_sad"]
    tsr = fit(tmp_path / "whole", *few) / "best.safetensors"
    fit(tmp_path / "whole", *few, "--no-use-refiner", "--init-from", str(tsr), code=2)
    assert "use_refiner True, here False" in capsys.readouterr().err


def test_early_stop_and_time_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure, scores = train.validate, iter([3.0, 1.0, 2.0, math.nan, 0.5])
    monkeypatch.setattr(
        train,
        "validate",
        lambda *arguments, **options: measure(*arguments, **options) | {"refined_image_mad": next(scores)},
    )
    folder = fit(tmp_path, "--epochs", "9", "--train-samples", "2", "--early-stop-epochs", "2")
    # five: the teacher's, and four of the student's
    assert len(read_log(folder)) == 5 and "stopped early" in capsys.readouterr().out
    assert checkpoint.read_metadata(folder / "best.safetensors")["scores"]["refined_image_mad"] == 1.0
    folder = fit(tmp_path / "limited", "--epochs", "9", "--train-samples", "8", "--max-hours", "1e-9")
    assert "1 of 4 batches, all saved" in capsys.readouterr().out


def test_photos_that_cannot_be_loaded_end_the_run_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self, key: tuple[int, int]) -> dict:
        raise RuntimeError("8 samples in a row cannot be read.")

    monkeypatch.setattr(SyntheticDataset, "__getitem__", fail)
    for workers in ("0", "1"):
        fit(tmp_path, "--train-samples", "4", "--num-workers", workers, code=1)
        error = capsys.readouterr().err
        assert "8 samples in a row cannot be read" in error and "Traceback" not in error


def test_what_a_full_disk_or_a_broken_photo_costs(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_) -> None:
        raise OSError(28, "No space left on device")

    def broken(*_) -> list:
        raise ValueError("cat.png cannot be read.")

    monkeypatch.setattr(train, "save_training_state", full)
    monkeypatch.setattr(run_report, "preview_rows", broken)
    assert train.main([*FLAGS, "--output", str(tmp_path), "--epochs", "2", "--train-samples", "4"]) == 0
    (folder,) = tmp_path.iterdir()  # no state, so it is no run to resume
    printed = capsys.readouterr().out
    assert "No space left" in printed and "preview could not be made: cat.png" in printed
    assert len(read_log(folder)) == 2


def test_a_best_that_a_full_disk_did_not_keep_is_not_the_best(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure, scores, calls = train.validate, iter([1.0, 3.0, 2.0]), []

    def full_at_first(*arguments, **options) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        checkpoint.save_model(*arguments, **options)

    monkeypatch.setattr("training.checkpoint.save_model", full_at_first)
    monkeypatch.setattr(
        train,
        "validate",
        lambda *arguments, **options: measure(*arguments, **options) | {"refined_image_mad": next(scores)},
    )
    folder = fit(tmp_path, "--epochs", "3", "--train-samples", "2", "--no-use-teacher")
    printed = capsys.readouterr().out
    assert "could not be written (Error while serializing: I/O error: No space left" in printed
    assert printed.count("  best\n") == 2 and len(read_log(folder)) == 3
    assert checkpoint.read_metadata(folder / "best.safetensors")["scores"]["refined_image_mad"] == 2.0
    progress = load_training_state(folder)["progress"]
    assert (progress["best_score"], progress["best_epoch"]) == (2.0, 3)


def test_validation_predicts_in_the_precision_of_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predict, seen = matting.predict_mattes, set()
    monkeypatch.setattr(
        matting,
        "predict_mattes",
        lambda *arguments, precision: seen.add(precision) or predict(*arguments, precision=precision),
    )
    for amp in ("off", "bf16"):
        fit(tmp_path / amp, "--epochs", "1", "--train-samples", "2", "--amp", amp)
    assert seen == {torch.float32, torch.bfloat16}


def test_second_interrupt_stops_at_once_but_not_the_same_one_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT)
    stop = Interrupt()
    assert not stop.wanted()
    with stop.listening():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert stop.wanted()
        monkeypatch.setattr("common.interrupt.IMPATIENT_AFTER", -1.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@posix
def test_interrupt_of_the_whole_process_group_stops_cleanly(tmp_path: Path) -> None:
    """Ctrl-C reaches the loader's workers too: they must not end before the run does."""
    flags = [
        *FLAGS,
        "--num-workers",
        "2",
        "--train-samples",
        "2000",
        "--output",
        str(tmp_path),
        "--epochs",
        "1",
        "--save-every-minutes",
        "1e-9",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.tiny", *flags],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(f"*/{STATE_FILE}")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    printed, error = process.communicate(timeout=120)
    assert process.returncode == 0 and "all saved" in printed and "Traceback" not in error


def test_a_run_is_of_one_process_at_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fit(tmp_path, "--epochs", "1", "--train-samples", "2")
    assert not (folder / LOCK_FILE).exists()
    settings = (folder / CONFIG_FILE).read_bytes()
    for owner in (f"{socket.gethostname()} {os.getppid()}", "another-host 1"):
        (folder / LOCK_FILE).write_text(owner, encoding="utf-8")
        assert train.main(["--resume", str(folder), "--epochs", "2"]) == 2
        said = capsys.readouterr().err
        host, process = owner.split()
        assert f"Process {process} on {host} trains in {folder} now" in said and said.count("\n") == 1
        assert (folder / LOCK_FILE).read_text(encoding="utf-8") == owner  # not taken away by the one refused
        assert (folder / CONFIG_FILE).read_bytes() == settings


@posix
def test_the_lock_of_a_process_that_is_gone_is_taken_over(tmp_path: Path) -> None:
    folder = fit(tmp_path, "--epochs", "1", "--train-samples", "2")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for owner in (f"{socket.gethostname()} {gone.pid}", f"{socket.gethostname()} {10**30}", "", "\0\xff"):
        (folder / LOCK_FILE).write_text(owner, encoding="utf-8")
        fit(tmp_path, "--resume", str(folder))
        assert not (folder / LOCK_FILE).exists()


def test_a_lock_is_there_while_a_run_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, make_step = [], train.train_step

    def look(run: Run, batches: list[dict]) -> None:
        make_step(run, batches)
        seen.append((run.folder / LOCK_FILE).read_text(encoding="utf-8").split())

    monkeypatch.setattr(train, "train_step", look)
    fit(tmp_path, "--epochs", "1", "--train-samples", "2")
    assert seen and all(lock == [socket.gethostname(), str(os.getpid())] for lock in seen)


def wrong_states(state: dict) -> list[dict]:
    """The state with one value of a wrong type, or missing."""
    found: list[dict] = [{**state, name: value} for name in state for value in (5.5, "x")]
    found += [{name: state[name] for name in state if name != missing} for missing in state]
    progress = state["progress"]
    found += [{**state, "progress": {**progress, name: value}} for name in progress for value in (None, [5])]
    ranks = state["ranks"][0]
    found += [{**state, "ranks": [{**ranks, name: value}]} for name in ranks for value in (5, "x")]
    return [*found, {**state, "ranks": [5]}, {**state, "stage": {}}, {**state, "network": {"a": 5}}]


def test_a_state_with_values_of_a_wrong_type_is_refused_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fit(tmp_path, "--epochs", "1", "--train-samples", "2")
    (folder / PREVIOUS_STATE_FILE).unlink(missing_ok=True)
    for state in wrong_states(load_training_state(folder)):
        torch.save(state, folder / STATE_FILE)
        capsys.readouterr()
        assert train.main(["--resume", str(folder)]) == 2, state
        said = capsys.readouterr().err.strip()
        assert str(folder) in said and said.count("\n") == 0, said


@pytest.mark.parametrize("content", ["[" * 100_000, "5", "[]", '{"epochs": "3"}', '{"epochs": null}', '{"dataset": 5}'])
def test_settings_of_a_wrong_type_are_refused_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / CONFIG_FILE).write_text(content, encoding="utf-8")
    assert train.main(["--resume", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err.strip()
    assert CONFIG_FILE in said and said.count("\n") == 0


def test_a_hint_to_resume_can_be_copied(tmp_path: Path) -> None:
    assert shlex.split(resume_hint(tmp_path / "my runs" / "a'b"))[-1] == str(tmp_path / "my runs" / "a'b")


def test_no_more_than_99_runs_of_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: (_ for _ in ()).throw(FileExistsError))
    with pytest.raises(RunError, match="already holds 99 runs of this second"):
        create_run(str(tmp_path), "TSR-Matte")


def test_a_folder_that_cannot_be_written_gives_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fit(tmp_path, "--epochs", "1", "--train-samples", "2")

    def refuse(path: Path) -> None:  # chmod would not stop root
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(setup, "lock", refuse)
    assert train.main(["--resume", str(folder)]) == 2
    assert capsys.readouterr().err.startswith(f"{folder} cannot be used (Read-only file system): ")


def test_a_released_model_s_folder_is_no_run_to_resume(tmp_path: Path) -> None:
    """It has a log but no state: training anew in it would write over the model."""
    released = tmp_path / "starter"
    released.mkdir()
    for name in (CONFIG_FILE, LOG_FILE):
        (released / name).write_text("{}")
    with pytest.raises(RunError, match="holds no run"):
        find_run(str(tmp_path), "")
    with pytest.raises(RunError, match="--init-from"):
        find_run(str(tmp_path), "starter")
    (released / LOG_FILE).unlink()  # killed in its first epoch
    assert find_run(str(tmp_path), "") == released
