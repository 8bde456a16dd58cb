"""validation.py with a stub for the network: what is scored, what is left out, and the same totals on any ranks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import matting
from common.photos import write_alpha
from data.dataset import PhotoValidation
from evaluation import validation
from evaluation.scoring import score_photo
from evaluation.validation import COARSE, REFINED, MatteSource, final_figures, score_dataset, validate, validate_sets
from metrics import IN_TRAINING, TITLES, Truth, matting_metrics
from tests.test_scoring import disc

ROOT = Path(__file__).resolve().parents[1]


class Discs:
    """Seven soft discs; the last is all background, item `broken` cannot be read."""

    def __init__(self, broken: int | None = None) -> None:
        self.broken = broken

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> dict:
        if index == self.broken:
            raise ValueError(f"disc{index}.png is cut short.")
        alpha = torch.from_numpy(disc(index)[None]) * (index < 6)  # (1, H, W)
        image = (alpha * 255).byte().expand(3, -1, -1)
        return {"image": image, "alpha": alpha, "name": f"disc{index}"}


def stub_mattes(model: object, image: torch.Tensor, precision: torch.dtype | None = None) -> SimpleNamespace:
    """The photo's red is nearly the alpha: exact to 8 bits as refined, half of it as coarse."""
    alpha = image[:1].float() / 255
    return SimpleNamespace(coarse_alpha=alpha / 2, refined_alpha=alpha)


def stub_model(refiner: torch.nn.Module | None) -> torch.nn.Module:
    model = torch.nn.Identity()
    model.refiner = refiner
    return model


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> torch.nn.Module:
    monkeypatch.setattr(matting, "predict_mattes", stub_mattes)
    return stub_model(torch.nn.Identity())


def test_means_are_those_of_the_mattes(model):
    means = validate(model, Discs()).figures
    alphas = [Discs()[index]["alpha"][0].numpy() for index in range(7)]
    expected = [
        matting_metrics(np.floor(alpha * 255).astype(np.float32) / 255 / 2, Truth(alpha), IN_TRAINING)
        for alpha in alphas
    ]
    assert means["coarse_image_sad"] == pytest.approx(np.mean([e["image_sad"] for e in expected]), rel=1e-6)
    assert means["coarse_edge_mse"] == pytest.approx(np.mean([e["edge_mse"] for e in expected[:6]]), rel=1e-6)
    assert means["refined_image_sad"] < 0.1 * means["coarse_image_sad"]
    assert means.keys() == {f"{matte}_{figure}" for matte in ("coarse", "refined") for figure in TITLES}
    assert final_figures(means) == {figure: means[f"refined_{figure}"] for figure in TITLES}


@pytest.mark.parametrize("refined_alpha", [None, "coarse"], ids=["None", "the coarse matte again"])
def test_without_a_refiner_there_are_coarse_figures_alone(monkeypatch, refined_alpha):
    def coarse_only(model: object, image: torch.Tensor, **_) -> SimpleNamespace:
        coarse = image[:1].float() / 510
        return SimpleNamespace(coarse_alpha=coarse, refined_alpha=refined_alpha and coarse)

    monkeypatch.setattr(matting, "predict_mattes", coarse_only)
    means = validate(stub_model(None), Discs()).figures
    assert means.keys() == {f"coarse_{figure}" for figure in TITLES}
    assert final_figures(means)["image_mad"] == means["coarse_image_mad"]


def test_a_set_that_is_called_refined_does_not_make_the_figures_refined():
    means = {"coarse_image_mad": 2.0, "coarse_edge_sad": 4.0}
    sets = {
        "refined_cats_coarse_image_mad": 1.0,
        "refined_image_coarse_image_mad": 3.0,
        "coarse_x_coarse_edge_sad": 4.0,
    }
    assert final_figures(sets | means) == {"image_mad": 2.0, "edge_sad": 4.0}


