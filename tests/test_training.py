"""training.py and optimization.py: what a step does, on a network of a few thousand weights."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch

from models import build_model
from models.decoder import PRIOR_LOGIT
from tests.tiny import random_batch, tiny_trainer
from training import trainer as training
from training.optimization import learning_rate_at
from training.random_state import seed_everything


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def train(trainer, batches: list[dict]) -> torch.Tensor:
    for batch in batches:
        trainer.train_batch(batch)
    return weights(trainer.model)


def test_accumulated_batches_are_one_larger_batch_and_the_tail_is_not_lost() -> None:
    batches = [random_batch(seed) for seed in range(5)]  # groups of two, and a tail of one
    joined = [
        {key: torch.cat([a[key], b[key]]) if key != "name" else a[key] + b[key] for key in a}
        for a, b in zip(batches[0:4:2], batches[1:4:2], strict=True)
    ] + batches[4:]
    small = tiny_trainer(batches_per_epoch=5, accumulation_steps=2)
    large = tiny_trainer(batches_per_epoch=3, batch_size=4)
    start = weights(small.model)
    ends = train(small, batches), train(large, joined)
    assert small.progress.step == large.progress.step == small.course.steps_per_epoch == 3
    assert (ends[0] - start).abs().max() > 1e-4
    torch.testing.assert_close(*ends, rtol=0, atol=1e-5)


@pytest.mark.parametrize("clip", [0.0, 1e-3])
def test_gradient_clip_bounds_the_norm(clip: float, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, seen = tiny_trainer(gradient_clip=clip), []
    monkeypatch.setattr(
        trainer.optimizer,
        "zero_grad",
        lambda set_to_none=True: seen.append(
            math.sqrt(sum(float(p.grad.square().sum()) for p in trainer.model.parameters() if p.grad is not None))
        ),
    )
    trainer.train_batch(random_batch(0))
    assert seen[0] <= clip * 1.001 if clip else seen[0] > 1e-2


def test_average_follows_its_definition_and_lacks_the_teacher() -> None:
    trainer = tiny_trainer(ema_decay=0.5)
    expected = copy.deepcopy(trainer.model.decoder.state_dict())
    for step in range(4):
        trainer.train_batch(random_batch(step))
        decay = min(0.5, (1 + step) / (10 + step))
        for name, value in trainer.model.decoder.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value
    for name, value in trainer.average.network.decoder.state_dict().items():
        torch.testing.assert_close(value, expected[name])
    assert trainer.average.network.teacher is None and trainer.model.teacher is not None


def test_average_of_decay_zero_is_the_network() -> None:
    trainer = tiny_trainer(ema_decay=0.0)
    trainer.train_batch(random_batch(0))
    for name, value in trainer.average.network.state_dict().items():
        assert torch.equal(value, trainer.model.state_dict()[name])


def test_groups_by_part_and_decay() -> None:
    groups = tiny_trainer(pretrained=True, encoder_lr_scale=0.25, weight_decay=0.1).optimizer.param_groups
    assert {g["name"]: (g["lr_scale"], g["weight_decay"]) for g in groups} == {
        f"{part}{ending}": (scale, decay)
        for part, scale in (("student", 0.25), ("teacher", 0.25), ("decoder", 1.0), ("refiner", 5.0))
        for ending, decay in (("", 0.1), (" without decay", 0.0))
    }
    assert all(p.ndim > 1 for g in groups if g["weight_decay"] for p in g["params"])
    assert {g["lr_scale"] for g in tiny_trainer().optimizer.param_groups} == {1.0, 5.0}  # nothing pretrained
    groups = tiny_trainer(init_from="best.safetensors").optimizer.param_groups  # which holds no teacher
    assert {g["name"]: g["lr_scale"] for g in groups if "decay" not in g["name"]} == {
        "student": 0.25,
        "teacher": 1.0,
        "decoder": 1.0,
        "refiner": 5.0,
    }


def test_relative_position_tables_do_not_decay() -> None:
    from training.optimization import build_optimizer

    model = build_model(backbone="swin_tiny_patch4_window7_224", image_size=32)
    tables = {id(p) for name, p in model.named_parameters() if "relative_position" in name}
    optimizer = build_optimizer(
        model, learning_rate=1.0, student_lr_scale=1.0, teacher_lr_scale=1.0, refiner_lr_scale=1.0, weight_decay=0.1
    )
    undecayed = {id(p) for g in optimizer.param_groups if not g["weight_decay"] for p in g["params"]}
    assert tables and tables <= undecayed


def test_schedules() -> None:
    assert [learning_rate_at(s, 10, 2.0, "constant") for s in (0, 5, 10)] == [2.0] * 3
    cosine = [learning_rate_at(s, 10, 2.0, "cosine") for s in range(12)]
    assert cosine[0] == 2.0 and cosine[5] == pytest.approx(1.01) and cosine[10] == pytest.approx(0.02)
    assert cosine[11] == cosine[10] and cosine[:11] == sorted(cosine[:11], reverse=True)


def test_schedule_keeps_its_course_with_another_number_of_batches() -> None:
    first, second = tiny_trainer(batches_per_epoch=8, epochs=4), tiny_trainer(batches_per_epoch=4, epochs=4)
    for trainer in (first, second):
        trainer.progress.epoch, trainer.progress.step = 2, 16  # made with 8 batches an epoch
    assert first.course.learning_rate == second.course.learning_rate == learning_rate_at(2, 4, 2e-4, "cosine")


def parts_that_move(trainer, *seeds: int) -> set[str]:
    """Which parts of the network an epoch of these batches changes."""
    before = {name: weights(part).clone() for name, part in trainer.model.named_children()}
    trainer.train_one_epoch([random_batch(seed) for seed in seeds], after_step=lambda: False)
    trainer.end_epoch()
    return {name for name, part in trainer.model.named_children() if not torch.equal(weights(part), before[name])}


def test_the_teacher_learns_first_and_the_student_starts_as_it() -> None:
    trainer = tiny_trainer(batches_per_epoch=2, epochs=4, teacher_epochs=2, weight_decay=0.1)
    rates = []
    for epoch in range(2):
        rates.append(trainer.course.learning_rate)
        assert parts_that_move(trainer, 2 * epoch, 2 * epoch + 1) == {"teacher", "decoder"}
    assert trainer.progress.taught == 2 and not trainer.course.teaches
    rates.append(trainer.course.learning_rate)
    assert rates[2] == rates[0] > rates[1]  # each stage has its own schedule
    trainer.enter_stage()
    student, teacher = trainer.model.student.state_dict(), trainer.model.teacher.state_dict()
    shared = [name for name in student if student[name].shape == teacher[name].shape]
    assert len(shared) > len(student) // 2
    for network in (trainer.model, trainer.average.network):
        assert all(torch.equal(network.student.state_dict()[name], teacher[name]) for name in shared)
    assert parts_that_move(trainer, 4, 5) == {"student", "decoder", "refiner"}
    assert parts_that_move(trainer, 6, 7) == {"student", "decoder", "refiner"}


def test_a_trained_student_stays_what_it_is_and_one_epoch_has_no_time_for_a_teacher() -> None:
    trainer = tiny_trainer(batches_per_epoch=1, epochs=2, init_from="best.safetensors")
    before = weights(trainer.model.student).clone()
    assert parts_that_move(trainer, 0) == {"teacher"}  # the decoder reads the trained student: it stays as it is
    trainer.enter_stage()
    assert torch.equal(weights(trainer.model.student), before)
    assert trainer.course.needs_teacher
    quiet = tiny_trainer(batches_per_epoch=1, epochs=2, init_from="best.safetensors", weight_alignment=0.0)
    parts_that_move(quiet, 0)
    assert not quiet.course.needs_teacher  # no loss asks for its features: no work for it
    single = tiny_trainer(batches_per_epoch=1, epochs=1)
    single.train_one_epoch([random_batch(0)], after_step=lambda: False)
    assert "coarse_bce" in single.mean_losses()  # the student's
    assert "alignment" not in single.mean_losses()  # a teacher that has learned nothing has nothing to say


def test_a_student_that_knows_photos_gets_a_decoder_that_knows_nothing() -> None:
    trainer = tiny_trainer(batches_per_epoch=1, epochs=2, backbone_weights="swin.pth")
    student = weights(trainer.model.student).clone()
    assert parts_that_move(trainer, 0) == {"teacher", "decoder"}
    taught = weights(trainer.model.decoder).clone()
    trainer.enter_stage()
    fresh = weights(trainer.model.decoder)
    assert torch.equal(weights(trainer.model.student), student)
    assert not torch.equal(fresh, taught) and trainer.model.decoder.head.bias.item() == PRIOR_LOGIT
    assert torch.equal(weights(trainer.average.network.decoder), fresh)
    assert not any(parameter in trainer.optimizer.state for parameter in trainer.model.decoder.parameters())
    assert parts_that_move(trainer, 1) == {"student", "decoder", "refiner"}


def test_frozen_student_rests_while_the_rest_learns() -> None:
    trainer = tiny_trainer(batches_per_epoch=2, freeze_encoder_epochs=1, teacher_epochs=0, weight_decay=0.1)
    before = {part: weights(getattr(trainer.model, part)) for part in ("student", "teacher", "decoder", "refiner")}
    trainer.train_one_epoch([random_batch(0), random_batch(1)], after_step=lambda: False)
    assert all(parameter.grad is None for parameter in trainer.model.student.parameters())
    moved = {part: not torch.equal(weights(getattr(trainer.model, part)), old) for part, old in before.items()}
    assert moved == {"student": False, "teacher": False, "decoder": True, "refiner": True}
    trainer.end_epoch()
    trainer.train_one_epoch([random_batch(2)], after_step=lambda: False)
    assert not torch.equal(weights(trainer.model.student), before["student"])


def test_a_frozen_encoder_has_no_drop_paths() -> None:
    trainer = tiny_trainer(batches_per_epoch=1, epochs=2, drop_path=0.5, freeze_encoder_epochs=2)
    alpha, features = torch.rand(1, 1, 32, 32), []
    for epoch in range(2):
        trainer.train_one_epoch([random_batch(epoch)], after_step=lambda: False)
        trainer.end_epoch()
        features.append([trainer.model.teacher(alpha)[-1] for _ in range(2)])
    assert not torch.equal(*features[0])  # it still learns
    assert torch.equal(*features[1])
    assert trainer.model.training and not trainer.model.student.training


def test_only_deterministic_kernels_where_they_are_asked_for() -> None:
    seed_everything(0, deterministic=True)
    try:
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()  # a warning would let the kernel run
        train(tiny_trainer(), [random_batch(0)])
    finally:
        seed_everything(0, deterministic=False)


def test_no_step_reads_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = tiny_trainer(accumulation_steps=2)
    for name in ("item", "tolist", "__bool__", "__float__", "__int__"):
        monkeypatch.setattr(torch.Tensor, name, lambda *_, name=name: pytest.fail(f"Tensor.{name} waits for it"))
    for seed in range(4):
        trainer.train_batch(random_batch(seed))


def test_epoch_reads_at_the_log_interval_and_stops_at_a_step_border(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, reads, borders = tiny_trainer(batches_per_epoch=7, accumulation_steps=2, log_interval=2), [], []
    read = trainer.read_device
    monkeypatch.setattr(trainer, "read_device", lambda: (reads.append(trainer.progress.batch), read()))

    def after_step() -> bool:
        borders.append(trainer.progress.batch)
        return len(borders) == 3

    batches = [random_batch(seed) for seed in range(7)]
    assert trainer.train_one_epoch(batches, after_step) is True
    assert borders == [2, 4, 6] and reads == [4]
    assert trainer.train_one_epoch(batches[6:], after_step) is False
    assert borders[3:] == [7] and trainer.progress.step == 4
    assert trainer.mean_losses()["loss"] == pytest.approx(trainer.progress.sums["loss"] / 7)


def test_student_sees_smaller_views_of_some_batches() -> None:
    trainer = tiny_trainer(max_student_downscale=2)
    views = []
    for trainer.progress.batch in range(20):
        view = trainer._student_view(torch.rand(1, 3, 32, 32))
        views.append(None if view is None else tuple(view.shape[-2:]))
    assert set(views) == {None, (16, 16)}


def test_gradient_checkpointing_changes_no_gradient() -> None:
    image, gradients = torch.rand(1, 3, 32, 32), []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = build_model(backbone="swin_tiny_patch4_window7_224", image_size=32, use_refiner=False).train()
        if checkpointing:
            model.student.set_gradient_checkpointing()
        model(image).coarse_logits.square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(*gradients)


def test_processes_share_their_work_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(training.distributed, "world_size", lambda: 2)
    torch.distributed.init_process_group("gloo", init_method=(tmp_path / "store").as_uri(), rank=0, world_size=1)
    try:
        trainer = tiny_trainer()
        assert trainer.network is not trainer.model and not getattr(trainer.network, training.BUFFER_SWITCH)
    finally:
        torch.distributed.destroy_process_group()
    assert not [str(warning.message) for warning in recwarn if "buffers" in str(warning.message)]


def test_compiled_network_trains_alike_and_saves_plain_names(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_network = torch.compile
    # "eager" traces as always but needs no C++ compiler
    monkeypatch.setattr(training.torch, "compile", lambda model: compile_network(model, backend="eager"))
    plain, compiled = tiny_trainer(), tiny_trainer(compile=True)
    assert compiled.network is not compiled.model
    ends = [train(trainer, [random_batch(0), random_batch(1)]) for trainer in (plain, compiled)]
    torch.testing.assert_close(*ends, rtol=0, atol=1e-6)
    assert compiled.state_dict()["model"].keys() == plain.state_dict()["model"].keys()
