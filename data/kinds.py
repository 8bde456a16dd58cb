"""The kinds of faults that data.check finds, and how much each matters."""

from __future__ import annotations

from typing import NamedTuple

ERROR, WARNING = "error", "warning"

# An error harms training or makes the validation wrong. A warning is for a person to judge: some large sets have 0/1
# truths (DIS5K, DAVIS) and are worth training on, and a duplicate only counts twice.
SEVERITY = {
    "folder_missing": ERROR,
    "split_incomplete": WARNING,
    "files_left_out": WARNING,
    "photo_without_alpha": ERROR,
    "alpha_without_photo": ERROR,
    "unknown_without_photo": ERROR,
    "name_twice": ERROR,
    "sizes_differ": ERROR,
    "turned_alone": WARNING,
    "photo_unreadable": ERROR,
    "photo_cut_out": ERROR,
    "alpha_unreadable": ERROR,
    "alpha_empty": ERROR,
    "alpha_full": ERROR,
    "alpha_inverted": ERROR,
    "alpha_perhaps_inverted": WARNING,
    "alpha_scale": ERROR,
    "alpha_faint": WARNING,
    "alpha_levels": WARNING,
    "alpha_binary": WARNING,
    "unknown_unreadable": ERROR,
    "unknown_full": ERROR,
    "duplicate": WARNING,
    "leak_exact": ERROR,
    "leak_similar": ERROR,
}


class Fault(NamedTuple):
    """One finding. kind: of SEVERITY; sentence: one, which names the file."""

    kind: str
    path: str
    sentence: str
