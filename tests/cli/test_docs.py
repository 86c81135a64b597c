"""``docs/cli.md`` and the commands agree."""

import contextlib
import re
import shlex
from pathlib import Path

import click
import pytest

from flowdsl.cli._app import COMMANDS, cli
from flowdsl.cli._command import SHARED
from flowdsl.cli.doctor import TITLES

from .sessions import BLOCK, Session, agrees, commands

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "cli.md"
TEXT = PAGE.read_text("utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", TEXT, re.M | re.S))
EXAMPLES = re.findall(r"^\$ (flowdsl .*)$", TEXT, re.M)


def _command(name):
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


def _params(name):
    """What a command takes, and the commands of a group."""
    found = _command(name)
    return [param for one in (found, *getattr(found, "commands", {}).values()) for param in one.params]


def _shared():
    """Names of the options that all commands have."""
    return {name for option in SHARED for name in option(click.Command("any")).params[-1].opts}


def test_every_command_has_a_section():
    """The page has a section and a line in its table for each command, in the order of the help."""
    assert list(SECTIONS) == ["All commands", *(f"flowdsl {name}" for name in COMMANDS)]
    for name in COMMANDS:
        assert f"(#flowdsl-{name})" in TEXT.partition("## ")[0]


def test_common_options_are_documented():
    """The first section of the page documents the options that all commands share."""
    for option in (*_shared(), "--version", "--help"):
        assert f"{option}" in SECTIONS["All commands"]


@pytest.mark.parametrize("name", COMMANDS)
def test_options_are_those_that_exist(name):
    """The section of a command names all its options, and no others."""
    section = SECTIONS[f"flowdsl {name}"]
    known = {option for param in _params(name) for option in param.opts if option.startswith("--")}
    prose = re.sub(r"^```.*?^```", "", section, flags=re.M | re.S)
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", prose))
    assert known - _shared() <= mentioned <= known
    for param in _params(name):
        if isinstance(param.type, click.Choice):
            assert all(f"`{choice}`" in section for choice in param.type.choices)


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_are_valid(example):
    """The parser accepts each command line of the page."""
    _, name, *arguments = shlex.split(re.split(r" (?:\||>>?) ", example)[0])
    _command(name).make_context(name, arguments).close()


def _mentioned():
    """The command lines with arguments that other pages and the examples show: in code, sessions and text."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.py")]
    for page in sorted(set(pages) - {PAGE}):
        text = page.read_text("utf-8")
        for line in re.findall(r"^ *(?:\$ )?(flowdsl .+)$|`(flowdsl [^`]+)`", text, re.M):
            if "…" not in max(line):
                yield pytest.param(max(line), id=f"{page.name}: {max(line)}")


@pytest.mark.parametrize("line", list(_mentioned()))
def test_commands_of_other_pages_are_valid(line):
    """The parser accepts each command line that another page or an example shows."""
    known = re.split(r" (?:\||>>?|#|&) ?|  +", line)[0]
    _, name, *arguments = shlex.split(known)
    if name in COMMANDS and arguments:
        with contextlib.suppress(click.MissingParameter):  # it names an option only
            _command(name).make_context(name, arguments).close()


@pytest.mark.timeout(600)  # it starts many processes
def test_the_sessions_are_what_the_commands_print(tmp_path):
    """All console sessions of the page, executed in order, print what the page shows."""
    session = Session(tmp_path, TEXT)
    for block in BLOCK.findall(TEXT):
        for command, said in commands(block):
            printed = session.execute(command)
            assert agrees(said, printed), "\n".join([f"$ {command}", *printed])


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"ui", "worker"}))
def test_each_command_has_a_session(name):
    """The page executes each command, except the two that run until they are stopped."""
    assert f"\n$ flowdsl {name}" in "".join(BLOCK.findall(TEXT))


def test_examples_cover_the_commands():
    """The page shows each command, and each check of ``flowdsl doctor`` that is always made."""
    assert {example.split()[1] for example in EXAMPLES} == set(COMMANDS)
    for title in TITLES.values():
        assert f"\n{title} " in SECTIONS["flowdsl doctor"]
