"""The architecture figure says what the network is."""

from __future__ import annotations

import cv2
import pytest
import torch
from PIL import Image

from config import VARIANTS
from figures import architecture


@pytest.fixture(scope="module")
def tiny():
    return architecture.build(VARIANTS[0])


def test_maps_have_the_channels_and_strides_that_the_figure_names(tiny):
    network, teacher = tiny
    parts = architecture.parts_of(network, teacher)
    assert [stage.detail for stage in parts.encoder] == ["2 blocks", "2 blocks", "6 blocks", "2 blocks"]
    for encoder, channels in ((network.student, 3), (teacher.encoder, 1)):
        features = encoder(torch.empty(1, channels, 64, 96, device="meta"))
        assert [tuple(f.shape[1:]) for f in features] == [
            (s.channels, 64 // s.stride, 96 // s.stride) for s in parts.encoder
        ]
    x = features[3]
    for stage, lateral in zip(parts.decoder, features[2::-1], strict=True):
        x = getattr(network.decoder, stage.name)(x, lateral)
        assert tuple(x.shape[1:]) == (stage.channels, 64 // stage.stride, 96 // stage.stride)


def test_the_refiner_is_described_and_climbs_by_factors_of_two(tiny):
    parts = architecture.parts_of(*tiny)
    refiner = tiny[0].refiner
    inputs, body, output = parts.refiner
    assert f"{refiner.stem.weight.shape[1]} channels" in inputs
    assert f"{len(refiner.blocks)} blocks of {refiner.head.weight.shape[1]} channels" in body
    assert f"sees {refiner.receptive_radius} to each side" in output
    assert parts.octaves[-1] == architecture.EXAMPLE
    assert all(larger == 2 * smaller for smaller, larger in zip(parts.octaves, parts.octaves[1:], strict=False))


def test_parameters_are_counted_and_no_teacher_is_in_the_network(tiny):
    network, teacher = tiny
    counts = architecture.parts_of(network, teacher).parameters
    assert counts.pop("teacher") == sum(p.numel() for p in teacher.encoder.parameters())
    assert set(counts) == {"student", "decoder", "refiner"}
    assert sum(counts.values()) == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("number", "text"), [(27_544_506, "27.5 M"), (900_000, "0.90 M"), (48_321, "0.048 M")])
def test_millions(number, text):
    assert architecture.millions(number) == text


def test_the_figure_in_the_repository_is_of_this_network():
    with Image.open(architecture.OUTPUT) as picture:
        assert picture.text["Description"] == architecture.described(), "draw it again with: make figures"


def test_the_figure_is_written_and_a_changed_network_changes_it(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(architecture, "draw_table", lambda axes: None)  # builds all variants
    monkeypatch.setattr(architecture, "build", lambda variant: tiny)
    monkeypatch.setattr(architecture, "described", lambda: "tiny")
    assert architecture.main(["--output", str(tmp_path / "a.png")]) == 0
    picture = cv2.imread(str(tmp_path / "a.png"))
    assert picture.shape[1] > 1500 and (picture[0] == 255).all() and picture.std() > 20
    monkeypatch.setattr(tiny[0].refiner, "channels", 99)
    architecture.draw(tmp_path / "b.png")
    assert (cv2.imread(str(tmp_path / "b.png")) != picture).any()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.png", "b.png"]
