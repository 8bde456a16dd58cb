"""A training step as train.py makes it: images/s, peak memory, share of the matrix peak, and where the time goes."""

from __future__ import annotations

import argparse
import dataclasses
import gc
import itertools
import time
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from common.devices import autocast, synchronize
from config import VARIANTS, Config, Variant
from data.build import build_training_set
from data.loader import build_training_loader
from experiments.measuring import matrix_peak, measure, megabytes, peak_memory
from losses import matting_losses
from models import build_model
from training.trainer import Trainer


def measure_training(
    variant: Variant, flags: argparse.Namespace, device: torch.device, precision: torch.dtype
) -> list[dict]:
    """Print a table and return its rows, one a size and option. Raises DataError where flags.dataset cannot be used."""
    batch_size = flags.batch_size or (4 if device.type == "cuda" else 1)
    sets = {
        size: build_training_set(flags.dataset, image_size=size, samples=flags.steps * batch_size, seed=0)
        for size in flags.sizes
        if flags.dataset
    }
    peak = matrix_peak(device, precision)
    print(f"\n{variant.name}, batch {batch_size}, matrix peak {peak / 1e12:.2f} TFLOP/s")
    print(f"{'size':>6} {'option':>14} {'s/step':>8} {'images/s':>9} {'peak MB':>8} {'of peak':>8}   share of the step")
    rows = []
    for size, option in itertools.product(flags.sizes, flags.options):
        config = Config(
            model_idx=VARIANTS.index(variant),
            image_size=size,
            batch_size=batch_size,
            pretrained=False,
            use_teacher=option not in ("no-teacher", "frozen-student"),
            max_student_downscale=1,
            compile=option == "compile",
            gradient_checkpointing=option == "checkpointing",
        )
        row = {"variant": variant.name, "size": size, "option": option, "batch_size": batch_size}
        try:
            row |= measure_step(config, flags, device, precision, option, sets.get(size))
            row["peak_share"] = row["flops"] / row["seconds"] / peak
        except torch.OutOfMemoryError:
            row["error"] = "out of memory"
        gc.collect()  # here the error, whose traceback holds the network, is gone
        torch.cuda.empty_cache()
        print_row(row)
        rows.append(row)
    return rows


def print_row(row: dict) -> None:
    start = f"{row['size']:>6} {row['option']:>14}"
    if "error" in row:
        print(f"{start} {row['error']}")
        return
    shares = ", ".join(f"{part} {share:.0%}" for part, share in row["shares"].items())
    print(
        f"{start} {row['seconds']:>8.3f} {row['batch_size'] / row['seconds']:>9.2f} {megabytes(row['peak']):>8} "
        f"{row['peak_share']:>8.1%}   {shares}"
    )
    if "fed" in row:
        fed = row["fed"]
        print(
            f"{'by the loader':>21} {fed['seconds']:>8.3f} {row['batch_size'] / fed['seconds']:>9.2f}{'':>20}"
            f"{fed['waiting_share']:.0%} of the time waiting for it ({fed['workers']} workers)"
        )


def measure_step(
    config: Config,
    flags: argparse.Namespace,
    device: torch.device,
    precision: torch.dtype,
    option: str = "",
    dataset: Dataset | None = None,
) -> dict:
    """Seconds, peak bytes and FLOPs of a step on random pixels, and the share of each part; with a data set also of
    steps that a loader feeds. A compiled step has no shares: its parts alone are not compiled."""
    torch.manual_seed(0)
    model = build_model(**config.model_options, use_teacher=config.use_teacher)
    model.to(device=device, memory_format=torch.channels_last)
    if config.gradient_checkpointing:
        for encoder in filter(None, (model.student, model.teacher)):
            encoder.set_gradient_checkpointing()
    trainer = Trainer(model, config, device, precision, batches_per_epoch=10**6)
    if option != "teacher":  # the student's stage, with a teacher that has learned where there is one
        trainer.progress.epoch = trainer.progress.taught = int(config.use_teacher)
    trainer.enter_stage()
    if option == "frozen-student":
        model.student.requires_grad_(False)
    shape = (config.batch_size, 3, config.working_size, config.working_size)
    batch = {
        "image": torch.randint(0, 256, shape, dtype=torch.uint8),
        "alpha": torch.randint(0, 256, (shape[0], 1, *shape[2:]), dtype=torch.uint8),
        "name": ["random"] * shape[0],
    }
    with peak_memory(device) as peak:
        for _ in range(3 if device.type == "cuda" else 1):  # optimizer state and, with compile, the kernels appear
            trainer.train_batch(batch)
        synchronize(device)
    result = {"peak": peak()}  # read here: on a GPU the measurements to come begin their own
    seconds = result["seconds"] = measure(lambda: trainer.train_batch(batch), device, flags.repeats).seconds
    result["shares"] = (
        {}
        if config.compile
        else measure_parts(trainer, batch, flags.repeats, seconds) | {"data": measure_loader(config) / seconds}
    )
    if dataset is not None:
        result["fed"] = measure_fed(trainer, dataset, flags.num_workers, flags.steps)
    with FlopCounterMode(display=False) as counter, autocast(device, precision):
        image = torch.zeros(shape, device=device)
        output = model(image, torch.zeros_like(image[:, :1]))
        matting_losses(output, torch.zeros_like(image[:, :1]), trainer.loss_weights)["loss"].backward()
    return result | {"flops": counter.get_total_flops()}


