"""train.py's step and epoch, stages, optimizer and average, on networks of a few thousand weights."""

from __future__ import annotations

import copy
import math
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import torch
from timm.models.swin_transformer import SwinTransformerBlock

import train
from common.errors import UserError
from common.interrupt import Stopped
from config import Config
from models import build_model
from models.decoder import PRIOR_LOGIT
from models.encoder import FittedBlock
from models.refiner import DilatedInception
from tests.tiny import random_batch, tiny_run, train_epoch, train_on, weights
from training import run as stages
from training.optimization import build_optimizer, learning_rate_at
from training.report import Report, summary
from training.schedule import STUDENT
from training.setup import seed_everything

NO_TEACHER = dict(use_teacher=False)


def batches(*seeds: int) -> list[dict]:
    return [random_batch(seed) for seed in seeds]


def test_accumulated_batches_are_one_larger_batch_and_the_tail_is_not_lost() -> None:
    small_batches = batches(*range(5))  # groups of two, and a tail of one
    joined = [
        {key: torch.cat([a[key], b[key]]) if key != "name" else a[key] + b[key] for key in a}
        for a, b in zip(small_batches[0:4:2], small_batches[1:4:2], strict=True)
    ] + small_batches[4:]
    # Adam turns a gradient that is rounding alone into a whole step: at a small rate such steps stay below the limit
    rate = dict(learning_rate=2e-5, **NO_TEACHER)
    small = tiny_run(batches_per_epoch=5, accumulation_steps=2, **rate)
    large = tiny_run(batches_per_epoch=3, batch_size=4, **rate)
    start = weights(small.network)
    ends = train_on(small, *small_batches), train_on(large, *joined)
    assert small.progress.step == large.progress.step == small.schedule.steps_per_epoch == 3
    assert (ends[0] - start).abs().max() > 1e-5
    torch.testing.assert_close(*ends, rtol=0, atol=1e-5)


@pytest.mark.parametrize("clip", [0.0, 1e-3])
def test_gradient_clip_bounds_the_norm(clip: float, monkeypatch: pytest.MonkeyPatch) -> None:
    run, seen = tiny_run(gradient_clip=clip, **NO_TEACHER), []
    monkeypatch.setattr(
        run.optimizer,
        "zero_grad",
        lambda set_to_none=True: seen.append(
            math.sqrt(sum(float(p.grad.square().sum()) for p in run.network.parameters() if p.grad is not None))
        ),
    )
    train_on(run, random_batch(0))
    assert seen[0] <= clip * 1.001 if clip else seen[0] > 1e-2


@pytest.mark.parametrize("decay", [0.5, 0.0])
def test_average_follows_its_definition(decay: float) -> None:
    run = tiny_run(ema_decay=decay, **NO_TEACHER)
    expected = copy.deepcopy(run.network.state_dict())
    for step in range(4):
        train_on(run, random_batch(step))
        share = min(decay, (1 + step) / (10 + step))
        expected = {name: share * expected[name] + (1 - share) * v for name, v in run.network.state_dict().items()}
    for name, value in run.average.network.state_dict().items():
        torch.testing.assert_close(value, expected[name])


def test_average_counts_from_the_students_first_step() -> None:
    """After teacher's epochs a decay that had grown there would hold the student's random start for long."""
    run = tiny_run(batches_per_epoch=2, epochs=3, teacher_epochs=1)
    train_epoch(run, *batches(0, 1))
    assert run.average.updates == 0
    train_epoch(run, *batches(2, 3))
    assert run.average.updates == 2


