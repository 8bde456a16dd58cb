"""Prediction on real photos by part and octave, in processor seconds: what the model costs on the photos people have.

Processor seconds do not depend on what else the machine does; on a GPU they are seconds of the clock.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from common.devices import autocast, synchronize
from common.errors import UserError
from common.photos import list_images, read_photo, to_uint8, write_alpha
from common.resize import resize_to_working_size
from config import Config
from experiments.measuring import clock_of, matrix_peak, peak_memory
from inference.pseudo_labels import open_network, subject_map
from matting import as_pixels, refine_uncertain
from models import MattingNetwork, Refiner
from models.checkpoint import MODEL_FILE, STARTER, find_model, load_model
from models.octaves import climb
from models.refiner import Borders

UNCERTAIN = (0.02, 0.98)  # alphas between these count as uncertain pixels

PARTS = ("student", "pyramid", "gate", "refiner", "writing")


class Work(defaultdict):
    """Sums over one photo or, of an octave, over all: seconds by part, pixels by kind, operations of the refiner."""

    def __init__(self, **sums: float) -> None:
        super().__init__(float, sums)

    def add(self, sums: Mapping[str, float]) -> None:
        for name, value in sums.items():
            self[name] += value

    @contextlib.contextmanager
    def timed(self, part: str, device: torch.device) -> Iterator[None]:
        clock = clock_of(device)
        start = clock()
        yield
        synchronize(device)
        self[part] += clock() - start

    def row(self, peak: float) -> dict[str, Any]:
        """Columns of the table. peak: operations that the machine does in a second."""
        seconds = {
            f"{part} s": self[part] for part in ("student", "pyramid", "gate", "refiner", "writing") if part in self
        }
        shares = {kind: self[kind] / self["pixels"] for kind in ("uncertain", "refined", "computed")}
        return seconds | shares | {"of peak": self["operations"] / max(self["refiner"], 1e-9) / peak}


class WatchedRefiner:
    """A refiner that notes its seconds and pixels, and its windows: photos, size, borders."""

    def __init__(self, refiner: Refiner, work: Work) -> None:
        self.refiner, self.work = refiner, work
        self.windows: list[tuple[int, torch.Size, Borders]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.refiner, name)

    def __call__(self, image: Tensor, alpha: Tensor, borders: Borders) -> Tensor:
        with self.work.timed("refiner", image.device):
            refined = self.refiner(image, alpha, borders)
        self.work["computed"] += refined.numel()
        self.windows.append((len(image), image.shape[-2:], borders))
        return refined


@cache
def operations(refiner: Refiner, size: torch.Size, borders: Borders) -> int:
    """Multiplications and additions of the refiner's convolutions on a window."""
    window = torch.rand(1, 4, *size, device=refiner.device)
    with FlopCounterMode(display=False) as counter:
        refiner(window[:, :3], window[:, 3:], borders)
    return counter.get_total_flops()


def photo_cases(
    flags: argparse.Namespace, device: torch.device, precision: torch.dtype
) -> Iterator[tuple[dict, Callable[[], dict]]]:
    """A row for each photo of flags.photos, then one for each octave, over all photos. Raises UserError."""
    checkpoint = find_model(flags.checkpoint, Config.output) if flags.checkpoint else STARTER / MODEL_FILE
    model = load_model(checkpoint, device)
    if model.refiner is None:
        raise UserError(f"{checkpoint} has no refiner to measure: name a checkpoint of TSR-Matte.")
    files = list_images(flags.photos)
    if not files:
        raise UserError(f"{flags.photos} holds no photo: name another folder with --photos.")
    other = open_network(flags.beside) if flags.beside else None
    peak = matrix_peak(device, precision, clock_of(device))
    print(f"working size {model.image_size}; matrix peak {peak / 1e9:.0f} GFLOP/s; shares are of the octave's pixels")
    octaves: dict[int, Work] = {}
    measure = partial(measure_photo, model, precision=precision, peak=peak, other=other)
    measure(files[0], {})  # warm-up
    for file in files:
        yield {"photo": file.stem}, partial(measure, file, octaves)
    for factor in sorted(octaves):
        yield {"photo": f"all, 1/{factor} size"}, partial(octaves[factor].row, peak)


@torch.inference_mode()
def measure_photo(
    model: MattingNetwork, file: Path, octaves: dict[int, Work], *, precision: torch.dtype, peak: float, other: Any
) -> dict[str, Any]:
    """Seconds of each part on a photo, shares at its native size, peak memory; adds the octaves' own to `octaves`."""
    device, refiner, whole, native = model.device, model.refiner, Work(), Work()
    assert refiner is not None
    photo = to_uint8(read_photo(file).image)
    image = as_pixels(photo).to(device)

    def refine(image: Tensor, alpha: Tensor) -> Tensor:
        nonlocal native
        native = Work(pixels=alpha.numel(), uncertain=((alpha > UNCERTAIN[0]) & (alpha < UNCERTAIN[1])).sum().item())
        watched = WatchedRefiner(refiner, native)
        with native.timed("gate", device):
            refined, share = refine_uncertain(watched, image, alpha[0])
        native["gate"] -= native["refiner"]
        counting = Work()  # operations are counted once a shape, which takes time of its own
        with counting.timed("counting", device):
            native["operations"] = sum(n * operations(refiner, size, borders) for n, size, borders in watched.windows)
        native["refined"] = share * alpha.numel()
        whole.add({part: native[part] for part in ("gate", "refiner", "operations")})
        whole["pyramid"] -= native["gate"] + native["refiner"] + counting["counting"]
        octaves.setdefault(round(max(photo.shape) / max(alpha.shape)), Work()).add(native)
        return refined[None]

    with peak_memory(device) as used, autocast(device, precision):
        with whole.timed("student", device):
            coarse = model.coarse_alpha(resize_to_working_size(image, model.image_size)[None].float() / 255)
        with whole.timed("pyramid", device):
            alpha = climb(image, coarse, refine, refiner.use_octaves)[-1]
    megabytes = (used() or 0) / 2**20
    with whole.timed("writing", device), tempfile.TemporaryDirectory() as folder:
        write_alpha(Path(folder) / "alpha.png", alpha[0, 0].cpu().numpy())
    whole.add({kind: native[kind] for kind in ("pixels", "uncertain", "refined", "computed")})
    row = {"size": f"{photo.shape[1]}x{photo.shape[0]}"} | whole.row(peak) | {"MB": megabytes}
    row["all s"] = sum(seconds for part, seconds in row.items() if part.endswith(" s"))
    if other is not None:
        with whole.timed("other", torch.device("cpu")):
            subject_map(other, photo)
        row["beside s"] = whole["other"]
    return row
