"""data.loader: which samples in which batch, for any number of ranks and workers."""

from __future__ import annotations

import gc
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from common.errors import UserError
from data.augmentation import Augmentation
from data.dataset import PhotoDataset
from data.loader import EpochSampler, build_training_loader, single_thread
from data.synthetic.dataset import SyntheticDataset
from experiments.benchmark_loader import PLAIN, loader_cases, write_large_photos
from tests.test_augmentation import disc
from tests.test_dataset import write_pair


def batches(sampler: EpochSampler) -> list[list[tuple[int, int]]]:
    keys = list(sampler)
    assert len(keys) == len(sampler)
    return [keys[at : at + sampler.batch_size] for at in range(0, len(keys), sampler.batch_size)]


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("samples", [7, 24, 37])
def test_ranks_together_are_the_single_process(samples: int, world_size: int) -> None:
    single = EpochSampler(samples, batch_size=2 * world_size, seed=5)
    ranks = [EpochSampler(samples, batch_size=2, seed=5, rank=r, world_size=world_size) for r in range(world_size)]
    for epoch in (0, 1, 9):
        for sampler in (single, *ranks):
            sampler.set_epoch(epoch)
        parts = [batches(sampler) for sampler in ranks]
        assert len({len(part) for part in parts}) == 1
        together = [sum(parallel, []) for parallel in zip(*parts, strict=True)]
        assert together == batches(single)
        assert all(key[0] == epoch for batch in together for key in batch)


def test_epochs_are_permutations_of_their_own() -> None:
    sampler = EpochSampler(20, batch_size=5, seed=1)
    orders = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        orders.append([index for _, index in sampler])
        assert sorted(orders[-1]) == list(range(20))
    assert orders[0] != orders[1] != orders[2] and orders[0] != list(range(20))
    assert [index for _, index in EpochSampler(20, batch_size=5, seed=2)] != orders[0]


def test_incomplete_batch_is_dropped_and_small_set_repeated() -> None:
    assert len({index for _, index in EpochSampler(23, batch_size=5, seed=0)}) == 20
    small = [index for _, index in EpochSampler(3, batch_size=8, seed=0)]
    assert len(small) == 8 and set(small) == {0, 1, 2}
    both = [EpochSampler(3, batch_size=4, seed=0, rank=rank, world_size=2) for rank in (0, 1)]
    assert [key for sampler in both for key in sampler] == [(0, index) for index in small]


def test_start_batch_continues_the_epoch() -> None:
    sampler = EpochSampler(23, batch_size=5, seed=3, rank=1, world_size=2)
    sampler.set_epoch(4)
    whole = batches(sampler)
    assert len(whole) == sampler.batches_per_epoch == 2
    for start in range(3):
        sampler.set_epoch(4, start_batch=start)
        assert batches(sampler) == whole[start:]
    with pytest.raises(ValueError, match="start_batch 3"):
        sampler.set_epoch(4, start_batch=3)


@pytest.fixture
def dataset(tmp_path: Path) -> PhotoDataset:
    for number in range(5):
        write_pair(tmp_path, f"disc{number}", disc(60, 50 + number, (25, 30), 12))
    return PhotoDataset(tmp_path, Augmentation(32), seed=0)


def epoch_of(loader: torch.utils.data.DataLoader, epoch: int, start_batch: int = 0) -> list[dict]:
    loader.sampler.set_epoch(epoch, start_batch=start_batch)
    return list(loader)


