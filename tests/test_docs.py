"""Every command in the documents is one that the scripts take, and every link leads somewhere."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from config import config_from_flags
from training import setup

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    ROOT / "README.md",
    *sorted(ROOT.glob("docs/*.md")),
    ROOT / ".github/CONTRIBUTING.md",
    ROOT / "test_data/README.md",
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^ {4}\S.*\n)+", flags=re.MULTILINE)
INLINE = re.compile(r"`((?:python|make|torchrun) [^`\n]+)`")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
OTHER_PROGRAMS = {"pip", "conda", "sudo", "mkdir", "mv", "source"}  # of the system: not looked at


def commands() -> Iterator[tuple[str, str]]:
    """(page, command) of the shell blocks, indented blocks and inline code of all pages."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = [body for language, body in FENCE.findall(text) if language in ("bash", "powershell")]
        prose = FENCE.sub("", text)
        lines = [line for block in [*blocks, *INDENTED.findall(prose)] for line in block.splitlines()]
        for line in [*lines, *INLINE.findall(prose)]:
            if line.strip():
                yield page.relative_to(ROOT).as_posix(), line.strip()


def start(words: list[str]) -> list[str]:
    """The words from the program that is checked on: what torchrun starts is a script as any other."""
    if "torchrun" in words:
        script = next(i for i, word in enumerate(words) if word.endswith(".py"))
        return ["python", *words[script:]]
    return words


def parse(module: str, arguments: list[str]) -> None:
    """Let the module's own parser read the arguments; raises SystemExit or ConfigError where it refuses them."""
    if "--" in arguments:  # what follows is for train.py
        end = arguments.index("--")
        parse("train", arguments[end + 1 :])
        arguments = arguments[:end]
    if module == "train":
        config_from_flags(setup.parse_flags(None, arguments))
        return
    script = importlib.import_module(module)
    parser = getattr(script, "parse_options", None) or getattr(script, "parse", None)
    if parser:
        parser(arguments)
        return
    with pytest.MonkeyPatch.context() as patch:  # one that parses in main: stop it when it has
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
        with pytest.raises(Parsed):
            script.main(arguments)


class Parsed(Exception):
    """The parser took the arguments."""


def parse_and_stop(parser: argparse.ArgumentParser, arguments: list[str]) -> None:
    _, unknown = parser.parse_known_args(arguments)
    if unknown:
        parser.error(f"unrecognized arguments: {unknown}")
    raise Parsed


def make_targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))


@pytest.mark.parametrize(("page", "command"), dict.fromkeys(commands()), ids=lambda text: text[:60])
def test_the_command_is_one_that_exists(page, command):
    program, *arguments = start(shlex.split(command, comments=True)) or [""]
    if program in ("python", "py") and arguments[:1] == ["-c"]:
        compile(arguments[1], page, "exec")
    elif program in ("python", "py") and arguments[:2] in (["-m", "venv"], ["-m", "pytest"]):
        return
    elif program == "python":
        module = arguments.pop(0) if arguments[0] != "-m" else (arguments.pop(0), arguments.pop(0))[1]
        if "--help" in arguments:
            arguments.remove("--help")
        parse(module.removesuffix(".py"), arguments)
    elif program == "make":
        assert {word for word in arguments if "=" not in word} <= make_targets()
    else:
        assert program in OTHER_PROGRAMS or re.match(r"HOST1=|\.venv", program), f"{page}: {command}"


def test_commands_are_found_and_a_wrong_one_is_refused():
    found = [command for _, command in commands()]
    assert "make demo" in found and any(command.startswith("torchrun") for command in found) and len(found) > 50
    with pytest.raises(SystemExit), contextlib.redirect_stderr(io.StringIO()):
        parse("data.check", ["mine", "--no-such-flag"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_examples_are_python(page):
    for language, body in FENCE.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            compile(body, str(page), "exec")


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{page.name} links to {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_of_the_repository_that_are_named_exist(page):
    names = re.findall(
        r"`((?:docs|figures|requirements|tests|\.github|common|models|data)/[\w./-]+\.\w+)`",
        page.read_text(encoding="utf-8"),
    )
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_the_portable_tests_of_the_workflow_exist():
    workflow = (ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8")
    names = re.findall(r"\btests/\w+\.py", workflow)
    assert len(names) > 5 and [name for name in names if not (ROOT / name).exists()] == []