def test_groups_by_part_and_decay() -> None:
    def scales(run) -> dict[str, tuple[float, float]]:
        return {g["name"]: (g["lr_scale"], g["weight_decay"]) for g in run.optimizer.param_groups}

    def expected(**parts: float) -> dict[str, tuple[float, float]]:
        return {
            f"{part}{ending}": (scale, decay)
            for part, scale in parts.items()
            for ending, decay in (("", 0.1), (" without decay", 0.0))
        }

    settings = dict(encoder_lr_scale=0.25, weight_decay=0.1)
    run = tiny_run(pretrained=True, **settings)
    assert scales(run) == expected(encoder=0.25, decoder=1.0)
    run.enter_stage(STUDENT)
    assert scales(run) == expected(student=0.25, decoder=1.0, refiner=5.0)
    assert all(p.ndim > 1 for g in run.optimizer.param_groups if g["weight_decay"] for p in g["params"])
    assert scales(tiny_run(weight_decay=0.1)) == expected(encoder=1.0, decoder=1.0)  # nothing pretrained
    run = tiny_run(init_from="best.safetensors", **settings)  # which holds no teacher
    assert scales(run) == expected(encoder=1.0, decoder=1.0)
    run.enter_stage(STUDENT)
    assert scales(run) == expected(student=0.25, decoder=1.0, refiner=5.0)


def test_the_log_has_the_rate_of_parts_with_scale_1() -> None:
    settings = dict(pretrained=True, encoder_lr_scale=0.0, learning_rate=1e-3, lr_schedule="constant")
    run = tiny_run(**settings)
    train_on(run, random_batch(0))
    assert Report(run).row()["learning_rate"] == 1e-3
    run.progress.batch = 0
    run.enter_stage(STUDENT)
    train_on(run, random_batch(0))
    assert Report(run).row()["learning_rate"] == 1e-3


def test_relative_position_tables_do_not_decay() -> None:
    model = build_model(backbone="swin_tiny_patch4_window7_224", image_size=32)
    tables = {id(p) for name, p in model.named_parameters() if "relative_position" in name}
    optimizer = build_optimizer({"model": model}, learning_rate=1.0, lr_scales={}, weight_decay=0.1)
    undecayed = {id(p) for g in optimizer.param_groups if not g["weight_decay"] for p in g["params"]}
    assert tables and tables <= undecayed


def test_learning_rate_schedules() -> None:
    assert [learning_rate_at(s, 10, 2.0, "constant") for s in (0, 5, 10)] == [2.0] * 3
    cosine = [learning_rate_at(s, 10, 2.0, "cosine") for s in range(12)]
    assert cosine[0] == 2.0 and cosine[5] == pytest.approx(1.01) and cosine[10] == pytest.approx(0.02)
    assert cosine[11] == cosine[10] and cosine[:11] == sorted(cosine[:11], reverse=True)


def test_schedule_ends_where_its_epochs_end_with_another_number_of_batches() -> None:
    runs = [tiny_run(batches_per_epoch=count, epochs=4, **NO_TEACHER) for count in (8, 4)]
    for run in runs:
        run.progress.epoch, run.progress.step = 2, 16  # made with 8 batches per epoch
    assert runs[0].schedule.learning_rate == runs[1].schedule.learning_rate == learning_rate_at(2, 4, 2e-4, "cosine")


def parts_that_move(run, *seeds: int) -> set[str]:
    """Which parts of the two networks an epoch of these batches changes."""
    parts = {"teacher": run.teacher.encoder, "teacher's decoder": run.teacher.decoder} | dict(
        run.network.named_children()
    )
    before = {name: weights(part).clone() for name, part in parts.items()}
    train_epoch(run, *batches(*seeds))
    return {name for name, part in parts.items() if not torch.equal(weights(part), before[name])}


def test_the_teacher_learns_first_and_a_random_student_starts_as_it() -> None:
    run = tiny_run(batches_per_epoch=2, epochs=4, teacher_epochs=2, weight_decay=0.1)
    rates = []
    for epoch in range(2):
        rates.append(run.schedule.learning_rate)
        assert parts_that_move(run, 2 * epoch, 2 * epoch + 1) == {"teacher", "teacher's decoder"}
    assert run.schedule.stage_is_over
    run.enter_stage(STUDENT)
    assert run.schedule.learning_rate == rates[0] > rates[1]  # each stage has its own schedule
    teacher = run.teacher.encoder.state_dict()
    for network in (run.network, run.average.network):
        student = network.student.state_dict()
        shared = [name for name in student if student[name].shape == teacher[name].shape]
        assert len(shared) > len(student) // 2 and all(torch.equal(student[name], teacher[name]) for name in shared)
        assert torch.equal(weights(network.decoder), weights(run.teacher.decoder))
    assert parts_that_move(run, 4, 5) == {"student", "decoder", "refiner"}
    assert parts_that_move(run, 6, 7) == {"student", "decoder", "refiner"}


