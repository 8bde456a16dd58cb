"""Train TSR-Matte.

    python train.py                                            the dataset and settings of config.py
    python train.py --dataset synthetic --epochs 3             the embedded set, nothing to download
    python train.py --resume                                   go on with the newest run, exactly where it stopped
    python train.py --recipe fine-tune --init-from checkpoints/RUN/best.safetensors --dataset mine
    torchrun --nproc-per-node 8 train.py                       one process a GPU

Writes a run folder under checkpoints/: training_log.csv, curves.png, preview.png, last.pt, best.safetensors.
SIGTERM and Ctrl-C stop it at the next step, with everything saved. Exit codes: 0 done or stopped so, 1 a run that
could not go on, 2 nothing could start.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.utils.data import Dataset

from common import distributed
from common.devices import DeviceError, choose_device, choose_precision, describe
from common.distributed import print_once
from config import Config, ConfigError, add_config_flags, config_from_dict, config_from_flags
from data.build import SYNTHETIC, DataError, build_training_set, build_validation_set
from data.check import quick_check
from data.loader import build_training_loader
from models import MattingNetwork, PretrainedWeightsError, build_model
from models.checkpoint import MODEL_FILE, CheckpointError, find_model, load_training_state, load_weights, read_metadata
from training.random_state import seed_everything
from training.report import require_tensorboard
from training.run import Run
from training.run_folder import (
    RunError,
    create_run,
    find_run,
    has_state,
    read_settings,
    remove_leftovers,
    write_settings,
)
from training.trainer import NonFiniteError, Trainer

REFINER_OPTIONS = ("use_refiner", "refiner_channels", "refiner_blocks", "use_colours", "use_attention")
START_ERRORS = (ConfigError, RunError, DataError, DeviceError, CheckpointError, PretrainedWeightsError)


def prepare(config: Config, resumed: Path | None) -> Run:
    """Everything before the first step; raises one of START_ERRORS.

    resumed: the folder of the run that goes on. One that was killed before its first saving begins again.
    """
    device = choose_device(config.device)
    distributed.setup(device)
    if distributed.broadcast_object(str(resumed)) != str(resumed):  # another run wrote while the processes started
        raise RunError(f"The processes found different newest runs, one of them {resumed}: name the run to resume.")
    precision = choose_precision(config.amp, device)
    if config.tensorboard:
        require_tensorboard()
    seed_everything(config.seed, config.deterministic)
    fresh = resumed is None or not has_state(resumed)
    if fresh:
        examine(config)
    training_set, validation_set = build_sets(config)
    loader = build_training_loader(
        training_set,
        config.batch_size,
        loader_workers(config, device),
        config.seed,
        distributed.rank(),
        distributed.world_size(),
        pin_memory=device.type == "cuda",
    )
    model = build_network(config, fresh).to(device=device, memory_format=torch.channels_last)
    torch.manual_seed(config.seed + distributed.rank())  # equal weights, but each rank draws its own drop paths
    trainer = Trainer(model, config, device, precision, loader.sampler.batches_per_epoch)
    if not fresh:
        restore(trainer, resumed)
    folder = open_folder(config, resumed)
    run = Run(config, folder, trainer, loader, validation_set)
    announce(config, trainer, folder, len(training_set), len(validation_set))
    return run


def examine(config: Config) -> None:
    """The cheap part of the data doctor, before a day is spent on a broken set."""
    if config.dataset == SYNTHETIC or not Path(config.dataset).is_dir():  # build_sets has the sentence for the latter
        return
    sentences = distributed.broadcast_object(quick_check(config.dataset) if distributed.is_main() else None)
    if sentences:
        raise DataError("\n".join(sentences))


def build_sets(config: Config) -> tuple[Dataset, Dataset]:
    common = dict(image_size=config.working_size, seed=config.seed)
    training_set = build_training_set(
        config.dataset,
        samples=config.train_samples,
        foregrounds=config.foregrounds,
        backgrounds=config.backgrounds,
        **common,
    )
    return training_set, build_validation_set(config.dataset, samples=config.val_samples, **common)


def build_network(config: Config, fresh: bool) -> MattingNetwork:
    """The network with its first weights; a run that goes on gets its own later, and needs none of these."""
    # a checkpoint holds no teacher: with one, fine-tuning needs ImageNet weights too
    pretrained = config.pretrained and fresh and (not config.init_from or config.use_teacher)
    model = build_model(
        **config.model_options,
        use_teacher=config.use_teacher,
        smart_init=config.smart_init,
        drop_path=config.drop_path,
        pretrained=pretrained,
        backbone_weights=config.backbone_weights if fresh else None,
    )
    if config.init_from and fresh:
        begin_from(model, find_model(Path(config.init_from), config.output), config.model_options)
    if config.gradient_checkpointing:
        for encoder in filter(None, (model.student, model.teacher)):
            encoder.set_gradient_checkpointing()
    return model


def begin_from(model: MattingNetwork, checkpoint: Path, options: dict) -> None:
    """Weights of another training, for fine-tuning: a TwinSwin-Matte may get a new refiner. Raises CheckpointError
    where they do not fit."""
    if not os.path.isfile(checkpoint):
        raise CheckpointError(f"{checkpoint} does not exist: name a {MODEL_FILE}, or its run folder, with --init-from.")
    trained = read_metadata(checkpoint)["model"]
    adds_refiner = options["use_refiner"] and not trained.get("use_refiner", True)
    free = ("image_size", *(REFINER_OPTIONS if adds_refiner else ()))
    other = [
        f"{name} {trained[name]}, here {value}"
        for name, value in options.items()
        if name in trained and name not in free and trained[name] != value
    ]
    if other:
        raise CheckpointError(
            f"{checkpoint} was trained with {'; '.join(other)}: give the flags that it was trained "
            "with (its run folder's config.json has them)."
        )
    try:
        load_weights(model, checkpoint, fresh=("refiner.",) if adds_refiner else ())
    except RuntimeError as error:
        raise CheckpointError(
            f"{checkpoint} does not fit this network ({str(error).splitlines()[0]}): use the file as train.py wrote it."
        ) from error


def restore(trainer: Trainer, folder: Path) -> None:
    """Go on from a saved state; another division into batches only at an epoch's border."""
    state = load_training_state(folder)
    try:
        changed = [
            f"{name} {state['layout'][name]}, now {value}"
            for name, value in trainer.layout.items()
            if state["layout"][name] != value
        ]
        if state["progress"]["batch"] and changed:
            raise RunError(
                f"{folder} stopped within an epoch with {'; '.join(changed)}: go on with what it had to the "
                "epoch's end; after that it may change."
            )
        trainer.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, RunError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise RunError(
            f"The state in {folder} does not fit these settings: resume it without the flags that change "
            f"the network, or fine-tune with --init-from ({reason})."
        ) from error


