"""When an attempt is repeated, and after how long."""

import copy
import pickle
from datetime import timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdsl.core.retry import PROGRAMMING_ERRORS, Retry

policies = st.builds(
    Retry,
    attempts=st.integers(1, 50),
    initial=st.floats(0, 1e6),
    multiplier=st.floats(1e-3, 1e6),
    maximum=st.floats(0, 1e6),
    jitter=st.floats(0, 1),
)
uniforms = st.floats(0, 1, exclude_max=True)

# --------------------------------------------------------------------------------------------- delay


@given(policies, st.integers(1, 10**9), uniforms)
def test_a_delay_is_never_above_the_maximum(retry: Retry, attempt: int, uniform: float) -> None:
    """After any number of attempts the delay is finite, not negative, and at most the maximum."""
    assert 0 <= retry.delay(attempt, uniform) <= retry.maximum


@given(policies, st.integers(1, 20), uniforms)
def test_a_delay_is_what_the_formula_says(retry: Retry, attempt: int, uniform: float) -> None:
    """The delay is min(maximum, initial * multiplier ** (n - 1)) times a factor in [1 - jitter, 1]."""
    full = min(retry.maximum, retry.initial * retry.multiplier ** (attempt - 1))
    assert retry.delay(attempt, 0.0) == full
    assert full * (1 - retry.jitter) <= retry.delay(attempt, uniform) * (1 + 1e-12)
    assert retry.delay(attempt, uniform) <= full


def test_delays_grow_up_to_the_maximum() -> None:
    """Without jitter the delays are 1, 2, 4, … seconds and stay at the maximum."""
    retry = Retry(attempts=9, jitter=0)
    assert [retry.delay(attempt, 0.9) for attempt in range(1, 9)] == [1, 2, 4, 8, 16, 30, 30, 30]


def test_a_zero_delay_stays_zero() -> None:
    """``initial=0`` never waits, however large the power grows."""
    assert Retry(initial=0).delay(10**6, 0.5) == 0


class Busy(Exception):
    def __init__(self, retry_after: Any) -> None:
        self.retry_after = retry_after


@pytest.mark.parametrize(("asked", "delay"), [(7, 7.0), (0, 0.0), (2.5, 2.5), (timedelta(minutes=5), 300.0)])
def test_an_exception_may_say_when_to_retry(asked: Any, delay: float) -> None:
    """``retry_after`` is taken as it is, without jitter and even above the maximum."""
    assert Retry().delay(1, 0.9, Busy(asked)) == delay


@pytest.mark.parametrize(
    "asked", [None, -1, float("nan"), float("inf"), True, "120", timedelta(seconds=-1), 10**400]
)
def test_a_senseless_retry_after_is_passed_over(asked: Any) -> None:
    """A ``retry_after`` that is no finite, non-negative number or timedelta is ignored."""
    assert Retry(jitter=0).delay(1, 0.0, Busy(asked)) == 1.0


# ----------------------------------------------------------------------------------------- decision


class Declined(OSError):
    pass


@pytest.mark.parametrize(
    ("retry", "error", "expected"),
    [
        (Retry(), OSError(), True),
        (Retry(), KeyboardInterrupt(), False),
        (Retry(), UnboundLocalError(), False),
        (Retry(on=OSError), OSError(), True),
        (Retry(on=OSError), Declined(), True),
        (Retry(on=OSError), ValueError(), False),
        (Retry(on=[OSError, ValueError]), ValueError(), True),
        (Retry(never=Declined), Declined(), False),
        (Retry(never=Declined), OSError(), True),
        (Retry(never=()), TypeError(), True),
        (Retry(on=TypeError), TypeError(), False),
        (Retry(on=()), OSError(), False),
        *[(Retry(), error(), False) for error in PROGRAMMING_ERRORS],
    ],
)
def test_which_errors_are_retried(retry: Retry, error: BaseException, expected: bool) -> None:
    """An error in ``on`` and not in ``never`` is retried, subclasses too; ``never`` wins."""
    assert retry.should_retry(error, 1) is expected


@given(st.integers(1, 50), st.integers(1, 60))
def test_attempts_are_counted(attempts: int, attempt: int) -> None:
    """A body executes at most ``attempts`` times."""
    assert Retry(attempts=attempts).should_retry(OSError(), attempt) == (attempt < attempts)


# --------------------------------------------------------------------------------------- validation


