"""Losses are finite and right where they are easy to get wrong."""

import pytest
import torch

from losses import alignment_loss, edge_loss, gradient_loss, l1_loss, laplacian_loss, matting_losses
from models.matting_network import MattingOutput, saturating_sigmoid

WEIGHTS = dict(bce=1.0, l1=1.0, gradient=1.0, laplacian=0.5, edge=1.0, teacher=0.5, alignment=1.0)


def output_for(logits: torch.Tensor) -> MattingOutput:
    coarse = saturating_sigmoid(logits)
    features = [torch.randn(len(logits), 8, 4, 4, requires_grad=True, dtype=torch.float32).to(logits.dtype)]
    return MattingOutput(logits, coarse, (coarse * 1.0), features, logits, [torch.zeros(len(logits), 8, 4, 4)])


@pytest.mark.parametrize("truth", [0.0, 1.0, 0.5])
@pytest.mark.parametrize("logit", [0.0, 60000.0, -60000.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_finite_for_constant_truths_and_saturated_predictions(truth, logit, dtype):
    logits = torch.full((2, 1, 32, 32), logit, dtype=dtype, requires_grad=True)
    terms = matting_losses(output_for(logits), torch.full((2, 1, 32, 32), truth), WEIGHTS)
    terms["loss"].backward()
    assert all(term.isfinite() and term.dtype == torch.float32 for term in terms.values())
    assert logits.grad.isfinite().all()
    if abs(logit) > 1 and truth == (0.0 if logit > 0 else 1.0):  # clamped and wrong: cross-entropy must still pull
        assert logits.grad.abs().min() > 0


def test_zero_for_a_perfect_matte_and_linear_terms_scale():
    truth = torch.rand(2, 1, 64, 48)
    for loss in (l1_loss, gradient_loss, laplacian_loss):
        assert loss(truth, truth).item() == 0.0
        assert loss(truth + 0.2 * truth, truth).item() == pytest.approx(2 * loss(truth + 0.1 * truth, truth).item(),
                                                                         rel=1e-4)


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
    features = [torch.randn(4, 8, 16, 16), torch.randn(4, 8, 4, 4)]
    teacher = [torch.randn(4, 8, 16, 16), torch.randn(4, 8, 4, 4)]

    def terms(part: slice) -> dict:
        coarse = saturating_sigmoid(logits[part])
        output = MattingOutput(logits[part], coarse, coarse.square(), [f[part] for f in features], logits[part],
                               [t[part] for t in teacher])
        return matting_losses(output, alpha[part], WEIGHTS)

    whole, first, second = terms(slice(0, 4)), terms(slice(0, 2)), terms(slice(2, 4))
    for name in whole:
        assert whole[name].item() == pytest.approx((first[name].item() + second[name].item()) / 2, rel=1e-5), name


def test_alignment_is_of_relations_not_of_values():
    features = torch.randn(2, 8, 6, 6)
    rotation = torch.linalg.qr(torch.randn(8, 8))[0]
    rotated = 3.0 * torch.einsum("dc,nchw->ndhw", rotation, features)
    assert alignment_loss([features], [rotated]).item() == pytest.approx(0.0, abs=1e-8)
    assert alignment_loss([features], [torch.randn(2, 8, 6, 6)]).item() > 0.01


def test_a_term_of_weight_zero_is_left_out_and_names_are_stable():
    logits = torch.randn(1, 1, 16, 16)
    names = set(matting_losses(output_for(logits), torch.rand(1, 1, 16, 16), WEIGHTS | {"laplacian": 0.0}))
    assert names == {"loss", "coarse_bce", "coarse_l1", "coarse_gradient", "refined_l1", "refined_gradient",
                     "refined_edge", "teacher_bce", "alignment"}
