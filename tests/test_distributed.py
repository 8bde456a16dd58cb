"""torchrun with two gloo processes on the CPU: train.py with a network of a few thousand weights."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import train
import training.run
from common import distributed
from data.synthetic.dataset import SyntheticDataset
from evaluation import validation
from tests import run_fixtures
from tests.kill_test import read_log
from tests.run_fixtures import fit
from tests.tiny import FLAGS, build_tiny, build_tiny_teacher, random_batch, tiny_run, train_on
from training import setup
from training.checkpoint import load_training_state
from training.run_folder import find_run
from training.schedule import STUDENT

tiny = run_fixtures.tiny  # pytest finds fixtures by name in the module

# Adam turns a gradient that is rounding alone into a whole step: at a small rate such steps stay below the limit
FEW = ["--train-samples", "43", "--val-samples", "3", "--amp", "off"]
FEW += ["--weight-alignment", "0.1", "--learning-rate", "2e-5"]


def launch(*flags: str, processes: int = 2) -> subprocess.Popen:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return subprocess.Popen(
        [*torchrun, "-m", "tests.tiny", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_two_processes_are_one_with_the_same_global_batch(
    tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    seed = fit(tmp_path / "seed", "--train-samples", "4", "--epochs", "1", "--amp", "off")
    flags = [*FEW, "--epochs", "1", "--init-from", str(seed / "best.safetensors")]

    process = launch(
        *FLAGS, *flags, "--output", str(tmp_path / "two")
    )  # 43 samples: 10 steps of 2 x 2, and 3 photos left over
    single = fit(tmp_path / "one", *flags, "--batch-size", "4")
    printed = process.communicate(timeout=240)[0]
    assert process.returncode == 0, printed
    two = find_run(str(tmp_path / "two"), "")
    assert "effective batch 4 (2 per process x 1 accumulated x 2 processes)" in printed
    assert printed.count("epoch 1/1") == 1 and len(list((tmp_path / "two").iterdir())) == 1  # rank 0 alone

    states = [load_training_state(folder) for folder in (single, two)]
    assert [state["progress"]["step"] for state in states] == [10, 10]
    for part in ("network", "average"):
        distance = max((states[0][part][name] - states[1][part][name]).abs().max().item() for name in states[0][part])
        assert distance < 1e-5, f"largest difference of the {part}'s weights after 10 steps: {distance:.1e}"
    before, after = zip(*(read_log(folder) for folder in (single, two)), strict=True)
    assert before[0]["epoch"] == "0" and all(  # the same weights, photos shared over the ranks: the same totals
        before[0][name] == before[1][name] for name in before[0] if name.startswith("val_")
    )
    assert float(after[0]["loss"]) == pytest.approx(float(after[1]["loss"]), rel=1e-4)

    # another number of processes takes over at the epoch's end
    capsys.readouterr()
    assert fit(tmp_path / "two", "--resume", "--epochs", "2") == two
    assert "Resumes after 1 epochs" in capsys.readouterr().out
    assert [row["step"] for row in read_log(two)] == ["0", "10", "31"]


@pytest.mark.parametrize(
    "settings",
    [
        *({f"weight_{name}": 0.0} for name in ("bce", "l1", "gradient", "laplacian", "edge", "alignment")),
        {"weight_gradient": 0.0, "use_refiner": False},
        {"weight_l1": 0.0, "weight_gradient": 0.0, "weight_laplacian": 0.0, "weight_edge": 0.0},  # nothing refined
    ],
    ids=lambda settings: " ".join(settings),
)
def test_two_processes_train_the_loss_of_one_with_each_weight_at_zero(settings: dict, two_ranks: list) -> None:
    """Both stages; each rank has half of every batch. The mean of their losses is the loss of one process."""
    alone = losses_of_both_stages(settings)
    together = [rank_losses[json.dumps(settings)] for rank_losses in two_ranks]
    for stage in range(2):
        assert alone[stage].keys() == together[0][stage].keys()
        for name, value in alone[stage].items():
            assert value == pytest.approx(together[0][stage][name], rel=1e-3, abs=1e-5), (stage, name)
            assert together[0][stage][name] == together[1][stage][name]


def losses_of_both_stages(settings: dict) -> list[dict[str, float]]:
    """Mean loss terms of the teacher's epoch and the student's, each of two steps on four photos per step."""
    share = slice(distributed.rank(), None, distributed.world_size())
    run = tiny_run(
        batches_per_epoch=2, epochs=2, max_student_downscale=2, learning_rate=1e-5, gradient_clip=0.0, **settings
    )
    found = []
    for epoch in range(2):
        if epoch:
            run.enter_stage(STUDENT)
        run.start_epoch()
        train_on(run, *({name: v[share] for name, v in random_batch(2 * epoch + i, 4).items()} for i in range(2)))
        found.append(run.meter.means())
        train.close_epoch(run)
    return found


RANK_SCRIPT = """
import json, sys
from common import distributed
from tests.test_distributed import losses_of_both_stages
distributed.setup()
found = {settings: losses_of_both_stages(json.loads(settings)) for settings in sys.argv[2:]}
with open(f"{sys.argv[1]}/{distributed.rank()}.json", "w") as file:
    json.dump(found, file)