@pytest.mark.parametrize(
    ("facts", "error", "message"),
    [
        ({"attempts": 0}, ValueError, "at least 1"),
        ({"attempts": -1}, ValueError, "at least 1"),
        ({"attempts": True}, TypeError, "whole number"),
        ({"attempts": 2.0}, TypeError, "whole number"),
        ({"attempts": "3"}, TypeError, "whole number"),
        ({"initial": -1}, ValueError, "initial=.*not negative"),
        ({"initial": "soon"}, ValueError, "soon"),
        ({"maximum": float("inf")}, ValueError, "maximum=.*finite"),
        ({"maximum": None}, TypeError, "duration"),
        ({"multiplier": 0}, ValueError, "above 0"),
        ({"multiplier": float("nan")}, ValueError, "above 0"),
        ({"multiplier": "2"}, TypeError, "a number"),
        ({"jitter": 1.1}, ValueError, "from 0 to 1"),
        ({"jitter": -0.1}, ValueError, "from 0 to 1"),
        ({"jitter": float("nan")}, ValueError, "from 0 to 1"),
        ({"jitter": True}, TypeError, "a number"),
        ({"on": OSError()}, TypeError, "exception classes"),
        ({"on": int}, TypeError, "exception classes"),
        ({"on": None}, TypeError, "exception classes"),
        ({"never": "ValueError"}, TypeError, "exception classes"),
        ({"never": [OSError, None]}, TypeError, "exception classes"),
    ],
)
def test_senseless_policies_are_refused(facts: dict[str, Any], error: type[Exception], message: str) -> None:
    """A wrong value is refused when the policy is made, and the message says what is expected."""
    with pytest.raises(error, match=message):
        Retry(**facts)


def test_durations_may_be_written_out() -> None:
    """``initial`` and ``maximum`` accept every form of a duration."""
    assert Retry(initial="500ms", maximum=timedelta(minutes=1)) == Retry(initial=0.5, maximum=60)


def test_a_policy_is_a_frozen_value() -> None:
    """A policy is immutable, compares by value, and can be copied and pickled."""
    retry = Retry(attempts=5, on=OSError)
    assert pickle.loads(pickle.dumps(retry)) == copy.deepcopy(retry) == retry != Retry()
    assert hash(copy.copy(retry)) == hash(retry)
    assert attrs.evolve(retry, attempts=2).on == (OSError,)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        retry.attempts = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("retry", "error", "again"),
    [
        (Retry(on=ConnectionError), ExceptionGroup("g", [ConnectionError(), ConnectionError()]), True),
        (Retry(on=ConnectionError), ExceptionGroup("g", [ConnectionError(), ValueError()]), False),
        (Retry(), ExceptionGroup("g", [TypeError()]), False),
        (Retry(), ExceptionGroup("g", [OSError(), ExceptionGroup("h", [TypeError()])]), False),
        (Retry(), ExceptionGroup("g", [OSError(), ExceptionGroup("h", [ValueError()])]), True),
        (Retry(), BaseExceptionGroup("g", [KeyboardInterrupt()]), False),
        (Retry(on=ExceptionGroup), ExceptionGroup("g", [ValueError()]), True),
        (Retry(never=ExceptionGroup), ExceptionGroup("g", [ValueError()]), False),
        (Retry(), RecursionError(), False),
    ],
)
def test_a_group_is_retried_if_each_member_would_be(retry: Retry, error: BaseException, again: bool) -> None:
    """A group is retried if all its members would be, or if its own class is named."""
    assert retry.should_retry(error, 1) is again


def test_none_attempts_have_no_end() -> None:
    """With ``attempts=None`` another attempt follows each failed one."""
    assert Retry(attempts=None).should_retry(OSError(), 10**9)
    assert not Retry(attempts=None).should_retry(TypeError(), 1)


def test_an_exception_whose_attributes_raise_waits_as_usual() -> None:
    """An exception whose attributes raise waits as usual, and for a group the longest ``retry_after``
    counts."""

    class Odd(Exception):
        @property
        def retry_after(self) -> float:
            raise RuntimeError("no")

    class Later(Exception):
        def __init__(self, seconds: float) -> None:
            self.retry_after = seconds

    assert Retry(jitter=0).delay(1, 0.0, Odd()) == 1.0
    assert Retry().delay(1, 0.0, ExceptionGroup("g", [Later(5), Later(7), Odd()])) == 7.0