def assert_same(first: list[dict], second: list[dict]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one["name"] == other["name"]
        assert all(torch.equal(one[name], other[name]) for name in ("image", "alpha", "unknown"))


def test_workers_do_not_change_the_batches(dataset: PhotoDataset) -> None:
    alone = build_training_loader(dataset, 2, 0, seed=3)
    helped = build_training_loader(dataset, 2, 2, seed=3)
    for epoch in range(2):  # the second with the same workers
        expected = epoch_of(alone, epoch)
        assert_same(epoch_of(helped, epoch), expected)
    assert_same(epoch_of(helped, 1, start_batch=1), expected[1:])
    assert expected[0]["image"].shape == (2, 3, 32, 32)
    assert expected[0]["alpha"].shape == expected[0]["unknown"].shape == (2, 1, 32, 32)


def test_workers_start_from_a_process_that_used_opencv(dataset: PhotoDataset) -> None:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(4)
    cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.uint8), (0, 0), 5)  # starts OpenCV's threads
    loader = build_training_loader(dataset, 2, 1, seed=3)
    loader.timeout = 60  # seconds: without it a worker that hangs would hang the test
    try:
        assert_same(epoch_of(loader, 0), epoch_of(build_training_loader(dataset, 2, 0, seed=3), 0))
        assert cv2.getNumThreads() == 4  # the process itself keeps them
    finally:
        cv2.setNumThreads(threads)


def test_spawned_workers(dataset: PhotoDataset) -> None:
    loader = build_training_loader(dataset, 2, 1, seed=3)
    loader.multiprocessing_context = "spawn"  # what Windows and macOS do
    assert_same(epoch_of(loader, 1), epoch_of(build_training_loader(dataset, 2, 0, seed=3), 1))


def test_loading_leaves_the_global_generators_alone(dataset: PhotoDataset) -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].tobytes()
    epoch_of(build_training_loader(dataset, 2, 0, seed=3), 0)
    assert torch.equal(torch.get_rng_state(), before[0]) and np.random.get_state()[1].tobytes() == before[1]


def test_nothing_is_kept_from_epoch_to_epoch(dataset: PhotoDataset) -> None:
    loader = build_training_loader(dataset, 2, 0, seed=3)
    counts = []
    for epoch in range(4):
        epoch_of(loader, epoch)
        gc.collect()
        counts.append(len(gc.get_objects()))
    assert counts[3] - counts[1] < 20  # 10 items per epoch of several objects each would show


def test_workers_have_one_thread() -> None:
    threads = torch.get_num_threads(), cv2.getNumThreads()
    try:
        single_thread(0)
        assert torch.get_num_threads() == cv2.getNumThreads() == 1
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])


def test_benchmark_compares_the_loader_with_a_plain_loop(tmp_path: Path) -> None:
    write_large_photos(tmp_path / "train", 1, (150, 200))
    rows = [label | measure() for label, measure in loader_cases(tmp_path, target=64, images=1, rounds=1)]
    assert rows[0]["row"] == PLAIN and len(rows) == 4
    assert all(row["images/s"] / rows[0]["images/s"] == pytest.approx(row["x plain loop"]) for row in rows)


def test_a_process_that_still_holds_its_loader_ends(tmp_path):
    """Workers ignore SIGTERM, which is how multiprocessing asks them to end at exit: it would wait for ever."""
    script = tmp_path / "holds.py"
    script.write_text(
        """
from data.loader import build_training_loader
from data.synthetic.dataset import SyntheticDataset

if __name__ == "__main__":
    loader = build_training_loader(SyntheticDataset(samples=4, size=32, seed=0), 2, num_workers=1, seed=0)
    batches = iter(loader)
    next(batches)
    loader.held = loader  # a cycle that only the garbage collector would find
""",
        encoding="utf-8",
    )
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, str(script)], env={**os.environ, "PYTHONPATH": str(root)}, timeout=60)
    assert done.returncode == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems hand over batches in other ways")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_temporary_folder_with_too_long_a_name_is_said_at_the_start(tmp_path, monkeypatch, workers):
    folder = tmp_path / (120 * "x")
    folder.mkdir()
    monkeypatch.setitem(multiprocessing.current_process()._config, "tempdir", str(folder))
    dataset = SyntheticDataset(samples=4, size=32, seed=0)
    if not workers:  # needs no sockets
        assert len(build_training_loader(dataset, 2, 0, seed=0)) == 2
        return
    with pytest.raises(UserError, match=r"AF_UNIX path too long\): set TMPDIR to a short path .* --num-workers 0\.$"):
        build_training_loader(dataset, 2, workers, seed=0)