distributed.shutdown()
"""


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What each of two processes found for all settings: one start of the processes serves them all."""
    mark = test_two_processes_train_the_loss_of_one_with_each_weight_at_zero.pytestmark[0]
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "rank.py").write_text(RANK_SCRIPT, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(
        [*command, str(folder / "rank.py"), str(folder), *map(json.dumps, mark.args[1])],
        capture_output=True,
        text=True,
        env=environment,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def child_with_rank(parent: int, rank: int) -> int | None:
    """Process id of torchrun's child with this rank, by Linux's /proc."""
    for task in Path(f"/proc/{parent}/task").iterdir():
        for child in (task / "children").read_text().split():
            if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
                return int(child)
    return None


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the processes by Linux's /proc")
def test_a_rank_that_dies_ends_the_job_within_a_minute(tmp_path: Path) -> None:
    process = launch(*FLAGS, "--train-samples", "4000", "--save-every-minutes", "1e-9", "--output", str(tmp_path))
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("*/last.pt")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(child_with_rank(process.pid, 1), signal.SIGKILL)
    start = time.monotonic()
    printed = process.communicate(timeout=60)[0]
    print(f"the job was over {time.monotonic() - start:.1f} s after the death of rank 1")
    assert process.returncode != 0
    assert "Process 0 stops, since another process of this run is gone or silent" in printed
    assert "resume with --resume" in printed


FAILING = {  # where rank 1 fails: what to replace by an error
    "data": (SyntheticDataset, "__getitem__"),
    "forward": (training.run, "weighted"),
    "backward": (torch.Tensor, "backward"),
    "validation": (validation, "validate_sets"),
    "saving": (train, "capture"),
}
NEVER = 3600  # seconds


def train_with_a_failure(rank: int, where: str, port: int, folder: Path) -> None:
    """A process that fails if it is rank 1. Rank 0 then waits in its next collective for ever, as under NCCL."""
    os.environ |= dict(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
    os.environ |= dict(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    sys.stderr = open(folder / f"{rank}.txt", "w")  # noqa: SIM115 (the process keeps it)
    failed = folder / "failed"

    def fail(*_: object, **__: object) -> None:
        failed.touch()
        raise RuntimeError(f"planted in {where}")

    def wait_for_ever(*_: object, **__: object) -> None:
        while not failed.exists():
            time.sleep(0.01)
        time.sleep(NEVER)

    setup.build_model, setup.build_teacher = build_tiny, build_tiny_teacher
    setattr(*FAILING[where], fail if rank else wait_for_ever)
    torch.distributed.destroy_process_group = lambda: time.sleep(NEVER)  # NCCL's waits for the others
    os._exit(train.main([*FLAGS, "--train-samples", "8", "--epochs", "1", "--output", str(folder)]))


def fail_in_each(output: Path) -> None:
    """Of each place: seconds from the failure to the end of rank 1, its exit code, and whether rank 0 still waits."""
    fork = multiprocessing.get_context("fork")
    for where in FAILING:
        folder, port = output / where, free_port()
        folder.mkdir()
        ranks = [fork.Process(target=train_with_a_failure, args=(rank, where, port, folder)) for rank in range(2)]
        for process in ranks:
            process.start()
        while not (folder / "failed").exists() and ranks[1].is_alive():
            time.sleep(0.01)
        failed = time.monotonic()
        ranks[1].join(30)
        found = [time.monotonic() - failed, ranks[1].exitcode, ranks[0].is_alive()]
        (folder / "found.json").write_text(json.dumps(found))
        for process in ranks:
            process.kill()  # as torchrun does when one has ended
            process.join()


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What fail_in_each found, in a process that has no threads yet: they would be missing after a fork."""
    folder = tmp_path_factory.mktemp("failures")
    script = "import sys, pathlib, tests.test_distributed as t; t.fail_in_each(pathlib.Path(sys.argv[1]))"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", script, str(folder)], check=True, timeout=400, env=environment)
    return folder


@pytest.mark.skipif(os.name == "nt", reason="forks")
@pytest.mark.parametrize("where", FAILING)
def test_an_error_on_one_rank_ends_it_at_once_while_the_other_waits_for_ever(where: str, failures: Path) -> None:
    seconds, code, other_waits = json.loads((failures / where / "found.json").read_text())
    print(f"{where}: {seconds:.1f} s")
    assert seconds < 10 and code == 1 and other_waits
    assert f"planted in {where}" in (failures / where / "1.txt").read_text()


@pytest.mark.parametrize(
    ("patience", "environment", "minutes"),
    [
        ((), None, 30),
        ((distributed.LONG_PATIENCE_MINUTES,), None, 7 * 24 * 60),
        ((), "0.5", 0.5),
        ((distributed.LONG_PATIENCE_MINUTES,), "0.5", 0.5),
    ],
)
def test_a_rank_waits_as_long_as_is_asked_and_the_environment_wins(
    monkeypatch: pytest.MonkeyPatch, patience: tuple, environment: str | None, minutes: float
) -> None:
    asked = {}
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda backend, **options: asked.update(options))
    if environment is None:
        monkeypatch.delenv(distributed.TIMEOUT_MINUTES, raising=False)
    else:
        monkeypatch.setenv(distributed.TIMEOUT_MINUTES, environment)
    distributed.setup(None, *patience)
    assert asked["timeout"].total_seconds() == 60 * minutes


PATIENT = """
import os, signal, time
from common import distributed
distributed.setup(None, distributed.LONG_PATIENCE_MINUTES)
print(distributed.broadcast_object("together"), flush=True)
if distributed.rank() == 1:
    time.sleep(0.5)  # the other waits by now
    os.kill(os.getpid(), signal.SIGKILL)
try:
    distributed.all_gather_objects([1])
except RuntimeError as error:
    print("noticed" if distributed.is_lost_peer(error) else f"not known as a lost peer: {error}", flush=True)
os._exit(7)  # past the destructors of gloo's threads, which may abort by now
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_long_patience_is_none_with_the_dead() -> None:
    """By itself: torchrun, which would end the other process anyway, is not there."""
    port = str(free_port())
    alone = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    alone.pop(distributed.TIMEOUT_MINUTES, None)
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", PATIENT],
            env={**alone, "RANK": str(rank)},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank in range(2)
    ]
    printed = [rank.communicate(timeout=240)[0] for rank in ranks]
    assert all("together" in text for text in printed) and "noticed" in printed[0], printed
    assert [rank.returncode for rank in ranks] == [7, -signal.SIGKILL]


def test_alone_every_function_is_that_of_one_process() -> None:
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    assert distributed.any_rank([True, False]) == [True, False]
    assert distributed.all_gather_objects([1, 2]) == [1, 2] and distributed.broadcast_object("a") == "a"
    assert torch.equal(distributed.mean_over_ranks(torch.tensor([3.0])), torch.tensor([3.0]))
    assert not distributed.is_lost_peer(RuntimeError("gloo"))
