"""The command, as the tests of the campaigns run it."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import forked

__all__ = ["campaign"]

ROOT = Path(__file__).parents[2]


def campaign(*arguments: str) -> dict[str, Any]:
    """The result of ``python -m tests.campaigns`` with *arguments*; its exit code has to fit."""
    done = forked.run(
        [sys.executable, "-m", "tests.campaigns", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=110,
    )
    try:
        result: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise AssertionError(f"exit {done.returncode}\n{done.stdout}\n{done.stderr}") from None
    assert done.returncode == (1 if result["failed"] else 0), done.stderr
    return result
