"""scoring.py: pairs by name, figures of a matte, one bad file among others, processes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from common.photos import Photo, write_alpha
from evaluation.folders import Folders, match_files, score_files
from evaluation.scoring import Job, MetricOptions, score_all, score_photo, thread_pool
from inference.rendering import Style, render
from metrics import Truth, composite_error


def disc(shift: int = 0, size: int = 32) -> np.ndarray:
    """A soft disc, float32 (size, size) in [0, 1]."""
    rows, columns = np.mgrid[:size, :size]
    distance = np.hypot(rows - size / 2, columns - size / 2 - shift)
    return np.clip(size / 3 - distance, 0, 1).astype(np.float32)


def score_matte(prediction, alpha, known, image, options: MetricOptions) -> dict:
    (row,) = score_photo({"m": prediction}, Truth(alpha, known), image, options)
    return row


def test_names_are_paths_without_suffix_and_what_has_not_one_partner_is_named(tmp_path: Path):
    for folder, names in (("a", ["deep/cat.v2", "only_a", "twice"]), ("b", ["deep/cat.v2", "only_b", "twice"])):
        for name in names:
            path = tmp_path / folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_alpha(path, disc())
    (tmp_path / "b" / "twice.tif").write_bytes((tmp_path / "b" / "twice.png").read_bytes())
    pairs, failures = match_files(Folders(tmp_path / "a", tmp_path / "b"))
    assert [name for name, *_ in pairs] == ["deep/cat.v2"]
    assert [failure.name for failure in failures] == ["only_a", "only_b", "twice"]


def test_wanted_figures_and_no_others():
    image = np.zeros((32, 32, 3), dtype=np.uint8)
    quick = score_matte(disc(1), disc(), None, None, MetricOptions(full=False))
    assert "image_sad" in quick and not any("conn" in name or "aim" in name for name in quick)
    everything = score_matte(disc(1), disc(), None, image, MetricOptions(dis=True, composite=True))
    assert everything["photo"].startswith(quick.pop("photo")) and quick.items() <= everything.items()
    assert {"image_conn", "image_grad_aim", "dis_hce", "edge_composite_green"} <= everything.keys()
    assert 0 < everything["soft_share"] < 0.3


def test_the_halo_is_that_of_the_colours_that_predict_writes():
    def written(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
        return render(Photo(image, None, None, ()), alpha, Style("foreground"))

    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    figures = score_matte(disc(1), disc(), None, image, MetricOptions(composite=True))
    expected = composite_error(image, disc(1), Truth(disc()), written)
    assert expected["edge_composite_green"] > 0 and expected.items() <= figures.items()


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 1)])
def test_the_halo_of_the_smallest_photos(size: tuple[int, int]):
    image, truth = np.full((*size, 3), 200, np.uint8), np.full(size, 0.5, np.float32)
    options = MetricOptions(full=False, composite=True)
    figures, same = (score_matte(prediction, truth, None, image, options) for prediction in (truth / 2, truth))
    assert all(np.isfinite(value) for value in figures.values() if isinstance(value, float))
    assert figures["image_composite_black"] > 0
    assert same["image_composite_black"] == 0


def test_unknown_pixels_count_in_no_figure_and_are_counted_themselves():
    known = np.ones((32, 32), dtype=bool)
    known[:, 16:] = False
    image = np.full((32, 32, 3), 200, np.uint8)
    wrong_there = np.where(known, disc(1), 1 - disc())
    options = MetricOptions(dis=True, composite=True)
    figures = score_matte(wrong_there, disc(), known, image, options)
    assert figures == score_matte(disc(1), disc(), known, image, options)
    assert 0 < figures["image_sad"] < score_matte(disc(1), disc(), None, image, options)["image_sad"]
    assert figures["unknown_pixels"] == 512
    with pytest.raises(ValueError, match="marked as unknown"):
        score_matte(disc(), disc(), ~known & known, None, options)


def test_bad_files_are_named_and_threads_give_the_same_scores_in_the_same_order(tmp_path: Path):
    """Six pairs of files: the second is truncated, the fourth has another size."""
    jobs = []
    for index in range(6):
        files = Folders(tmp_path / f"prediction{index}.png", tmp_path / f"truth{index}.png")
        write_alpha(files.predictions, disc(index, size=40 if index == 3 else 32))
        write_alpha(files.truths, disc())
        jobs.append(Job(index, f"file{index}", partial(score_files, "mine", files, MetricOptions(full=False))))
    (tmp_path / "prediction1.png").write_bytes((tmp_path / "prediction1.png").read_bytes()[:60])
    rows, failures = score_all(jobs, 6, None, 0)
    assert [row["name"] for row in rows] == ["file0", "file2", "file4", "file5"]
    assert [failure.name for failure in failures] == ["file1", "file3"]
    assert "prediction1.png" in failures[0].reason and "sizes must agree" in failures[1].reason
    assert rows[0]["image_sad"] == 0 < rows[1]["image_sad"]
    with thread_pool(2) as pool:
        assert score_all(jobs, 6, pool, 4) == (rows, failures)


def test_an_error_in_the_code_is_not_taken_for_a_bad_file():
    def broken() -> list:
        raise TypeError("a bug")

    with pytest.raises(TypeError):
        score_all([Job(0, "x", broken)], 1, None, 0)
