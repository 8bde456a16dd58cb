"""Training losses: pure functions, float32, and TERMS, the one table of what a run can minimize.

A new term is a function, a row of TERMS, and a setting weight_NAME in config.py; the checks of the settings, the parts
that are frozen, the columns of the log and the curves follow from the row.

Every mean is over all pixels of an image and then over the batch, never over a region whose size varies. So the
loss of a global batch is the mean of its parts' losses (several processes agree with one), and no empty region causes
a division by zero (all-0 and all-1 alphas are legal). A pixel with unknown alpha counts as one without error.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from common.resize import resize_alpha
from common.truth import NEARLY

if TYPE_CHECKING:
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
    pairs = zip(student, teacher, strict=True)
    distances = [(1.0 - F.cosine_similarity(s.float(), t.detach().float(), dim=1)).mean() for s, t in pairs]
    return torch.stack(distances).mean()


def guide_loss(student: Sequence[Tensor], guide: Sequence[Tensor]) -> Tensor:
    """1 - cosine of the student's projected features and a guide's maps (N, C, h, w), which are detached: mean over
    places, sum over levels. Scalar.

    Each channel of the guide is first brought to mean 0 and deviation 1 over the batch: a cosine sees little but the
    largest channels. The batch is that of the process: with several the loss is nearly, not exactly, that of one.
    """
    distances = []
    for own, target in zip(student, guide, strict=True):
        deviation, mean = torch.std_mean(target.detach(), dim=(0, 2, 3), keepdim=True, correction=0)
        distances.append(1.0 - F.cosine_similarity(own, (target.detach() - mean) / (deviation + 1e-6), dim=1).mean())
    return torch.stack(distances).sum()


class Term(NamedTuple):
    """One row of the table of losses; the setting weight_<name> of config.py is its weight."""

    name: str
    function: Callable[..., Tensor]
    looks_at: tuple[str, ...]  # LOGITS ... GUIDED


# What a term can look at, and so what `function` is given
LOGITS = "logits"  # of the decoder, with the truth at their size and where it is known
COARSE = "coarse"  # the decoder's matte, of the student or the teacher, and the truth
REFINED = "refined"  # each octave of the refiner, and the truth at its size
FEATURES = "features"  # f1 .. f4 of the student and of the teacher
GUIDED = "guided"  # the student's features as the guide's projections have them, and the guide's maps

TERMS = (
    Term("bce", cross_entropy_loss, (LOGITS,)),
    Term("l1", l1_loss, (COARSE, REFINED)),
    Term("gradient", gradient_loss, (COARSE, REFINED)),
    Term("laplacian", laplacian_loss, (COARSE, REFINED)),
    Term("edge", edge_loss, (REFINED,)),
    Term("alignment", alignment_loss, (FEATURES,)),
    Term("guide", guide_loss, (GUIDED,)),
)
# The mattes by their name in the log, "coarse_l1" ..., and what there is to look at; features stand without a name
MATTES = {
    "teacher": (LOGITS, COARSE),
    "coarse": (LOGITS, COARSE),
    "refined": (REFINED,),  # the last octave
    "lower_octaves": (REFINED,),  # the mean of the octaves below it
    "": (FEATURES, GUIDED),
}

Terms = dict[tuple[str, str], Tensor]  # (matte, term) -> scalar, not weighted


def has_weight_on(place: str, weights: Mapping[str, float]) -> bool:
    """Whether a term with a weight looks at LOGITS, COARSE ... GUIDED."""
    return any(place in term.looks_at and weights[term.name] for term in TERMS)


def column(matte: str, term: str) -> str:
    """The name of a term in the log."""
    return f"{matte}_{term}" if matte else term


COLUMNS = tuple(
    column(matte, term.name)
    for matte, places in MATTES.items()
    for term in TERMS
    if set(places).intersection(term.looks_at)
)


def weighted(terms: Terms, weights: Mapping[str, float]) -> dict[str, Tensor]:
    """The weighted sum under "loss", then each term as it is, by its name in the log."""
    total = torch.stack([weights[name] * value for (_, name), value in terms.items()]).sum()
    return {"loss": total} | {column(*key): value for key, value in terms.items()}


def teacher_losses(output: MattingOutput, alpha: Tensor, wanted: Collection[str], known: Tensor | None = None) -> Terms:
    """Terms of one batch of the first stage; see matting_losses."""
    with torch.autocast(device_type=alpha.device.type, enabled=False):
        return _coarse_terms("teacher", output, alpha.float(), known, wanted)


def matting_losses(
    output: MattingOutput,
    alpha: Tensor,
    wanted: Collection[str],
    known: Tensor | None = None,
    teacher_features: Sequence[Tensor] | None = None,
    guided: tuple[Sequence[Tensor], Sequence[Tensor]] | None = None,
) -> Terms:
    """Terms of one batch of the second stage.

    alpha: truth (N, 1, H, W) in [0, 1]; wanted: names of the terms to compute, those with a weight; known: float
    (N, 1, H, W), 0 where the truth is not known, 1 elsewhere. Runs in float32 outside autocast whatever the network's
    precision. The refined terms are those of the last octave; "lower_octaves" are the mean over the others. They are
    absent without a refiner, and the features' without a teacher or a guide. guided: what models.Guide returns.
    """
    with torch.autocast(device_type=alpha.device.type, enabled=False):
        alpha = alpha.float()
        terms = _coarse_terms("coarse", output, alpha, known, wanted)
        if output.octaves:
            *lower, last = (octave.float() for octave in output.octaves)
            terms |= _terms("refined", REFINED, wanted, keep_known(last, alpha, known), alpha)
            terms |= mean_terms([_octave_terms(octave, alpha, known, wanted) for octave in lower])
        if teacher_features is not None:
            terms |= _terms("", FEATURES, wanted, output.features, teacher_features)
        if guided is not None:
            terms |= _terms("", GUIDED, wanted, *guided)
        return terms


def _terms(matte: str, place: str, wanted: Collection[str], *arguments: object) -> Terms:
    return {
        (matte, term.name): term.function(*arguments)
        for term in TERMS
        if place in term.looks_at and term.name in wanted
    }


def _coarse_terms(
    matte: str, output: MattingOutput, alpha: Tensor, known: Tensor | None, wanted: Collection[str]
) -> Terms:
    """Terms of a decoder's output: those of its logits at their size, the others at the size of the truth."""
    logits, coarse = output.coarse_logits.float(), output.coarse_alpha.float()
    terms = _terms(matte, LOGITS, wanted, logits, *_at_size_of(logits, alpha, known))
    return terms | _terms(matte, COARSE, wanted, keep_known(coarse, alpha, known), alpha)


def _octave_terms(octave: Tensor, alpha: Tensor, known: Tensor | None, wanted: Collection[str]) -> Terms:
    """Terms of one octave below the last, against the truth at its size."""
    truth, known = _at_size_of(octave, alpha, known)
    return _terms("lower_octaves", REFINED, wanted, keep_known(octave, truth, known), truth)


def _at_size_of(matte: Tensor, alpha: Tensor, known: Tensor | None) -> tuple[Tensor, Tensor | None]:
    size = (matte.shape[-2], matte.shape[-1])
    return resize_alpha(alpha, size), None if known is None else resize_alpha(known, size)


def keep_known(prediction: Tensor, truth: Tensor, known: Tensor | None) -> Tensor:
    """The prediction, with the truth itself where that is not known: no error and no gradient there."""
    return prediction if known is None else torch.lerp(truth, prediction, known)


def mean_terms(octaves: Sequence[Terms]) -> Terms:
    """The mean of each term over several mattes; nothing for none."""
    names = octaves[0] if octaves else ()
    return {name: torch.stack([terms[name] for terms in octaves]).mean() for name in names}