def test_unknown_pixels_of_an_item_are_left_out(model):
    class HalfKnown(Discs):
        def __getitem__(self, index: int) -> dict:
            item = super().__getitem__(index)
            unknown = torch.zeros_like(item["alpha"], dtype=torch.bool)
            unknown[..., 16:] = index == 3
            return item | ({"unknown": unknown} if index == 3 else {})

    source = [MatteSource("a", model, COARSE)]
    rows, whole = (score_dataset(source, dataset, validation.QUICK, 0).rows for dataset in (HalfKnown(), Discs()))
    alpha = disc(3)
    assert [row["unknown_pixels"] for row in rows] == [0, 0, 0, 512, 0, 0, 0]
    assert rows[3]["image_sad"] == pytest.approx(alpha[:, :16].sum() / 2 / 1000, rel=0.01)
    assert rows[:3] == whole[:3] and rows[4:] == whole[4:]


@pytest.mark.parametrize("training", [True, False])
def test_cudnn_searches_no_kernels_and_the_modes_are_put_back(model, monkeypatch, training):
    """Photos have many sizes."""
    seen = []
    model.train(training)

    def watched(*arguments: object, **options: object) -> SimpleNamespace:
        seen.append(torch.backends.cudnn.benchmark or model.training)
        return stub_mattes(*arguments, **options)

    monkeypatch.setattr(matting, "predict_mattes", watched)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    validate(model, Discs())
    assert not any(seen) and torch.backends.cudnn.benchmark and model.training is training


def test_a_photo_that_cannot_be_read_is_named_and_left_out(model, capsys):
    broken, whole = validate(model, Discs(broken=2)), validate(model, Discs())
    assert "disc2.png is cut short" in capsys.readouterr().err
    assert (broken.photos, broken.failed, whole.photos, whole.failed) == (6, 1, 7, 0)
    assert broken.fingerprint != whole.fingerprint


class Changed(Discs):
    """The same discs, in another order, under other names; with `what`, one truth or one photo is another."""

    def __init__(self, what: str = "") -> None:
        super().__init__()
        self.what = what

    def __getitem__(self, index: int) -> dict:
        item = super().__getitem__((index + 2) % 7) | {"name": f"moved{index}"}
        return item | ({self.what: (item[self.what] / 2).to(item[self.what].dtype)} if self.what and index == 3 else {})


def test_the_fingerprint_is_of_the_contents_alone(model):
    own = validate(model, Discs()).fingerprint
    assert validate(model, Changed()).fingerprint == own == validate(model, Discs(), workers=2).fingerprint
    others = [validate(model, dataset).fingerprint for dataset in (Changed("alpha"), Changed("image"))]
    others.append(validate(model, torch.utils.data.Subset(Discs(), range(6))).fingerprint)
    assert len({own, *others}) == 4


def test_means_over_sets_count_each_set_once_and_no_figure_that_it_has_not(model):
    """The last disc is empty: its set has no edge, and a missing figure is no perfect one."""
    sets = {"discs": torch.utils.data.Subset(Discs(), range(6)), "bare": torch.utils.data.Subset(Discs(), [6])}
    result = validate_sets(model, sets)
    one, other = (validate(model, dataset) for dataset in sets.values())
    mads = [result.figures["coarse_image_mad"] for result in (one, other)]
    assert result.figures["coarse_image_mad"] == sum(mads) / 2
    assert result.figures["refined_edge_sad"] == one.figures["refined_edge_sad"] > 0
    assert "bare_refined_edge_sad" not in result.figures and result.figures["bare_refined_image_mad"] == 0
    assert (result.photos, result.failed) == (7, 0)
    renamed = validate_sets(model, {"a": sets["bare"], "b": sets["discs"]})
    assert renamed.fingerprint == result.fingerprint not in (one.fingerprint, other.fingerprint)
    assert validate_sets(model, {"discs": sets["discs"]}) == one


