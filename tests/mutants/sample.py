"""A test for the test of the runner. It is no part of the suite."""

from flowdsl.core.encoding import encode


def test_two_zeros() -> None:
    """They are two values."""
    assert encode(-0.0) != encode(0.0)
