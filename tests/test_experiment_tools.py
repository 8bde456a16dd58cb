"""The small tools of experiments: sets of links, models made from others, and what the refiner adds."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import models.encoder
from common.photos import write_alpha, write_image
from data.pairs import find_pairs
from experiments import refinement, thin, weights
from models import build_model
from models.checkpoint import MODEL_FILE, load_model, save_model
from tests.predict_fixtures import picture


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """7 photos to train and 4 to validate, one of these with unknown pixels."""
    root = tmp_path / "set"
    for split, count in (("train", 7), ("val", 4)):
        for kind in ("im", "gt", "unknown"):
            (root / split / kind).mkdir(parents=True)
        for index in range(count):
            image = picture(index)
            write_image(root / split / "im" / f"{index}.jpg", image)
            write_alpha(root / split / "gt" / f"{index}.png", image[..., 0] / 255)
    write_alpha(root / "val" / "unknown" / "3.png", picture(3)[..., 1] / 255)
    return root


def test_every_nth_photo_with_its_alpha_and_its_unknown_pixels(source: Path, tmp_path: Path):
    target = tmp_path / "thin"
    assert thin.main([str(source), str(target), "--train-every", "2", "--val-every", "3"]) == 0
    assert [pair.name for pair in find_pairs(target / "train")] == ["0", "2", "4", "6"]
    first, last = find_pairs(target / "val")
    assert (first.name, last.name) == ("0", "3")
    assert first.unknown is None and last.unknown is not None
    assert last.image.read_bytes() == (source / "val" / "im" / "3.jpg").read_bytes()


def test_a_set_without_pairs_and_a_folder_that_is_there_are_one_sentence(source: Path, tmp_path: Path, capsys):
    for arguments in ((tmp_path / "none", tmp_path / "thin"), (source, source)):
        assert thin.main([str(argument) for argument in arguments]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "thin").exists()


def test_the_student_alone_predicts_the_coarse_matte_of_the_whole(tmp_path: Path):
    options = dict(backbone="swin_tiny_patch4_window7_224", image_size=32, use_refiner=True)
    model = build_model(**options, pretrained=False, smart_init=False).eval()
    save_model(tmp_path / MODEL_FILE, model, model_options=options, config={"use_refiner": True}, scores={})
    assert weights.main(["student", str(tmp_path / MODEL_FILE), str(tmp_path / "alone")]) == 0
    alone, whole = load_model(tmp_path / "alone" / MODEL_FILE), load_model(tmp_path / MODEL_FILE)
    assert alone.refiner is None
    image = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(alone.working_alpha(image), whole.working_alpha(image))


def test_the_average_lies_between_its_two_models_and_refuses_another_shape(tmp_path: Path, capsys, monkeypatch):
    create, small = models.encoder.timm.create_model, dict(depths=(1, 1, 1, 1), embed_dim=16, num_heads=(1, 2, 4, 8))
    monkeypatch.setattr(models.encoder.timm, "create_model", lambda name, **options: create(name, **options, **small))
    options = dict(backbone="swin_tiny_patch4_window7_224", image_size=32, use_refiner=True)
    for name, refiner in (("a", True), ("b", True), ("c", False)):
        changed = options | {"use_refiner": refiner}
        model = build_model(**changed, pretrained=False)
        (tmp_path / name).mkdir()
        save_model(tmp_path / name / MODEL_FILE, model, model_options=changed, config={}, scores={})
    a, b, c, between = (str(tmp_path / name) for name in "abcd")
    assert weights.main(["average", a, b, between, "--share", "0.25"]) == 0
    first, second, third = (load_model(Path(path) / MODEL_FILE).state_dict() for path in (a, b, between))
    name = "decoder.head.weight"
    torch.testing.assert_close(third[name], 0.75 * first[name] + 0.25 * second[name])
    assert weights.main(["average", a, c, between]) == 2 and "other weights" in capsys.readouterr().err


TRUTH = torch.tensor([[[1.0, 1.0, 0.0, 0.5, 0.0, 1.0]]])
COARSE = torch.tensor([[[0.97, 0.9, 1.0, 0.5, 0.02, 1.0]]])  # right, unsure, wrong, unsure, right, right
REFINED = torch.tensor([[[0.87, 0.0, 0.0, 0.0, 0.0, 1.0]]])


def test_errors_over_sure_and_right_pixels_of_all_photos(monkeypatch):
    mattes = SimpleNamespace(coarse_alpha=COARSE, alpha=REFINED)
    monkeypatch.setattr(refinement.matting, "predict_mattes", lambda model, image: mattes)
    figures = refinement.sure_figures(None, [{"image": None, "alpha": TRUTH}] * 2)
    expected = {"share": 0.5, "coarse": (0.03 + 0.02 + 0) / 3, "refined": (0.13 + 0 + 0) / 3}
    assert figures == pytest.approx(expected)
    unknown = torch.tensor([[[False, False, False, False, True, False]]])
    assert refinement.sure_and_right(COARSE, TRUTH, unknown).flatten().tolist() == [True, *[False] * 4, True]


def test_no_checkpoint_is_one_sentence(source: Path, tmp_path: Path, capsys):
    none = str(tmp_path / "none.safetensors")
    assert weights.main(["student", none, str(tmp_path / "alone")]) == 2
    assert refinement.main(["sure", none, "--photos", str(source / "val")]) == 2
    assert capsys.readouterr().err.count("\n") == 2
