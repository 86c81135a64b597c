"""Advice: the commands that a person should use next with a run."""

import json

import pytest

from flowdsl.core.advice import advice, shell_line
from flowdsl.core.records import Run, Step
from flowdsl.core.status import StepStatus


def _run(**more):
    return Run("order 7", "shop.checkout", "k" * 40, **more)


def _pending(kind="step", path="shop.pay", key="ab12" * 10, **extra):
    return Step("order 7", key, path, kind=kind, status=StepStatus.PENDING, extra=json.dumps(extra))


@pytest.mark.parametrize("status", ["completed", "cancelled", "pending", "running"])
def test_a_run_that_needs_nobody_gets_no_advice(status):
    """A finished run and an executing run get no advice."""
    assert advice(_run(), status, [_pending(), _pending("sleep", until=9e9)]) == []


def test_a_failed_run_is_retried_unless_it_is_settled():
    """A failed run gets ``retry``, unless a retry would be refused."""
    assert advice(_run(), "failed", []) == [["flowdsl", "retry", "order 7", "--app", "shop"]]
    assert advice(_run(retryable=False), "failed", []) == []


def test_an_interrupted_run_is_resumed():
    """An interrupted run gets ``resume`` with the module in its workflow's name, and the caller's options."""
    found = advice(_run(), "interrupted", [_pending()], ["--storage", "sqlite:///a b.db"])
    assert [shell_line(one) for one in found] == [
        "flowdsl resume 'order 7' --app shop --storage 'sqlite:///a b.db'"
    ]


def test_a_step_in_doubt_is_resolved_first():
    """A run with a step in doubt gets all three answers of ``resolve``, because ``resume`` would fail."""
    found = advice(_run(), "interrupted", [_pending(intent=True), _pending("wait", signal="go")])
    assert {one[1] for one in found} == {"resolve"}
    assert [one[3:5] for one in found] == [["pay", "--result"], ["pay", "--error"], ["pay", "--rerun"]]


def test_steps_in_doubt_of_one_name_are_meant_by_their_keys():
    """If two steps in doubt have one name, the advice uses their keys."""
    steps = [_pending(key=digit * 40, intent=True) for digit in "ab"]
    found = advice(_run(), "interrupted", steps)
    assert {one[3] for one in found} == {"a" * 12, "b" * 12}


def test_a_step_that_is_executing_is_not_in_doubt():
    """A step of a run that is executing is not in doubt."""
    assert advice(_run(), "running", [_pending(intent=True)]) == []


def test_a_waiting_run_is_told_the_names_that_it_waits_for():
    """A waiting run gets ``signal`` for each awaited name once, and ``resume`` first if it is interrupted."""
    steps = [_pending("wait", signal="paid"), _pending("wait", signal="paid"), _pending("wait", names=["a"])]
    names = [["flowdsl", "signal", "order 7", "paid"], ["flowdsl", "signal", "order 7", "a"]]
    assert advice(_run(), "running", steps) == names
    assert advice(_run(), "interrupted", steps)[1:] == names
