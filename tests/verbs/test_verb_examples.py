"""The examples of the durable verbs, run as a user runs them."""

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def test_an_approval_is_reminded_after_three_days_and_given_up_after_seven(tmp_path: Path) -> None:
    """One is answered after its reminder, the other never; both were asked and reminded once."""
    command = [sys.executable, "-W", "error", str(EXAMPLES / "approval.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.count("please approve") == done.stdout.count("still waiting") == 2
    assert done.stdout.endswith("a chair, approved by ann\na desk: no answer in 7 days\n")
