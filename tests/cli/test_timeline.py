"""``flowdsl show --timeline``: the steps of a run drawn in time."""

import json

import pytest
from rich.cells import cell_len

from flowdsl.core.records import Run, Step
from flowdsl.core.status import RunStatus, StepStatus
from flowdsl.storage import open_storage


@pytest.fixture
def long_wait(url, folder):
    """A run that worked a second, slept a day, and worked another second, twice at once."""
    (folder / ".flowdsl").mkdir()
    day = 86_400.0
    with open_storage(url) as storage:
        storage.set_run(
            Run("a", "shop.order", "k", status=RunStatus.COMPLETED, created_at=0.0, finished_at=day + 2)
        )

        def put(key, path, start, end, **more):
            step = Step("a", key * 40, path, created_at=start, completed_at=end, **more)
            storage.set_step(step)

        put("1", "shop.reserve", 0.0, 1.0)
        put("2", "shop.check", 0.5, 1.0, scope="1" * 40)
        put("3", "flowdsl.sleep", 1.0, day + 1, kind="sleep", extra=json.dumps({"until": day + 1}))
        put("4", "shop.pack", day + 1, day + 2, attempts=2)
        put("5", "shop.bill", day + 1, day + 2, status=StepStatus.FAILED)
    return "a"


def test_bars_lie_where_their_steps_were(long_wait, invoke):
    """Bars of steps one after the other do not overlap, bars of concurrent steps do, and idle time is
    folded."""
    lines = invoke("show", long_wait, "--timeline").stdout.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("  step"))
    drawn = {line.split()[0]: line for line in lines[start + 1 : start + 6]}
    reserve, pack, bill = (
        {place for place, sign in enumerate(drawn[name]) if sign == "━"}
        for name in ("reserve", "pack", "bill")
    )
    assert max(reserve) < min(pack)
    assert pack == bill
    assert min(len(reserve), len(pack)) > 15
    assert "┊" in drawn["reserve"]
    assert "└" in lines[start + 2]
    assert "1d0h from left to right; idle (┊): 1d0h" in lines[start + 6]


@pytest.mark.parametrize("width", [60, 80, 140])
def test_it_fits_the_terminal(long_wait, terminal, width):
    """No line is wider than the terminal, and a bar has the colour of its status."""
    seen = terminal("show", long_wait, "--timeline", width=width)
    assert seen.code == 0
    assert max(map(cell_len, seen.lines)) <= width
    assert "\x1b[31m" in seen.raw


def test_json_does_not_care(long_wait, answer):
    """``--timeline`` does not change the JSON."""
    assert answer("show", long_wait, "--timeline") == answer("show", long_wait)
