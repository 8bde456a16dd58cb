"""Run folders: one process at a time in each, and what cannot be resumed is refused in a sentence."""

from __future__ import annotations

import errno
import os
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import train
from common.errors import UserError
from tests import run_fixtures
from tests.run_fixtures import fit, posix
from training import run_folder, setup
from training.checkpoint import load_training_state
from training.errors import resume_hint
from training.log import LOG_FILE
from training.run import Run
from training.run_folder import CONFIG_FILE, LOCK_FILE, PREVIOUS_STATE_FILE, STATE_FILE, create_run, find_run

tiny = run_fixtures.tiny  # pytest finds fixtures by name in the module


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


@pytest.mark.parametrize(
    "content, words",
    [
        ('{"moon_phase": 3}', "moon_phase"),
        ('{"epochs": "ten"}', "epochs = 'ten'"),
        ('{"epochs": null}', "epochs = None"),
        ('{"dataset": 5}', "dataset = 5"),
        *((content, "cannot be read") for content in ("{", "[" * 100_000, "5", "[]")),
    ],
    ids=lambda text: text[:20],
)
def test_settings_that_this_version_cannot_use_are_named(
    content: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / CONFIG_FILE).write_text(content, encoding="utf-8")
    assert train.main(["--resume", str(tmp_path)]) == 2
    said = capsys.readouterr().err.strip()
    assert CONFIG_FILE in said and words in said and "\n" not in said


@pytest.mark.parametrize("owner", [f"{socket.gethostname()} {os.getppid()}", "another-host 1"])
def test_a_run_is_of_one_process_at_a_time(
    owner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen, make_step = [], train.train_step

    def look(run: Run, batches: list[dict]) -> None:
        make_step(run, batches)
        seen.append((run.folder / LOCK_FILE).read_text(encoding="utf-8").split())

    monkeypatch.setattr(train, "train_step", look)
    folder = fit(tmp_path, "--epochs", "1", "--train-samples", "2")
    assert seen == [[socket.gethostname(), str(os.getpid())]] and not (folder / LOCK_FILE).exists()
    settings = (folder / CONFIG_FILE).read_bytes()
    (folder / LOCK_FILE).write_text(owner, encoding="utf-8")
    assert train.main(["--resume", str(folder), "--epochs", "2"]) == 2
    said = capsys.readouterr().err
    host, process = owner.split()
    assert f"Process {process} on {host} trains in {folder} now" in said and said.count("\n") == 1
    assert (folder / LOCK_FILE).read_text(encoding="utf-8") == owner  # not taken away by the one refused
    assert (folder / CONFIG_FILE).read_bytes() == settings


def test_the_lock_of_another_host_is_taken_over_without_a_sign_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fit(tmp_path, "--epochs", "1", "--train-samples", "2")
    lock = folder / LOCK_FILE
    lock.write_text("another-host 1", encoding="utf-8")
    os.utime(lock, (time.time() - 310,) * 2)
    fit(tmp_path, "--resume", str(folder))
    monkeypatch.setattr(run_folder, "RENEW_SECONDS", 0.01)
    alive = run_folder.Lock(folder)
    os.utime(lock, (0, 0))
    deadline = time.monotonic() + 60
    while lock.stat().st_mtime == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert lock.stat().st_mtime > time.time() - 100
    alive.release()
    assert not lock.exists()


@posix
def test_the_lock_of_a_process_that_is_gone_is_taken_over(tmp_path: Path) -> None:
    folder = fit(tmp_path, "--epochs", "1", "--train-samples", "2")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for owner in (f"{socket.gethostname()} {gone.pid}", f"{socket.gethostname()} {10**30}", "", "\0\xff"):
        (folder / LOCK_FILE).write_text(owner, encoding="utf-8")
        fit(tmp_path, "--resume", str(folder))
        assert not (folder / LOCK_FILE).exists()


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


def test_a_hint_to_resume_can_be_copied(tmp_path: Path) -> None:
    assert shlex.split(resume_hint(tmp_path / "my runs" / "a'b"))[-1] == str(tmp_path / "my runs" / "a'b")


def test_no_more_than_99_runs_of_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: (_ for _ in ()).throw(FileExistsError))
    with pytest.raises(UserError, match="already holds 99 runs of this second"):
        create_run(str(tmp_path), "TSR-Matte")


def test_a_folder_that_cannot_be_written_gives_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fit(tmp_path, "--epochs", "1", "--train-samples", "2")

    def refuse(path: Path) -> None:  # chmod would not stop root
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(setup, "Lock", refuse)
    assert train.main(["--resume", str(folder)]) == 2
    assert capsys.readouterr().err.startswith(f"{folder} cannot be used (Read-only file system): ")


def test_a_released_model_s_folder_is_no_run_to_resume(tmp_path: Path) -> None:
    """It has a log but no state: training anew in it would write over the model."""
    released = tmp_path / "starter"
    released.mkdir()
    for name in (CONFIG_FILE, LOG_FILE):
        (released / name).write_text("{}")
    with pytest.raises(UserError, match="holds no run"):
        find_run(str(tmp_path), "")
    with pytest.raises(UserError, match="--init-from"):
        find_run(str(tmp_path), "starter")
    (released / LOG_FILE).unlink()  # killed in its first epoch
    assert find_run(str(tmp_path), "") == released
