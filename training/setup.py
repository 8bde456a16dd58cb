"""Everything before the first step: flags, device, data, networks, a saved state, the run folder."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from common import distributed
from common.command import new_parser
from common.devices import choose_device, choose_precision, describe
from common.errors import UserError
from common.processes import is_main, own_cores, print_once, rank, world_size
from config import Config
from data.augmentation import Augmentation
from data.build import SYNTHETIC, build_training_set, build_validation_sets, parse_source
from data.loader import build_training_loader
from data.quick_check import quick_check
from models import Guide, MattingNetwork, TeacherAutoencoder, build_model, build_teacher
from models.checkpoint import MODEL_FILE, find_model, load_weights, read_metadata
from training.checkpoint import check_types, has_state, load_training_state, restore
from training.flags import add_config_flags, config_from_dict, config_from_flags
from training.random_state import seed_everything
from training.recipes import RECIPES
from training.report import require_tensorboard
from training.run import Run
from training.run_folder import create_run, find_run, lock, read_settings, remove_leftovers, write_settings
from training.schedule import Progress, Schedule
from training.trial import Losses, check_memory

REFINER_OPTIONS = ("use_refiner", "refiner_channels", "refiner_blocks", "use_colours", "use_attention", "use_octaves")
TRIED_ON = ("cuda", "mps")  # devices whose memory ends at once; on a CPU a step may take a minute


def parse_flags(description: str | None, argv: Sequence[str] | None) -> argparse.Namespace:
    parser = new_parser(description)
    parser.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="RUN",
        help="resume the newest run, or the named run folder, with its own settings; flags given with it still hold",
    )
    add_config_flags(parser)
    return parser.parse_args(argv)


def prepare(flags: argparse.Namespace, losses: Losses) -> Run:
    """The run that the flags ask for, ready for its next step; losses: train.stage_losses, to try one before it.

    Raises one of training.errors.EXPECTED_ERRORS.
    """
    resumed, base = None, None
    if flags.resume is not None:
        resumed = find_run(getattr(flags, "output", Config().output), flags.resume)
        base = config_from_dict(*read_settings(resumed))
    else:
        keep_working_size(flags)
    config = config_from_flags(flags, base)
    device = choose_device(config.device)
    distributed.setup(device)
    if distributed.broadcast_object(str(resumed)) != str(resumed):  # another run wrote while the processes started
        raise UserError(f"The processes found different newest runs, one of them {resumed}: name the run to resume.")
    state = None
    if resumed and has_state(resumed):
        state = load_training_state(resumed)
        check_types(state, resumed)
    run = build_run(config, device, state)
    if resumed and state:
        restore(run, state, resumed)
    if device.type in TRIED_ON:
        check_memory(run, losses)
    run.folder = open_folder(config, resumed)
    announce(run)
    return run


def keep_working_size(flags: argparse.Namespace) -> None:
    """With --init-from, unless an image size is given, the checkpoint's: at another size a network finds less."""
    settings = vars(Config()) | RECIPES.get(getattr(flags, "recipe", ""), {}) | vars(flags)
    checkpoint = find_model(Path(settings["init_from"]), settings["output"]) if settings["init_from"] else None
    if checkpoint and not settings["image_size"] and os.path.isfile(checkpoint):  # if not: load_initial_weights says so
        flags.image_size = read_metadata(checkpoint)["model"]["image_size"]


