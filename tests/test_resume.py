"""Runs that stop, are killed, and go on: train.py with a network of a few thousand weights."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import train
from common.errors import UserError
from common.files import TEMPORARY_FILES
from common.interrupt import Interrupt
from tests import run_fixtures
from tests.kill_test import compare_runs, differences, kill_test, read_log
from tests.run_fixtures import fit, posix
from tests.tiny import FLAGS
from training.checkpoint import load_training_state, save_training_state
from training.run import Run
from training.run_folder import CONFIG_FILE, PREVIOUS_STATE_FILE, STATE_FILE

tiny = run_fixtures.tiny  # pytest finds fixtures by name in the module


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
    flags = ("--epochs", "2", "--train-samples", "11", "--accumulation-steps", "2", "--drop-path", "0.3")
    flags += ("--log-interval", "2", "--num-workers", workers, *start)
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
        lambda folder, state, keep: (
            saved.append(state["ranks"][0]["meter"]["sums"].get("loss")),
            save_training_state(folder, state, keep),
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
    extra = ("--epochs", "1", "--train-samples", "120", "--val-samples", "1", "--no-use-teacher")
    assert kill_test(3, tmp_path, tiny=True, extra=extra) == []


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
    with pytest.raises(UserError, match="start a new run"):
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


@pytest.fixture
def hears_hangups() -> Iterator[None]:
    """A closed terminal counts, also where the tests themselves run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@posix
@pytest.mark.usefixtures("hears_hangups")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_run_that_waits_for_a_batch_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    explained_batches = train.explained_batches

    def hang(*arguments: object) -> Iterator[dict]:
        yield next(explained_batches(*arguments))
        threading.Timer(0.3, os.kill, (os.getpid(), number)).start()
        time.sleep(60)
        raise AssertionError("the wait went on")

    flags = ("--epochs", "1", "--train-samples", "8")
    quiet = fit(tmp_path / "quiet", *flags)
    with monkeypatch.context() as patch:
        patch.setattr(train, "explained_batches", hang)
        stopped = fit(tmp_path / "stopped", *flags)
    assert load_training_state(stopped)["progress"]["step"] == 1
    fit(tmp_path / "stopped", "--resume")
    assert compare_runs(quiet, stopped) == []


@posix
@pytest.mark.usefixtures("hears_hangups")
def test_a_closed_terminal_stops_but_nohup_goes_on() -> None:
    """The terminal, which is gone then, is written to no more: that would be an error."""
    import pty  # not on Windows

    pid, terminal = pty.fork()
    if not pid:
        stop = Interrupt()
        try:
            with stop.listening():
                os.write(1, b"ready")
                while not stop.wanted():
                    time.sleep(0.01)
                os._exit(os.write(1, b"x") - 1)  # an error, if it were the terminal
        finally:
            os._exit(9)
    assert b"ready" in os.read(terminal, 100)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup
    try:
        stop = Interrupt()
        with stop.listening():
            signal.raise_signal(signal.SIGHUP)
        assert not stop.wanted()
    finally:
        signal.signal(signal.SIGHUP, before)


@posix
def test_interrupt_of_the_whole_process_group_stops_cleanly(tmp_path: Path) -> None:
    """Ctrl-C reaches the loader's workers too: they must not end before the run does."""
    flags = [*FLAGS, "--num-workers", "2", "--train-samples", "2000", "--epochs", "1", "--save-every-minutes", "1e-9"]
    command = [sys.executable, "-m", "tests.tiny", *flags, "--output", str(tmp_path)]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process = subprocess.Popen(command, start_new_session=True, **pipes)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(f"*/{STATE_FILE}")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    printed, error = process.communicate(timeout=120)
    assert process.returncode == 0 and "all saved" in printed and "Traceback" not in error
