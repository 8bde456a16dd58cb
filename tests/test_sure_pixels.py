"""experiments.sure_pixels: which pixels count, and the errors over them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from experiments import sure_pixels
from experiments.sure_pixels import measure, sure_and_right

TRUTH = torch.tensor([[[1.0, 1.0, 0.0, 0.5, 0.0, 1.0]]])
COARSE = torch.tensor([[[0.97, 0.9, 1.0, 0.5, 0.02, 1.0]]])  # right, unsure, wrong, unsure, right, right
REFINED = torch.tensor([[[0.87, 0.0, 0.0, 0.0, 0.0, 1.0]]])


def test_only_sure_and_right_pixels_with_a_known_truth_count():
    assert sure_and_right(COARSE, TRUTH).flatten().tolist() == [True, False, False, False, True, True]
    unknown = torch.tensor([[[False, False, False, False, True, False]]])
    assert sure_and_right(COARSE, TRUTH, unknown).flatten().tolist() == [True, False, False, False, False, True]


def test_errors_are_means_over_these_pixels_of_all_photos(monkeypatch):
    mattes = SimpleNamespace(coarse_alpha=COARSE, alpha=REFINED)
    monkeypatch.setattr(sure_pixels.matting, "predict_mattes", lambda model, image: mattes)
    figures = measure(None, [{"image": None, "alpha": TRUTH}] * 2)
    assert figures["share"] == 0.5
    assert figures["coarse"] == pytest.approx((0.03 + 0.02 + 0) / 3)
    assert figures["refined"] == pytest.approx((0.13 + 0 + 0) / 3)


def test_what_is_not_there_is_one_sentence(tmp_path: Path, capsys):
    assert sure_pixels.main([str(tmp_path / "none"), "--photos", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
