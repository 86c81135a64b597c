"""The pictures of the documentation. ``python docs/pictures.py`` draws them into ``docs/images``.

The house is drawn from ``pyproject.toml``, the statuses from their tables, the run from a run: it is killed
half-way, and continued. A test draws the first two again and compares them.
"""

import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

from flowdsl import Runtime
from flowdsl.core.status import RUN_CHANGES, STEP_CHANGES
from flowdsl.core.words import state_of

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"

STYLE = (
    "<style>text{font:13px system-ui,sans-serif;fill:#1f2328}.line{fill:none;stroke:#57606a;stroke-width:1.4}"
    ".head{fill:#57606a}.floor{fill:#f6f8fa;stroke:#d0d7de}.small{font-size:12px;fill:#57606a}</style>"
)


def _picture(width: int, height: int, title: str, parts: Iterable[str]) -> str:
    """A whole SVG on a ground of its own, so that it reads well on dark pages too."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{title}"><title>{title}</title>{STYLE}'
        f'<rect width="{width}" height="{height}" rx="6" fill="#ffffff"/>{"".join(parts)}</svg>\n'
    )


def house() -> str:
    """The floors as ``import-linter`` checks them: the package, and beside it the engine."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    columns = [one["layers"] for one in contracts if one["type"] == "layers"]
    height = 40 + 34 * max(map(len, columns))
    parts = []
    for left, layers, name in zip((10, 410), columns, ("flowdsl", "flowdsl.engine"), strict=True):
        parts.append(f'<text x="{left}" y="22" font-weight="600">{name}</text>')
        for n, layer in enumerate(layers):
            y = 34 + 34 * n
            modules = layer.replace("(", "").replace(")", "").replace(" | ", "   ").replace(" : ", "   ")
            parts.append(
                f'<rect class="floor" x="{left}" y="{y}" width="380" height="28" rx="4"/>'
                f'<text x="{left + 12}" y="{y + 19}" xml:space="preserve">{modules}</text>'
            )
    return _picture(800, height, "The floors: a module imports only from lower ones", parts)


def statuses(changes: Mapping[str, frozenset[str]], title: str) -> str:
    """A table of changes: forward ones arch above the statuses, backward ones below."""
    names = list(changes)
    middle, wide, tall, apart = 90, 110, 34, 165
    place = {name: 15 + wide // 2 + apart * n for n, name in enumerate(names)}
    parts = []
    for old in names:
        for new in sorted(changes[old]):
            parts.append(_change(place[old], place[new], middle, wide, tall, apart))
    for name in names:
        state, x = state_of(name), place[name]
        parts.append(
            f'<rect x="{x - wide // 2}" y="{middle - tall // 2}" width="{wide}" height="{tall}" rx="17" '
            f'fill="#ffffff" stroke="{state.light}" stroke-width="2"/>'
            f'<text x="{x}" y="{middle + 5}" text-anchor="middle">{state.sign} {name}</text>'
        )
    return _picture(15 * 2 + wide + apart * (len(names) - 1), 2 * middle, title, parts)


def _change(old: int, new: int, middle: int, wide: int, tall: int, apart: int) -> str:
    """An arrow from one status to another, or to itself."""
    half = tall // 2
    if old == new:
        y = middle - half
        return f'<path class="line" d="M{old + 14} {y}c14 -26 -42 -26 -28 -7"/>{_head(old - 14, y, "down")}'
    if new - old == apart:  # the next one
        left, right = old + wide // 2, new - wide // 2
        return f'<path class="line" d="M{left} {middle}H{right - 7}"/>{_head(right, middle, "right")}'
    far = abs(new - old) // apart
    up = new > old
    side = -1 if up else 1
    y, high = middle + side * half, 22 + 20 * far
    start, end = (old + 24 + 5 * far, new - 24 - 5 * far) if up else (old - 20 - 5 * far, new + 20 + 5 * far)
    return (
        f'<path class="line" d="M{start} {y}C{start} {y + side * high} {end} {y + side * high} '
        f'{end} {y + side * 7}"/>{_head(end, y, "down" if up else "up")}'
    )


def _head(x: int, y: int, way: str) -> str:
    """The head of an arrow whose tip is here."""
    shape = {"down": "l-4 -8h8z", "up": "l-4 8h8z", "right": "l-8 -4v8z"}[way]
    return f'<path class="head" d="M{x} {y}{shape}"/>'


ORDER = """
import os, signal, sys
from flowdsl import Runtime, step, workflow
from flowdsl.testing import VirtualClock

how, begins = sys.argv[1:]
clock = VirtualClock(float(begins))

@step
def reserve(order):
    clock.sleep(0.5)

@step
def charge(order):
    clock.sleep(0.8)

@step
def label(order):
    clock.sleep(0.4)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)

@step
def hand_over(order):
    clock.sleep(0.6)

@workflow(id="order-{order}")
def checkout(order):
    reserve(order), charge(order), label(order), hand_over(order)

with Runtime("sqlite:///orders.db", clock=clock):
    checkout(7)
"""


def run() -> str:
    """A run that was killed in its third step, and continued by another process. Both have clocks of their
    own, so the picture is the same each time."""
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory, "shop.py")
        script.write_text(ORDER)
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        for how, begins in (("kill", "0"), ("continue", "3")):
            command = [sys.executable, script.name, how, begins]
            subprocess.run(command, cwd=directory, env=env, check=how != "kill")
        with Runtime(f"sqlite:///{directory}/orders.db") as runtime:
            found = runtime.run("order-7")
            assert found is not None
            return str(found.plot()._repr_svg_()) + "\n"


def drawn() -> dict[str, str]:
    """The pictures that are the same each time they are drawn, by the names of their files."""
    return {
        "house.svg": house(),
        "run-status.svg": statuses(RUN_CHANGES, "How the status of a run changes"),
        "step-status.svg": statuses(STEP_CHANGES, "How the status of a step changes"),
    }


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    for name, picture in {**drawn(), "killed-and-continued.svg": run()}.items():
        (IMAGES / name).write_text(picture, encoding="utf-8")
