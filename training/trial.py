"""A step of the larger stage before the first epoch: a batch that cannot fit fails in the first minute, not after the
teacher's epochs."""

from __future__ import annotations

import copy
import gc
import math

import torch

from common import distributed
from common.devices import autocast, describe, is_out_of_memory
from common.errors import UserError
from training.checkpoint import random_state, restore_random_state
from training.run import Run
from training.schedule import STUDENT, Progress


def check_memory(run: Run) -> None:
    """Try a step of the student's stage on the largest view; the run is then as it was, bit for bit.

    Raises UserError that names the largest halving of the batch size that fits.
    """
    asked = run.config.batch_size
    own = next((asked >> k for k in range(asked.bit_length()) if step_fits(run, asked >> k)), 0)
    fitting = min(distributed.all_gather_objects([own]))  # a GPU may be shared with another program
    if fitting == asked:
        return
    more = "a smaller --image-size or --model-idx"
    if not run.config.gradient_checkpointing:
        more = f"--gradient-checkpointing, {more}"
    if not fitting:
        raise UserError(f"Not even a batch of 1 fits in the memory of {describe(run.device)}: try {more}.")
    accumulation = math.ceil(asked * run.config.accumulation_steps / fitting)
    raise UserError(
        f"A batch of {asked} does not fit in the memory of {describe(run.device)}, one of {fitting} does: use "
        f"--batch-size {fitting} --accumulation-steps {accumulation}, or try {more}."
    )


def step_fits(run: Run, batch_size: int) -> bool:
    """Whether forward and backward of the student's stage go through, beside the moments that AdamW will have."""
    random = random_state(run.device)
    try:
        _try_step(_in_student_stage(run), batch_size, has_moments=bool(run.optimizer.state))  # a resumed stage has some
        return True
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        run.network.zero_grad(set_to_none=True)
        restore_random_state(random, run.device)
        gc.collect()
        if run.device.type in ("cuda", "mps"):  # a test tries on a CPU
            getattr(torch, run.device.type).empty_cache()


def _in_student_stage(run: Run) -> Run:
    """A view of the run, with its own networks, as it will be when the student learns and the teacher is frozen."""
    trial = copy.copy(run)
    start = run.config.first_stage_epochs
    trial.progress = Progress(epoch=start, stage_start=start)
    trial.enter_stage(STUDENT)
    trial.losses = trial.plain_losses()  # by itself: a process that runs out of memory would leave the others waiting
    run.network.requires_grad_(True).train()  # the first epoch chooses again
    return trial


def _try_step(run: Run, batch_size: int, *, has_moments: bool) -> None:
    size, channels = run.config.training_size, {"image": 3, "alpha": 1, "unknown": 1}
    batch = {name: torch.zeros(batch_size, c, size, size, dtype=torch.uint8) for name, c in channels.items()}
    moments = [torch.empty_like(p) for p in run.network.parameters() for _ in range(2) if not has_moments]
    for _ in range(min(2, run.config.accumulation_steps)):  # at the second the first one's gradients are held
        with autocast(run.device, run.precision):
            loss = run.batch_losses(batch, run.config.smallest_downscale)["loss"]
        loss.backward()
    del moments
