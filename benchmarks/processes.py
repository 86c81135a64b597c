"""Costs of a process: the import, the start of a resume, memory."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Budget, Figure, Scale, figure

__all__ = ["imports", "memory", "resumed"]

_ROOT = Path(__file__).resolve().parent.parent
_REFERENCE = "wrapt, attrs, cloudpickle, asyncio, sqlite3"
_USES = "from flowdsl import Runtime, step, workflow"

_RESUME = """
import os, sys, time
from flowdsl import Runtime, step, workflow

@step
def charge(number):
    if number == 20:
        print(time.monotonic(), flush=True)
        if sys.argv[2] == "die":
            os._exit(9)
    return number

@workflow(id="resume-{number}")
def shop(number):
    for n in range(40):
        charge(n)

with Runtime(sys.argv[1]):
    shop(int(sys.argv[3]))
"""

_RAW_RESUME = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1])
connection.execute("SELECT * FROM steps").fetchall()
print(time.monotonic(), flush=True)
"""

_PEAK = """
import re, resource
try:
    with open("/proc/self/status") as status:  # what getrusage says begins with the parent's peak
        print(int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read())[1]) / 1024)
except OSError:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20))
"""

_STEPS = """
import sys
from flowdsl import Runtime
from benchmarks import workflows
with Runtime(sys.argv[1]):
    workflows.in_turns(1, int(sys.argv[2]), lambda: None)
"""

_RAW_STEPS = """
import sys
from pathlib import Path
from benchmarks.raw import Raw
raw = Raw(Path(sys.argv[1]), "normal", ("x" * 250,))
raw.write(int(sys.argv[2]))
"""


def _python(code: str, *arguments: object, check: bool = True) -> str:
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # installed packages have their bytecode
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=check)
    return done.stdout.strip()


def imports(scale: Scale) -> Iterator[Figure]:
    """``import flowdsl`` compared with the imports that it needs, process start included."""

    def milliseconds(code: str) -> float:
        start = time.perf_counter()
        _python(code)
        return (time.perf_counter() - start) * 1e3

    # The package imports its names on first use. So both are measured: the cost for a plug-in, and the cost
    # for a program.
    for code, budget in (("import flowdsl", Budget(1.2, "ratio")), (_USES, None)):
        milliseconds(code)  # compiles and caches
        pairs = [(milliseconds(code), milliseconds(f"import {_REFERENCE}")) for _ in range(scale.processes)]
        yield figure(
            code,
            [pair[0] for pair in pairs],
            unit="ms",
            reference=[pair[1] for pair in pairs],
            reference_name=f"import {_REFERENCE}",
            budget=budget,
        )


def resumed(scale: Scale) -> Iterator[Figure]:
    """From the start of a process to the first step that executes after 20 replayed ones."""
    path = scale.directory / "resume.db"

    def milliseconds(code: str, *arguments: object) -> float:
        start = time.monotonic()
        return (float(_python(code, *arguments)) - start) * 1e3

    times, beside = [], []
    for number in range(scale.processes):
        _python(_RESUME, f"sqlite:///{path}", "die", number, check=False)
        times.append(milliseconds(_RESUME, f"sqlite:///{path}", "live", number))
        beside.append(milliseconds(_RAW_RESUME, path))
    yield figure(
        "process start → first resumed step",
        times,
        unit="ms",
        reference=beside,
        reference_name="process start → raw select",
        budget=Budget(250),
    )


def memory(scale: Scale) -> Iterator[Figure]:
    """Peak resident memory of a process that executes a long run, compared with one that writes as many raw
    rows."""
    times, beside = [], []
    for number in range(max(scale.processes // 3, 1)):
        url = f"sqlite:///{scale.directory}/peak-{number}.db?synchronous=normal"
        times.append(float(_python(_STEPS + _PEAK, url, scale.journal)))
        directory = scale.directory / f"raw-{number}"
        directory.mkdir()
        beside.append(float(_python(_RAW_STEPS + _PEAK, directory, scale.journal)))
    yield figure(
        f"peak memory, run of {scale.journal:,} steps",
        times,
        unit="MB",
        reference=beside,
        reference_name="raw inserts",
    )
