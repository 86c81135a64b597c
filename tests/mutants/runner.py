"""Applies one planted bug to a copy of the sources, and executes tests there."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from .bugs import Bug

__all__ = ["ROOT", "Lost", "Workshop", "judge", "planted"]

ROOT = Path(__file__).resolve().parents[2]
SLOWEST = 120  # seconds for one test; one that hangs counts as noticed


class Lost(Exception):
    """The text of a bug does not stand in the sources exactly once."""


def _pattern(text: str) -> re.Pattern[str]:
    """*text*, whatever the white space, and whatever comma a formatter put before a closing bracket."""
    parts = re.findall(r"\w+|[^\w\s]", text)
    pattern = ""
    for before, part in zip(["", *parts], parts, strict=False):
        if before:
            pattern += r"\s+" if before[-1].isalnum() and part[0].isalnum() else r"\s*"
        if part in ")]}" and before != ",":
            pattern += r"(?:,\s*)?"
        pattern += re.escape(part)
    return re.compile(pattern)


@cache
def _sources(package: Path) -> dict[Path, str]:
    """All files of a package, as they were when this was asked first."""
    return {path: path.read_text(encoding="utf-8") for path in sorted(package.rglob("*.py"))}


def planted(package: Path, bug: Bug) -> dict[Path, str]:
    """The files of *package* that *bug* changes, and what stands in them then. Raises :class:`Lost`."""
    sources = dict(_sources(package))
    changed = {}
    for text, instead in bug.changes:
        pattern = _pattern(text)
        first = max(re.findall(r"\w+", text), key=len)
        likely = ((path, source) for path, source in sources.items() if first in source)
        found = [(path, match) for path, source in likely for match in pattern.finditer(source)]
        if len(found) != 1:
            places = ", ".join(str(path.relative_to(package)) for path, _ in found) or "nowhere"
            raise Lost(f"it stands {len(found)} times ({places}), not once:\n    {text}")
        ((path, match),) = found
        source = sources[path]
        sources[path] = changed[path] = source[: match.start()] + instead + source[match.end() :]
    for path, source in changed.items():
        compile(source, str(path), "exec")
    return changed


class Workshop:
    """A folder with a copy of the sources, beside the tests and whatever they read. Bugs are planted there, one at a
    time. What Python has compiled stays from one bug to the next."""

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="flowdsl-mutant-")
        self.folder = Path(self._temporary.name)
        self._plantings = 0
        for path in ROOT.glob("[!.]*"):
            if path.name == "flowdsl":
                shutil.copytree(path, self.folder / path.name)  # with what is compiled already
            else:
                (self.folder / path.name).symlink_to(path)

    def close(self) -> None:
        """Remove the folder."""
        self._temporary.cleanup()

    @contextmanager
    def bug(self, bug: Bug) -> Iterator[None]:
        """Plant *bug*, and take it out in the end. Raises :class:`Lost`."""
        package = self.folder / "flowdsl"
        changed = planted(package, bug)
        before = {path: (path.read_bytes(), path.stat().st_mtime) for path in changed}
        self._plantings += 1
        try:
            for path, source in changed.items():
                path.write_text(source, encoding="utf-8")
                # Python compiles a file again when its time has changed, in whole seconds.
                moment = before[path][1] + self._plantings
                os.utime(path, (moment, moment))
            yield
        finally:
            for path, (text, moment) in before.items():
                path.write_bytes(text)
                os.utime(path, (moment, moment))

    def tested(self, tests: tuple[str, ...]) -> tuple[int, str]:
        """Execute *tests* until one fails. Returns pytest's exit code and what it said. *tests* may hold options too."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider"]
        command += ["--timeout", str(SLOWEST), "-W", "ignore::pytest.PytestUnhandledThreadExceptionWarning"]
        # Under CI pytest explains failed comparisons at full length, which can take minutes and nobody reads here.
        left_out = ("CI", "BUILD_NUMBER", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")
        inherited = {name: value for name, value in os.environ.items() if name not in left_out}
        try:
            done = subprocess.run(
                [*command, *tests],
                cwd=self.folder,
                env={**inherited, "PYTHONPATH": str(self.folder)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=3 * SLOWEST,
            )
        except subprocess.TimeoutExpired:
            return 1, "it hangs"
        return done.returncode, done.stdout


def judge(workshop: Workshop, bug: Bug, tests: tuple[str, ...] | None = None) -> dict[str, Any]:
    """Plant *bug*, execute its *tests* (or these), and say what came of it.

    ``outcome`` is ``killed``, ``survived``, ``lost`` (its text is gone: see ``why``) or ``broken`` (the tests
    could not be executed).
    """
    began = time.monotonic()
    facts: dict[str, Any] = {"mutant": bug.name, "what": bug.what}
    try:
        with workshop.bug(bug):
            code, said = workshop.tested(tests or bug.tests)
    except Lost as error:
        return {**facts, "outcome": "lost", "why": str(error)}
    facts["outcome"] = {0: "survived", 1: "killed"}.get(code, "broken")
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - (.*))?$", said, re.MULTILINE)
    if failed:
        facts["by"], facts["how"] = failed[1], (failed[2] or "")[:100]
    elif facts["outcome"] == "broken":
        facts["why"] = said[-2000:]
    return {**facts, "seconds": round(time.monotonic() - began, 1)}
