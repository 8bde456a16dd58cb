"""Everything before the first step: flags, device, data, networks, a saved state, the run folder."""

from __future__ import annotations

import argparse
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from common import distributed
from common.devices import choose_device, choose_precision, describe
from common.errors import UserError
from common.processes import is_main, own_cores, print_once, rank, world_size
from config import Config
from data.augmentation import Augmentation
from data.build import SYNTHETIC, build_training_set, build_validation_sets, parse_source
from data.loader import build_training_loader
from models import MattingNetwork, build_model, build_teacher
from models.checkpoint import MODEL_FILE, find_model, load_weights, read_metadata
from training.flags import config_from_dict, config_from_flags
from training.recipes import RECIPES
from training.report import require_tensorboard
from training.run import Networks, Run
from training.run_folder import Lock, create_run, find_run, read_settings, remove_leftovers, write_settings

REFINER_OPTIONS = ("use_refiner", "refiner_channels", "refiner_blocks", "use_colours", "use_attention", "use_octaves")


def choose_settings(flags: argparse.Namespace) -> tuple[Config, Path | None]:
    """The settings that the flags ask for, and the folder of the run to resume, if any. Raises UserError."""
    if flags.resume is None:
        keep_working_size(flags)
        return config_from_flags(flags), None
    folder = find_run(getattr(flags, "output", Config().output), flags.resume)
    return config_from_flags(flags, config_from_dict(*read_settings(folder))), folder


def start_process(config: Config, resumed: Path | None) -> tuple[torch.device, torch.dtype]:
    """This process's device and precision, its place among torchrun's processes, and its seed. Raises UserError."""
    device = choose_device(config.device)
    precision = choose_precision(config.amp, device)
    distributed.setup(device)
    if distributed.broadcast_object(str(resumed)) != str(resumed):  # another run wrote while the processes started
        raise UserError(f"The processes found different newest runs, one of them {resumed}: name the run to resume.")
    if config.tensorboard:
        require_tensorboard()
    seed_everything(config.seed, config.deterministic)
    return device, precision


def seed_everything(seed: int, deterministic: bool) -> None:
    """Seed Python, NumPy and torch; deterministic also restricts torch to kernels that give the same bits each time.

    Non-deterministic kernels then raise an error. With a warning only, CUDA attention would still pick one.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first CUDA handle is made
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic


def keep_working_size(flags: argparse.Namespace) -> None:
    """With --init-from, unless an image size is given, the checkpoint's: at another size a network finds less."""
    settings = vars(Config()) | RECIPES.get(getattr(flags, "recipe", ""), {}) | vars(flags)
    checkpoint = find_model(Path(settings["init_from"]), settings["output"]) if settings["init_from"] else None
    if checkpoint and not settings["image_size"] and os.path.isfile(checkpoint):  # if not: load_initial_weights says so
        flags.image_size = read_metadata(checkpoint)["model"]["image_size"]


def build_data(config: Config, device: torch.device) -> tuple[DataLoader, dict[str, Dataset]]:
    """The loader of this process's share of the training set, and the validation sets by name. Raises UserError."""
    settings = Augmentation(config.training_size, scale=(config.crop_scale_min, config.crop_scale_max))
    training_set = build_training_set(
        config.dataset,
        settings=settings,
        samples=config.train_samples,
        seed=config.seed,
        foregrounds=config.foregrounds,
        backgrounds=config.backgrounds,
    )
    loader = build_training_loader(
        training_set,
        config.batch_size,
        loader_workers(config, device),
        config.seed,
        rank(),
        world_size(),
        pin_memory=device.type == "cuda",
    )
    return loader, build_validation_sets(
        config.dataset, image_size=config.working_size, samples=config.val_samples, seed=config.seed
    )


def check_dataset(config: Config) -> None:
    """The cheap part of data.check, before a day is spent on a broken set. Raises UserError."""
    from data.quick_check import quick_check  # a resumed run has no use for it

    folders = [path for path, _ in map(parse_source, config.dataset) if path != SYNTHETIC and Path(path).is_dir()]
    found = [quick_check(folder) for folder in folders] if is_main() and config.check_data else []
    for findings in found:
        for sentence in filter(None, [findings.scope, *(f"WARNING: {warning}" for warning in findings.warnings)]):
            print_once(sentence)
    errors = distributed.broadcast_object([error for findings in found for error in findings.errors])
    if errors:
        raise UserError("\n".join(errors))


def build_networks(config: Config, state: dict[str, Any] | None = None) -> Networks:
    """The network, where the run has a first stage its teacher, and its guide, if any, with their first weights.

    With a saved state no weights need to be loaded or downloaded.
    """
    fresh = state is None
    weights = config.backbone_weights if fresh else None
    start: dict[str, Any] = dict(drop_path=config.drop_path, backbone_weights=weights)
    network = build_model(
        **config.model_options,
        **start,
        smart_init=config.smart_init,
        pretrained=config.pretrained and fresh and not config.init_from,
    )
    if config.init_from and fresh:
        load_initial_weights(network, find_model(Path(config.init_from), config.output), config.model_options)
    has_teacher = bool(state.get("teacher")) if state else config.first_stage_epochs > 0
    teacher = None
    if has_teacher and config.use_teacher:
        # no checkpoint holds a teacher: it needs ImageNet weights even where --init-from gives the student's
        start |= dict(backbone=config.variant.backbone, pretrained=config.pretrained and fresh)
        teacher = build_teacher(network, **start)
    if config.gradient_checkpointing:
        network.set_gradient_checkpointing()
        if teacher:
            teacher.encoder.set_gradient_checkpointing()
    guide = None
    if config.guide:
        from models.guide import Guide

        guide = Guide(config.guide, network.student.channels, weights_file=config.guide_weights, pretrained=fresh)
    return Networks(network, teacher, guide)


