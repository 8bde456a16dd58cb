"""inference.pseudo_labels: a small ONNX network whose map is known makes a set that a training can read."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from common.photos import read_alpha, write_image
from data.augmentation import Augmentation
from data.build import build_training_set
from data.check import check_dataset
from data.pairs import find_pairs, read_unknown
from inference import pseudo_labels

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SIZE = 32  # the network's; photos are larger and not square


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """Its map is the mean of the normalised channels: bright is the subject, and grey is unsure."""
    from onnx import TensorProto, helper

    shape = [1, 3, SIZE, SIZE]
    node = helper.make_node("ReduceMean", ["image"], ["map"], axes=[1], keepdims=1)
    graph = helper.make_graph(
        [node],
        "mean",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("map", TensorProto.FLOAT, [1, 1, SIZE, SIZE])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, tmp_path / "mean.onnx")
    return tmp_path / "mean.onnx"


def photo(height: int = 96, width: int = 64) -> np.ndarray:
    """Black, with a white square in the middle and a grey stripe at its side."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[24:72, 16:48] = 255
    picture[24:72, 48:52] = 128
    return picture


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos" / "a").mkdir(parents=True)
    write_image(tmp_path / "photos" / "a" / "square.png", photo())
    return tmp_path / "photos"


def run(*arguments: Path) -> int:
    return pseudo_labels.main([str(argument) for argument in arguments])


def test_a_set_that_a_training_reads(network, photos, tmp_path):
    assert run(network, photos, tmp_path / "set") == 0
    assert not check_dataset(tmp_path / "set").errors
    (pair,) = find_pairs(tmp_path / "set" / "train")
    assert pair.name == "a/square" and pair.unknown is not None
    mask = read_alpha(pair.alpha)
    unknown = read_unknown(pair.unknown, mask.shape) > 0
    assert mask.shape == (96, 64)
    assert (mask[28:68, 20:44] == 1).all() and not unknown[28:68, 20:44].any()
    assert (mask[:20] == 0).all() and not unknown[:20].any()
    assert unknown[30:66, 49:51].all()  # the grey stripe
    item = build_training_set([str(tmp_path / "set")], settings=Augmentation(32), samples=0, seed=0)[0, 0]
    assert set(item) >= {"image", "alpha", "unknown"}


@pytest.mark.parametrize(
    "found",
    [
        np.zeros((10, 10)),  # nothing
        np.pad(np.ones((1, 1)), (0, 14)),  # less than a hundredth
        np.concatenate([np.ones((10, 4)), np.full((10, 3), 0.5), np.zeros((10, 3))], axis=1),  # 3 unsure for 4 sure
    ],
)
def test_photos_better_left_out(found):
    assert pseudo_labels.judge(found[None]) is None


@pytest.mark.parametrize(
    ("found", "mask", "unknown"),
    [
        ([[[1.0, 1.0, 1.0, 0.7, 0.1, 0.0]]], [1, 1, 1, 1, 0, 0], [0, 0, 0, 1, 0, 0]),  # unsure
        ([[[1.0, 1.0, 1.0, 0.1, 0.1]], [[1.0, 0.9, 0.1, 0.1, 0.0]]], [1, 1, 1, 0, 0], [0, 0, 1, 0, 0]),  # two differ
    ],
)
def test_what_is_unsure_or_differs_is_unknown(found, mask, unknown):
    assert [plane.tolist() for plane in pseudo_labels.judge(np.array(found))] == [[mask], [unknown]]


def test_without_a_network_all_is_unknown(photos, tmp_path):
    assert run(photos, tmp_path / "set") == 0
    item = build_training_set([str(tmp_path / "set")], settings=Augmentation(32), samples=0, seed=0)[0, 0]
    assert item["unknown"].min() == 1 and item["image"].max() > 0


def test_the_map_follows_the_photos_size_and_range(network):
    found = pseudo_labels.subject_map(pseudo_labels.open_network(network), photo() // 2)  # a dark photo: see /max
    assert found.shape == (96, 64) and found.min() == 0 and found.max() == 1


def test_a_broken_photo_is_named_and_others_are_done(network, photos, tmp_path, capsys):
    (photos / "broken.jpg").write_bytes(b"no photo")
    assert run(network, photos, tmp_path / "set") == 1
    assert "broken.jpg" in capsys.readouterr().err
    assert len(find_pairs(tmp_path / "set" / "train")) == 1


def test_maps_of_every_photo_to_score_the_network(network, photos, tmp_path):
    write_image(photos / "grey.png", np.full((40, 30, 3), 128, np.uint8))  # of which no training set would be made
    assert pseudo_labels.main([str(network), str(photos), str(tmp_path / "maps"), "--maps"]) == 0
    found = {path.relative_to(tmp_path / "maps").as_posix() for path in (tmp_path / "maps").rglob("*.png")}
    assert found == {"a/square.png", "grey.png"}
    assert read_alpha(tmp_path / "maps" / "a" / "square.png").shape == (96, 64)


def test_what_cannot_start_is_one_sentence_and_leaves_no_folder(network, photos, tmp_path, capsys):
    (tmp_path / "bad.onnx").write_bytes(b"not a graph")
    (tmp_path / "black").mkdir()
    write_image(tmp_path / "black" / "black.png", np.zeros((40, 40, 3), np.uint8))
    (tmp_path / "there").mkdir()
    shutil.copytree(photos, tmp_path / "twice")
    write_image(tmp_path / "twice" / "a" / "square.jpg", photo())
    for model, folder, target, reason in (
        (tmp_path / "no.onnx", photos, "set", "no.onnx"),
        (tmp_path / "bad.onnx", photos, "set", "bad.onnx"),
        (network, tmp_path / "black", "set", "has a sure subject"),
        (network, photos, "there", "is there already"),
        (network, tmp_path / "twice", "set", "share a name"),
    ):
        assert run(model, folder, tmp_path / target) == 2
        said = capsys.readouterr().err
        assert reason in said and not (tmp_path / "set").exists()
