"""The command, as the tests of the campaigns run it: in forks of a process that has the shim and all campaigns.

To compile the shim and to import the campaigns takes longer than most of them in their quick form.
"""

import atexit
import json
import os
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import Any

import forked

from .__main__ import FULL
from .faults import preloaded

__all__ = ["campaign"]

ROOT = Path(__file__).parents[2]


@cache
def _program() -> tuple[type[forked.Popen], dict[str, str]]:
    """What starts campaigns, and the variables that each of them is given."""
    begins = preloaded()
    modules = [f"tests.campaigns.{name}" for name in FULL]
    start = forked.Popen.importing(*modules, **begins)
    library = begins.pop("LD_PRELOAD", "").rpartition(" ")[2]
    if library:
        atexit.register(shutil.rmtree, Path(library).parent, ignore_errors=True)
    return start, begins


def campaign(*arguments: str) -> dict[str, Any]:
    """The result of ``python -m tests.campaigns`` with *arguments*; its exit code has to fit."""
    start, given = _program()
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = forked.run(
        [sys.executable, "-m", "tests.campaigns", *arguments],
        start=start,
        cwd=ROOT,
        env={**os.environ, **given, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=240,
    )
    try:
        result: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise AssertionError(f"exit {done.returncode}\n{done.stdout}\n{done.stderr}") from None
    assert done.returncode == (1 if result["failed"] else 0), done.stderr
    return result
