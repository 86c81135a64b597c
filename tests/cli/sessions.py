"""The sessions of ``docs/cli.md``: its console blocks, executed one after the other in a new directory.

``PYTHONPATH=.:tests python tests/cli/sessions.py`` writes the present output of the commands into the page. The
test of the page compares the two, and ignores what differs each time: times, durations, versions, paths.
"""

import contextlib
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import forked
from click.testing import CliRunner

from flowdsl.cli._app import cli

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.M | re.S)
SCRIPT = re.compile(r"^```python\n# (\w+\.py)\n(.*?)^```$", re.M | re.S)
WIDTH = 96
READERS = ("runs", "show", "steps", "logs", "export", "stream", "top", "doctor", "workers")
SHELL = set("|<>$&;()*?~#`")
"""What only a shell understands."""
QUOTED = re.compile("'[^']*'|\"[^\"$`]*\"")
"""What a shell, as ``shlex``, leaves as it is."""
GIVEN = re.compile(r"([A-Z_]+)=([\w-]+) ")
"""A variable for one command."""
LISTS = ("flowdsl queues", "flowdsl schedules")

_DIFFERS = [
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d( UTC)?", "TIME"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.\d]*\+00:00", "TIME"),
    (r"(?<![\w.])(<1ms|\d+ms|\d+(\.\d+)?s|\d+[dhm]\d+[hms]|\d+[dhm])(?!\w)", "SPAN"),
    (r"\b\d+(\.\d+)? (B|KiB|MiB|GiB|TiB)\b", "SIZE"),
    (r"process \d+ on [\w.-]+", "process N on HOST"),
    (r"by [\w.-]+@[\w.-]+:\d+", "by WHO"),
    (r"/[\w./-]*/(?=\.flowdsl|bin/|copy\.db)", "PLACE/"),
    (r" *[━┄┊┿][━┄┊┿ ]*$", " BAR"),
    (r"from left to right.*", "from left to right"),
    (r" +", " "),
]


def plain(line: str) -> str:
    """A line without what differs each time."""
    for pattern, word in _DIFFERS:
        line = re.sub(pattern, word, line)
    return line.strip()


def commands(block: str) -> list[tuple[str, list[str]]]:
    """The commands of a block, each with the lines that follow it."""
    found: list[tuple[str, list[str]]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


class Session:
    """A directory with the scripts of the page, in which commands are executed one after the other."""

    def __init__(self, folder: Path, page: str) -> None:
        self.folder = folder
        for name, source in SCRIPT.findall(page):
            (folder / name).write_text(source)
        programs = folder / "bin"
        programs.mkdir()
        for name, what in ("flowdsl", "-m flowdsl"), ("python", ""):
            (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {what} "$@"\n')
            (programs / name).chmod(0o755)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("FLOWDSL_")},
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(folder),
            "COLUMNS": str(WIDTH),
            "NO_COLOR": "1",
            "TZ": "UTC",
            "PYTHONPATH": str(PAGE.parents[1]),
            "PYTHONIOENCODING": "utf-8",
        }

    def execute(self, command: str) -> list[str]:
        """What *command* prints, on standard output and standard error.

        One that only reads is called in this process, which is quicker. The others may look at a workflow, and this
        process may know another one of that name.
        """
        reads = command in LISTS or f"{command} ".startswith(tuple(f"flowdsl {name} " for name in READERS))
        if reads and not SHELL & set(command) and "--app" not in command:
            with contextlib.chdir(self.folder):
                runner = CliRunner(env={"FLOWDSL_STORAGE": None, **self.environment})
                done_here = runner.invoke(cli, shlex.split(command)[1:], prog_name="flowdsl")
            return done_here.output.rstrip("\n").splitlines()
        given = GIVEN.match(command)
        environment = self.environment
        if given:
            command, environment = command[given.end() :], {**environment, given[1]: given[2]}
        options: dict[str, Any] = {
            "cwd": self.folder,
            "env": environment,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
            "stdin": subprocess.DEVNULL,
            "text": True,
            "timeout": 60,
        }
        words = [] if SHELL & set(QUOTED.sub("", command)) else shlex.split(command)
        programs = {"flowdsl": [sys.executable, "-m", "flowdsl"], "python": [sys.executable]}
        if words and words[0] in programs:
            done = forked.run([*programs[words[0]], *words[1:]], **options)
        else:
            done = subprocess.run(["bash", "-c", command], **options)
        return done.stdout.rstrip("\n").splitlines()


def agrees(said: list[str], printed: list[str]) -> bool:
    """Whether a command printed what the page says; ``…`` on a line of its own stands for any lines."""
    wanted, found = list(map(plain, said)), list(map(plain, printed))
    if wanted and wanted[-1] == "…":
        wanted.pop()
        found = found[: len(wanted)]
    return len(found) == len(wanted) and all(map(_alike, wanted, found))


def _alike(wanted: str, found: str) -> bool:
    """Whether two lines say the same; one that was cut may have been cut elsewhere."""
    if "…" not in wanted + found:
        return wanted == found
    one, other = wanted.partition("…")[0].strip(), found.partition("…")[0].strip()
    return one.startswith(other) or other.startswith(one)


def _written(page: str, folder: Path) -> str:
    session = Session(folder, page)

    def rewrite(block: re.Match[str]) -> str:
        lines = []
        for command, said in commands(block[1]):
            printed = [line.rstrip().replace(str(folder), "/srv/shop") for line in session.execute(command)]
            if said and said[-1] == "…":
                printed = [*printed[: len(said) - 1], "…"]
            lines += [f"$ {command}", *(said if agrees(said, printed) else printed)]
        return "```console\n" + "\n".join(lines) + "\n```"

    return BLOCK.sub(rewrite, page)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        PAGE.write_text(_written(PAGE.read_text("utf-8"), Path(scratch)), "utf-8")
