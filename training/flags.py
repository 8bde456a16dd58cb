"""The settings of config.py as flags of train.py, and as they are stored in a run's config.json."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import re
import typing
from pathlib import Path
from typing import Any

import config
from config import Config, require
from training.recipes import RECIPES

NAMES = tuple[str, ...]  # type of the fields that take several names


class StoreTuple(argparse.Action):
    """Several words after a flag, as a tuple."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        setattr(namespace, self.dest, tuple(values))


@functools.cache
def explanations() -> dict[str, str]:
    """Field name -> the comment after it in config.py."""
    source = Path(config.__file__).read_text(encoding="utf-8")
    return dict(re.findall(r"^    ([a-z0-9_]+): [^=]+ = .*?  # (.+)$", source, flags=re.MULTILINE))


def add_config_flags(parser: argparse.ArgumentParser) -> None:
    """One flag per field of Config; a flag that is not given leaves nothing in the namespace."""
    parser.add_argument(
        "--recipe",
        choices=RECIPES,
        default=argparse.SUPPRESS,
        help="settings that belong together, see training/recipes.py; other flags still hold",
    )
    types = typing.get_type_hints(Config)
    for field in dataclasses.fields(Config):
        text = f"{explanations()[field.name]} (default: {field.default!r})".replace("%", "%%")
        kind: dict[str, Any] = dict(type=types[field.name], metavar=types[field.name].__name__.upper())
        if types[field.name] is bool:
            kind = dict(action=argparse.BooleanOptionalAction)
        elif types[field.name] == NAMES:
            kind = dict(nargs="+", action=StoreTuple, metavar="NAME")
        parser.add_argument("--" + field.name.replace("_", "-"), default=argparse.SUPPRESS, help=text, **kind)


def config_from_flags(flags: argparse.Namespace, base: Config | None = None) -> Config:
    """The base (default: config.py's settings), the recipe over it, and over both the flags that were given."""
    names = {field.name for field in dataclasses.fields(Config)}
    given = {name: value for name, value in vars(flags).items() if name in names}
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
