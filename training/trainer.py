"""One run's state and its epoch loop; train.py decides what happens between epochs."""

from __future__ import annotations

import contextlib
import inspect
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common import distributed
from common.devices import autocast
from losses import matting_losses
from models import MattingNetwork
from training.optimization import AveragedNetwork, build_optimizer, clip_gradients, set_learning_rate
from training.random_state import random_state, restore_random_state
from training.schedule import Course, Progress

NAMES_SHOWN = 20
# what keeps the buffers, which are constants, from being sent at every step; torch 2.13 gave it another name
BUFFER_SWITCH = (
    "forward_sync_buffers"
    if "forward_sync_buffers" in inspect.signature(nn.parallel.DistributedDataParallel).parameters
    else "broadcast_buffers"
)


class NonFiniteError(RuntimeError):
    """Too many steps in a row without a finite gradient; the message names the photos and what to try."""


class Trainer:
    """Model, optimizer, scaler and average, with the step that moves them. Exact: its state restores every bit.

    `config` is any object with the fields of config.Config that are read here; `precision` an autocast dtype.
    """

    def __init__(
        self, model: MattingNetwork, config: Any, device: torch.device, precision: torch.dtype, batches_per_epoch: int
    ) -> None:
        self.model, self.config, self.device, self.precision = model, config, device, precision
        self.batches_per_epoch = batches_per_epoch
        self.average = AveragedNetwork(model, config.ema_decay)
        pretrained = config.pretrained or config.backbone_weights  # the teacher, which no checkpoint holds, has these
        self.student_is_trained = bool(pretrained or config.init_from)
        self.optimizer = build_optimizer(
            model,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            student_lr_scale=config.encoder_lr_scale if self.student_is_trained else 1.0,
            teacher_lr_scale=config.encoder_lr_scale if pretrained else 1.0,
            refiner_lr_scale=config.refiner_lr_scale,
        )
        # Always on: it is what skips a non-finite step without asking the device. Only fp16 needs its scale, see _step.
        self.scaler = torch.amp.GradScaler(device.type, init_scale=2.0**16 if precision == torch.float16 else 1.0)
        self.progress = Progress()
        self.course = Course(config, self.progress, batches_per_epoch, has_teacher=model.teacher is not None)
        self.loss_weights = {
            name.removeprefix("weight_"): value
            for name, value in vars(config).items()
            if name.startswith("weight_") and name != "weight_decay"
        }
        self.network = self._wrap(model)
        # photos and loss of the last batches, to name the ones to blame when the run has to stop
        self._recent: deque[tuple[list[str], Tensor]] = deque(maxlen=config.max_bad_steps * config.accumulation_steps)
        self._terms: list[str] = []  # names of what _sums holds
        self._sums: Tensor | None = None  # (terms,) on the device, read only at the log interval
        self._bad = torch.zeros(2, device=device)  # bad steps of the epoch, and in a row

    def _wrap(self, model: nn.Module) -> nn.Module:
        if self.config.compile:
            model = torch.compile(model)
        if distributed.world_size() > 1:
            # a part whose losses are all switched off has no gradient to wait for; the edge term has no part to itself
            switched_off = any(not weight for name, weight in self.loss_weights.items() if name != "edge")
            model = nn.parallel.DistributedDataParallel(
                model,
                device_ids=[self.device] if self.device.type == "cuda" else None,
                gradient_as_bucket_view=True,
                find_unused_parameters=switched_off,
                **{BUFFER_SWITCH: False},
            )
        return model

    def enter_stage(self) -> None:
        """Let learn what learns in this epoch: the teacher and the decoder, or the student and the rest. A frozen
        part has no gradient: it costs no backward pass, does not move and does not decay.

        At an epoch's border, so that all of its rows have the same terms; DDP must learn that a part went quiet.
        """
        model, teaches = self.model, self.course.teaches
        if begins := self.course.student_begins:
            self._hand_over()
        # a decoder that already reads a trained student does not follow the teacher
        learns = {
            model.student: not self.course.student_rests,
            model.refiner: not teaches,
            model.teacher: teaches,
            model.decoder: not (teaches and self.config.init_from),
        }
        changed = [
            part
            for part, learn in learns.items()
            if part is not None and next(part.parameters()).requires_grad != learn
        ]
        for part in changed:
            part.requires_grad_(learns[part])
        if changed:
            self.network = self._wrap(model)
        if begins:  # after DDP has made all ranks alike
            self.average.restart()

    def _hand_over(self) -> None:
        """What the student's first step begins with. A student that knows nothing begins as its teacher, whose
        features the decoder reads; one that knows photos gets a decoder that knows nothing, since one that reads
        alphas reads photos worse; and INIT_FROM brought a student and a decoder that belong together."""
        if not self.student_is_trained:
            self.model.start_student_as_teacher()
        elif not self.config.init_from:
            self.model.decoder.reset_parameters()
            for parameter in self.model.decoder.parameters():
                self.optimizer.state.pop(parameter, None)

    def _set_modes(self) -> None:
        """All that learns in train mode. A frozen encoder in eval mode: its drop paths would only be noise, and a
        frozen teacher's features are a target."""
        self.network.train()
        for encoder in filter(None, (self.model.student, self.model.teacher)):
            encoder.train(next(encoder.parameters()).requires_grad)

    def train_one_epoch(self, batches: Iterable[dict], after_step: Callable[[], bool]) -> bool:
        """Train on the rest of the epoch. after_step returns True to stop at this step's border; then so does this.

        The caller's iterable must start at progress.batch. No reading of device values here but at the log interval.
        Raises NonFiniteError.
        """
        self.enter_stage()
        self._set_modes()
        self._sums = None
        for batch in batches:
            self.train_batch(batch)
            if self._at_step_border():
                if self.progress.step % self.config.log_interval == 0:
                    self.read_device()
                if after_step():
                    return True
        self.read_device()
        return False

    def _at_step_border(self) -> bool:
        done = self.progress.batch
        return done % self.config.accumulation_steps == 0 or done == self.batches_per_epoch

    def train_batch(self, batch: dict) -> None:
        """Forward, loss and backward of one batch, and a step where a group of accumulated batches is full."""
        image = batch["image"].to(self.device, non_blocking=True, memory_format=torch.channels_last).float() / 255
        alpha = batch["alpha"].to(self.device, non_blocking=True).float() / 255
        first = self.progress.batch - self.progress.batch % self.config.accumulation_steps
        group = min(self.config.accumulation_steps, self.batches_per_epoch - first)  # the tail group may be smaller
        student_view = self._student_view(image)
        self.progress.batch += 1
        at_border = self._at_step_border()
        synchronized = at_border or self.network is self.model or not hasattr(self.network, "no_sync")
        with contextlib.nullcontext() if synchronized else self.network.no_sync():
            with autocast(self.device, self.precision):
                output = self.network(image, alpha if self.course.needs_teacher else None, student_view)
            weights = self.loss_weights | {"alignment": self.loss_weights["alignment"] * self.course.alignment_share}
            terms = matting_losses(output, alpha, weights)
            self.scaler.scale(terms["loss"] / group).backward()
        self._count(terms)
        self._recent.append((batch["name"], terms["loss"].detach()))
        if at_border:
            self._step()

    def _student_view(self, image: Tensor) -> Tensor | None:
        """The photo as the student sees it: at native-resolution prediction it is smaller than the refiner's.

        The scale is drawn per batch from 1 ... max_student_downscale, the same on every rank.
        """
        key = (self.config.seed, self.progress.epoch, self.progress.batch)
        scale = random.Random(repr(key)).randint(1, self.config.max_student_downscale)
        if scale == 1:
            return None
        size = [max(1, side // scale) for side in image.shape[-2:]]
        return F.interpolate(image, size=size, mode="bilinear", align_corners=False, antialias=True)

    def _step(self) -> None:
        set_learning_rate(self.optimizer, self.course.learning_rate)
        self.scaler.unscale_(self.optimizer)
        norm = clip_gradients(self.model.parameters(), self.config.gradient_clip)
        self.scaler.step(self.optimizer)  # does nothing where a gradient is not finite
        # without fp16 the scale stays 1: halved at each bad step, and never raised, it would end as an underflow
        self.scaler.update(None if self.precision == torch.float16 else 1.0)
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update(self.progress.step)
        bad = 1.0 - torch.isfinite(norm).float()
        self._bad = torch.stack([self._bad[0] + bad, (self._bad[1] + bad) * bad])
        self.progress.step += 1

    def _count(self, terms: dict[str, Tensor]) -> None:
        if self.course.teaches:  # the matte is the teacher's
            terms = {name.replace("coarse_", "teacher_"): term for name, term in terms.items()}
        values = torch.stack([term.detach().float() for term in terms.values()])
        self._terms = list(terms)
        if self._sums is None:
            self._sums = torch.tensor([self.progress.sums.get(name, 0.0) for name in terms], device=self.device)
            self._bad = torch.tensor([self.progress.bad_steps, self.progress.bad_in_a_row], device=self.device).float()
        # a step that is skipped must not make the whole epoch's mean nan
        self._sums = self._sums + torch.where(torch.isfinite(values), values, 0.0)

    def read_device(self) -> None:
        """Bring sums and counters to the host: a device sync point. Raises NonFiniteError."""
        if self._sums is None:
            return
        self.progress.sums = dict(zip(self._terms, self._sums.tolist(), strict=True))
        self.progress.bad_steps, self.progress.bad_in_a_row = (int(count) for count in self._bad.tolist())
        if self.progress.bad_in_a_row >= self.config.max_bad_steps:
            raise NonFiniteError(self._blame())

    def _blame(self) -> str:
        """What to say when a run cannot go on: the photos whose loss was not finite, else all of the last steps."""
        guilty = [name for names, loss in self._recent if not torch.isfinite(loss) for name in names]
        photos = sorted(set(guilty or [name for names, _ in self._recent for name in names]))
        more = f" and {len(photos) - NAMES_SHOWN} more" if len(photos) > NAMES_SHOWN else ""
        return (
            f"{self.progress.bad_in_a_row} steps in a row had no finite {'loss' if guilty else 'gradient'}, on "
            f"{', '.join(photos[:NAMES_SHOWN])}{more}: go on from the last saved state with --resume and --amp "
            "bf16 or off, or a lower --learning-rate; or look at these photos with python -m data.check."
        )

    def mean_losses(self) -> dict[str, float]:
        """Mean of each loss term over the batches of this epoch so far, over all ranks."""
        names, batches = list(self.progress.sums), self.progress.batch
        if not batches:
            return {}
        sums = torch.tensor([self.progress.sums[name] for name in names], dtype=torch.float64)
        return dict(zip(names, (distributed.mean_over_ranks(sums) / batches).tolist(), strict=True))

    def end_epoch(self) -> None:
        """Close the epoch's counters; the totals stay."""
        self.progress.taught += self.course.teaches
        self.progress.epoch += 1
        self.progress.batch = self.progress.bad_steps = 0
        self.progress.epoch_seconds = 0.0
        self.progress.sums, self._sums = {}, None

    @property
    def layout(self) -> dict[str, int]:
        """What must not change within an epoch, or the batches of its rest would be others."""
        return {
            "processes": distributed.world_size(),
            "batches_per_epoch": self.batches_per_epoch,
            "batch_size": self.config.batch_size,
            "accumulation_steps": self.config.accumulation_steps,
        }

    def state_dict(self) -> dict[str, Any]:
        """All that a bit-exact continuation needs, as plain types and tensors (loads with weights_only).

        Every rank must call it: each has sums and random generators of its own. Raises NonFiniteError.
        """
        self.read_device()
        own = {"sums": self.progress.sums, "random": random_state(self.device)}
        return {
            "model": self.model.state_dict(),
            "average": self.average.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "precision": str(self.precision),
            "progress": asdict(self.progress),
            "layout": self.layout,
            "ranks": distributed.all_gather_objects([own]),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what state_dict returned; this run's settings hold where they differ from the saved ones."""
        self.model.load_state_dict(state["model"])
        self.average.network.load_state_dict(state["average"])
        settings = [
            {"weight_decay": group["weight_decay"], "lr_scale": group["lr_scale"]}
            for group in self.optimizer.param_groups
        ]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, own in zip(self.optimizer.param_groups, settings, strict=True):
            group |= own
        if state["precision"] == str(self.precision):
            self.scaler.load_state_dict(state["scaler"])
        vars(self.progress).update(vars(Progress(**state["progress"])))
        if distributed.rank() < len(state["ranks"]):  # a rank that is new starts from its own seed
            own = state["ranks"][distributed.rank()]
            self.progress.sums = own["sums"]
            restore_random_state(own["random"], self.device)