def measure_parts(trainer: Trainer, batch: dict, repeats: int, step: float) -> dict[str, float]:
    """Share of a step that each part's forward and backward takes alone; optimizer is the step's rest by difference."""
    model, device = trainer.model, trainer.device
    image = batch["image"].to(device).float() / 255
    alpha = batch["alpha"].to(device).float() / 255
    with torch.no_grad(), autocast(device, trainer.precision):
        whole = model(image, alpha)
    features = [f.detach().requires_grad_() for f in whole.features]
    coarse = whole.coarse_alpha.detach().requires_grad_()
    learns = model.teacher is not None and not model.teacher_is_frozen

    def forward(encoder: torch.nn.Module, x: torch.Tensor) -> float:
        return measure(lambda: autocast_call(trainer, encoder, x), device, repeats).seconds / step

    def forward_backward(call) -> float:
        def run() -> None:
            with autocast(device, trainer.precision):
                result = call()
            parts = result if isinstance(result, list) else [result]
            sum(part.float().sum() for part in parts).backward()

        return measure(run, device, repeats).seconds / step

    shares = {}
    if learns:
        shares["teacher"] = forward_backward(lambda: model.teacher(alpha))
    else:
        frozen = not next(model.student.parameters()).requires_grad
        shares["student"] = forward(model.student, image) if frozen else forward_backward(lambda: model.student(image))
        shares["refiner"] = forward_backward(lambda: model.refiner(image, coarse))
        if model.teacher is not None:
            shares["teacher"] = forward(model.teacher, alpha)
    shares["decoder"] = forward_backward(lambda: model.decoder(features))
    leaves = whole._replace(
        **{
            name: getattr(whole, name).detach().requires_grad_()
            for name in ("coarse_logits", "coarse_alpha", "refined_alpha")
        },
        features=features,
    )
    shares["loss"] = forward_backward(lambda: matting_losses(leaves, alpha, trainer.loss_weights)["loss"])
    shares["optimizer and rest"] = max(0.0, 1.0 - sum(shares.values()))
    return shares


def autocast_call(trainer: Trainer, part: torch.nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    with autocast(trainer.device, trainer.precision):
        return part(x)


def measure_loader(config: Config, batches: int = 1) -> float:
    """Seconds that one loader worker needs for a batch of the synthetic set: beside the step, or starving it."""
    config = dataclasses.replace(config, num_workers=0)
    dataset = build_training_set(
        "synthetic", image_size=config.working_size, samples=batches * config.batch_size, seed=0
    )
    loader = build_training_loader(dataset, config.batch_size, 0, seed=0)
    start = time.perf_counter()
    for _ in loader:
        pass
    return (time.perf_counter() - start) / batches


def measure_fed(trainer: Trainer, dataset: Dataset, workers: int, steps: int) -> dict:
    """Seconds of a step on the photos that a loader brings, and the share of them in which it waits for the loader."""
    device = trainer.device
    loader = build_training_loader(
        dataset, trainer.config.batch_size, workers, seed=0, pin_memory=device.type == "cuda"
    )
    batches = endless(loader)
    for batch in itertools.islice(batches, 1 + workers * (loader.prefetch_factor or 0)):  # what workers made ahead
        trainer.train_batch(batch)
    synchronize(device)
    waited, start = 0.0, time.perf_counter()
    for _ in range(steps):
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        trainer.train_batch(batch)
        synchronize(device)  # a wait that the device's own backlog hides would be none
    seconds = time.perf_counter() - start
    return {"seconds": seconds / steps, "waiting_share": waited / seconds, "workers": workers, "steps": steps}


def endless(loader: DataLoader) -> Iterator[dict]:
    for epoch in itertools.count():
        loader.sampler.set_epoch(epoch)
        yield from loader
