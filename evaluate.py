"""Measure mattes against their truths, over the whole image and over the edge band.

    python evaluate.py --dataset ROOT/val --checkpoint C          a checkpoint on ROOT/val/im and ROOT/val/gt
    python evaluate.py --predictions DIR --ground-truth DIR       anybody's mattes, matched by file name
    python evaluate.py --compare A B --dataset ROOT/val           checkpoints side by side, and a figure
    torchrun --nproc-per-node 8 evaluate.py --dataset ROOT/val    the photos shared over 8 processes, same totals

Exit codes: 0 all scored, 1 some files failed (each is named), 2 nothing could start, or a result could not be written.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.photos import PhotoError
from evaluation import tables as score_tables
from evaluation.scoring import Failure, Wanted, match_files
from evaluation.validation import (
    Column,
    Scores,
    predict_columns,
    rank,
    report_failures,
    score_dataset,
    score_folders,
    validate,
    world_size,
)

__all__ = ["main", "validate"]  # validate is what train.py measures each epoch with

LETTERS = "ABCDEFGH"


class StartError(ValueError):
    """Nothing could be scored; the message is one sentence that says what to do."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = parse_options(argv)
    try:
        make_output_folders(options)
        scores = evaluate_folders(options) if options.predictions else evaluate_checkpoints(options)
    except (StartError, PhotoError) as error:
        print(error, file=sys.stderr)
        return 2
    except BrokenProcessPool:
        print("A metrics process was killed, most likely for want of memory: lower --workers.", file=sys.stderr)
        return 2
    finally:
        if world_size() > 1:
            from common import distributed

            distributed.shutdown()
    return 1 if scores.failures else 0


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_argument_group("what to measure")
    what.add_argument(
        "--dataset",
        metavar="DIR",
        help="folder with im (photos) and gt (true alphas), or with val "
        "inside; or the word synthetic (default: the dataset of config.py)",
    )
    what.add_argument(
        "--checkpoint", type=Path, metavar="C", help="best.safetensors or its run folder (default: the newest run)"
    )
    what.add_argument(
        "--compare",
        type=Path,
        nargs="+",
        metavar="C",
        help="checkpoints to put side by side; one with a refiner also shows its coarse matte, as TwinSwin-Matte",
    )
    what.add_argument("--predictions", type=Path, metavar="DIR", help="folder of mattes to score")
    what.add_argument("--ground-truth", type=Path, metavar="DIR", help="folder of true alphas, of the same names")
    what.add_argument("--images", type=Path, metavar="DIR", help="the photos of --predictions, for --composite")
    more = parser.add_argument_group("more figures")
    more.add_argument("--dis", action="store_true", help="the DIS metrics too; they binarise the truth")
    more.add_argument(
        "--composite",
        action="store_true",
        help="the error of re-composites on black, white and "
        "green too: the halo (the first use on a machine compiles for a minute)",
    )
    output = parser.add_argument_group("output")
    output.add_argument("--csv", type=Path, metavar="FILE", help="write one line a matte")
    output.add_argument("--json", type=Path, metavar="FILE", help="write the summary")
    output.add_argument(
        "--figure",
        type=Path,
        metavar="FILE",
        default=Path("figures/compare.png"),
        help="the picture that --compare draws (default: %(default)s)",
    )
    machine = parser.add_argument_group("machine")
    machine.add_argument(
        "--workers",
        type=int,
        metavar="N",
        default=default_workers(),
        help="processes that compute metrics; 0 = compute them in this one (default here: %(default)s)",
    )
    machine.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    options = parser.parse_args(argv)
    if bool(options.predictions) != bool(options.ground_truth):
        parser.error("--predictions and --ground-truth belong together")
    if sum(bool(given) for given in (options.predictions, options.compare, options.checkpoint)) > 1:
        parser.error("choose one of --checkpoint, --compare and --predictions")
    if options.predictions and options.composite and not options.images:
        parser.error("--composite needs the photos: name their folder with --images")
    if options.workers < 0 or len(options.compare or []) > len(LETTERS):
        parser.error(f"--workers must not be negative, and --compare takes {len(LETTERS)} checkpoints at most")
    return options


