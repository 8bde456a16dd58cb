"""A training step as train.py makes it: images/s, peak memory, share of the matrix peak, and where the time goes."""

from __future__ import annotations

import argparse
import dataclasses
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measuring import matrix_peak, measure, megabytes, peak_memory
from config import VARIANTS, Config, Variant
from data.loader import build_training_loader
from data.sources import build_training_set
from devices import autocast, synchronize
from losses import matting_losses
from models import build_model
from training.trainer import Trainer


def measure_training(variant: Variant, flags: argparse.Namespace, device: torch.device, precision: torch.dtype
                     ) -> list[dict]:
    """Print a table and return its rows, one a size and option."""
    peak = matrix_peak(device, precision)
    batch_size = flags.batch_size or (4 if device.type == "cuda" else 1)
    print(f"\n{variant.name}, batch {batch_size}, matrix peak {peak / 1e12:.2f} TFLOP/s")
    print(f"{'size':>6} {'option':>14} {'s/step':>8} {'images/s':>9} {'peak MB':>8} {'of peak':>8}   share of the step")
    rows = []
    for size in flags.sizes:
        for option in flags.options:
            config = Config(model_idx=VARIANTS.index(variant), image_size=size, batch_size=batch_size, pretrained=False,
                            use_teacher=option not in ("no-teacher", "frozen-student"), max_student_downscale=1,
                            compile=option == "compile", gradient_checkpointing=option == "checkpointing")
            row = measure_step(config, flags, device, precision, option)
            row |= {"variant": variant.name, "size": size, "option": option, "batch_size": batch_size,
                    "peak_share": row["flops"] / row["seconds"] / peak}
            rows.append(row)
            shares = ", ".join(f"{part} {share:.0%}" for part, share in row["shares"].items())
            print(f"{size:>6} {option:>14} {row['seconds']:>8.3f} {batch_size / row['seconds']:>9.2f} "
                  f"{megabytes(row['peak']):>8} {row['peak_share']:>8.1%}   {shares}")
    return rows


def measure_step(config: Config, flags: argparse.Namespace, device: torch.device, precision: torch.dtype,
                 option: str = "") -> dict:
    """Seconds, peak bytes and FLOPs of a step on random pixels, and the share of each part."""
    torch.manual_seed(0)
    model = build_model(**config.model_options, use_teacher=config.use_teacher)
    model.to(device=device, memory_format=torch.channels_last)
    if config.gradient_checkpointing:
        for encoder in filter(None, (model.student, model.teacher)):
            encoder.set_gradient_checkpointing()
    trainer = Trainer(model, config, device, precision, batches_per_epoch=10**6)
    if option == "frozen-teacher":
        model.freeze_teacher()
    if option == "frozen-student":
        model.student.requires_grad_(False)
    shape = (config.batch_size, 3, config.working_size, config.working_size)
    batch = {"image": torch.randint(0, 256, shape, dtype=torch.uint8),
             "alpha": torch.randint(0, 256, (shape[0], 1, *shape[2:]), dtype=torch.uint8),
             "name": ["random"] * shape[0]}
    with peak_memory(device) as peak:
        for _ in range(3 if device.type == "cuda" else 1):  # optimizer state and, with compile, the kernels appear
            trainer.train_batch(batch)
        synchronize(device)
    seconds = measure(lambda: trainer.train_batch(batch), device, flags.repeats).seconds
    shares = measure_parts(trainer, batch, flags.repeats, seconds)
    shares["data"] = measure_loader(config) / seconds
    with FlopCounterMode(display=False) as counter, autocast(device, precision):
        image = torch.zeros(shape, device=device)
        output = model(image, torch.zeros_like(image[:, :1]))
        matting_losses(output, torch.zeros_like(image[:, :1]), trainer.loss_weights)["loss"].backward()
    return {"seconds": seconds, "peak": peak(), "flops": counter.get_total_flops(), "shares": shares}


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

    frozen = not next(model.student.parameters()).requires_grad
    shares = {"student": forward(model.student, image) if frozen else forward_backward(lambda: model.student(image))}
    if learns:
        shares["teacher"] = forward_backward(lambda: model.teacher(alpha))
    elif model.teacher is not None:
        shares["teacher"] = forward(model.teacher, alpha)
    shares["decoder"] = (1 + learns) * forward_backward(lambda: model.decoder(features))
    shares["refiner"] = forward_backward(lambda: model.refiner(image, coarse))
    leaves = whole._replace(**{name: getattr(whole, name).detach().requires_grad_() for name in
                               ("coarse_logits", "coarse_alpha", "refined_alpha")}, features=features)
    shares["loss"] = forward_backward(lambda: matting_losses(leaves, alpha, trainer.loss_weights)["loss"])
    shares["optimizer and rest"] = max(0.0, 1.0 - sum(shares.values()))
    return shares


def autocast_call(trainer: Trainer, part: torch.nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    with autocast(trainer.device, trainer.precision):
        return part(x)


def measure_loader(config: Config, batches: int = 1) -> float:
    """Seconds that one loader worker needs for a batch of the synthetic set: beside the step, or starving it."""
    config = dataclasses.replace(config, num_workers=0)
    dataset = build_training_set("synthetic", image_size=config.working_size, samples=batches * config.batch_size,
                                 seed=0)
    loader = build_training_loader(dataset, config.batch_size, 0, seed=0)
    start = time.perf_counter()
    for _ in loader:
        pass
    return (time.perf_counter() - start) / batches
