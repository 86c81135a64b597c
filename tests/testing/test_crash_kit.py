"""CrashingStorage, the effect log, and scripts that are killed."""

import textwrap
from pathlib import Path

import pytest

from flowdsl import Runtime, step, workflow
from flowdsl.errors import StorageUnavailable
from flowdsl.storage import MemoryStorage
from flowdsl.testing import CrashingStorage, EffectLog, SimulatedCrash, effects, kill_after


@step
def charge(amount: int) -> str:
    """A step."""
    return f"paid {amount}"


@workflow
def checkout(amount: int) -> str:
    """A workflow of two steps."""
    return f"{charge(amount)}, {charge(amount + 1)}"


def commits() -> int:
    """How many commits a whole run has."""
    storage = CrashingStorage(MemoryStorage(), None)
    with Runtime(storage):
        checkout(1)
    return storage.commits


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_continues_from_every_crash(when: str) -> None:
    """After a crash at any commit the next runtime ends the run, and recorded steps do not execute again."""
    last = commits()
    for at in range(1, last + 1):
        storage = CrashingStorage(MemoryStorage(), at, when=when)  # type: ignore[arg-type]
        with effects() as done:
            with pytest.raises(SimulatedCrash), Runtime(storage):
                checkout(1)
            with Runtime(storage.storage) as runtime:
                assert checkout(1) == "paid 1, paid 2"
                assert len(runtime.runs()) == (2 if (at, when) == (last, "after") else 1)
        assert done.count(charge, 1) <= 2


def test_nothing_comes_out_of_a_dead_process() -> None:
    """After the crash each further commit fails."""
    storage = CrashingStorage(MemoryStorage(), 1)
    for _ in range(2):
        with pytest.raises(SimulatedCrash):
            storage.commit([])
    assert storage.dead


def test_an_acknowledged_commit_is_heard_of_and_nothing_later_happens() -> None:
    """After an acknowledged commit the process goes on, and dies before its next commit."""
    storage = CrashingStorage(MemoryStorage(), 2, when="after", outcome="acknowledged")
    with effects() as done:
        with pytest.raises(SimulatedCrash), Runtime(storage):
            checkout(1)
        assert done.names == ["charge", "charge"]  # it went on to the second
        with Runtime(storage.storage):
            assert checkout(1) == "paid 1, paid 2"
    assert done.names == ["charge", "charge", "charge"]


def test_a_lost_commit_is_an_error_and_the_next_one_works() -> None:
    """A lost commit raises once, the next one works, and the run continues when it is called."""
    storage = CrashingStorage(MemoryStorage(), 2, outcome="lost")
    with Runtime(storage):
        with pytest.raises(StorageUnavailable) as caught:
            checkout(1)
        assert not caught.value.outcome_unknown
        assert checkout(1) == "paid 1, paid 2"


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_unknown_outcome_says_so(when: str) -> None:
    """After a commit with an unknown outcome the run can be called again."""
    storage = CrashingStorage(MemoryStorage(), 2, when=when, outcome="unknown")  # type: ignore[arg-type]
    with Runtime(storage):
        with pytest.raises(StorageUnavailable) as caught:
            checkout(1)
        assert caught.value.outcome_unknown
        assert checkout(1) == "paid 1, paid 2"


def test_only_what_counts_is_counted() -> None:
    """A filter chooses the commits that count."""
    storage = CrashingStorage(MemoryStorage(), 1, counts=lambda operations: len(operations) > 5)
    with Runtime(storage):
        assert checkout(1) == "paid 1, paid 2"
    assert storage.commits == 0


@pytest.mark.parametrize(
    "options",
    [
        {"at": 0},
        {"at": True},
        {"when": "while"},
        {"outcome": "bad"},
        {"outcome": "lost", "when": "after"},
        {"outcome": "acknowledged"},
    ],
)
def test_crashes_that_make_no_sense_are_refused(options: dict[str, object]) -> None:
    """An impossible crash is refused at once."""
    with pytest.raises(ValueError):
        CrashingStorage(MemoryStorage(), **{"at": 1, **options})  # type: ignore[arg-type]


def test_an_effect_log_counts_what_was_noted(tmp_path: Path) -> None:
    """The effect log counts lines by what they begin with."""
    log = EffectLog(tmp_path / "effects")
    assert log.read() == []
    log.note("charge", 1)
    log.note("charge", 2)
    assert (log.count("charge"), log.count("charge", 2), log.count("refund")) == (2, 1, 0)


SCRIPT = """
import sys
from flowdsl import step, workflow
from flowdsl.testing import EffectLog

log = EffectLog(sys.argv[1])

@step
def add(n):
    log.note("add", n)
    return n

@workflow
def total(upto):
    return sum(add(n) for n in range(upto))

print(total(3))
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A script of three steps with an effect log."""
    path = tmp_path / "total.py"
    path.write_text(textwrap.dedent(SCRIPT))
    return path


def test_a_killed_script_ends_when_it_is_run_again(script: Path, tmp_path: Path) -> None:
    """A script that is killed twice executes each recorded step once."""
    env = {"FLOWDSL_STORAGE": f"sqlite:///{tmp_path}/flow.db"}
    report = kill_after(script, str(tmp_path / "log"), commits=[3, 1], env=env)
    assert report.kills == 2
    assert report.last.stdout == "3\n"
    assert EffectLog(tmp_path / "log").read() == [["add", 0], ["add", 1], ["add", 2]]


def test_a_script_killed_in_a_step_executes_it_again(script: Path, tmp_path: Path) -> None:
    """A script that is killed in a step executes that step again."""
    env = {"FLOWDSL_STORAGE": f"sqlite:///{tmp_path}/flow.db"}
    report = kill_after(script, str(tmp_path / "log"), commits=2, when="before", env=env)
    assert [life.killed for life in report.lives] == [True, False]
    assert EffectLog(tmp_path / "log").count("add", 0) == 2


def test_a_script_can_be_killed_at_any_moment(script: Path, tmp_path: Path) -> None:
    """A script can be killed after some time, and the second execution ends well."""
    env = {"FLOWDSL_STORAGE": f"sqlite:///{tmp_path}/flow.db"}
    report = kill_after(script, str(tmp_path / "log"), seconds=0.01, env=env)
    assert report.kills == 1
    assert report.last.stdout == "3\n"


def test_a_script_that_fails_is_shown(tmp_path: Path) -> None:
    """The error of a script that fails shows its output."""
    path = tmp_path / "bad.py"
    path.write_text("print('hello'); 1 / 0\n")
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        kill_after(path, commits=1)
    with pytest.raises(ValueError, match="one of"):
        kill_after(path)
