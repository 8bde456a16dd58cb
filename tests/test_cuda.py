"""What only a GPU can show: make test-cuda. Skipped where there is none; test_fake_cuda.py goes as far without."""

from __future__ import annotations

import contextlib
import copy
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import train
from config import Config
from experiments.benchmark_memory import STAGES, estimate_peak, fake_batch
from experiments.benchmark_training import build_run
from matting import predict_alpha
from models import build_model
from tests import tiny
from tests.kill_test import compare_runs
from tests.tiny import FLAGS, Batches, use_tiny_networks
from training.run import Run
from training.run_folder import find_run
from training.setup import seed_everything

DEVICE = torch.device("cuda:0")
PRECISIONS = (torch.bfloat16, torch.float16)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU that PyTorch can use")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Undo what a test sets for the whole process."""
    yield
    torch.cuda.set_sync_debug_mode("default")
    seed_everything(0, deterministic=False)


def gpu_run(stage: str, precision: torch.dtype = torch.bfloat16, size: int = 128, **settings) -> Run:
    config = Config(pretrained=False, image_size=size, batch_size=2, epochs=10, drop_path=0.1, **settings)
    return build_run(config, stage, DEVICE, precision, loader=Batches(100))


def drawn_batch(run: Run, seed: int = 0) -> dict:
    """Random pixels, in pinned memory as the loader's are."""
    generator, batch = torch.Generator().manual_seed(seed), fake_batch(run.config)
    for name, highest in (("image", 256), ("alpha", 256), ("unknown", 2)):
        shape = batch[name].shape
        batch[name] = torch.randint(0, highest, shape, generator=generator, dtype=torch.uint8).pin_memory()
    return batch


def steps(run: Run, count: int) -> dict[str, torch.Tensor]:
    """The weights after that many steps."""
    for seed in range(count):
        train.train_step(run, [drawn_batch(run, seed)])
    return copy.deepcopy(run.model.state_dict())


@contextlib.contextmanager
def no_waits() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
@pytest.mark.parametrize("stage", STAGES)
def test_a_step_waits_for_nothing_and_learns(stage: str, precision: torch.dtype) -> None:
    run = gpu_run(stage, precision)
    batches = [drawn_batch(run, seed) for seed in range(6)]
    train.train_step(run, batches[:1])  # the first one makes what later ones use
    with no_waits():
        for batch in batches[1:]:
            train.train_step(run, [batch])
    assert run.meter.read_bad_steps()[0] <= 1 and run.meter.read_loss() > 0  # fp16 may lower its first scale


@pytest.mark.parametrize("stage", STAGES)
def test_deterministic_steps_give_the_same_bits(stage: str) -> None:
    ends = []
    for _ in range(2):
        seed_everything(3, deterministic=True)
        ends.append(steps(gpu_run(stage), 4))
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_checkpointing_saves_memory_and_changes_little() -> None:
    peaks, losses = [], []
    for checkpointing in (False, True):
        run = gpu_run("student", size=256, gradient_checkpointing=checkpointing)
        torch.cuda.reset_peak_memory_stats()
        torch.manual_seed(0)
        steps(run, 2)
        peaks.append(torch.cuda.max_memory_allocated())
        losses.append(run.meter.read_loss())
        del run
        torch.cuda.empty_cache()
    assert peaks[1] < 0.9 * peaks[0]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_compiled_steps_agree_and_wait_for_nothing() -> None:
    losses = []
    for compiled in (False, True):
        run = gpu_run("student", compile=compiled)
        batches = [drawn_batch(run, seed) for seed in range(8)]
        for batch in batches[:4]:  # both sizes of the view
            train.train_step(run, [batch])
        with no_waits():
            for batch in batches[4:]:
                train.train_step(run, [batch])
        losses.append(run.meter.read_loss())
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_resumed_run_is_the_run_that_never_stopped(tmp_path: Path, monkeypatch, precision: str) -> None:
    use_tiny_networks(monkeypatch)
    flags = [*FLAGS, "--device", "cuda", "--amp", precision, "--deterministic", "--train-samples", "8"]
    flags += ["--drop-path", "0.3", "--epochs", "3"]
    assert train.main([*flags, "--output", str(tmp_path / "whole")]) == 0
    monkeypatch.setattr(train, "stops_early", lambda run: run.progress.epoch == 2)
    assert train.main([*flags, "--output", str(tmp_path / "parts")]) == 0
    monkeypatch.undo()
    use_tiny_networks(monkeypatch)
    assert train.main(["--resume", "--output", str(tmp_path / "parts")]) == 0
    assert compare_runs(find_run(str(tmp_path / "whole"), ""), find_run(str(tmp_path / "parts"), "")) == []


def test_two_processes_share_a_gpu(tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    flags = [*FLAGS, "--device", "cuda:0", "--train-samples", "8", "--epochs", "2", "--output", str(tmp_path)]
    command = [*torchrun, "-m", "tests.test_cuda", *flags]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0 and "2 processes" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("size", [(300, 420), (1100, 900)])
def test_predict_agrees_with_the_cpu(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = build_model(backbone="swin_tiny_patch4_window7_224", image_size=256).eval()
    torch.nn.init.normal_(model.refiner.head.weight, std=0.05)
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    on_cpu = predict_alpha(model, image, precision=torch.float32)
    on_gpu = predict_alpha(model.to(DEVICE), image, precision=torch.float32).cpu()
    assert (on_cpu - on_gpu).abs().max() < 2 / 255  # TF32 in the convolutions
    assert (predict_alpha(model, image).cpu() - on_cpu).abs().mean() < 2 / 255  # in half precision


@pytest.mark.parametrize("stage", STAGES)
def test_estimated_memory_is_what_is_measured(stage: str) -> None:
    settings = dict(size=512, max_student_downscale=1)
    run = gpu_run(stage, **settings)
    steps(run, 1)
    torch.cuda.reset_peak_memory_stats()
    train.train_step(run, [drawn_batch(run)])
    measured = torch.cuda.max_memory_allocated()
    config = run.config
    del run
    estimated = estimate_peak(config, stage, torch.bfloat16)
    assert estimated == pytest.approx(measured, rel=0.15)


if __name__ == "__main__":  # test_two_processes_share_a_gpu: nccl refuses two processes on one GPU
    torch.distributed.is_nccl_available = lambda: False
    sys.exit(tiny.main())
