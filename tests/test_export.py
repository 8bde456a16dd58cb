"""One export of a small Swin, made once: the graph at sizes that were not traced, prediction with it, its files."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest
import torch

from common.errors import UserError

pytest.importorskip("onnx", reason="onnx is not installed (requirements/export.txt)")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (requirements/export.txt)")

import numpy as np
import onnx

import export
import models.encoder
from common.photos import read_photo
from examples.matte_onnx import Matting, cut_out
from inference import loading, onnx_parity
from inference.onnx_model import COARSE, IMAGE, cut
from matting import predict_mattes
from models import build_model
from models.checkpoint import load_model, save_model

OPTIONS = dict(backbone="swin_tiny_patch4_window7_224", image_size=96, refiner_blocks=1)


@pytest.fixture(scope="module", autouse=True)
def small_swin():
    """The same graph as Swin-Tiny's with two blocks per stage and a sixth of its width; one thread."""
    create, threads = models.encoder.timm.create_model, torch.get_num_threads()

    def create_small(name, **options):
        small = dict(depths=(2, 2, 2, 2), embed_dim=16, num_heads=(1, 2, 4, 8)) if name.startswith("swin") else {}
        return create(name, **options, **small)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models.encoder.timm, "create_model", create_small)
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)


def save(path: Path, seed: int = 0, **changes) -> Path:
    torch.manual_seed(seed)
    options = OPTIONS | changes
    model = build_model(**options)
    if model.refiner is not None:
        torch.nn.init.normal_(model.refiner.head.weight, std=0.2)  # at its start it would refine nothing
    # the last blocks of a fresh Swin hardly matter: amplified, a wrong shift or mask shows
    torch.nn.init.normal_(model.decoder.decode3.up.weight, std=0.5)
    save_model(path, model, model_options=options, config={"seed": 3}, scores={"sad": 1.5})
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Holds best.safetensors, best.onnx and best.refiner.onnx; export.main checked them."""
    folder = tmp_path_factory.mktemp("run")
    save(folder / "best.safetensors")
    assert export.main(["--checkpoint", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def exported(folder):
    return loading.load(folder / "best.onnx")


def test_export_writes_the_network_and_its_refiner_and_nothing_else(folder):
    assert sorted(file.name for file in folder.iterdir()) == ["best.onnx", "best.refiner.onnx", "best.safetensors"]
    network, refiner = (onnx.load(folder / name) for name in ("best.onnx", "best.refiner.onnx"))
    assert not [weight.name for weight in network.graph.initializer if "teacher" in weight.name]
    assert [value.name for value in refiner.graph.input] == [IMAGE, COARSE]
    for value in (*network.graph.input, *network.graph.output, *refiner.graph.input, *refiner.graph.output):
        shape = value.type.tensor_type.shape.dim
        assert [bool(axis.dim_param) for axis in shape] == [True, False, True, True], value.name


def test_metadata_is_enough_for_another_program(folder):
    properties = {entry.key: entry.value for entry in onnx.load(folder / "best.refiner.onnx").metadata_props}
    assert properties["part"] == "refiner" and "image_size" in properties["preprocessing"]
    switches = {"use_attention": True, "use_octaves": True}
    assert json.loads(properties["refiner"]) == {"channels": 32, "receptive_radius": 12, **switches}
    metadata = loading.read_metadata(folder / "best.onnx")
    assert metadata["config"] == {"seed": 3} and metadata["scores"] == {"sad": 1.5}
    assert metadata["model"] == OPTIONS and metadata["variant"] == "TSR-Matte swin_tiny_patch4_window7_224"


@pytest.mark.parametrize("size", [(250, 333), (40, 300), (20, 31)])
def test_prediction_is_that_of_pytorch(folder, exported, size):
    # larger than the working size, so narrow that Swin's last map is smaller than its shift, and tiny
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    model = load_model(folder / "best.safetensors")
    expected = predict_mattes(model, image, precision=torch.float32, tile=64)
    result = predict_mattes(exported, image, tile=64)
    assert result.refined_share == expected.refined_share > 0
    torch.testing.assert_close(result.coarse_alpha, expected.coarse_alpha, atol=1e-4, rtol=0)
    # each octave can carry a rounding error on ten times larger (onnx_parity.CARRIED), in few pixels
    difference = (result.refined_alpha - expected.refined_alpha).abs()
    assert difference.max() < 1e-2 and difference.mean() < 2e-5
    assert not torch.allclose(result.refined_alpha, result.coarse_alpha, atol=1e-2)


@pytest.fixture(scope="module")
def calm(folder, tmp_path_factory):
    """The same files with a refiner that corrects as little as a trained one: random weights amplify roundings."""
    calm = tmp_path_factory.mktemp("calm")
    for name in ("best.onnx", "best.refiner.onnx"):
        model = onnx.load(folder / name)
        (head,) = [weight for weight in model.graph.initializer if weight.name.endswith("refiner.head.weight")]
        head.CopyFrom(onnx.numpy_helper.from_array(0.1 * onnx.numpy_helper.to_array(head), head.name))
        onnx.save(model, calm / name)
    return calm / "best.onnx"


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the example resizes as PyTorch does on x86")
@pytest.mark.parametrize("size", [(512, 451), (90, 301), (20, 31)])
def test_the_example_repeats_prediction_to_one_grey_level(calm, size):
    photo = read_photo("test_data/astronaut.jpg").image[: size[0], : size[1]]
    mattes, matte = predict_mattes(loading.load(calm), photo), Matting(calm).matte(photo)
    assert np.abs(np.rint(255 * matte) - np.rint(255 * mattes.alpha[0].numpy())).max() <= 1
    assert np.abs(matte - mattes.coarse_alpha[0].numpy()).max() > 0.02  # more than interpolated
    cutout = cut_out(photo, matte)
    assert np.array_equal(cutout[..., 3], np.rint(255 * matte))
    assert np.array_equal(cutout[matte == 1, :3], photo[matte == 1])  # a sure pixel keeps its colour


def test_the_students_half_leaves_the_refiner_out(folder):
    student = cut(onnx.load(folder / "best.onnx"), [IMAGE], [COARSE])
    weights = {weight.name for weight in student.graph.initializer}
    assert any("student" in name for name in weights) and not any("refiner" in name for name in weights)
    assert not [node.name for node in student.graph.node if "refiner" in node.name]


def test_without_a_refiner_both_outputs_are_the_coarse_alpha(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_parity, "SIZES", ((64, 96),))
    path = save(tmp_path / "best.safetensors", use_refiner=False)
    assert export.main(["--checkpoint", str(path), "--output", str(tmp_path / "deep" / "m.onnx"), "--half"]) == 0
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["m.onnx"]
    small, large = (tmp_path / "deep" / "m.onnx").stat().st_size, (folder / "best.onnx").stat().st_size
    assert small < 0.8 * large  # half the weights; in so small a network the nodes weigh as much
    mattes = predict_mattes(loading.load(tmp_path / "deep" / "m.onnx"), torch.zeros(3, 30, 40, dtype=torch.uint8))
    assert mattes.coarse_alpha.dtype == torch.float32 and mattes.refined_share == 0


def test_half_with_its_refiner_predicts_nearly_as_pytorch_does(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_parity, "SIZES", ((64, 96),))
    output = tmp_path / "half.onnx"
    assert export.main(["--checkpoint", str(folder), "--output", str(output), "--half"]) == 0
    # the graph itself, which has no halves, is a third of so small a file
    assert (tmp_path / "half.refiner.onnx").stat().st_size < 0.75 * (folder / "best.refiner.onnx").stat().st_size
    image = torch.randint(0, 256, (3, 130, 190), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    expected = predict_mattes(load_model(folder / "best.safetensors"), image, precision=torch.float32, tile=64)
    result = predict_mattes(loading.load(output), image, tile=64)
    assert result.refined_alpha.dtype == torch.float32 and result.refined_share > 0
    torch.testing.assert_close(result.coarse_alpha, expected.coarse_alpha, atol=export.HALF_TOLERANCE, rtol=0)
    torch.testing.assert_close(
        result.refined_alpha, expected.refined_alpha, atol=0.1, rtol=0
    )  # see onnx_parity.CARRIED


def test_another_family_is_exported_and_predicts_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_parity, "SIZES", ((64, 96), (40, 75)))
    path = save(tmp_path / "best.safetensors", backbone="convnext_atto", use_refiner=False)
    assert export.main(["--checkpoint", str(path)]) == 0
    image = torch.randint(0, 256, (3, 130, 190), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    files = (path, path.with_suffix(".onnx"))  # float32: in the bfloat16 of a newer CPU PyTorch's matte is coarser
    expected, result = (predict_mattes(loading.load(file), image, precision=torch.float32).alpha for file in files)
    torch.testing.assert_close(result, expected, atol=1e-3, rtol=0)


def test_a_graph_that_differs_is_not_left_behind(folder, tmp_path, monkeypatch, capsys):
    of_seed_0 = (folder / "best.onnx").read_bytes()
    monkeypatch.setattr(export, "trace", lambda model, path, *, half: path.write_bytes(of_seed_0))
    monkeypatch.setattr(onnx_parity, "SIZES", ((64, 96),))
    (tmp_path / "m.onnx").write_bytes(b"earlier")
    other = save(tmp_path / "other.safetensors", seed=1)
    assert export.main(["--checkpoint", str(other), "--output", str(tmp_path / "m.onnx")]) == 1
    assert "nothing was written" in capsys.readouterr().err
    assert (tmp_path / "m.onnx").read_bytes() == b"earlier"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.onnx", "other.safetensors"]


def test_a_full_disk_is_one_sentence_and_leaves_nothing(folder, tmp_path, monkeypatch, capsys):
    def full(*_: object, half: bool) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "trace", full)
    assert export.main(["--checkpoint", str(folder / "best.safetensors"), "--output", str(tmp_path / "m.onnx")]) == 1
    said = capsys.readouterr().err
    assert "cannot be written (No space left on device): make room" in said and said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_not_a_number_is_no_parity(monkeypatch):
    rows = [
        onnx_parity.Difference(1, (32, 32), 0.0, float("nan"), 0.0, 1.0),
        onnx_parity.Difference(2, (32, 32), 0, 0, 0, 1.0),
    ]
    monkeypatch.setattr(onnx_parity, "compare", lambda model, files: iter(rows))
    with pytest.raises(UserError, match="nan"):
        onnx_parity.check(None, [], tolerance=1e9)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "does not exist"),
        (b"", "names no format"),
        (b"\xffnot protobuf", "not a complete .onnx file"),
        ("half", "not a complete .onnx file"),
        ("refiner", "holds only the refiner"),
        ("graph", "onnxruntime"),
        ("deep", "has broken metadata"),
        ("wrong type", "onnxruntime"),
    ],
)
def test_a_bad_file_is_one_sentence(folder, tmp_path, content, reason):
    path, model = tmp_path / "bad.onnx", onnx.load(folder / "best.onnx")
    whole = (folder / "best.onnx").read_bytes()
    if content == "graph":
        next(node for node in model.graph.node if node.op_type == "Conv").op_type = "Unheard"
    elif content in ("deep", "wrong type"):
        entry = next(entry for entry in model.metadata_props if entry.key == "refiner")
        entry.value = "[" * 100_000 if content == "deep" else "5"
    parts = {"half": whole[: len(whole) // 2], "refiner": (folder / "best.refiner.onnx").read_bytes()}
    if content is not None:
        changed = model.SerializeToString() if content in ("graph", "deep", "wrong type") else content
        path.write_bytes(parts.get(content, changed))
    with pytest.raises(UserError, match=reason) as caught:
        loading.load(path)
    assert str(caught.value).count("\n") == 0 and "bad.onnx" in str(caught.value)


def test_nothing_to_start_from_is_exit_code_2(tmp_path, capsys):
    assert export.main(["--checkpoint", str(tmp_path / "none.safetensors")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
