"""Losses are finite and right where they are easy to get wrong."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import losses
from common.resize import resize_alpha
from config import Config
from losses import (
    BINOMIAL,
    COLUMNS,
    REFINED,
    Term,
    _blur,
    alignment_loss,
    edge_loss,
    gradient_loss,
    l1_loss,
    laplacian_loss,
    matting_losses,
    weighted,
)
from models.matting_network import MattingOutput, saturating_sigmoid

WEIGHTS = dict(bce=1.0, l1=1.0, gradient=1.0, laplacian=0.5, edge=1.0, alignment=1.0)


def output_for(logits: torch.Tensor) -> MattingOutput:
    coarse = saturating_sigmoid(logits)
    features = [torch.randn(len(logits), 8, 4, 4, requires_grad=True, dtype=torch.float32).to(logits.dtype)]
    return MattingOutput(logits, coarse, [resize_alpha(coarse, (16, 16)), coarse * 1.0], features)


@pytest.mark.parametrize("truth", [0.0, 1.0, 0.5])
@pytest.mark.parametrize("logit", [0.0, 60000.0, -60000.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_finite_for_constant_truths_and_saturated_predictions(truth, logit, dtype):
    logits = torch.full((2, 1, 32, 32), logit, dtype=dtype, requires_grad=True)
    output, targets = output_for(logits), [torch.zeros(2, 8, 4, 4)]
    terms = weighted(matting_losses(output, torch.full((2, 1, 32, 32), truth), WEIGHTS, None, targets), WEIGHTS)
    terms["loss"].backward()
    assert all(term.isfinite() and term.dtype == torch.float32 for term in terms.values())
    assert logits.grad.isfinite().all()
    if abs(logit) > 1 and truth == (0.0 if logit > 0 else 1.0):  # clamped and wrong: cross-entropy must still pull
        assert logits.grad.abs().min() > 0


def test_zero_for_a_perfect_matte_and_linear_terms_scale():
    truth = torch.rand(2, 1, 64, 48)
    for loss in (l1_loss, gradient_loss, laplacian_loss):
        assert loss(truth, truth).item() == 0.0
        assert loss(truth + 0.2 * truth, truth).item() == pytest.approx(
            2 * loss(truth + 0.1 * truth, truth).item(), rel=1e-4
        )


def test_gradient_loss_of_a_shifted_edge_by_hand():
    truth = torch.zeros(1, 1, 2, 4)
    truth[..., 2:] = 1.0
    moved = torch.zeros(1, 1, 2, 4)
    moved[..., 3:] = 1.0
    assert gradient_loss(moved, truth).item() == pytest.approx(4 / 8)  # two differences of 1 in each of two rows
    assert gradient_loss(torch.rand(1, 1, 1, 1), torch.rand(1, 1, 1, 1)).item() == 0.0


def test_the_edge_loss_sees_the_band_and_nothing_else():
    truth = torch.zeros(1, 1, 8, 16)
    truth[..., 8:] = 1.0  # the band of radius 1 is columns 7 and 8
    wrong_inside, wrong_outside = truth.clone(), truth.clone()
    wrong_inside[..., 7] = 0.5
    wrong_outside[..., :7] = 0.5
    assert edge_loss(wrong_inside, truth, radius=1).item() == pytest.approx(0.5 / 16)
    assert edge_loss(wrong_outside, truth, radius=1).item() == 0.0
    soft = torch.full((1, 1, 8, 16), 0.3)  # glass: unknown everywhere, though it has no edge
    assert edge_loss(soft + 0.2, soft).item() == pytest.approx(0.2)


def test_the_loss_of_a_batch_is_the_mean_of_its_parts():
    """What makes several processes agree with one."""
    logits, alpha = torch.randn(4, 1, 32, 32), torch.rand(4, 1, 32, 32)
    known = (torch.rand(4, 1, 32, 32) > 0.3).float()
    features = [torch.randn(4, 8, 16, 16), torch.randn(4, 8, 4, 4)]
    teacher = [torch.randn(4, 8, 16, 16), torch.randn(4, 8, 4, 4)]

    def terms(part: slice) -> dict:
        coarse = saturating_sigmoid(logits[part])
        octaves = [resize_alpha(coarse, (16, 16)).sqrt(), coarse.square()]
        output = MattingOutput(logits[part], coarse, octaves, [f[part] for f in features])
        targets = [t[part] for t in teacher]
        return weighted(matting_losses(output, alpha[part], WEIGHTS, known[part], targets), WEIGHTS)

    whole, first, second = terms(slice(0, 4)), terms(slice(0, 2)), terms(slice(2, 4))
    for name in whole:
        assert whole[name].item() == pytest.approx((first[name].item() + second[name].item()) / 2, rel=1e-5), name


def test_alignment_is_of_directions_by_hand():
    features = torch.randn(2, 8, 6, 6)
    assert alignment_loss([features], [3.0 * features]).item() == pytest.approx(0.0, abs=1e-6)
    assert alignment_loss([features], [-features]).item() == pytest.approx(2.0, abs=1e-6)
    assert alignment_loss([features, features], [features, -features]).item() == pytest.approx(1.0, abs=1e-6)
    assert alignment_loss([torch.zeros_like(features)], [features]).isfinite()


@pytest.mark.parametrize("size", [(10, 10), (33, 64), (96, 11)])
def test_blur_is_that_of_reflection_padding(size):
    """Up to the order of the sums."""
    x, kernel = torch.rand(2, 1, *size, dtype=torch.double), torch.tensor(BINOMIAL, dtype=torch.double)
    padded = F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), kernel.view(1, 1, 1, -1))
    torch.testing.assert_close(_blur(x), F.conv2d(padded, kernel.view(1, 1, -1, 1)), rtol=0, atol=1e-15)


class Operations(TorchDispatchMode):
    """Names of all operations of torch within the block, those of the way back too."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        self.names.add(function.overloadpacket.__name__)
        return function(*arguments, **(options or {}))


