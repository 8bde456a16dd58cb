"""A training step as train.py makes it: images/s, peak memory, share of the matrix peak, and where the time goes."""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torch.utils.flop_counter import FlopCounterMode

from common.devices import autocast, synchronize
from config import VARIANTS, Config, Variant
from data.build import build_training_set
from data.loader import build_training_loader
from experiments.measuring import matrix_peak, measure
from losses import matting_losses
from models import build_model
from training.trainer import Trainer

OPTIONS: dict[str, dict[str, Any]] = {  # what to vary: settings of config.py
    "teacher": {},  # the teacher's stage; all others are the student's
    "frozen-teacher": {},
    "no-teacher": {"use_teacher": False},
    "frozen-student": {"use_teacher": False},
    "compile": {"compile": True},
    "checkpointing": {"gradient_checkpointing": True},
}


def training_cases(
    variant: Variant, flags: argparse.Namespace, device: torch.device, precision: torch.dtype
) -> Iterator[tuple[dict, Callable[[], dict]]]:
    """The label of each row and what measures it, for every size and option.

    Raises DataError where flags.dataset cannot be used.
    """
    batch = flags.batch_size or (4 if device.type == "cuda" else 1)
    sets: dict[int, Dataset] = {}
    if flags.dataset:
        samples = flags.steps * batch
        for size in flags.sizes:
            sets[size] = build_training_set(flags.dataset, image_size=size, samples=samples, seed=0)
    peak = matrix_peak(device, precision)
    print(f"{variant.name}: matrix peak {peak / 1e12:.2f} TFLOP/s")
    for size, option in itertools.product(flags.sizes, flags.options):
        config = Config(
            model_idx=VARIANTS.index(variant),
            image_size=size,
            batch_size=batch,
            pretrained=False,
            max_student_downscale=1,
            **OPTIONS[option],
        )
        label = {"variant": variant.name, "size": size, "option": option, "batch": batch}
        yield label, partial(measure_step, config, option, device, precision, peak, flags, sets.get(size))


def measure_step(
    config: Config,
    option: str,
    device: torch.device,
    precision: torch.dtype,
    peak: float,
    flags: argparse.Namespace,
    dataset: Dataset | None,
) -> dict[str, Any]:
    """A row: the step on random pixels, the shares of its parts, and with a data set the step that a loader feeds.

    A compiled step has no shares, since its parts alone would not be compiled.
    """
    trainer = build_trainer(config, option, device, precision)
    batch = random_batch(config)
    seconds, megabytes = measure(lambda: trainer.train_batch(batch), device, flags.repeats)
    image, alpha = (batch[name].to(device).float() / 255 for name in ("image", "alpha"))
    with FlopCounterMode(display=False) as counter, autocast(device, precision):
        matting_losses(trainer.model(image, alpha), alpha, trainer.loss_weights)["loss"].backward()
    row = {"s/step": seconds, "images/s": config.batch_size / seconds, "MB": megabytes}
    row["of peak"] = counter.get_total_flops() / seconds / peak
    if not config.compile:
        calls = part_calls(trainer, image, alpha)
        runs = {name: partial(forward_backward, call, device, precision) for name, call in calls.items()}
        shares = {name: measure(run, device, flags.repeats).seconds / seconds for name, run in runs.items()}
        row |= shares | {"rest": max(0.0, 1.0 - sum(shares.values()))}
        samples = build_training_set("synthetic", image_size=config.working_size, samples=config.batch_size, seed=0)
        load = measure(lambda: [samples[0, index] for index in range(config.batch_size)], torch.device("cpu"), 1)
        row["loader"] = load.seconds / seconds  # one worker, at the same time as the step
    return row if dataset is None else row | measure_fed(trainer, dataset, flags.num_workers, flags.steps)


def build_trainer(config: Config, option: str, device: torch.device, precision: torch.dtype) -> Trainer:
    """A network with random weights in the stage that the option names."""
    torch.manual_seed(0)
    model = build_model(**config.model_options, use_teacher=config.use_teacher).to(device)
    model.to(memory_format=torch.channels_last)
    if config.gradient_checkpointing:
        for encoder in filter(None, (model.student, model.teacher)):
            encoder.set_gradient_checkpointing()
    trainer = Trainer(model, config, device, precision, batches_per_epoch=10**6)
    if option != "teacher":  # the student's stage, after the teacher's where there is one
        trainer.progress.epoch = trainer.progress.taught = int(config.use_teacher)
    trainer.enter_stage()
    if option == "frozen-student":
        model.student.requires_grad_(False)
    return trainer


def random_batch(config: Config) -> dict[str, Any]:
    """A batch of noise as the loader gives it."""
    side, count = config.working_size, config.batch_size
    image, alpha = (torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8) for channels in (3, 1))
    return {"image": image, "alpha": alpha, "name": ["random"] * count}


def part_calls(trainer: Trainer, image: Tensor, alpha: Tensor) -> dict[str, Callable[[], Any]]:
    """The forward of each part that the step runs, on inputs that ask for a gradient where the step's do."""
    model = trainer.model
    with torch.no_grad(), autocast(trainer.device, trainer.precision):
        output = model(image, alpha)
    names = ("coarse_logits", "coarse_alpha", "refined_alpha")
    leaves = {name: getattr(output, name).detach().requires_grad_() for name in names}
    features = [feature.detach().requires_grad_() for feature in output.features]
    leaf = output._replace(features=features, **leaves)
    calls: dict[str, Callable[[], Any]] = {}
    if model.teacher is None or model.teacher_is_frozen:
        calls["student"] = partial(model.student, image)
        if model.refiner is not None:
            calls["refiner"] = partial(model.refiner, image, leaf.coarse_alpha)
    if model.teacher is not None:
        calls["teacher"] = partial(model.teacher, alpha)
    calls["decoder"] = partial(model.decoder, features)
    calls["loss"] = lambda: matting_losses(leaf, alpha, trainer.loss_weights)["loss"]
    return calls


def forward_backward(call: Callable[[], Any], device: torch.device, precision: torch.dtype) -> None:
    """Run a part, and its backward where it learns."""
    with autocast(device, precision):
        result = call()
    outputs = result if isinstance(result, list) else [result]
    if outputs[0].requires_grad:
        torch.stack([output.float().sum() for output in outputs]).sum().backward()


def measure_fed(trainer: Trainer, dataset: Dataset, workers: int, steps: int) -> dict[str, float]:
    """The step on the photos that a loader brings, and the share of the time in which it waits for the loader."""
    device = trainer.device
    pinned = device.type == "cuda"
    loader = build_training_loader(dataset, trainer.config.batch_size, workers, seed=0, pin_memory=pinned)
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    for batch in itertools.islice(batches, 1 + workers * (loader.prefetch_factor or 0)):  # what workers made ahead
        trainer.train_batch(batch)
    synchronize(device)
    waited, start = 0.0, time.perf_counter()
    for _ in range(steps):
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        trainer.train_batch(batch)
        synchronize(device)  # else the device's backlog would hide a wait
    seconds = time.perf_counter() - start
    return {"fed s/step": seconds / steps, "waiting": waited / seconds, "workers": workers}
