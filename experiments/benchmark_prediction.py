"""Prediction by part and octave, on photos or on a drawn one: what the model costs on the photos people have.

On a CPU in processor seconds, which do not depend on what else the machine does; on a GPU in seconds of the clock.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from common.devices import autocast, synchronize
from common.errors import UserError
from common.photos import list_images, read_photo, to_uint8, write_alpha
from common.resize import resize_alpha, resize_to_working_size
from config import Config, Variant
from data.synthetic.dataset import render_sample
from experiments.measuring import clock_of, matrix_peak, peak_memory
from inference.pseudo_labels import open_network, subject_map
from matting import as_pixels, refine_uncertain
from models import MattingNetwork, Refiner, build_model
from models.checkpoint import MODEL_FILE, STARTER, find_model, load_model
from models.matting_network import decode, saturating_sigmoid
from models.octaves import climb
from models.refiner import Borders

UNCERTAIN = (0.02, 0.98)  # alphas between these count as uncertain pixels
PARTS = ("encoder", "decoder", "pyramid", "gate", "refiner", "writing")
WHOLE_LIMIT = 2048  # pixels; the refiner on a whole photo of twice that needs 7 GB
EDGE_BAND = 8  # pixels of the working size over which a drawn photo's coarse matte is unsure at each side of an edge


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
        seconds = {f"{part} s": self[part] for part in PARTS if part in self}
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


class Bench(NamedTuple):
    """A network, and what its figures are measured with."""

    name: str
    model: MattingNetwork
    refiner: Refiner  # its own
    precision: torch.dtype
    peak: float  # operations that the machine does in a second
    octaves: dict[int, Work]  # by the factor that the photo is reduced by; measure_photo adds to them


def open_bench(model: MattingNetwork, name: str, precision: torch.dtype) -> Bench:
    """Says what is measured. Raises UserError for a network without a refiner."""
    if model.refiner is None:
        raise UserError(f"{name} has no refiner to measure: name a checkpoint of TSR-Matte.")
    peak = matrix_peak(model.device, precision, clock_of(model.device))
    parts = {"student": model.student, "decoder": model.decoder, "refiner": model.refiner}
    sizes = [f"{part} {sum(p.numel() for p in net.parameters()) / 1e6:.3g} M" for part, net in parts.items()]
    print(
        f"{name}: working size {model.image_size}; {', '.join(sizes)} parameters; "
        f"matrix peak {peak / 1e9:.0f} GFLOP/s; shares are of the octave's pixels"
    )
    return Bench(name, model, model.refiner, precision, peak, {})


def prediction_cases(
    variant: Variant, flags: argparse.Namespace, device: torch.device, precision: torch.dtype
) -> Iterator[tuple[dict, Callable[[], dict]]]:
    """The label of each row and what measures it, for every size and drawn photo.

    Encoder and decoder have random weights, the refiner the starter model's: what it leaves uncertain at one octave is
    what the next one costs.
    """
    model = build_model(backbone=variant.backbone, image_size=flags.working_size).to(device).eval()
    model.refiner = load_model(STARTER / MODEL_FILE, device).refiner
    yield from drawn_cases(open_bench(model.to(memory_format=torch.channels_last), variant.name, precision), flags)


def checkpoint_cases(
    flags: argparse.Namespace, device: torch.device, precision: torch.dtype
) -> Iterator[tuple[dict, Callable[[], dict]]]:
    """The same of flags.checkpoint, or of the starter model, at its own working size, or a row for each photo of
    flags.photos and then one for each octave, over all photos. Raises UserError."""
    file = find_model(flags.checkpoint, Config.output) if flags.checkpoint else STARTER / MODEL_FILE
    bench = open_bench(load_model(file, device), file.parent.name, precision)
    if not flags.photos:
        yield from drawn_cases(bench, flags)
        return
    files = list_images(flags.photos)
    if not files:
        raise UserError(f"{flags.photos} holds no photo: name another folder with --photos.")
    other = open_network(flags.beside) if flags.beside else None

    def measure_file(file: Path) -> dict[str, Any]:
        photo = to_uint8(read_photo(file).image)
        row = {"size": f"{photo.shape[1]}x{photo.shape[0]}"} | measure_photo(bench, as_pixels(photo))
        if other is not None:
            work = Work()
            with work.timed("other", torch.device("cpu")):
                subject_map(other, photo)
            row["beside s"] = work["other"]
        return row

    measure_file(files[0])  # warm-up
    bench.octaves.clear()
    for file in files:
        yield {"photo": file.stem}, partial(measure_file, file)
    for factor in sorted(bench.octaves):
        yield {"photo": f"all, 1/{factor} size"}, partial(bench.octaves[factor].row, bench.peak)


def drawn_cases(bench: Bench, flags: argparse.Namespace) -> Iterator[tuple[dict, Callable[[], dict]]]:
    for size in flags.sizes:
        for photo in flags.drawn:
            yield (
                {"variant": bench.name, "size": size, "photo": photo},
                partial(measure_drawn, bench, size, photo, flags.repeats),
            )


def measure_drawn(bench: Bench, size: int, photo: str, repeats: int) -> dict[str, Any]:
    """Means of several runs, and what the refiner costs without its gate where the photo is not too large for it."""
    model = bench.model
    image, coarse = drawn_photo(size, photo, model.image_size)
    runs = [measure_photo(bench, image, coarse.to(model.device)) for _ in range(1 + repeats)][1:]
    row = {name: float(np.mean([run[name] for run in runs])) for name in runs[0]}
    if size <= WHOLE_LIMIT:
        work, image = Work(), image.to(model.device)
        with torch.inference_mode(), autocast(model.device, bench.precision), work.timed("whole", model.device):
            climb(image, coarse.to(model.device), lambda part, alpha: bench.refiner(part[None].float() / 255, alpha))
        row["refiner, no gate s"] = work["whole"]
    return row | {"all/encoder": row["all s"] / row["encoder s"]}


def drawn_photo(size: int, photo: str, working_size: int) -> tuple[Tensor, Tensor]:
    """A photo, uint8 (3, S, S), and the coarse matte (1, 1, s, s) of a student that sees it at its working size s.

    portrait: the truth, blurred over the uncertain band. worst: uncertain everywhere.
    """
    sample = render_sample(3, "val", 5, size)  # of its truth 7 to 13 % is soft; of a real subject 8 %
    image = torch.from_numpy((sample.image * 255).astype(np.uint8)).permute(2, 0, 1).contiguous()
    if photo == "worst":
        return image, torch.full((1, 1, working_size, working_size), 0.5)
    view = resize_alpha(torch.from_numpy(sample.alpha)[None, None], (working_size, working_size))
    kernel = 2 * EDGE_BAND + 1
    return image, F.avg_pool2d(view, kernel, stride=1, padding=EDGE_BAND, count_include_pad=False).clamp(0, 1)


@torch.inference_mode()
def measure_photo(bench: Bench, photo: Tensor, coarse: Tensor | None = None) -> dict[str, Any]:
    """Seconds of each part on a photo, uint8 (3, H, W), shares at its native size, and peak memory.

    coarse: (1, 1, s, s), in place of the student's matte, which would be uncertain everywhere with random weights.
    """
    model, refiner, device, whole, native = bench.model, bench.refiner, bench.model.device, Work(), Work()
    image = photo.to(device)

    def refine(image: Tensor, alpha: Tensor) -> Tensor:
        nonlocal native
        native = Work(pixels=alpha.numel(), uncertain=((alpha > UNCERTAIN[0]) & (alpha < UNCERTAIN[1])).sum().item())
        watched = WatchedRefiner(refiner, native)
        with native.timed("gate", device):
            refined, share = refine_uncertain(watched, image, alpha[0])
        native["gate"] -= native["refiner"]
        counting = Work()  # counting the operations takes time too, once a shape
        with counting.timed("counting", device):
            native["operations"] = sum(n * operations(refiner, size, borders) for n, size, borders in watched.windows)
        native["refined"] = share * alpha.numel()
        whole.add({part: native[part] for part in ("gate", "refiner", "operations")})
        whole["pyramid"] -= native["gate"] + native["refiner"] + counting["counting"]
        bench.octaves.setdefault(round(max(photo.shape) / max(alpha.shape)), Work()).add(native)
        return refined[None]

    with peak_memory(device) as used, autocast(device, bench.precision):
        with whole.timed("encoder", device):
            view = resize_to_working_size(image, model.image_size)[None].float() / 255  # (1, 3, s, s)
            features = model.student(view)
        with whole.timed("decoder", device):
            decoded = saturating_sigmoid(decode(model.decoder, features, (view.shape[-2], view.shape[-1])))
        with whole.timed("pyramid", device):
            alpha = climb(image, decoded if coarse is None else coarse, refine, refiner.use_octaves)[-1]
    megabytes = (used() or 0) / 2**20
    with whole.timed("writing", device), tempfile.TemporaryDirectory() as folder:
        write_alpha(Path(folder) / "alpha.png", alpha[0, 0].cpu().numpy())
    whole.add({kind: native[kind] for kind in ("pixels", "uncertain", "refined", "computed")})
    row = whole.row(bench.peak)
    return row | {"MB": megabytes, "all s": sum(whole[part] for part in PARTS)}
