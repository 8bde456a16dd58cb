"""The step that is tried before the first epoch: what it says of a batch that cannot fit; it leaves no trace."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

import train
import training.run
from common.errors import UserError
from tests.kill_test import differences
from tests.tiny import FLAGS, random_batch, tiny_run, train_on, use_tiny_networks
from training.checkpoint import random_state
from training.run import Run
from training.schedule import TEACHER
from training.trial import check_memory

OUT_OF_MEMORY = {
    "torch": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    "cudnn": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "mps": RuntimeError("MPS backend out of memory (MPS allocated: 17.00 GB, max allowed: 18.13 GB)."),
}


def limit_memory(monkeypatch: pytest.MonkeyPatch, largest: int, error: Exception) -> list[int]:
    """Let losses of a batch above `largest` run out of memory; the batch sizes that were tried."""
    tried, losses = [], training.run.matting_losses

    def limited(output: Any, alpha: torch.Tensor, *arguments: Any) -> dict[str, torch.Tensor]:
        tried.append(len(alpha))
        if len(alpha) > largest:
            raise error
        return losses(output, alpha, *arguments)

    monkeypatch.setattr(training.run, "matting_losses", limited)
    return tried


@pytest.mark.parametrize("form", OUT_OF_MEMORY)
def test_a_batch_that_cannot_fit_is_named_with_one_that_does(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tiny_run(epochs=3, batch_size=12, accumulation_steps=2)
    assert run.progress.stage == TEACHER  # which fits: the student's stage is tried all the same
    tried = limit_memory(monkeypatch, 4, OUT_OF_MEMORY[form])
    with pytest.raises(UserError, match=r"A batch of 12 .* --batch-size 3 --accumulation-steps 8.*-checkpointing"):
        check_memory(run)
    assert tried == [12, 6, 3, 3]  # two where batches accumulate: the second has the first one's gradients too


def test_a_photo_that_cannot_fit_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    limit_memory(monkeypatch, 0, OUT_OF_MEMORY["torch"])
    run = tiny_run(batch_size=4, gradient_checkpointing=True)
    with pytest.raises(UserError, match="Not even a batch of 1 .*: try a smaller --image-size"):
        check_memory(run)


def test_another_error_is_not_taken_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    limit_memory(monkeypatch, 0, RuntimeError("a fault of the program"))
    with pytest.raises(RuntimeError, match="a fault"):
        check_memory(tiny_run())


@pytest.mark.parametrize("settings", [dict(use_teacher=False), {}, dict(accumulation_steps=2)], ids=str)
def test_a_run_after_the_trial_is_the_run_without_it(settings: dict[str, Any]) -> None:
    def trained(with_trial: bool) -> Run:
        run = tiny_run(drop_path=0.5, max_student_downscale=2, **settings)
        torch.manual_seed(7)
        if with_trial:
            state = copy.deepcopy((run.network.state_dict(), random_state(run.device)))
            check_memory(run)
            assert differences(state, (run.network.state_dict(), random_state(run.device))) == []
            assert all(parameter.grad is None for parameter in run.network.parameters())
            assert run.progress.step == run.progress.batch == 0 and (run.progress.stage == TEACHER) == bool(run.teacher)
        run.start_epoch()
        train_on(run, *(random_batch(seed) for seed in range(4)))
        return run

    parts = [(run.model.state_dict(), run.optimizer.state_dict()["state"]) for run in map(trained, (0, 1))]
    assert differences(*parts) == []


def test_train_says_it_before_it_makes_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    use_tiny_networks(monkeypatch)
    monkeypatch.setattr(train, "TRIED_ON", ("cpu",))
    limit_memory(monkeypatch, 2, OUT_OF_MEMORY["torch"])
    flags = [*FLAGS, "--output", str(tmp_path / "runs"), "--batch-size", "8", "--epochs", "3"]
    assert train.main(flags) == 2
    told = capsys.readouterr().err.strip()
    assert told.startswith("A batch of 8 does not fit") and "--batch-size 2 --accumulation-steps 4" in told
    assert len(told.splitlines()) == 1 and not (tmp_path / "runs").exists()
