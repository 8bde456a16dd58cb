"""The options of publishing.publish."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from common import hub
from common.command import new_parser

DRY_RUN_FOLDER = "hub_dry_run"
NO_LICENCE = "other"  # as the Hub calls one that it does not know


def publish_options(description: str | None, argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = new_parser(description)
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder, with best.safetensors")
    parser.add_argument("repository", metavar="owner/name", help="repository on the Hub; made if it is not there")
    text = "licence of the weights, by the Hub's name for it, such as mit or cc-by-nc-4.0 (default: none is named)"
    parser.add_argument("--license", metavar="ID", default=NO_LICENCE, help=text)
    parser.add_argument(
        "--half", action="store_true", help="float16 weights: half the size, mattes equal to a grey level"
    )
    parser.add_argument("--private", action="store_true", help="if the repository is made: only you can read it")
    parser.add_argument("--dry-run", action="store_true", help=f"upload nothing; write RUN/{DRY_RUN_FOLDER} anew")
    options = parser.parse_args(argv)
    if not hub.REPOSITORY.fullmatch(options.repository):
        parser.error(f"{options.repository}: write the repository as owner/name")
    if hub.is_name(options.run):
        parser.error(f"{options.run}: name a run folder of this machine")
    return options
