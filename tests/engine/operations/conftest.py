"""Fixtures of the tests of the verbs."""

from typing import Any

import pytest
from support import Flavour

import flowdsl
import flowdsl.aio


@pytest.fixture
def verbs(flavour: Flavour) -> Any:
    """The verbs of this flavour: those of ``flowdsl``, or of ``flowdsl.aio``."""
    return flowdsl.aio if flavour.is_async else flowdsl