def build_run(config: Config, device: torch.device, state: dict[str, Any] | None) -> Run:
    """Data, networks and all that trains them. With a saved state no weights need to be loaded or downloaded."""
    precision = choose_precision(config.amp, device)
    if config.tensorboard:
        require_tensorboard()
    seed_everything(config.seed, config.deterministic)
    if state is None:
        check_dataset(config)
    settings = Augmentation(config.training_size, scale=(config.crop_scale_min, config.crop_scale_max))
    training_set = build_training_set(
        config.dataset,
        settings=settings,
        samples=config.train_samples,
        seed=config.seed,
        foregrounds=config.foregrounds,
        backgrounds=config.backgrounds,
    )
    validation = build_validation_sets(
        config.dataset, image_size=config.working_size, samples=config.val_samples, seed=config.seed
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
    network, teacher = build_networks(config, state)
    guide = None
    if config.guide:
        guide = Guide(
            config.guide, network.student.channels, weights_file=config.guide_weights, pretrained=state is None
        )
    torch.manual_seed(config.seed + rank())  # equal weights, but each rank draws its own drop paths
    for part in filter(None, (network, teacher, guide)):
        part.to(device).to(memory_format=torch.channels_last)  # in place
    return Run(config, device, precision, network, teacher, loader, validation, guide)


def check_dataset(config: Config) -> None:
    """The cheap part of data.check, before a day is spent on a broken set. Raises UserError."""
    folders = [path for path, _ in map(parse_source, config.dataset) if path != SYNTHETIC and Path(path).is_dir()]
    found = [quick_check(folder) for folder in folders] if is_main() and config.check_data else []
    for findings in found:
        for sentence in filter(None, [findings.scope, *(f"WARNING: {warning}" for warning in findings.warnings)]):
            print_once(sentence)
    errors = distributed.broadcast_object([error for findings in found for error in findings.errors])
    if errors:
        raise UserError("\n".join(errors))


def build_networks(
    config: Config, state: dict[str, Any] | None = None
) -> tuple[MattingNetwork, TeacherAutoencoder | None]:
    """The network and, where the run has a first stage, its teacher, with their first weights."""
    fresh = state is None
    start: dict[str, Any] = dict(
        drop_path=config.drop_path, backbone_weights=config.backbone_weights if fresh else None
    )
    network = build_model(
        **config.model_options,
        **start,
        smart_init=config.smart_init,
        pretrained=config.pretrained and fresh and not config.init_from,
    )
    if config.init_from and fresh:
        load_initial_weights(network, find_model(Path(config.init_from), config.output), config.model_options)
    has_teacher = bool(state["teacher"]) if state else Schedule(config, Progress(), 1).teacher_epochs > 0
    teacher = None
    if has_teacher and config.use_teacher:
        # no checkpoint holds a teacher: it needs ImageNet weights even where --init-from gives the student's
        teacher = build_teacher(
            network, backbone=config.variant.backbone, pretrained=config.pretrained and fresh, **start
        )
    if config.gradient_checkpointing:
        network.student.set_gradient_checkpointing()
        if teacher:
            teacher.teacher.set_gradient_checkpointing()
    return network, teacher


def load_initial_weights(network: MattingNetwork, checkpoint: Path, options: dict[str, Any]) -> None:
    """Weights of another training, for fine-tuning: a TwinSwin-Matte may get a new refiner. Raises UserError
    if they do not fit."""
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


def open_folder(config: Config, resumed: Path | None) -> Path:
    """The run's folder, made or tidied by rank 0; its config.json holds the settings that the run has from now on."""
    outcome: Path | Exception | None = None
    if is_main():
        try:
            outcome = resumed or create_run(config.output, f"{config.method}_{config.variant.name}")
            lock(outcome)
            remove_leftovers(outcome)
            write_settings(outcome, config.as_dict())
        except (UserError, OSError) as error:  # the other ranks wait for it
            outcome = error
    outcome = distributed.broadcast_object(outcome)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def announce(run: Run) -> None:
    config, progress, schedule, processes = run.config, run.progress, run.schedule, world_size()
    photos = sum(len(dataset) for dataset in run.validation.values())
    teacher = f", the first {schedule.teacher_epochs} epochs the teacher's" if schedule.teacher_epochs else ""
    print_once(
        f"{run.folder}\n{config.method} {config.variant.name} at {config.working_size} px on {processes} x "
        f"{describe(run.device)}, {str(run.precision).removeprefix('torch.')}\n"
        f"{len(run.loader.dataset)} training and {photos} validation photos; effective batch "  # type: ignore[arg-type]
        f"{config.batch_size * config.accumulation_steps * processes} ({config.batch_size} per process x "
        f"{config.accumulation_steps} accumulated x {processes} processes), learning rate {config.learning_rate:g} "
        f"({config.lr_schedule}), {schedule.total_steps} steps{teacher}"
    )
    if progress.step or progress.rows:
        print_once(
            f"Resumes after {progress.epoch} epochs and {progress.batch} of {schedule.batches_per_epoch} batches."
        )


def loader_workers(config: Config, device: torch.device) -> int:
    """As many loader processes as this process's share of the cores allows, one core left for the step.

    Where the step itself runs on one or two cores a worker would only take turns with it: then none.
    """
    if config.num_workers >= 0:
        return config.num_workers
    spare = own_cores() - 1
    return 0 if device.type == "cpu" and spare < 2 else max(1, min(12, spare))
