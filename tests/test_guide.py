"""The guide: it pulls the student's features, needs no mask, stays frozen, and is in nothing that is shipped."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from common.errors import UserError
from models.checkpoint import MODEL_FILE
from models.guide import Guide
from tests import run_fixtures
from tests.kill_test import compare_runs
from tests.run_fixtures import fit, posix
from tests.test_resume import interrupt_at
from tests.tiny import CHANNELS, random_batch, tiny_run, train_on, weights
from training.schedule import STUDENT

NAME = "mobilenetv3_small_050"

tiny = run_fixtures.tiny  # pytest finds fixtures by name in the module


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Weights as the hub has them, of a network that has seen nothing."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("guide") / "guide.safetensors"
    save_file(timm.create_model(NAME).state_dict(), path)
    return str(path)


def guided_run(file: str, **settings):
    run = tiny_run(use_teacher=False, use_refiner=False, guide=NAME, guide_weights=file, **settings)
    run.guide = Guide(NAME, CHANNELS, weights_file=file)
    run.enter_stage(STUDENT)
    run.start_epoch()
    return run


def test_the_students_features_come_to_say_what_the_guides_say(file: str) -> None:
    run = guided_run(file, learning_rate=1e-2, lr_schedule="constant")
    losses = []
    for _ in range(30):
        train_on(run, random_batch(0))
        losses.append(run.meter.means()["guide"])
        run.reset_meter()
    assert losses[-1] < 0.7 * losses[0]


def test_the_guide_stays_frozen_and_its_projections_learn(file: str) -> None:
    run = guided_run(file)
    network = {name: value.clone() for name, value in run.guide.network.state_dict().items()}
    projections = weights(run.guide.projections)
    train_on(run, random_batch(0), random_batch(1))
    assert all(torch.equal(value, network[name]) for name, value in run.guide.network.state_dict().items())
    assert not torch.equal(weights(run.guide.projections), projections)


def test_a_photo_without_a_mask_teaches_by_the_guide_alone(file: str) -> None:
    run = guided_run(file)
    batch = random_batch(0)
    batch["unknown"] = torch.ones_like(batch["unknown"])
    terms = run.batch_losses(batch, scale=1)
    assert all(value == 0 for name, value in terms.items() if name not in ("loss", "guide")) and terms["guide"] > 0
    terms["loss"].backward()
    assert run.network.student.stages[0].weight.grad.abs().sum() > 0


@posix
def test_a_stopped_run_ends_as_one_that_was_not_and_ships_nothing_of_the_guide(
    file: str, tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--epochs", "2", "--train-samples", "6", "--no-use-teacher", "--guide", NAME, "--guide-weights", file)
    quiet = fit(tmp_path / "quiet", *flags)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2)
        fit(tmp_path / "stopped", *flags)
    fit(tmp_path / "stopped", "--resume", "--guide-weights", "")  # the state holds them
    assert compare_runs(quiet, fit_folder(tmp_path / "stopped")) == []
    names = load_file(quiet / MODEL_FILE).keys()
    assert names and all(name.split(".")[0] in ("student", "decoder", "refiner") for name in names)


def fit_folder(output: Path) -> Path:
    return next(path for path in output.iterdir() if path.is_dir())


@pytest.mark.parametrize("name", ["no_network", "vit_tiny_patch16_224"])
def test_a_network_that_cannot_guide_is_one_sentence(name: str) -> None:
    with pytest.raises(UserError, match=f"{name}.*--guide"):
        Guide(name, CHANNELS)


def test_weights_of_another_network_are_one_sentence(file: str) -> None:
    with pytest.raises(UserError, match="lacks .* weights of resnet10t"):
        Guide("resnet10t", CHANNELS, weights_file=file)
