"""How the network's time on a photo splits between student and refiner."""

from __future__ import annotations

import time
from typing import Any

from common.devices import synchronize
from models import MattingNetwork


class NetworkClock:
    """Watches a model: `student` is the seconds of its last encoder and decoder pass. Waits for the device, so it costs
    a little; what a photo takes beyond it is the refiner with its cutting up and putting together."""

    def __init__(self, model: MattingNetwork) -> None:
        self.student = 0.0
        self._start = 0.0
        self._device = next(model.parameters()).device
        model.student.register_forward_pre_hook(self._begin)
        model.decoder.register_forward_hook(self._end)

    def _begin(self, *_: Any) -> None:
        synchronize(self._device)
        self._start = time.perf_counter()

    def _end(self, *_: Any) -> None:
        synchronize(self._device)
        self.student = time.perf_counter() - self._start
