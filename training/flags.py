"""The settings of config.py as flags of train.py, and as they are stored in a run's config.json."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from collections.abc import Sequence
from typing import Any

from common.command import new_parser
from config import Config, require
from training.recipes import RECIPES

NAMES = tuple[str, ...]  # type of the fields that take several names
METAVARS = {int: "N", float: "X", str: "NAME"}


def parse_flags(description: str | None, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """train.py's command line: --resume, --recipe, and a flag for each setting."""
    parser = new_parser(description)
    parser.usage = "%(prog)s [--recipe NAME] [--dataset NAME ...] [--resume [RUN]] [options]"
    parser.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="RUN",
        help="resume the newest run, or the named run folder, with its own settings; flags given with it still hold",
    )
    add_config_flags(parser)
    return parser.parse_args(argv)


def add_config_flags(parser: argparse.ArgumentParser) -> None:
    """One flag per field of Config, in groups; a flag that is not given leaves nothing in the namespace."""
    fields, types = dataclasses.fields(Config), typing.get_type_hints(Config)
    names = dict.fromkeys(["essential", *(field.metadata["group"] for field in fields)])
    groups = {name: parser.add_argument_group(name) for name in names}
    groups["essential"].add_argument(
        "--recipe",
        choices=RECIPES,
        default=argparse.SUPPRESS,
        help="settings that belong together, see training/recipes.py; other flags still hold",
    )
    for field in fields:
        kind: dict[str, Any] = dict(type=types[field.name], metavar=METAVARS.get(types[field.name]))
        if types[field.name] is bool:
            kind = dict(action=argparse.BooleanOptionalAction)
        elif types[field.name] == NAMES:
            kind = dict(nargs="+", metavar="NAME")
        text = f"{field.metadata['text']} (default: {shown(field.default) or 'none'})".replace("%", "%%")
        flag = "--" + field.name.replace("_", "-")
        groups[field.metadata["group"]].add_argument(flag, default=argparse.SUPPRESS, help=text, **kind)


def shown(value: Any) -> str:
    """A default as it would be typed."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return " ".join(value) if isinstance(value, tuple) else str(value)


def config_from_flags(flags: argparse.Namespace, base: Config | None = None) -> Config:
    """The base (default: config.py's settings), the recipe over it, and over both the flags that were given."""
    names = {field.name for field in dataclasses.fields(Config)}
    given = {name: tuple(v) if isinstance(v, list) else v for name, v in vars(flags).items() if name in names}
    recipe = RECIPES.get(getattr(flags, "recipe", ""), {})
    return dataclasses.replace(base or Config(), **(recipe | given))


def config_from_dict(values: dict[str, Any], source: str) -> Config:
    """A stored config, such as a run's config.json; missing settings take config.py's values. Raises UserError."""
    types = typing.get_type_hints(Config)
    unknown = sorted(values.keys() - types.keys())
    require(
        not unknown,
        f"{source} has settings that this version does not know ({', '.join(unknown)}): use the version that wrote "
        "it, or take them out",
    )
    for name, value in values.items():
        if types[name] == NAMES:
            is_list = isinstance(value, list | tuple) and all(isinstance(part, str) for part in value)
            require(is_list, f"{source} has {name} = {value!r}: it must be a list of names")
            continue
        fits = isinstance(value, types[name]) or (types[name] is float and isinstance(value, int))
        require(
            fits and (types[name] is bool or not isinstance(value, bool)),
            f"{source} has {name} = {value!r}: it must be of the type {types[name].__name__}",
        )
    settings: dict[str, Any] = {name: tuple(v) if types[name] == NAMES else v for name, v in values.items()}
    return Config(**settings)
