"""Training losses: pure functions, float32, and the named terms of each stage.

Every mean is over all pixels of an image and then over the batch, never over a region whose size varies. So the
loss of a global batch is the mean of its parts' losses (several processes agree with one), and no empty region causes
a division by zero (all-0 and all-1 alphas are legal). A pixel with unknown alpha counts as one without error.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from common.resize import resize_alpha
from common.truth import NEARLY
from models import MattingOutput

PYRAMID_LEVELS = 5
EDGE_RADIUS_IN_PIXELS = 4  # of the octave that is compared
BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)  # the 5-tap Gaussian of Burt and Adelson, 1983


def l1_loss(prediction: Tensor, truth: Tensor) -> Tensor:
    """Mean |p - g|. (N, 1, H, W) alphas to a scalar."""
    return (prediction - truth).abs().mean()


def edge_loss(prediction: Tensor, truth: Tensor, radius: int = EDGE_RADIUS_IN_PIXELS) -> Tensor:
    """|p - g| in the band where the true alpha is soft or changes within `radius` pixels, over all pixels. Scalar.

    What a person sees is the edge, and a mean over the image is nearly blind to it. Divided by the number of all
    pixels, not of the band's: see the module's first lines. Nearly sure counts as sure (common/truth.py), or the noise
    of a JPEG would make an edge of all of the photo.
    """
    side = 2 * radius + 1
    highest = F.max_pool2d(truth, side, stride=1, padding=radius)  # (N, 1, H, W)
    lowest = -F.max_pool2d(-truth, side, stride=1, padding=radius)
    band = (highest > NEARLY / 255) & (lowest < 1 - NEARLY / 255)
    return ((prediction - truth).abs() * band).mean()


def gradient_loss(prediction: Tensor, truth: Tensor) -> Tensor:
    """Mean |dx p - dx g| + |dy p - dy g| with forward differences, in alpha per pixel. Scalar; 0 at 1x1."""
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
    total = current.new_zeros(())
    for level in range(levels):
        if min(current.shape[-2:]) < 2 * len(BINOMIAL):
            break
        smaller = _blur(current)[..., ::2, ::2]
        larger = F.interpolate(smaller, size=current.shape[-2:], mode="bilinear", align_corners=False)
        total = total + 2**level * (current - larger).abs().mean()
        current = smaller
    return total


def _blur(x: Tensor) -> Tensor:
    """(N, 1, H, W) to the same, with borders that reflect: by flips, since F.pad's backward is not deterministic on
    CUDA; and with plain numbers for taps, since a kernel's tensor would be copied to the device at each call."""
    for dim in (-1, -2):
        size = x.shape[dim]
        x = torch.cat([x.narrow(dim, 1, 2).flip(dim), x, x.narrow(dim, size - 3, 2).flip(dim)], dim=dim)
        x = functools.reduce(torch.add, [tap * x.narrow(dim, i, size) for i, tap in enumerate(BINOMIAL)])
    return x


def cross_entropy_loss(logits: Tensor, truth: Tensor, known: Tensor | None = None) -> Tensor:
    """Binary cross-entropy on logits against a soft truth, in nats per pixel. Scalar, finite for any finite logit.

    known: (N, 1, H, W), 0 where the truth is not known.
    """
    return F.binary_cross_entropy_with_logits(logits, truth, weight=known)