def test_a_trained_student_keeps_its_weights_and_its_decoder_reads_the_teacher() -> None:
    run = tiny_run(batches_per_epoch=1, epochs=2, init_from="best.safetensors")
    before = weights(run.network).clone()
    assert parts_that_move(run, 0) == {"teacher"}  # the decoder that reads the student is frozen
    run.enter_stage(STUDENT)
    assert torch.equal(weights(run.network), before)
    assert torch.equal(weights(run.teacher.decoder), weights(run.network.decoder))


def test_a_pretrained_student_starts_with_a_new_decoder() -> None:
    run = tiny_run(batches_per_epoch=1, epochs=2, backbone_weights="swin.pth")
    before = weights(run.network).clone()
    assert parts_that_move(run, 0) == {"teacher", "teacher's decoder"}
    run.enter_stage(STUDENT)
    assert torch.equal(weights(run.network), before) and run.network.decoder.head.bias.item() == PRIOR_LOGIT
    assert torch.equal(weights(run.average.network), before)
    assert not run.optimizer.state
    assert parts_that_move(run, 1) == {"student", "decoder", "refiner"}


def test_only_a_trained_teacher_whose_features_a_loss_wants_is_asked() -> None:
    quiet = tiny_run(batches_per_epoch=1, epochs=2, weight_alignment=0.0)
    train_epoch(quiet, *batches(0))
    quiet.teacher.targets = lambda *_: pytest.fail("no loss wants them")
    train_epoch(quiet, *batches(1))
    single = tiny_run(batches_per_epoch=1, epochs=1)  # no time for a teacher
    assert single.teacher is None
    train_on(single, *batches(0))
    assert "coarse_bce" in single.meter.means() and "alignment" not in single.meter.means()


def test_terms_are_named_by_stage() -> None:
    run = tiny_run(batches_per_epoch=1, epochs=2, max_student_downscale=4)
    train_on(run, *batches(0))
    assert set(run.meter.means()) == {"loss", *(f"teacher_{n}" for n in ("bce", "l1", "gradient", "laplacian"))}
    train.close_epoch(run)
    run.enter_stage(STUDENT)
    run.start_epoch()
    for seed in range(8):  # views of 1, 2 and 4 times smaller: with and without octaves below the last
        train_on(run, random_batch(seed))
    alpha_terms = ("l1", "gradient", "laplacian")
    assert set(run.meter.means()) == {"loss", "coarse_bce", "alignment", "refined_edge", "lower_octaves_edge"} | {
        f"{matte}_{term}" for matte in ("coarse", "refined", "lower_octaves") for term in alpha_terms
    }
    assert run.meter.counts["lower_octaves_l1"] < run.meter.counts["refined_l1"] == 8


def test_frozen_student_rests_while_the_rest_learns() -> None:
    run = tiny_run(batches_per_epoch=2, freeze_encoder_epochs=1, weight_decay=0.1, **NO_TEACHER)
    before = {name: weights(part).clone() for name, part in run.network.named_children()}

    def moved() -> dict[str, bool]:
        return {name: not torch.equal(weights(getattr(run.network, name)), old) for name, old in before.items()}

    train_epoch(run, *batches(0, 1))
    assert all(parameter.grad is None for parameter in run.network.student.parameters())
    assert moved() == {"student": False, "decoder": True, "refiner": True}
    train_epoch(run, *batches(2))
    assert moved()["student"]


def test_a_frozen_encoder_has_no_drop_paths() -> None:
    run = tiny_run(batches_per_epoch=1, epochs=2, drop_path=0.5, freeze_encoder_epochs=2)
    alpha, features = torch.rand(1, 1, 32, 32), []
    for epoch in range(2):
        train_epoch(run, *batches(epoch))
        features.append([run.teacher.encoder(alpha)[-1] for _ in range(2)])
    assert not torch.equal(*features[0])  # it still learns
    assert torch.equal(*features[1])
    assert run.network.training and not run.network.student.training


