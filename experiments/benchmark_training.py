"""A training step as train.py makes it: images/s, peak memory, share of the matrix peak, and where the time goes."""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import Dataset
from torch.utils.flop_counter import FlopCounterMode

from common.devices import autocast, synchronize
from config import Config, Variant
from data.augmentation import Augmentation
from data.build import SYNTHETIC, build_training_set
from data.loader import build_training_loader
from experiments.benchmark_memory import bench_config, estimate_peak, start_stage
from experiments.measuring import matrix_peak, measure
from experiments.options import OPTIONS
from losses import matting_losses, teacher_losses, weighted
from models.octaves import climb
from train import train_step
from training import setup
from training.run import Run
from training.schedule import STUDENT, TEACHER
from training.setup import seed_everything


def training_cases(
    variant: Variant, flags: argparse.Namespace, device: torch.device, precision: torch.dtype
) -> Iterator[tuple[dict, Callable[[], dict]]]:
    """The label of each row and what measures it, for every size and option.

    Raises UserError if flags.dataset cannot be used.
    """
    batch = flags.batch_size or (4 if device.type == "cuda" else 1)
    fed = {}
    for size in flags.sizes if flags.dataset else ():
        samples = flags.steps * batch
        fed[size] = build_training_set([flags.dataset], settings=Augmentation(size), samples=samples, seed=0)
    peak = matrix_peak(device, precision)
    print(f"{variant.name}: matrix peak {peak / 1e12:.2f} TFLOP/s")
    for size, option in itertools.product(flags.sizes, flags.options):
        config = bench_config(variant, size, batch, **OPTIONS[option])
        label = {"variant": variant.name, "size": size, "option": option, "batch": batch}
        yield label, partial(measure_step, config, option, device, precision, peak, flags, fed.get(size))


def measure_step(
    config: Config,
    option: str,
    device: torch.device,
    precision: torch.dtype,
    peak: float,
    flags: argparse.Namespace,
    fed: Dataset | None,
) -> dict[str, Any]:
    """A row: train.py's step on drawn photos, and with a data set also the step that a loader feeds.

    Then the shares of the parts in the former. A compiled step has none, since its parts alone would not be compiled.
    """
    settings = Augmentation(config.working_size)
    drawn = build_training_set([SYNTHETIC], settings=settings, samples=config.batch_size, seed=0)
    loader = build_training_loader(drawn, config.batch_size, num_workers=0, seed=0)
    batch = next(iter(loader))
    run = build_run(config, TEACHER if option == "teacher" else STUDENT, device, precision, loader)
    train_step(run, [batch])  # in it cuDNN tries kernels, with memory that no later step needs
    seconds, megabytes = measure(lambda: train_step(run, [batch]), device, flags.repeats)
    row = {"s/step": seconds, "images/s": config.batch_size / seconds, "MB": megabytes}
    if flags.profile:
        row |= profile_step(run, batch, flags.repeats, seconds)
    if fed is not None:
        row |= measure_fed(run, fed, flags.num_workers, flags.steps)
    run.losses = run.plain_losses()  # operations cannot be counted in compiled code
    with FlopCounterMode(display=False) as counter, autocast(device, precision):
        run.batch_losses(batch, scale=1)["loss"].backward()
    row["of peak"] = counter.get_total_flops() / seconds / peak
    if not config.compile:
        calls = {
            name: partial(forward_backward, call, device, precision) for name, call in part_calls(run, batch).items()
        }
        shares = {name: measure(call, device, flags.repeats).seconds / seconds for name, call in calls.items()}
        load = measure(lambda: next(iter(loader)), torch.device("cpu"), repeats=1)
        row |= shares | {"rest": max(0.0, 1 - sum(shares.values())), "loader": load.seconds / seconds}
    return row


def build_run(config: Config, stage: str, device: torch.device, precision: torch.dtype, loader: Any) -> Run:
    """A run with random weights at the start of a stage; its kernels are chosen as train.py has them chosen."""
    seed_everything(config.seed, config.deterministic)
    networks = setup.build_networks(config)
    for part in filter(None, networks):
        part.to(device).to(memory_format=torch.channels_last)
    return start_stage(Run(config, device, precision, networks, loader, validation={}), stage)


