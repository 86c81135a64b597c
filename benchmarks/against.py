"""Comparison with an earlier commit: ``python -m benchmarks --against REV``.

Figures of two machines, or of two afternoons on one machine, cannot be compared. So both commits are measured
in turns, each by its own benchmarks in a process of its own. The result is the median of the ratios of the
turns.
"""

import dataclasses
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

__all__ = ["Comparison", "compared", "comparisons", "unpacked"]

ROOT = Path(__file__).resolve().parent.parent


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One figure of both commits: medians, and the median of *this* / *that* over the turns."""

    name: str
    unit: str
    this: float
    that: float
    ratio: float


def unpacked(revision: str, directory: Path) -> Path:
    """The tree of *revision* in *directory*. Raises ``ValueError`` if it is not a commit."""
    done = subprocess.run(
        ["git", "-C", str(ROOT), "archive", "--format=tar", revision], capture_output=True, check=False
    )
    if done.returncode:
        raise ValueError(f"{revision!r} cannot be measured: {done.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(directory, filter="data")
    return directory


def _figures(tree: Path, part: str, quick: bool, directory: Path) -> dict[str, tuple[str, float]]:
    """The figures of one part, as the commit in *tree* measures itself: name → unit and value."""
    target = directory / "figures.json"
    command = [sys.executable, "-m", "benchmarks", "--only", part, "--json", str(target)]
    command += ["--directory", str(directory), *(["--quick"] if quick else [])]
    env = {**os.environ, "PYTHONPATH": str(tree)}
    subprocess.run(command, cwd=tree, env=env, check=True, capture_output=True)
    found = json.loads(target.read_text(encoding="utf-8"))["figures"]
    return {each["name"]: (each["unit"], each["measured"]) for each in found}


def compared(turns: Sequence[tuple[dict[str, tuple[str, float]], ...]]) -> list[Comparison]:
    """The figures that both have, from *turns* of (this, that)."""
    names = [name for name in turns[0][0] if all(name in one for turn in turns for one in turn)]
    found = []
    for name in names:
        pairs = [(this[name][1], that[name][1]) for this, that in turns]
        ratio = median(a / b for a, b in pairs)
        unit = turns[0][0][name][0]
        found.append(Comparison(name, unit, median(a for a, _ in pairs), median(b for _, b in pairs), ratio))
    return found


def comparisons(
    revision: str, parts: Sequence[str], directory: Path, *, turns: int = 3, quick: bool = True
) -> Iterator[Comparison]:
    """Measure each of *parts* *turns* times in both commits, one after the other."""
    that = unpacked(revision, directory / "that")
    for part in parts:
        yield from compared(
            [
                (_figures(ROOT, part, quick, directory), _figures(that, part, quick, directory))
                for _ in range(turns)
            ]
        )
