"""Training losses: pure functions, float32, and one that adds them up as named terms.

Every mean is over all pixels of an image and then over the batch, never over a region whose size varies, so the
loss of a global batch is the mean of its parts' losses (several processes agree with one), and nothing divides by
the size of an empty region: all-0 and all-1 alphas are legal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

PYRAMID_LEVELS = 5
EDGE_RADIUS = 4  # pixels of the training crop
BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)  # the 5-tap Gaussian of Burt and Adelson, 1983


def l1_loss(prediction: Tensor, truth: Tensor) -> Tensor:
    """Mean |p - g|. (N, 1, H, W) alphas to a scalar."""
    return (prediction - truth).abs().mean()


def edge_loss(prediction: Tensor, truth: Tensor, radius: int = EDGE_RADIUS) -> Tensor:
    """|p - g| in the band where the true alpha is soft or changes within `radius` pixels, over all pixels. Scalar.

    What a person sees is the edge, and a mean over the image is nearly blind to it. Divided by the number of all
    pixels, not of the band's: see the module's first lines.
    """
    side = 2 * radius + 1
    highest = F.max_pool2d(truth, side, stride=1, padding=radius)  # (N, 1, H, W)
    lowest = -F.max_pool2d(-truth, side, stride=1, padding=radius)
    band = (highest > 0) & (lowest < 1)
    return ((prediction - truth).abs() * band).mean()


def gradient_loss(prediction: Tensor, truth: Tensor) -> Tensor:
    """Mean |dx p - dx g| + |dy p - dy g| with forward differences, in alpha a pixel. Scalar; 0 at 1x1."""
    difference = prediction - truth  # differences are linear: one tensor to differentiate instead of two
    dx = difference[..., :, 1:] - difference[..., :, :-1]
    dy = difference[..., 1:, :] - difference[..., :-1, :]
    return (dx.abs().sum() + dy.abs().sum()) / difference.numel()


def laplacian_loss(prediction: Tensor, truth: Tensor, levels: int = PYRAMID_LEVELS) -> Tensor:
    """Laplacian pyramid L1: sum over levels i of 2^i mean |L_i(p) - L_i(g)| (Hou and Liu, ICCV 2019, eq. 5). Scalar.

    Levels stop where the image gets smaller than the filter.
    """
    # L_i is linear in its input, so the pyramid of the difference is the difference of the pyramids
    current = prediction - truth
    kernel = current.new_tensor(BINOMIAL)
    total = current.new_zeros(())
    for level in range(levels):
        if min(current.shape[-2:]) < 2 * len(BINOMIAL):
            break
        smaller = _blur(current, kernel)[..., ::2, ::2]
        larger = F.interpolate(smaller, size=current.shape[-2:], mode="bilinear", align_corners=False)
        total = total + 2**level * (current - larger).abs().mean()
        current = smaller
    return total


def _blur(x: Tensor, kernel: Tensor) -> Tensor:
    """(N, 1, H, W) to the same, with borders that reflect: by flips, since F.pad's way back is not deterministic on
    CUDA."""
    x = torch.cat([x[..., 1:3].flip(-1), x, x[..., -3:-1].flip(-1)], dim=-1)  # (N, 1, H, W + 4)
    x = torch.cat([x[..., 1:3, :].flip(-2), x, x[..., -3:-1, :].flip(-2)], dim=-2)  # (N, 1, H + 4, W + 4)
    x = F.conv2d(x, kernel.view(1, 1, 1, -1))
    return F.conv2d(x, kernel.view(1, 1, -1, 1))


def cross_entropy_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Binary cross-entropy on logits against a soft truth, in nats a pixel. Scalar, finite for any finite logit."""
    return F.binary_cross_entropy_with_logits(logits, truth)


def alignment_loss(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """1 - cosine of the student's and the teacher's features (N, C, h, w), mean over places and stages. Scalar.

    The teacher's are detached. The two encoders begin from the same weights, so their channels mean the same. Cosine,
    since only the direction of a feature says what is there.
    """
    return torch.stack(
        [
            (1.0 - F.cosine_similarity(s.float(), t.detach().float(), dim=1)).mean()
            for s, t in zip(student, teacher, strict=True)
        ]
    ).mean()


def matting_losses(output, alpha: Tensor, weights: Mapping[str, float]) -> dict[str, Tensor]:
    """Named terms of one batch, unweighted, and their weighted sum under "loss".

    output: models.MattingOutput; alpha: truth (N, 1, H, W) in [0, 1]; weights: bce, l1, gradient, laplacian,
    edge, alignment. Runs in float32 outside autocast whatever the network's precision; a term of weight 0 is
    not computed. Where there is no refiner the refined terms are absent.
    """
    with torch.autocast(device_type=alpha.device.type, enabled=False):
        alpha = alpha.float()
        logits = output.coarse_logits.float()
        student_alpha = _match(alpha, logits)
        mattes = {"coarse": output.coarse_alpha.float()}
        if output.refined_alpha is not output.coarse_alpha:
            mattes["refined"] = output.refined_alpha.float()
        terms: dict[str, Tensor] = {}
        total = alpha.new_zeros(())

        def add(name: str, weight: str, compute) -> None:
            nonlocal total
            if weights[weight]:
                terms[name] = compute()
                total = total + weights[weight] * terms[name]

        add("coarse_bce", "bce", lambda: cross_entropy_loss(logits, student_alpha))
        for which, matte in mattes.items():
            add(f"{which}_l1", "l1", lambda matte=matte: l1_loss(matte, alpha))
            add(f"{which}_gradient", "gradient", lambda matte=matte: gradient_loss(matte, alpha))
            add(f"{which}_laplacian", "laplacian", lambda matte=matte: laplacian_loss(matte, alpha))
        if "refined" in mattes:
            add("refined_edge", "edge", lambda: edge_loss(mattes["refined"], alpha))
        if output.teacher_features is not None:
            add("alignment", "alignment", lambda: alignment_loss(output.features, output.teacher_features))
        return {"loss": total} | terms


def _match(alpha: Tensor, like: Tensor) -> Tensor:
    """The truth at the student's size, antialiased: never nearest, which drops thin strands."""
    if alpha.shape[-2:] == like.shape[-2:]:
        return alpha
    return F.interpolate(alpha, size=like.shape[-2:], mode="bilinear", align_corners=False, antialias=True)