def test_a_part_that_no_loss_looks_at_is_frozen() -> None:
    """DDP would wait for its gradients for ever."""
    quiet = dict(weight_l1=0.0, weight_gradient=0.0, weight_laplacian=0.0, weight_edge=0.0)
    run = tiny_run(**NO_TEACHER, **quiet)
    assert not any(parameter.requires_grad for parameter in run.network.refiner.parameters())
    train_on(run, random_batch(0))
    run = tiny_run(**NO_TEACHER, **(quiet | dict(weight_edge=1.0)))
    assert all(parameter.requires_grad for parameter in run.network.parameters())


def test_only_deterministic_kernels_where_they_are_asked_for() -> None:
    seed_everything(0, deterministic=True)
    try:
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()  # a warning would let the kernel run
        train_on(tiny_run(**NO_TEACHER), random_batch(0))
    finally:
        seed_everything(0, deterministic=False)


@pytest.mark.parametrize("settings", [NO_TEACHER, {}], ids=["student", "teacher"])
def test_no_step_reads_the_device(settings: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tiny_run(accumulation_steps=2, max_student_downscale=4, **settings)
    for name in ("item", "tolist", "__bool__", "__float__", "__int__"):
        monkeypatch.setattr(torch.Tensor, name, lambda *_, name=name: pytest.fail(f"Tensor.{name} waits for it"))
    train_on(run, *batches(*range(8)))


def test_epoch_reads_at_the_log_interval_and_stops_at_a_step_border(monkeypatch: pytest.MonkeyPatch) -> None:
    run, reads = tiny_run(batches_per_epoch=7, accumulation_steps=2, log_interval=2, **NO_TEACHER), []
    check = run.meter.check
    monkeypatch.setattr(run.meter, "check", lambda limit: (reads.append(run.progress.batch), check(limit)))
    monkeypatch.setattr(run.interrupt, "wanted", lambda: run.progress.batch == 6)
    monkeypatch.setattr(train, "save_state", lambda run, required=False: None)
    run.loader[:] = batches(*range(7))
    with pytest.raises(Stopped):
        train.train_one_epoch(run, Report(run))
    assert run.progress.batch == 6 and reads == [4]
    run.loader[:] = run.loader[6:]
    train.train_one_epoch(run, Report(run))
    assert run.progress.step == 4 and run.meter.counts["loss"] == 7


def test_every_kth_epoch_is_validated_and_the_last() -> None:
    run = tiny_run(epochs=6, teacher_epochs=2, validate_every=2, early_stop_epochs=1)
    stages = ["start", "teacher", "teacher", "student", "student", "student", "student"]
    due = [train.validates_after(run, {"epoch": epoch, "stage": stage}) for epoch, stage in enumerate(stages)]
    assert due == [True, False, False, False, True, False, True]
    run.progress.epoch = run.progress.best_epoch = 4
    for run.progress.epoch, row, stops in ((5, {"loss": 1.0}, False), (6, {"val_coarse_image_mad": 1.0}, True)):
        run.progress.rows = [row]
        assert train.stops_early(run) is stops  # only an epoch that was scored can be called no better
    for stage, said in (("student", "not validated"), ("teacher", "teacher")):
        assert summary({"epoch": 3, "stage": stage, "skipped_steps": 0}, 6, False).endswith(said)


def test_student_sees_smaller_views_of_some_batches() -> None:
    for largest, expected in ((1, {1}), (2, {1, 2}), (3, {1, 2}), (4, {1, 2, 4})):
        run, scales = tiny_run(max_student_downscale=largest), set()
        for run.progress.batch in range(40):
            scales.add(train.student_scale(run))
        assert scales == expected


def test_a_larger_crop_leaves_the_student_s_view_and_gives_the_refiner_more_octaves() -> None:
    run = tiny_run(image_size=32, crop_size=128, max_student_downscale=2, use_teacher=False)
    assert run.config.training_size == 128
    sizes = set()
    for run.progress.batch in range(40):
        batch = random_batch(0, side=128)
        terms = run.batch_losses(batch, train.student_scale(run))
        sizes.add(train.student_scale(run))
        assert terms["lower_octaves_l1"] > 0 and terms["refined_l1"] > 0
        if len(sizes) == 2:
            break
    assert sizes == {4, 8}  # views of 32 and 16 pixels
    with pytest.raises(UserError, match="multiple of the working size"):
        Config(image_size=32, crop_size=48)


def test_gradient_checkpointing_changes_no_gradient() -> None:
    image, view, gradients, calls = torch.rand(1, 3, 64, 64), torch.rand(1, 3, 32, 32), [], Counter()
    options = dict(backbone="swin_tiny_patch4_window7_224", image_size=32, drop_path=0.5)
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = build_model(**options).train()
        torch.nn.init.normal_(model.refiner.head.weight, std=0.1)
        if checkpointing:
            model.set_gradient_checkpointing()
            for block in (m for m in model.modules() if isinstance(m, (SwinTransformerBlock, DilatedInception))):
                block.register_forward_pre_hook(lambda block, *_: calls.update([type(block)]))
        output = model(image, view)
        sum(octave.square().mean() for octave in (output.coarse_logits, *output.octaves)).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(*gradients, rtol=0, atol=0)
    # every block by itself and twice, of the last stage too; the refiner's in each of two octaves
    assert calls == {FittedBlock: 2 * 12, DilatedInception: 2 * 3 * 2}


def test_processes_share_a_compiled_network_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(stages.torch, "compile", partial(torch.compile, backend="eager"))
    settings = NO_TEACHER | dict(max_student_downscale=2, accumulation_steps=2)
    plain = train_on(tiny_run(**settings), *batches(*range(4)))
    monkeypatch.setattr(stages, "world_size", lambda: 2)
    torch.distributed.init_process_group("gloo", init_method=(tmp_path / "store").as_uri(), rank=0, world_size=1)
    try:
        run = tiny_run(compile=True, **settings)
        assert isinstance(run.losses, torch.nn.parallel.DistributedDataParallel)
        assert not getattr(run.losses, stages.BUFFER_SWITCH)
        torch.testing.assert_close(train_on(run, *batches(*range(4))), plain, rtol=0, atol=1e-5)
    finally:
        torch.distributed.destroy_process_group()
    assert not [str(warning.message) for warning in recwarn if "buffers" in str(warning.message)]


def test_compiled_network_trains_alike_and_saves_plain_names(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_network = torch.compile
    graphs = []

    def eager(graph: torch.fx.GraphModule, inputs: list) -> torch.fx.GraphModule:  # needs no C++ compiler
        graphs.append([size for x in inputs for size in getattr(x, "shape", [x])])
        return graph

    monkeypatch.setattr(stages.torch, "compile", partial(compile_network, backend=eager))
    settings = NO_TEACHER | dict(max_student_downscale=2, batches_per_epoch=8)
    plain, compiled = tiny_run(**settings), tiny_run(compile=True, **settings)
    assert compiled.losses is not compiled.network
    ends = [train_on(run, *batches(*range(8))) for run in (plain, compiled)]
    torch.testing.assert_close(*ends, rtol=0, atol=1e-5)
    assert not any(isinstance(size, torch.SymInt) for sizes in graphs for size in sizes)
    assert len(graphs) == 2  # one for each size of the view, and no more
    assert compiled.network.state_dict().keys() == plain.network.state_dict().keys()


def test_the_time_left_counts_the_part_of_an_epoch_that_a_resumed_run_has_not_done(monkeypatch) -> None:
    run = tiny_run(batches_per_epoch=4, epochs=4)
    run.progress.batch = 2  # resumed in the middle of the first epoch
    clock = [0.0]
    monkeypatch.setattr("training.report.time.monotonic", lambda: clock[0])
    report = Report(run)
    run.progress.epoch, run.progress.batch, clock[0] = 1, 0, 600.0  # half an epoch in 10 minutes, three are left
    assert report._time_left() == "  about 1 h 00 min left"
