"""Whether an owner is alive."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flowdsl.engine.owner import Liveness, liveness, new_owner


def test_liveness_of_owners():
    """Liveness of this process, a dead one, a reused pid, another boot, and another host."""
    owner, token = new_owner()
    host, pid, started, _ = owner.rsplit("|", 3)
    assert liveness(f"{host}|{pid}|{started}|nobody", "r") is Liveness.DEAD
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert liveness(f"{host}|{gone.pid}|{started}|{token}", "r") is Liveness.DEAD
    assert liveness(f"{host}|{pid}|12345|{token}", "r") is Liveness.DEAD
    assert liveness(f"{host}|1|{started}x|{token}", "r") is Liveness.DEAD
    parent = os.getppid()
    name, boot, namespace = host.split("|")
    assert liveness(f"{name}|another boot|{namespace}|{parent}|{started}|{token}", "r") is Liveness.UNKNOWN
    assert liveness(f"{name}|{boot}|another|{parent}|{started}|{token}", "r") is Liveness.UNKNOWN
    assert liveness(f"otherhost|{boot}|{namespace}|{parent}|{started}|{token}", "r") is Liveness.UNKNOWN
    for nonsense in ("", "x", "|", "a|b|c|d|e|f", owner + "|more"):
        assert liveness(nonsense, "r") is Liveness.UNKNOWN


def test_a_zombie_is_dead():
    """A zombie process counts as dead."""
    owner, token = new_owner()
    host = owner.rsplit("|", 3)[0]
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    stat = Path(f"/proc/{process.pid}/stat")
    if not stat.exists():
        pytest.skip("no /proc")
    started = stat.read_text().rpartition(")")[2].split()[19]
    theirs = f"{host}|{process.pid}|{started}|{token}"
    assert liveness(theirs, "r") is Liveness.ALIVE
    process.stdin.close()
    while " Z " not in stat.read_text():
        pass
    assert liveness(theirs, "r") is Liveness.DEAD
    process.wait()
