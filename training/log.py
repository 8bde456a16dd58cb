"""training_log.csv: the sums over an epoch that become a row, its columns, and how it is written.

stage: start (--init-from, before the first step), teacher or student. loss and losses.COLUMNS: means over the epoch.
val_coarse_..., val_refined_...: figures of the validation. docs/training.md explains each column.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common import distributed
from common.errors import UserError
from common.files import atomic_write
from metrics import DECIDES

LOG_FILE = "training_log.csv"
NAMES_SHOWN = 20
Row = Mapping[str, Any]


class Meter:
    """Sums of the loss terms of an epoch, and its non-finite steps. Adding to it never waits for the device."""

    def __init__(self, device: torch.device, history: int, state: dict[str, Any] | None = None) -> None:
        """history: batches whose photos are remembered; state: of state_dict, to resume within an epoch."""
        state = state or {"sums": {}, "counts": {}, "bad_steps": 0, "bad_in_a_row": 0}
        self.sums = {name: torch.tensor(value, device=device) for name, value in state["sums"].items()}
        self.counts: dict[str, int] = dict(state["counts"])  # batches that had the term
        self._bad = torch.tensor([state["bad_steps"], state["bad_in_a_row"]], dtype=torch.float32, device=device)
        self._recent: deque[tuple[list[str], Tensor]] = deque(maxlen=history)

    def add(self, terms: dict[str, Tensor], names: list[str]) -> None:
        """One batch: its loss terms and its photos. A term that is not finite must not spoil the epoch's mean."""
        for name, term in terms.items():
            value = torch.nan_to_num(term.detach().float(), nan=0.0, posinf=0.0, neginf=0.0)
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1
        self._recent.append((names, terms["loss"].detach()))

    def add_step(self, gradient_norm: Tensor) -> None:
        """One optimizer step, which a norm that is not finite has skipped."""
        bad = 1.0 - torch.isfinite(gradient_norm).float()
        self._bad = torch.stack([self._bad[0] + bad, (self._bad[1] + bad) * bad])

    def read_bad_steps(self) -> tuple[int, int]:
        """Steps skipped in this epoch, and in a row. Waits for the device."""
        bad_steps, in_a_row = self._bad.tolist()
        return int(bad_steps), int(in_a_row)

    def read_loss(self) -> float:
        """Mean loss of the epoch so far, of this rank. Waits for the device."""
        return self.sums["loss"].item() / self.counts["loss"]

    def means(self) -> dict[str, float]:
        """Mean of each term over the epoch's batches that had it, over all ranks. Waits for the device."""
        if not self.sums:
            return {}
        sums = torch.stack(list(self.sums.values())).cpu().double()  # on the CPU: MPS has no float64
        own = sums / torch.tensor([self.counts[name] for name in self.sums])
        return dict(zip(self.sums, distributed.mean_over_ranks(own).tolist(), strict=True))

    def check(self, max_bad_steps: int) -> None:
        """Raises UserError after too many bad steps in a row. Waits for the device."""
        in_a_row = self.read_bad_steps()[1]
        if in_a_row < max_bad_steps:
            return
        blamed = [name for names, loss in self._recent if not torch.isfinite(loss) for name in names]
        photos = sorted(set(blamed or [name for names, _ in self._recent for name in names]))
        more = f" and {len(photos) - NAMES_SHOWN} more" if len(photos) > NAMES_SHOWN else ""
        raise UserError(
            f"{in_a_row} steps in a row had no finite {'loss' if blamed else 'gradient'}, on "
            f"{', '.join(photos[:NAMES_SHOWN])}{more}: resume the last saved state with --resume and --amp bf16 or "
            "off, or a lower --learning-rate; or look at these photos with python -m data.check."
        )

    def state_dict(self) -> dict[str, Any]:
        """Plain values from which an equal meter can be made. Waits for the device."""
        bad_steps, in_a_row = self.read_bad_steps()
        values = torch.stack(list(self.sums.values())).tolist() if self.sums else []
        sums = dict(zip(self.sums, values, strict=True))
        return {"sums": sums, "counts": self.counts, "bad_steps": bad_steps, "bad_in_a_row": in_a_row}


def write_log(folder: Path, rows: Sequence[Row]) -> None:
    """The whole file, from the rows that the training state holds: no duplicate and no gap after a kill."""
    # names are taken from the last row first: the row before the first step has no losses yet
    names = list(dict.fromkeys(name for row in reversed(rows) for name in row))
    with (
        atomic_write(folder / LOG_FILE) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: f"{v:.6g}" if isinstance(v, float) else v for name, v in row.items()})


def validation_column(matte: str, figure: str) -> str:
    return f"val_{matte}_{figure}"


def is_validated(row: Row) -> bool:
    return validation_column("coarse", DECIDES) in row


def shipped_matte(rows: Sequence[Row]) -> str:
    """Which matte the run of this log ships: refined, or coarse without a refiner."""
    return "refined" if any(validation_column("refined", DECIDES) in row for row in rows) else "coarse"
