"""Non-finite steps and half precision: nothing is lost, nothing is silent."""

from __future__ import annotations

import copy
import math

import pytest
import torch

import train
import training.run
from common.devices import DeviceError, choose_precision
from common.errors import UserError
from losses import matting_losses, weighted
from models import MattingOutput
from models.matting_network import saturating_sigmoid
from models.refiner import uncertainty
from tests.kill_test import differences
from tests.tiny import random_batch, tiny_run, train_on
from training.report import Report

WEIGHTS = dict(bce=1.0, l1=1.0, gradient=1.0, laplacian=0.5, edge=1.0, alignment=0.1)


def poison(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    """Make the loss of the batches to come `value` times what it is."""
    monkeypatch.setattr(
        training.run, "weighted", lambda *given: {name: term * value for name, term in weighted(*given).items()}
    )


def moving_parts(run) -> dict:
    return copy.deepcopy(
        {
            "model": run.network.state_dict(),
            "average": run.average.network.state_dict(),
            "optimizer": run.optimizer.state_dict()["state"],
        }
    )


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_step_that_is_not_finite_moves_nothing(
    precision: torch.dtype, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny_run(precision=precision, ema_decay=0.0, use_teacher=False)
    run.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)  # so that it adds no overflow
    for seed in (0, 1):
        train_on(run, random_batch(seed))
    before = moving_parts(run)
    with monkeypatch.context() as patch:
        poison(patch, value)
        train_on(run, random_batch(2))
    assert differences(before, moving_parts(run)) == []
    assert run.meter.read_bad_steps() == (1, 1)
    assert math.isfinite(run.meter.means()["loss"])  # the epoch's mean survives
    train_on(run, random_batch(3))
    assert run.meter.read_bad_steps() == (1, 0)
    assert differences(before["model"], run.network.state_dict())


def test_gradient_that_is_not_finite_under_a_finite_loss() -> None:
    run = tiny_run(use_teacher=False)
    train_on(run, random_batch(0))
    before = moving_parts(run)
    hook = run.network.decoder.head.bias.register_hook(lambda gradient: gradient * math.inf)
    train_on(run, random_batch(1))
    hook.remove()
    after = moving_parts(run)
    assert differences([before["model"], before["optimizer"]], [after["model"], after["optimizer"]]) == []
    assert run.meter.read_bad_steps() == (1, 1)


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_norm_that_overflows_leaves_finite_weights(clip: float) -> None:
    run = tiny_run(gradient_clip=clip, use_teacher=False)
    run.network.decoder.head.weight.register_hook(lambda gradient: torch.full_like(gradient, 1e30))
    train_on(run, random_batch(0))
    assert all(torch.isfinite(p).all() for p in run.network.parameters())


def test_one_bad_batch_of_a_group_skips_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    run = tiny_run(accumulation_steps=2, use_teacher=False)
    before = copy.deepcopy(run.network.state_dict())
    values = iter([math.nan, 1.0])

    def losses(*given) -> dict:
        value = next(values)
        return {name: term * value for name, term in weighted(*given).items()}

    monkeypatch.setattr(training.run, "weighted", losses)
    train_on(run, random_batch(0), random_batch(1))
    assert differences(before, run.network.state_dict()) == []
    assert run.progress.step == 1


def test_scale_stays_one_without_fp16_and_halves_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, math.nan)
    scales = {}
    for precision in (torch.bfloat16, torch.float16):
        run = tiny_run(precision=precision, use_teacher=False)
        for seed in range(4):
            train_on(run, random_batch(seed))
        scales[precision] = run.scaler.get_scale()
    assert scales == {torch.bfloat16: 1.0, torch.float16: 2.0**12}


def test_run_stops_and_names_the_photos(monkeypatch: pytest.MonkeyPatch) -> None:
    run = tiny_run(batches_per_epoch=20, max_bad_steps=3, use_teacher=False)
    run.loader[:] = [random_batch(seed) for seed in range(20)]

    def losses(*given) -> dict:
        terms = weighted(*given)
        return {name: term * math.nan for name, term in terms.items()} if run.progress.batch >= 4 else terms

    monkeypatch.setattr(training.run, "weighted", losses)
    with pytest.raises(UserError) as stopped:
        train.train_one_epoch(run, Report(run))
    message = str(stopped.value)
    assert message.startswith("3 steps in a row had no finite loss")
    assert all(f"photo_{seed}_{i}" in message for seed in (4, 5, 6) for i in (0, 1)) and "photo_3_0" not in message
    assert "--amp" in message and "data.check" in message


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("truth", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_losses_at_the_extremes_of_half_precision(dtype: torch.dtype, truth: float, sign: float) -> None:
    # bfloat16 ends at 3e38, where a sum of 1024 overflows float32 itself: an honest inf, for the guard
    extreme = min(torch.finfo(dtype).max, 1e30)
    logits = torch.full((1, 1, 32, 32), sign * extreme, dtype=dtype)
    logits[..., ::2] = sign * 20.0  # saturated, and far from the format's end
    logits[..., ::3] = 0.0
    logits.requires_grad_()
    delta = torch.full_like(logits, 0.3).detach().requires_grad_()
    features = [
        torch.full((1, 8, 4, 4), value, dtype=dtype, requires_grad=True)
        for value in (0.0, torch.finfo(dtype).tiny, torch.finfo(torch.float16).max)
    ]
    coarse = saturating_sigmoid(logits)
    refined = (coarse + uncertainty(coarse) * delta).clamp(0.0, 1.0)
    output = MattingOutput(logits, coarse.to(dtype), [refined.to(dtype)], features)
    targets = [-feature.detach() for feature in features]
    terms = matting_losses(output, torch.full((1, 1, 32, 32), truth), WEIGHTS, teacher_features=targets)
    terms = weighted(terms, WEIGHTS)
    assert all(torch.isfinite(term) and term.dtype == torch.float32 for term in terms.values())
    terms["loss"].backward()
    assert all(torch.isfinite(leaf.grad).all() for leaf in (logits, delta, *features))
    wrong = logits.grad[..., logits[0, 0, 0].abs() >= 20.0]
    if truth == (1.0 - sign) / 2:  # saturated at the wrong end: cross-entropy keeps the gradient alive
        assert (wrong.sign() == sign).all()


def test_choice_of_precision() -> None:
    cpu = torch.device("cpu")
    assert choose_precision("off", cpu) == torch.float32
    assert choose_precision("bf16", cpu) == torch.bfloat16
    assert choose_precision("auto", cpu) in (torch.float32, torch.bfloat16)
    with pytest.raises(DeviceError, match="auto, bf16 or off"):
        choose_precision("fp16", cpu)