def alignment_loss(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """1 - cosine of the student's and the teacher's features (N, C, h, w), mean over places and stages. Scalar.

    The teacher's are detached. The two encoders start from the same weights, so their channels mean the same; with
    --init-from they do not, but the teacher has learned features that the student's decoder reads. Cosine, since only
    the direction of a feature says what is there.
    """
    return torch.stack(
        [
            (1.0 - F.cosine_similarity(s.float(), t.detach().float(), dim=1)).mean()
            for s, t in zip(student, teacher, strict=True)
        ]
    ).mean()


def matte_losses(
    name: str, prediction: Tensor, truth: Tensor, weights: Mapping[str, float], *, with_edge: bool = False
) -> dict[str, Tensor]:
    """Terms of one matte, "<name>_l1" ... (N, 1, H, W) against the truth of its size; terms of weight 0 are left out.

    with_edge adds the edge loss.
    """
    losses = {"l1": l1_loss, "gradient": gradient_loss, "laplacian": laplacian_loss, "edge": edge_loss}
    return {
        f"{name}_{loss}": function(prediction, truth)
        for loss, function in losses.items()
        if weights[loss] and (loss != "edge" or with_edge)
    }


def coarse_losses(
    name: str, logits: Tensor, coarse: Tensor, alpha: Tensor, known: Tensor | None, weights: Mapping[str, float]
) -> dict[str, Tensor]:
    """Terms of a decoder's output: cross-entropy on its logits at their size, the others at the size of the truth."""
    terms: dict[str, Tensor] = {}
    if weights["bce"]:
        size = (logits.shape[-2], logits.shape[-1])
        share_known = None if known is None else resize_alpha(known, size)
        terms[f"{name}_bce"] = cross_entropy_loss(logits, resize_alpha(alpha, size), share_known)
    return terms | matte_losses(name, keep_known(coarse, alpha, known), alpha, weights)


def keep_known(prediction: Tensor, truth: Tensor, known: Tensor | None) -> Tensor:
    """The prediction, with the truth itself where that is not known: no error and no gradient there."""
    return prediction if known is None else torch.lerp(truth, prediction, known)


def weighted(terms: dict[str, Tensor], weights: Mapping[str, float]) -> dict[str, Tensor]:
    """The terms, and their sum under "loss"; a term's weight is that of its name's last word."""
    return {"loss": torch.stack([weights[name.split("_")[-1]] * term for name, term in terms.items()]).sum()} | terms


def teacher_losses(
    output: MattingOutput, alpha: Tensor, weights: Mapping[str, float], known: Tensor | None = None
) -> dict[str, Tensor]:
    """Named terms of the first stage, "teacher_bce" ..., and their weighted sum under "loss"; see matting_losses."""
    with torch.autocast(device_type=alpha.device.type, enabled=False):
        logits, reconstruction = output.coarse_logits.float(), output.coarse_alpha.float()
        return weighted(coarse_losses("teacher", logits, reconstruction, alpha.float(), known, weights), weights)


def matting_losses(
    output: MattingOutput,
    alpha: Tensor,
    weights: Mapping[str, float],
    known: Tensor | None = None,
    teacher_features: Sequence[Tensor] | None = None,
    guide_loss: Tensor | None = None,
) -> dict[str, Tensor]:
    """Named terms of one batch of the second stage, unweighted, and their weighted sum under "loss".

    alpha: truth (N, 1, H, W) in [0, 1]; known: float (N, 1, H, W), 0 where it is not known, 1 elsewhere; weights: by
    the names bce, l1, gradient, laplacian, edge, alignment, guide; guide_loss: from models.Guide. Runs in float32
    outside autocast whatever the network's precision; a term of weight 0 is not computed. The refined terms are those
    of the last octave; the mean of the other octaves' terms is "lower_octaves_l1" ... None without a refiner.
    """
    with torch.autocast(device_type=alpha.device.type, enabled=False):
        alpha = alpha.float()
        terms = coarse_losses(
            "coarse", output.coarse_logits.float(), output.coarse_alpha.float(), alpha, known, weights
        )
        if output.octaves:
            *lower, last = (octave.float() for octave in output.octaves)
            terms |= matte_losses("refined", keep_known(last, alpha, known), alpha, weights, with_edge=True)
            terms |= mean_terms([_octave_losses(octave, alpha, known, weights) for octave in lower])
        if teacher_features is not None and weights["alignment"]:
            terms["alignment"] = alignment_loss(output.features, teacher_features)
        if guide_loss is not None:
            terms["guide"] = guide_loss
        return weighted(terms, weights)


def _octave_losses(
    octave: Tensor, alpha: Tensor, known: Tensor | None, weights: Mapping[str, float]
) -> dict[str, Tensor]:
    """Terms of one octave below the last, against the truth at its size."""
    size = (octave.shape[-2], octave.shape[-1])
    truth = resize_alpha(alpha, size)
    known = None if known is None else resize_alpha(known, size)
    return matte_losses("lower_octaves", keep_known(octave, truth, known), truth, weights, with_edge=True)


def mean_terms(octaves: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each term over several mattes; nothing for none."""
    names = octaves[0] if octaves else ()
    return {name: torch.stack([terms[name] for terms in octaves]).mean() for name in names}