def load_initial_weights(network: MattingNetwork, checkpoint: Path, options: dict[str, Any]) -> None:
    """Weights of another training, for fine-tuning: a TwinSwin-Matte may get a new refiner. Raises UserError."""
    if not os.path.isfile(checkpoint):
        raise UserError(f"{checkpoint} does not exist: name a {MODEL_FILE}, or its run folder, with --init-from.")
    trained = read_metadata(checkpoint)["model"]
    adds_refiner = options["use_refiner"] and not trained.get("use_refiner", True)
    free = ("image_size", *(REFINER_OPTIONS if adds_refiner else ()))
    other = [
        f"{name} {trained[name]}, here {value}"
        for name, value in options.items()
        if name in trained and name not in free and trained[name] != value
    ]
    if other:
        raise UserError(
            f"{checkpoint} was trained with {'; '.join(other)}: give the flags that it was trained "
            "with (its run folder's config.json has them)."
        )
    try:
        load_weights(network, checkpoint, fresh=("refiner.",) if adds_refiner else ())
    except RuntimeError as error:
        raise UserError(
            f"{checkpoint} does not fit this network ({str(error).splitlines()[0]}): use the file as train.py wrote it."
        ) from error


def open_folder(run: Run, resumed: Path | None) -> None:
    """The run's folder, made or tidied by rank 0; its config.json holds the settings that the run has from now on."""
    config = run.config
    outcome: Path | Exception | None = None
    if is_main():
        try:
            name = "_".join(filter(None, (config.method, config.variant.name, config.tag)))
            outcome = resumed or create_run(config.output, name)
            run.lock = Lock(outcome)
            remove_leftovers(outcome)
            write_settings(outcome, config.as_dict())
        except (UserError, OSError) as error:  # the other ranks wait for it
            outcome = error
    outcome = distributed.broadcast_object(outcome)
    if isinstance(outcome, Exception):
        raise outcome
    run.folder = outcome


def announce(run: Run) -> None:
    config, progress, schedule, processes = run.config, run.progress, run.schedule, world_size()
    photos = sum(len(dataset) for dataset in run.validation.values())
    teacher = f", the first {config.first_stage_epochs} epochs the teacher's" if config.first_stage_epochs else ""
    print_once(
        f"{run.folder}\n{config.method} {config.variant.name} at {config.working_size} px on {processes} x "
        f"{describe(run.device)}, {str(run.precision).removeprefix('torch.')}\n"
        f"{len(run.loader.dataset)} training and {photos} validation photos; effective batch "  # type: ignore[arg-type]
        f"{config.batch_size * config.accumulation_steps * processes} ({config.batch_size} per process x "
        f"{config.accumulation_steps} accumulated x {processes} processes), learning rate {config.learning_rate:g} "
        f"({config.lr_schedule}), {schedule.total_steps} steps{teacher}"
    )
    print_once(f"The run's folder takes up to {disk_bytes(run) / 1e9:.1f} GB (half of it with --no-keep-previous)")
    if config.use_teacher and config.teacher_epochs > config.first_stage_epochs:
        print_once(
            f"NOTE: {config.epochs} epochs leave {config.first_stage_epochs} for the teacher, not "
            f"{config.teacher_epochs}: the last is always the student's. Give more --epochs, or --no-use-teacher."
        )
    if progress.step or progress.rows:
        print_once(
            f"Resumes after {progress.epoch} epochs and {progress.batch} of {schedule.batches_per_epoch} batches."
        )
        before = progress.rows[-1]["learning_rate"] if progress.rows else 0.0
        if progress.epoch < config.epochs and 0 < 2 * before < schedule.learning_rate:
            print_once(
                f"NOTE: the learning rate rises from {before:.1e} to {schedule.learning_rate:.1e}, since its schedule "
                f"now ends with epoch {config.epochs}: a part of what was learned at the low rate is lost for a while."
            )


def disk_bytes(run: Run) -> int:
    """Of last.pt, its predecessor and best.safetensors: weights, their average, and AdamW's two moments."""
    parts = [part for part in (run.network, run.teacher, run.guide) if part]
    network, *others = [sum(4 * p.numel() for p in part.parameters()) for part in parts]
    state = 4 * network + 3 * sum(others)
    return state * (1 + run.config.keep_previous) + network


def loader_workers(config: Config, device: torch.device) -> int:
    """As many loader processes as this process's share of the cores allows, one core left for the step.

    Where the step itself runs on one or two cores a worker would only take turns with it: then none.
    """
    if config.num_workers >= 0:
        return config.num_workers
    spare = own_cores() - 1
    return 0 if device.type == "cpu" and spare < 2 else max(1, min(12, spare))