@pytest.mark.parametrize("words", [
    "CUDA out of memory. Tried to allocate 20.00 GiB.",
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 4",
])  # fmt: skip
def test_a_photo_too_large_for_the_memory_is_named_and_left_out(model, monkeypatch, words):
    calls = []

    def predict(m: object, image: torch.Tensor, **_) -> SimpleNamespace:
        calls.append(m)
        if len(calls) == 3:
            raise RuntimeError(words)
        return stub_mattes(m, image)

    monkeypatch.setattr(matting, "predict_mattes", predict)
    scores = score_dataset([MatteSource("a", model, REFINED)], Discs(), validation.QUICK, 0)
    assert [row["name"] for row in scores.rows] == ["disc0", "disc1", "disc3", "disc4", "disc5", "disc6"]
    ((name, reason),) = scores.failures
    assert name == "disc2" and "32 x 32 pixels" in reason and reason.endswith(".")


def test_another_error_of_the_network_is_not_taken_for_a_large_photo(model, monkeypatch):
    def broken(m: object, image: torch.Tensor, **_) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(matting, "predict_mattes", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        validate(model, Discs())


def test_a_file_that_cannot_be_read_is_called_by_its_name(model, tmp_path):
    for name in ("cat", "deep/dog"):
        for folder in ("im", "gt"):
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_alpha(tmp_path / folder / f"{name}.png", disc())
    (tmp_path / "gt" / "deep" / "dog.png").write_bytes(b"no picture")
    columns = [MatteSource("a", model, REFINED)]
    scores = score_dataset(columns, PhotoValidation(tmp_path), validation.QUICK, 0)
    assert [failure.name for failure in scores.failures] == ["deep/dog"] and len(scores.rows) == 1


def test_nothing_to_score_is_an_error(model):
    with pytest.raises(ValueError, match="data.check"):
        validate(model, torch.utils.data.Subset(Discs(broken=0), [0]))


def test_threads_read_ahead_and_score_beside_the_network_and_change_no_figure(model, monkeypatch):
    readers, scorers = set(), set()

    class Watched(Discs):
        def __getitem__(self, index: int) -> dict:
            readers.add(threading.current_thread())
            return super().__getitem__(index)

    def score_and_tell(*arguments) -> list:
        scorers.add(threading.current_thread())
        return score_photo(*arguments)

    alone = validate(model, Discs(broken=2))
    monkeypatch.setattr(validation, "score_photo", score_and_tell)
    assert validate(model, Watched(broken=2), workers=3) == alone
    assert readers and scorers and threading.main_thread() not in readers | scorers


def test_each_model_runs_once_a_photo(model, monkeypatch):
    calls = []
    monkeypatch.setattr(matting, "predict_mattes", lambda m, image, **_: calls.append(m) or stub_mattes(m, image))
    other = torch.nn.Identity()
    columns = [MatteSource("a", model, COARSE), MatteSource("b", model, REFINED)]
    columns.append(MatteSource("c", other, REFINED))
    scores = score_dataset(columns, Discs(), validation.QUICK, 0)
    assert len(calls) == 14 and len(scores.rows) == 21
    assert [row["matte"] for row in scores.rows[:3]] == ["a", "b", "c"]
    assert scores.rows[0]["difference"] == 0  # of the two that are shipped, b and c, which are equal here
    rows = score_dataset(columns[:2], Discs(), validation.QUICK, 0).rows
    assert rows[0]["difference"] == pytest.approx(float(Discs()[0]["alpha"].mean()) / 2, rel=0.02)


RANK_SCRIPT = """
import json, sys
import torch, matting
from common import distributed
from tests.test_validation import Discs, stub_mattes, stub_model
from evaluation.validation import validate

matting.predict_mattes = stub_mattes
distributed.setup()
means = validate(stub_model(torch.nn.Identity()), Discs(broken=3)).figures
with open(f"{sys.argv[1]}/{distributed.rank()}.json", "w") as file:
    json.dump(means, file)
distributed.shutdown()
"""


def test_two_ranks_give_the_totals_of_one_process_to_the_last_bit(model, tmp_path):
    """Seven photos, one of them broken: the shares differ in size."""
    script = tmp_path / "rank.py"
    script.write_text(RANK_SCRIPT, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("disc3.png is cut short") == 1
    alone = validate(model, Discs(broken=3)).figures
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text(encoding="utf-8")) == alone