def test_no_term_needs_a_kernel_that_is_not_deterministic_on_cuda():
    """For bilinear interpolation, the one exception, torch has another kernel where it has to be deterministic."""
    logits = torch.randn(1, 1, 64, 64, requires_grad=True)
    features = [torch.randn(1, 8, 20, 16, requires_grad=True)]
    output, targets = output_for(logits)._replace(features=features), [torch.randn(1, 8, 20, 16)]
    output = output._replace(octaves=output.octaves[-1:])
    known = torch.ones(1, 1, 64, 64)
    with Operations() as operations:
        terms = matting_losses(output, torch.rand(1, 1, 64, 64), WEIGHTS, known, targets)
        weighted(terms, WEIGHTS)["loss"].backward()
    kinds = ("reflection_pad", "replication_pad", "adaptive_", "avg_pool", "max_pool2d_with_indices_backward", "_aa_")
    assert "sigmoid_backward" in operations.names  # the backward pass is seen
    assert not [name for name in operations.names if any(kind in name for kind in kinds)]


def test_only_the_wanted_terms_are_computed_by_the_names_of_the_log():
    output, targets = output_for(torch.randn(1, 1, 16, 16)), [torch.zeros(1, 8, 4, 4)]
    alpha, wanted = torch.rand(1, 1, 16, 16), WEIGHTS.keys() - {"laplacian"}

    def names(output):
        return set(weighted(matting_losses(output, alpha, wanted, None, targets), WEIGHTS))

    student = {name for name in COLUMNS if not name.startswith("teacher") and "laplacian" not in name} - {"guide"}
    assert names(output) == {"loss"} | student
    assert {"coarse_bce", "refined_edge", "lower_octaves_l1", "alignment"} <= student
    assert names(output._replace(octaves=None)) == {"loss", "coarse_bce", "coarse_l1", "coarse_gradient", "alignment"}


def test_a_row_of_the_table_is_all_that_a_new_term_needs(monkeypatch):
    """Its setting apart: the sum, the log's columns, and what is frozen follow."""
    term = Term("spread", lambda matte, truth: matte.std(), (REFINED,))
    monkeypatch.setattr(losses, "TERMS", (*losses.TERMS, term))
    terms = matting_losses(output_for(torch.randn(1, 1, 16, 16)), torch.rand(1, 1, 16, 16), {"spread"})
    found = weighted(terms, {"spread": 2.0})
    assert set(found) == {"loss", "refined_spread", "lower_octaves_spread"}
    assert found["loss"] == 2 * (found["refined_spread"] + found["lower_octaves_spread"])
    assert losses.has_weight_on(REFINED, dict.fromkeys(WEIGHTS, 0.0) | {"spread": 1.0})


def test_every_term_has_a_setting_and_every_setting_a_term():
    names = {field.name for field in dataclasses.fields(Config) if field.metadata["group"] == "losses"}
    assert {f"weight_{term.name}" for term in losses.TERMS} == names


def test_pixels_whose_truth_is_not_known_count_in_no_loss():
    logits, alpha = torch.randn(2, 1, 32, 32), torch.rand(2, 1, 32, 32)
    known = torch.ones(2, 1, 32, 32)
    known[..., 8:24, 8:24] = 0.0

    def terms(change: float) -> dict:
        """Of a prediction that is another one where the truth is not known, by at least half of the largest kernel."""
        moved = logits.clone()
        moved[..., 8:24, 8:24] += change
        moved.requires_grad_()
        coarse = saturating_sigmoid(moved)
        found = matting_losses(MattingOutput(moved, coarse, [coarse * 1.0], []), alpha, WEIGHTS, known)
        weighted(found, WEIGHTS)["loss"].backward()
        assert moved.grad[..., 8:24, 8:24].abs().max() == 0 < moved.grad.abs().max()
        return found

    for name, value in terms(0.0).items():
        assert value.item() > 0 and value.item() == terms(3.0)[name].item(), name
    everything = matting_losses(output_for(logits), alpha, WEIGHTS, torch.ones_like(alpha))
    for name, value in matting_losses(output_for(logits), alpha, WEIGHTS).items():
        torch.testing.assert_close(everything[name], value)


def test_terms_of_the_other_octaves_are_one_mean():
    logits, alpha = torch.randn(1, 1, 8, 8), torch.rand(1, 1, 32, 32)
    coarse = saturating_sigmoid(logits)
    octaves = [resize_alpha(coarse, (size, size)) for size in (8, 16, 32)]
    terms = matting_losses(MattingOutput(logits, octaves[-1], octaves, []), alpha, WEIGHTS)
    expected = [l1_loss(octave, resize_alpha(alpha, octave.shape[-2:])).item() for octave in octaves]
    assert terms["refined", "l1"].item() == pytest.approx(expected[2])
    assert terms["lower_octaves", "l1"].item() == pytest.approx((expected[0] + expected[1]) / 2)
    total = sum(WEIGHTS[name] * term.item() for (_, name), term in terms.items())
    assert weighted(terms, WEIGHTS)["loss"].item() == pytest.approx(total, rel=1e-5)
