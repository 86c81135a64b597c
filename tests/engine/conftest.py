"""Fixtures of the tests of the durable verbs."""

from typing import Any

import pytest
from support import Flavour

import flowdsl
import flowdsl.aio
from flowdsl.testing import VirtualClock


@pytest.fixture
def verbs(flavour: Flavour) -> Any:
    """The verbs of this flavour: those of ``flowdsl``, or of ``flowdsl.aio``."""
    return flowdsl.aio if flavour.is_async else flowdsl


class WallClock(VirtualClock):
    """A virtual clock whose machine's time can be set, beside the time that passes."""

    offset = 0.0

    def now(self) -> float:
        """What the machine's clock shows."""
        return self._now + self.offset

    def monotonic(self) -> float:
        """The time that has passed."""
        return self._now


@pytest.fixture
def wall() -> WallClock:
    """A clock that can be set."""
    return WallClock()
