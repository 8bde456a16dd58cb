"""What a person reads of a run, an epoch at a time: a line, the log, curves, previews, TensorBoard events."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

from common import plots
from matting import predict_mattes
from models import MattingNetwork
from training.run_folder import RunError, write_log

PREVIEW_PHOTOS = 4


def summary(row: dict, epochs: int, better: bool) -> str:
    """One line an epoch."""
    skipped = f"  {row['skipped_steps']} steps skipped, not finite" if row["skipped_steps"] else ""
    loss = f"loss {row['loss']:.4f}  {row['images_per_second']:.1f} images/s  " if "loss" in row else ""
    if "val_refined_image_sad" not in row:
        return f"epoch {row['epoch']}/{epochs}  {loss}the teacher learns{skipped}"
    return (
        f"epoch {row['epoch']}/{epochs}  {loss}val SAD {row['val_refined_image_sad']:.3f} "
        f"(coarse {row['val_coarse_image_sad']:.3f})  edge SAD {row['val_refined_edge_sad']:.3f} "
        f"(coarse {row['val_coarse_edge_sad']:.3f})  MSE {row['val_refined_image_mse']:.5f}  "
        f"Grad {row['val_refined_image_grad']:.3f}{skipped}{'  best' if better else ''}"
    )


def preview_rows(network: MattingNetwork, validation) -> list[dict]:
    """The first photos of the validation set with their true, coarse and refined alphas, as plots.preview takes them.

    Raises ValueError for a photo that cannot be read.
    """
    rows = []
    for index in range(min(PREVIEW_PHOTOS, len(validation))):
        item = validation[index]
        mattes = predict_mattes(network, item["image"])
        rows.append(
            {
                "name": item["name"],
                "image": item["image"].permute(1, 2, 0).numpy(),
                "truth": item["alpha"][0].numpy(),
                "mattes": {
                    "coarse": mattes.coarse_alpha[0].float().cpu().numpy(),
                    "refined": mattes.refined_alpha[0].float().cpu().numpy(),
                },
            }
        )
    return rows


class Report:
    """Writes a run's files for people; what it cannot write it names in a sentence, and the run goes on."""

    def __init__(self, folder: Path, epochs: int, tensorboard: bool, tell: Callable[[str], None]) -> None:
        self.folder, self.epochs, self.tell = folder, epochs, tell
        self.events = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.events = SummaryWriter(str(folder))

    def write(self, rows: Sequence[dict], better: bool, network: MattingNetwork, validation) -> None:
        self.tell(summary(rows[-1], self.epochs, better))
        if self.events:
            for name, value in rows[-1].items():
                self.events.add_scalar(name, value, rows[-1]["epoch"])
            self.events.flush()
        self.write_log(rows)
        self._try("curves", lambda: plots.curves(self.folder / "curves.png", rows))
        if "val_refined_image_sad" in rows[-1]:
            self._try("preview", lambda: plots.preview(self.folder / "preview.png", preview_rows(network, validation)))

    def write_log(self, rows: Sequence[dict]) -> None:
        self._try("log", lambda: write_log(self.folder, rows))

    def _try(self, what: str, write: Callable[[], None]) -> None:
        try:
            write()
        except (OSError, ValueError) as error:  # a full disk, a broken photo: no reason to lose a run
            self.tell(f"The {what} could not be made: {error}")


def require_tensorboard() -> None:
    """Raises RunError where the package is missing, before anything is made."""
    if importlib.util.find_spec("tensorboard") is None:
        raise RunError(
            "--tensorboard needs the package tensorboard: pip install tensorboard, or leave it out "
            "(training_log.csv holds the same figures)."
        )
