"""Every documented command is one that the code accepts, and every link leads somewhere."""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
from torch.distributed.run import get_args_parser

from data.faults import FAULTS

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    page for pattern in ("*.md", "docs/*.md", ".github/*.md", "test_data/*.md") for page in ROOT.glob(pattern)
)
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
INLINE = re.compile(r"`((?:python|make|torchrun|pip) [^`\n]+)`")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHELL = {"git", "bash", "mkdir", "mv", "cd"}  # the first word of lines that are not ours to check


class ParsedError(Exception):
    """The command line was accepted; nothing else is to happen."""


def blocks(language: str) -> list[tuple[str, str]]:
    """(page, text) of each fenced block in that language."""
    return [
        (page.relative_to(ROOT).as_posix(), text)
        for page in PAGES
        for found, text in FENCE.findall(page.read_text(encoding="utf-8"))
        if found == language
    ]


def commands() -> Iterator[tuple[str, str]]:
    """(page, command) of each line of the bash blocks, continued lines joined, and of each command within a text."""
    for page, text in blocks("bash"):
        for line in text.replace("\\\n", " ").splitlines():
            if line.strip() and not line.startswith("#"):
                yield page, line
    for page in PAGES:
        text = FENCE.sub("", page.read_text(encoding="utf-8"))
        yield from ((page.relative_to(ROOT).as_posix(), command) for command in INLINE.findall(text))


def words_of(command: str) -> list[str]:
    """Without comments and without assignments in front of the command."""
    words = shlex.split(command, comments=True)
    while words and re.match(r"[A-Z0-9_]+=", words[0]):
        words = words[1:]
    return words


def check(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a command line would not be accepted by what it calls."""
    program, rest = words[0], words[1:]
    if program == "srun":
        check(words[words.index("torchrun") :], monkeypatch)
    elif program == "torchrun":
        options = get_args_parser().parse_args(rest)
        check(["python", options.training_script, *options.training_script_args], monkeypatch)
    elif program == "make":
        check_make(rest)
    elif program == "pip":
        for flag, file in zip(rest, rest[1:], strict=False):
            assert flag not in ("-r", "-c") or (ROOT / file).is_file(), f"{file} does not exist"
    elif program == "python" and rest[0] == "-c":
        ast.parse(rest[1])
    elif program == "python" and rest[0].startswith("examples/"):
        assert (ROOT / rest[0]).is_file(), f"{rest[0]} does not exist"
    elif program == "python" and rest[:2] != ["-m", "pytest"]:
        name, flags = (rest[1], rest[2:]) if rest[0] == "-m" else (rest[0].removesuffix(".py"), rest[1:])
        check_flags(name, flags, monkeypatch)
    else:
        assert program in SHELL | {"python"}, f"{program}: what is this?"


def check_make(words: list[str]) -> None:
    """Targets and variables exist; the flags in a variable are checked by the script's own tests."""
    for word in words:
        variable, given, _ = word.partition("=")
        if given:
            assert f"$({variable})" in MAKEFILE, f"the Makefile does not use {variable}"
        else:
            assert re.search(rf"^{word}:", MAKEFILE, re.MULTILINE), f"the Makefile has no target {word}"


def check_flags(name: str, flags: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The script's own parser takes the flags; the script does not run."""
    if name == "experiments.ablation" and "--" in flags:
        check_flags("train", flags[flags.index("--") + 1 :], monkeypatch)
    module = importlib.import_module(name)
    if hasattr(module, "__path__"):  # python -m of a package
        module = importlib.import_module(f"{name}.__main__")
    if parse_all := getattr(module, f"{name}_options", None):
        parse_all(None, flags)
        return
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(parser: argparse.ArgumentParser, *arguments: object) -> None:
        parse(parser, *arguments)
        raise ParsedError

    with monkeypatch.context() as patch, pytest.raises(ParsedError):
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
        module.main(flags)


@pytest.mark.parametrize(("page", "command"), commands())
def test_command_is_accepted(page, command, monkeypatch, capsys):
    words = words_of(command)
    try:
        if words:
            check(words, monkeypatch)
    except SystemExit as end:
        assert end.code == 0, f"{page}: {command}\n{capsys.readouterr().err}"


@pytest.mark.parametrize(
    "command",
    [
        "python train.py --no-such-flag",
        "python train.py --epochs many",
        "python -m experiments.ablation --output runs -- --no-such-flag",
        "python predict.py --kind sticker",
        "python predict.py --background red",
        "python -m data.check",
        "torchrun --no-such-flag 2 train.py",
        "make sandwich",
        "make demo NO_FLAGS=1",
        "pip install -r requirements/none.txt",
        "pyton train.py",
    ],
)
def test_a_wrong_command_is_noticed(command, monkeypatch):
    with pytest.raises((SystemExit, AssertionError)) as caught:
        check(words_of(command), monkeypatch)
    assert not isinstance(caught.value, SystemExit) or caught.value.code == 2


@pytest.mark.parametrize(("page", "text"), blocks("python"))
def test_python_block_imports_what_exists(page, text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            for name in node.names:
                assert hasattr(importlib.import_module(node.module), name.name), f"{page}: {ast.unparse(node)}"


def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub names them: lower case, spaces to hyphens, other signs gone."""
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text(encoding="utf-8"))):
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / unquote(file)).resolve() if file else page
        assert target.exists(), f"{link} does not exist"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


def test_every_page_and_picture_is_reachable():
    """From the README, over any number of links."""
    seen, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        seen.add(page)
        if page.suffix == ".md":
            links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
            todo += [
                target for link in links if (target := (page.parent / link).resolve()).is_file() and target not in seen
            ]
    assert set(PAGES) - seen == set()
    assert {file for file in (ROOT / "figures").iterdir() if file.suffix in (".png", ".jpg")} - seen == set()


def test_every_kind_of_fault_is_explained_with_its_severity():
    page = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([a-z_, ]+) \| (error|warning) \|", page, re.MULTILINE)
    assert {kind: severity for kinds, severity in rows for kind in kinds.split(", ")} == {
        kind: severity for kind, (severity, _) in FAULTS.items()
    }


def test_the_workflow_names_test_files_that_exist():
    named = re.findall(r"tests/test_\w+\.py", (ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8"))
    assert len(named) > 10
    assert [file for file in named if not (ROOT / file).is_file()] == []


def test_pip_install_says_what_to_do_instead():
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-index",
        "--no-deps",
        "--disable-pip-version-check",
        str(ROOT),
    ]
    result = subprocess.run(install, capture_output=True, text=True, timeout=60)
    assert result.returncode != 0
    assert "pip install -r requirements.txt" in result.stdout + result.stderr