def profile_step(run: Run, batch: dict[str, Any], repeats: int, seconds: float) -> dict[str, float]:
    """The host's time, the kernels and the GPU's busy share of a step of `seconds`, and its peak memory in GB.

    Nothing in a step waits for the GPU: where the host's time is near the whole, launching kernels is the limit.
    """
    is_cuda = run.device.type == "cuda"
    peak = torch.cuda.max_memory_allocated(run.device) if is_cuda else 0  # since the steps that were measured
    start = time.perf_counter()
    for _ in range(repeats):
        train_step(run, [batch])
    host = (time.perf_counter() - start) / repeats
    synchronize(run.device)
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_cuda else [])]) as trace:
        train_step(run, [batch])
        synchronize(run.device)
    kernels = [event for event in trace.events() if str(event.device_type).endswith("CUDA")]
    busy = sum(event.time_range.elapsed_us() for event in kernels) / 1e6 / seconds
    estimate = estimate_peak(run.config, run.progress.stage, run.precision)
    return {"host s": host, "kernels": len(kernels), "busy": busy, "GB": peak / 2**30, "estimated GB": estimate / 2**30}


def part_calls(run: Run, batch: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """The forward of each part that the step runs, on inputs that ask for a gradient where the step's do."""
    image, alpha = (batch[name].to(run.device).float() / 255 for name in ("image", "alpha"))
    weights, teacher, network = run.schedule.loss_weights, run.teacher, run.network
    learner = teacher if run.progress.stage == TEACHER else None
    with torch.no_grad(), autocast(run.device, run.precision):
        output = learner(alpha) if learner else network(image)
        targets = teacher.targets(alpha) if teacher else None
    leaf = output._replace(
        coarse_logits=output.coarse_logits.detach().requires_grad_(),
        coarse_alpha=output.coarse_alpha.detach().requires_grad_(),
        octaves=[octave.detach().requires_grad_() for octave in output.octaves or ()],
        features=[feature.detach().requires_grad_() for feature in output.features],
    )
    if learner:
        return {
            "teacher": lambda: learner.encoder(alpha),
            "decoder": lambda: learner.decoder(leaf.features),
            "loss": lambda: weighted(teacher_losses(leaf, alpha, weights), weights)["loss"],
        }
    calls: dict[str, Callable[[], Any]] = {
        "student": lambda: network.student(image),
        "decoder": lambda: network.decoder(leaf.features),
        "loss": lambda: weighted(matting_losses(leaf, alpha, weights, None, targets), weights)["loss"],
    }
    if network.refiner is not None:
        calls["refiner"] = partial(climb, image, leaf.coarse_alpha, network.refiner, network.refiner.use_octaves)
    if teacher:
        calls["teacher"] = partial(teacher.targets, alpha)
    return calls


def forward_backward(call: Callable[[], Any], device: torch.device, precision: torch.dtype) -> None:
    """Run a part, and its backward where it learns."""
    with autocast(device, precision):
        result = call()
    outputs = result if isinstance(result, list) else [result]
    if outputs[0].requires_grad:
        torch.stack([output.float().sum() for output in outputs]).sum().backward()


def measure_fed(run: Run, dataset: Dataset, workers: int, steps: int) -> dict[str, float]:
    """The step on the photos that a loader brings, and the share of the time in which it waits for the loader."""
    pinned = run.device.type == "cuda"
    loader = build_training_loader(dataset, run.config.batch_size, workers, seed=0, pin_memory=pinned)
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    for batch in itertools.islice(batches, 1 + workers * (loader.prefetch_factor or 0)):  # what workers made ahead
        train_step(run, [batch])
    synchronize(run.device)
    waited, start = 0.0, time.perf_counter()
    for _ in range(steps):
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        train_step(run, [batch])
        synchronize(run.device)  # else the device's backlog would hide a wait
    seconds = time.perf_counter() - start
    return {"fed s/step": seconds / steps, "waiting": waited / seconds, "workers": workers}