def default_workers() -> int:
    """This process's share of the cores, at most 8."""
    return max(1, min(8, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def make_output_folders(options: argparse.Namespace) -> None:
    """Before the work, so that it is not lost at its end."""
    for path in filter(None, (options.csv, options.json, options.compare and options.figure)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StartError(f"{path.parent} cannot be made ({error.strerror}): choose another folder.") from error


def evaluate_folders(options: argparse.Namespace) -> Scores:
    """Mode --predictions, scored and reported; imports no model code."""
    join_processes(None)
    wanted = Wanted(dis=options.dis, composite=options.composite)
    for folder in filter(None, (options.predictions, options.ground_truth, options.images)):
        if not folder.is_dir():
            raise StartError(f"{folder} is not a folder: name the folder that holds the files.")
    try:
        scores = score_folders(options.predictions, options.ground_truth, options.images, wanted, options.workers)
    except ValueError as error:
        raise StartError(str(error)) from error
    report(scores, options)
    return scores


def evaluate_checkpoints(options: argparse.Namespace) -> Scores:
    """Modes --checkpoint and --compare, scored and reported."""
    from common.devices import DeviceError, choose_device

    try:
        device = choose_device(options.device)
    except DeviceError as error:
        raise StartError(str(error)) from error
    join_processes(device)
    paths = checkpoint_files(options)
    columns = load_columns(paths, device, coarse_too=bool(options.compare))
    if options.compare and len(columns) < 2:
        raise StartError(f"{paths[0]} has no refiner and nothing to be compared with: name another checkpoint too.")
    dataset, unpaired = open_dataset(options.dataset, paths[0])
    wanted = Wanted(dis=options.dis, composite=options.composite)
    with one_thread():
        scores = score_dataset(columns, dataset, wanted, options.workers)
    scores = Scores(scores.rows, unpaired + scores.failures)
    report(scores, options)  # before the figure: what took hours does not hang on a picture
    if options.compare and scores.rows and rank() == 0:
        draw_comparison(options.figure, columns, dataset, scores.rows)
    return scores


def join_processes(device: Any) -> None:
    if world_size() > 1:
        from common import distributed

        # ranks meet when each has scored its share: how long that takes is up to the photos
        distributed.setup(device, patience_minutes=distributed.LONG_PATIENCE_MINUTES)


@contextmanager
def one_thread() -> Iterator[None]:
    """Predict with one thread on a CPU, as torchrun's processes do: the last bits depend on the number.

    Whoever has more cores uses them through torchrun, with the same totals.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def checkpoint_files(options: argparse.Namespace) -> list[Path]:
    """The files that are named, or the newest; a run folder stands for its best model."""
    from config import OUTPUT
    from models.checkpoint import CheckpointError, find_model

    try:
        return [find_model(path, OUTPUT) for path in options.compare or [options.checkpoint]]
    except CheckpointError as error:
        raise StartError(str(error)) from error


def load_columns(paths: Sequence[Path], device: Any, coarse_too: bool) -> list[Column]:
    """A column a checkpoint; with coarse_too, one in front for the coarse matte of each that has a refiner."""
    from inference.loading import load
    from models.checkpoint import CheckpointError

    columns = []
    for letter, path in zip(LETTERS, paths, strict=False):
        try:
            model = load(path, device)
        except CheckpointError as error:
            raise StartError(str(error)) from error
        prefix = f"{letter} " if len(paths) > 1 else ""
        if model.refiner is None or coarse_too:
            columns.append(Column(f"{prefix}TwinSwin-Matte", model, "coarse_alpha"))
        if model.refiner is not None:
            columns.append(Column(f"{prefix}TSR-Matte", model, "refined_alpha"))
        if rank() == 0:
            print(f"{prefix}{path}")
    return columns


def open_dataset(name: str | None, model_file: Path) -> tuple[Any, list[Failure]]:
    """The photos to measure on, and those without a partner.

    A folder with im and gt, or the synthetic set that this checkpoint was validated on.
    """
    from config import DATASET
    from data.build import SYNTHETIC
    from data.dataset import PhotoValidation

    if name == SYNTHETIC:
        return synthetic_set(model_file), []
    root = Path(name or DATASET)
    root = root / "val" if (root / "val" / "im").is_dir() else root
    try:
        return PhotoValidation(root), match_files(root / "im", root / "gt")[1]
    except ValueError as error:
        raise StartError(str(error)) from error


def synthetic_set(model_file: Path) -> Any:
    """The embedded photos that a checkpoint was validated on, from the settings in its file."""
    from data.build import SYNTHETIC, build_validation_set
    from inference.loading import read_metadata

    trained = read_metadata(model_file)
    samples, seed = (trained["config"].get(name) for name in ("val_samples", "seed"))
    if not (isinstance(samples, int) and isinstance(seed, int) and samples > 0 <= seed):
        raise StartError(
            f"{model_file} does not say which synthetic photos it was validated on (its config has "
            f"val_samples {samples}, seed {seed}): name a folder with --dataset."
        )
    return build_validation_set(SYNTHETIC, image_size=trained["model"]["image_size"], samples=samples, seed=seed)


def draw_comparison(path: Path, columns: Sequence[Column], dataset: Any, rows: Sequence[dict]) -> None:
    """The photos in which the first two mattes differ most, as much as half of the photos do, and least.

    Raises PhotoError where the figure cannot be drawn or written.
    """
    from common import plots

    differences = {row["index"]: row["difference"] for row in rows}
    order = sorted(differences, key=lambda index: -differences[index])
    pictures = []
    for index in dict.fromkeys((order[0], order[len(order) // 2], order[-1])):
        item = dataset[index]  # predicted again: keeping the mattes of a whole set takes too much memory
        pictures.append({
            "name": item["name"], "image": item["image"].permute(1, 2, 0).numpy(),
            "true": item["alpha"][0].numpy(), "mattes": predict_columns(columns, item["image"]),
        })  # fmt: skip
    plots.comparison(path, pictures)
    print(f"{path}: largest, median and smallest difference between {columns[0].label} and {columns[1].label}")


def report(scores: Scores, options: argparse.Namespace) -> None:
    """Table, notes, files, and at the end what failed; once for all ranks. Raises PhotoError for a file that cannot
    be written."""
    if rank() > 0:
        return
    if scores.rows:
        summaries = {label: score_tables.summarize(rows) for label, rows in score_tables.by_matte(scores.rows).items()}
        print(
            score_tables.side_by_side(summaries)
            if len(summaries) > 1
            else score_tables.table(next(iter(summaries.values())))
        )
        print("\n" + "\n".join(score_tables.notes(scores.rows)))
        if options.csv:
            score_tables.write_csv(options.csv, scores.rows)
    if options.json:
        score_tables.write_json(options.json, scores.rows, scores.failures)
    report_failures(scores.failures)
    if scores.failures:
        print(f"{len(scores.failures)} failed", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
