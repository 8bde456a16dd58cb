"""The cheap part of data.check, for the start of a training: all names, and the headers and truths of a sample."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.errors import UserError
from common.files import is_hidden
from data.alpha_faults import inverted_set, judge_together, look_at_truth
from data.faults import Fault, by_kind, check_sizes, pair_up
from data.pairs import Pair

TRAINING_SPLITS = ("train", "val")  # what train.py reads
SAMPLED_HEADERS, SAMPLED_TRUTHS = 1000, 20  # pairs of a data set
# Nothing can be learned, or measured, where no truth is without one of these.
USELESS = ("alpha_empty", "alpha_full", "alpha_inverted")
OVERRULE = "If the alphas are right, train with --no-check-data."


class Findings(NamedTuple):
    """Sentences for a person. errors: train.py should not start; warnings: it may; scope: what was looked at."""

    errors: list[str]
    warnings: list[str]
    scope: str = ""


def find_splits(root: str | Path) -> dict[str, Path]:
    """Folders with im or gt in them, by name: root itself, or those directly in it. Raises UserError without any."""
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root} is not a folder: give the one that holds train and val, or im and gt.")
    candidates = [root] if (root / "im").is_dir() or (root / "gt").is_dir() else sorted(root.iterdir())
    candidates = [path for path in candidates if path == root or not is_hidden(path.name)]
    splits = {path.name: path for path in candidates if (path / "im").is_dir() or (path / "gt").is_dir()}
    if not splits:
        raise UserError(f"{root} has neither im and gt nor a folder such as train with them in it.")
    # train first, so that of a photo in two splits the copy in the other split is named
    return dict(sorted(splits.items(), key=lambda split: (split[0] != "train", split[0])))


def quick_check(root: str | Path) -> Findings:
    """One sentence per kind of fault in train and val (or in im and gt); other splits are not looked at."""
    try:
        splits = find_splits(root)
    except UserError as error:
        return Findings([str(error)], [])
    if set(splits) & set(TRAINING_SPLITS):
        splits = {name: splits[name] for name in TRAINING_SPLITS if name in splits}
    command = f"python -m data.check {shlex.quote(str(root))}"
    faults: list[Fault] = []
    noted: list[Fault] = []
    pairs = 0
    for folder in splits.values():
        found, named = pair_up(folder)
        pairs += len(found)
        headers = evenly(found, SAMPLED_HEADERS // len(splits))
        refused, doubtful = check_truths(evenly(found, SAMPLED_TRUTHS // len(splits)))
        faults += named + [fault for pair in headers for fault in check_sizes(pair, quick=True)] + refused
        noted += doubtful
    if not pairs and not faults:
        return Findings([f"{root} holds no photos: put them into im and their alphas, by the same name, into gt."], [])
    errors, warnings = ([_sentence(group, command) for _, group in by_kind(found)] for found in (faults, noted))
    if pairs <= SAMPLED_TRUTHS:
        return Findings(errors, warnings)
    sizes = "their sizes" if pairs <= SAMPLED_HEADERS else f"the sizes of {SAMPLED_HEADERS}"
    scope = f"{root}: checked the names of {pairs} pairs, {sizes} and {SAMPLED_TRUTHS} alphas; {command} checks all."
    return Findings(errors, warnings, scope)


def check_truths(pairs: Sequence[Pair]) -> tuple[list[Fault], list[Fault]]:
    """What is wrong with the truths of one split: why train.py should not start, and what a person should know."""
    truths = []
    for pair in pairs:
        with suppress(UserError):  # training names the file and takes another sample
            truths.append(look_at_truth(pair))
    means = [truth.border_and_centre for truth in truths if truth.border_and_centre]
    together = judge_together([fault for truth in truths for fault in truth.faults], len(means))
    refused = [fault for fault in together if fault.kind in USELESS]
    noted = [fault for fault in together if fault.kind in ("alpha_faint", "alpha_noisy")]
    if len(refused) < len(means):
        noted += refused
        refused = inverted_set(means, pairs[0].alpha.parent)
    refused += [fault for fault in together if fault.kind == "alpha_scale"]
    return [fault._replace(sentence=f"{fault.sentence} {OVERRULE}") for fault in refused], noted


def _sentence(group: list[Fault], command: str) -> str:
    """The first of the faults of one kind, how many more there are, and the command that names them."""
    more = f" {len(group) - 1} more of this kind ({group[0].kind}): {command}" if len(group) > 1 else ""
    return group[0].sentence + more


def evenly(pairs: Sequence[Pair], count: int) -> list[Pair]:
    """At most `count` of them, evenly spaced, the first and the last included."""
    return [pairs[round(at)] for at in np.linspace(0, len(pairs) - 1, min(count, len(pairs)))]
