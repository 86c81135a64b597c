"""The processes that tests fork are like those that Python starts."""

import subprocess
import sys
from pathlib import Path

import forked
import pytest

PROGRAM = """
import os, sys, warnings
class Left:
    def __del__(self):
        print("taken apart", warnings is not None)
left = Left()
file = open(os.devnull, "rb")
print(__name__, __file__ if "__file__" in globals() else "", sys.argv, sys.path[0], os.getcwd())
print(os.environ["GIVEN"], os.environ.get("HOME"), sys.stdin.readline(), sys.warnoptions)
print("an error", file=sys.stderr)
if sys.argv[1:] == ["die"]:
    os.kill(os.getpid(), 9)
if sys.argv[1:] == ["warn"]:
    warnings.warn("a warning")
sys.exit(len(sys.argv))
"""


@pytest.mark.parametrize(
    "arguments",
    [["given.py", "a b"], ["-m", "given"], ["-c", PROGRAM, "die"], ["-W", "error", "given.py", "warn"]],
    ids=["script", "module", "code", "warning"],
)
def test_a_forked_process_is_like_a_started_one(tmp_path: Path, arguments: list[str]) -> None:
    """A forked process has the name, arguments, streams, environment and end of one that Python starts."""
    (tmp_path / "given.py").write_text(PROGRAM)
    command = [sys.executable, *arguments]
    how = {"cwd": tmp_path, "env": {"GIVEN": "x", "PYTHONPATH": "lib"}, "input": "a line\n", "text": True}
    ours = forked.run(command, capture_output=True, **how)
    theirs = subprocess.run(command, capture_output=True, **how)
    assert (ours.returncode, ours.stdout, ours.stderr) == (theirs.returncode, theirs.stdout, theirs.stderr)