def open_folder(config: Config, resumed: Path | None) -> Path:
    """The run's folder, made or tidied by rank 0; its config.json says what the run goes on with."""
    folder = resumed
    if distributed.is_main():
        if folder is None:
            folder = create_run(config.output, f"{config.method}_{config.variant.name}")
        remove_leftovers(folder)
        write_settings(folder, config.as_dict())
    return Path(distributed.broadcast_object(str(folder)))


def announce(config: Config, trainer: Trainer, folder: Path, photos: int, validation_photos: int) -> None:
    processes, progress, course = distributed.world_size(), trainer.progress, trainer.course
    print_once(
        f"{folder}\n{config.method} {config.variant.name} at {config.working_size} px on {processes} x "
        f"{describe(trainer.device)}, {str(trainer.precision).removeprefix('torch.')}\n"
        f"{photos} training and {validation_photos} validation photos; effective batch "
        f"{config.batch_size * config.accumulation_steps * processes} ({config.batch_size} a process x "
        f"{config.accumulation_steps} accumulated x {processes} processes), learning rate {config.learning_rate:g} "
        f"({config.lr_schedule}), {course.total_steps} steps"
        + (f", those of the first {course.teacher_epochs} epochs the teacher's" if course.teacher_epochs else "")
    )
    if progress.step or progress.rows:
        print_once(
            f"Goes on after {progress.epoch} epochs and {progress.batch} of {trainer.batches_per_epoch} batches."
        )


def loader_workers(config: Config, device: torch.device) -> int:
    """As many loader processes as this process's share of the cores allows, one core left for the step.

    Where the step itself runs on one or two cores a worker would only take turns with it: then none.
    """
    if config.num_workers >= 0:
        return config.num_workers
    spare = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1
    return 0 if device.type == "cpu" and spare < 2 else max(1, min(12, spare))


def parse_flags(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="RUN",
        help="go on with the newest run, or with the run folder that is named; its own settings hold "
        "but for flags given beside it",
    )
    add_config_flags(parser)
    return parser.parse_args(argv)


def start(flags: argparse.Namespace) -> Run:
    """The run that the flags ask for; raises one of START_ERRORS."""
    resumed, base = None, None
    if flags.resume is not None:
        resumed = find_run(getattr(flags, "output", Config().output), flags.resume)
        base = config_from_dict(*read_settings(resumed))
    return prepare(config_from_flags(flags, base), resumed)


def end_without_peer(error: RuntimeError) -> None:
    """Leave at once when another process is gone: to close the group in order would be to wait for it."""
    print(
        f"Process {distributed.rank()} stops, since another process of this run is gone or silent "
        f"({str(error).splitlines()[0]}): look for that one's message, then go on with --resume.",
        file=sys.stderr,
        flush=True,
    )
    sys.stdout.flush()
    os._exit(1)


def main(argv: Sequence[str] | None = None) -> int:
    flags = parse_flags(argv)
    started = False
    try:
        run = start(flags)
        started = True
        run.fit()
    except (*START_ERRORS, NonFiniteError, OSError) as error:
        # what is wrong with the settings is the same for every process of a host
        if started or isinstance(error, DeviceError) or os.environ.get("LOCAL_RANK", "0") == "0":
            print(error, file=sys.stderr)
        return 1 if started else 2
    except KeyboardInterrupt:
        print("Stopped at once; --resume goes on from what was saved last.", file=sys.stderr)
        return 130
    except torch.OutOfMemoryError as error:
        print(
            f"The device has too little memory ({str(error).splitlines()[0]}): lower --batch-size and raise "
            "--accumulation-steps by the same factor, or add --gradient-checkpointing.",
            file=sys.stderr,
        )
        return 1
    except RuntimeError as error:
        if "DataLoader worker (pid" in str(error):  # killed; torch raises it wherever the process happens to be
            print(
                f"{str(error).splitlines()[0]} Too little memory is the usual reason: lower --num-workers, then go "
                "on with --resume.",
                file=sys.stderr,
            )
            return 1
        if distributed.is_lost_peer(error):
            end_without_peer(error)
        raise
    finally:
        distributed.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
