"""inference.pseudo_labels: a small ONNX network whose map is known makes a set that a training can read."""

from __future__ import annotations

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


def test_the_sets_own_doctor_finds_no_error(network, photos, tmp_path):
    run(network, photos, tmp_path / "set")
    assert not check_dataset(tmp_path / "set").errors


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


def test_what_is_unsure_is_unknown():
    found = np.array([[1.0, 1.0, 1.0, 0.7, 0.1, 0.0]])
    mask, unknown = pseudo_labels.judge(found[None])
    assert mask.tolist() == [[1, 1, 1, 1, 0, 0]]
    assert unknown.tolist() == [[0, 0, 0, 1, 0, 0]]


def test_where_two_networks_differ_nothing_is_known():
    found = np.array([[[1.0, 1.0, 1.0, 0.1, 0.1]], [[1.0, 0.9, 0.1, 0.1, 0.0]]])
    mask, unknown = pseudo_labels.judge(found)
    assert mask.tolist() == [[1, 1, 1, 0, 0]] and unknown.tolist() == [[0, 0, 1, 0, 0]]


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


def test_nothing_found_leaves_no_folder(network, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    write_image(tmp_path / "photos" / "black.png", np.zeros((40, 40, 3), np.uint8))
    assert run(network, tmp_path / "photos", tmp_path / "set") == 2
    assert "has a sure subject" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mean.onnx", "photos"]


@pytest.mark.parametrize("contents", [None, b"not a graph"])
def test_no_such_network(contents, photos, tmp_path, capsys):
    if contents is not None:
        (tmp_path / "bad.onnx").write_bytes(contents)
    assert run(tmp_path / "bad.onnx", photos, tmp_path / "set") == 2
    error = capsys.readouterr().err
    assert "bad.onnx" in error and error.count("\n") == 1


def test_a_folder_that_is_there_is_kept(network, photos, tmp_path, capsys):
    (tmp_path / "set").mkdir()
    assert run(network, photos, tmp_path / "set") == 2
    assert "is there already" in capsys.readouterr().err


def test_two_photos_of_one_name_are_told_apart_by_nobody(network, photos, tmp_path, capsys):
    write_image(photos / "a" / "square.jpg", photo())
    assert run(network, photos, tmp_path / "set") == 2
    assert "share a name" in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def test_maps_of_every_photo_to_score_the_network(network, photos, tmp_path):
    write_image(photos / "grey.png", np.full((40, 30, 3), 128, np.uint8))  # of which no training set would be made
    assert pseudo_labels.main([str(network), str(photos), str(tmp_path / "maps"), "--maps"]) == 0
    found = {path.relative_to(tmp_path / "maps").as_posix() for path in (tmp_path / "maps").rglob("*.png")}
    assert found == {"a/square.png", "grey.png"}
    assert read_alpha(tmp_path / "maps" / "a" / "square.png").shape == (96, 64)
